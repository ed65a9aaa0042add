//! What is computed to answer and not to train: the plan with each batch norm folded into the convolution in front of it, and with the
//! sum behind a residual block as the end of a convolution; and where each value lies meanwhile.

use super::{Filters, Plan, Step, Work};
use crate::device::{
    Activation, ConvShape, DepthwiseShape, DeviceError, FoldedShape, GlobalPoolShape, Outside, PoolShape, Storage,
};
use crate::network::Layer;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::depthwise::Depthwise;
use crate::ops::pool::Pooling;
use crate::parameters::Span;

/// The steps of a network that only answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// The steps in the order in which they are computed. The first is the images, the last leaves the logits.
    pub steps: Vec<FoldedStep>,
    /// Memory that holds one value after another.
    pub rooms: Vec<Room>,
}

/// Memory for values that are stored alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// Elements an image of the longest of them.
    pub len: usize,
    /// How they are stored.
    pub storage: Storage,
}

/// A step of such a network.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedStep {
    /// The layer that is computed, where it is timed.
    pub layer: usize,
    /// The layer whose value the step leaves; of a separable convolution's first half, the one that it is a half of.
    pub leaves: usize,
    /// What is computed.
    pub work: FoldedWork,
    /// The rooms that it reads.
    pub reads: Vec<usize>,
    /// The room that it leaves its value in.
    pub writes: usize,
    /// The value.
    pub value: Room,
}

/// What such a step computes. Geometries are those of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FoldedWork {
    /// The images as numbers.
    Images,
    /// A convolution or a dense layer, with the batch norm behind it, a sum behind that and an activation in the end.
    Conv {
        /// Its tensors.
        weights: Trained,
        /// Its geometry.
        shape: FoldedShape,
        /// Whether it is added to what the room holds that it is left in.
        accumulate: bool,
        /// What is done last.
        activation: Activation,
    },
    /// A maximum over windows; zeros around an image are one over windows of one pixel.
    MaxPool(PoolShape),
    /// One value per channel.
    GlobalPool(Pooling, GlobalPoolShape),
    /// An activation of a value that others read without it.
    Activation {
        /// Which.
        activation: Activation,
        /// Channels of the value.
        channels: usize,
    },
    /// The sum of two values neither of which is a convolution's to add to.
    Sum {
        /// Whether a ReLU follows.
        relu: bool,
        /// Channels of the values.
        channels: usize,
    },
}

/// The tensors of a convolution, as they were trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trained {
    /// `[K, R, S, C]`, `[R, S, C]` or `[outputs, inputs]`.
    pub kernel: Span,
    /// `[K]`.
    pub bias: Option<Span>,
    /// The batch norm behind it, which has taken over the bias.
    pub norm: Option<BatchNorm>,
}

/// A step while its room is not known. Values are known by a number: that of the layer, or one beyond the layers.
struct Draft {
    layer: usize,
    leaves: usize,
    work: FoldedWork,
    inputs: Vec<usize>,
    /// The value whose room it adds to.
    adds_to: Option<usize>,
    output: usize,
    value: Room,
}

impl Folded {
    /// What a plan computes in inference mode. `layers` are those of the network that the plan is of.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if a batch norm has no convolution in front that it could be folded into.
    pub fn new(plan: &Plan, layers: &[Layer]) -> Result<Self, DeviceError> {
        let mut drafts = Vec::new();
        for step in plan.steps() {
            draft(step, layers, &mut drafts)?;
        }
        Ok(place(add_while_storing(drafts)))
    }
}

/// Appends what a step computes.
fn draft(step: &Step, layers: &[Layer], drafts: &mut Vec<Draft>) -> Result<(), DeviceError> {
    let layer = step.output();
    let len = layers[layer].output.iter().product();
    let misread = || {
        let reason = format!("{} cannot answer by itself", layers[layer].name);
        DeviceError::Shape { kernel: "fold", reason }
    };
    let image = || {
        let input = step.inputs.first().map(|&input| &layers[input].output[..]);
        let Some(&[h, w, c]) = input else { return Err(misread()) };
        Ok([1, h, w, c])
    };
    let at = match step.work {
        Work::ConvNorm { layers: [at, _], .. } => at,
        _ => layer,
    };
    // From the pool that ends the pixels on, everything is stored in full width, as it is in training.
    let storage = match step.work {
        Work::GlobalPool(_) | Work::Dense(_) => Storage::Full,
        _ => Storage::Activation,
    };
    let mut push = |work, len| {
        drafts.push(Draft {
            layer: at,
            leaves: layer,
            work,
            inputs: step.inputs.clone(),
            adds_to: None,
            output: layer,
            value: Room { len, storage },
        });
    };
    let conv = |conv: Conv, shape: [usize; 4], norm: Option<BatchNorm>| -> Result<FoldedWork, DeviceError> {
        let shape = ConvShape::new(shape, conv.filters, conv.window, conv.stride, conv.pad)?;
        let weights = Trained { kernel: conv.kernel, bias: conv.bias, norm };
        let activation = norm.map_or(conv.activation, |norm| norm.activation);
        Ok(FoldedWork::Conv { weights, shape: FoldedShape::Full(shape), accumulate: false, activation })
    };
    let depthwise = |conv: Depthwise, norm: Option<BatchNorm>| -> Result<(FoldedWork, [usize; 4]), DeviceError> {
        let shape = DepthwiseShape::new(image()?, conv.window, conv.stride, conv.pad)?;
        let weights = Trained { kernel: conv.kernel, bias: None, norm };
        let activation = norm.map_or(Activation::Linear, |norm| norm.activation);
        let output = [1, shape.p, shape.q, shape.c];
        Ok((FoldedWork::Conv { weights, shape: FoldedShape::Depthwise(shape), accumulate: false, activation }, output))
    };
    let channels = layers[layer].output.last().copied().unwrap_or(1);
    let (filters, norm) = match step.work {
        Work::ConvNorm { conv, norm, .. } => (conv, Some(norm)),
        Work::Conv(conv) => (Filters::Full(conv), None),
        Work::ConvActivation { conv, activation } => (Filters::Full(Conv { activation, ..conv }), None),
        Work::Depthwise(conv) => (Filters::Depthwise(conv), None),
        Work::Separable(conv) => (Filters::Separable(conv), None),
        work => {
            let work = match work {
                Work::Images => FoldedWork::Images,
                Work::Pad(zeros) => FoldedWork::MaxPool(PoolShape::new(image()?, 1, 1, zeros, Outside::Zeros)?),
                Work::MaxPool { window, stride, pad, outside } => {
                    FoldedWork::MaxPool(PoolShape::new(image()?, window, stride, pad, outside)?)
                }
                Work::GlobalPool(pooling) => {
                    let [n, h, w, c] = image()?;
                    FoldedWork::GlobalPool(pooling, GlobalPoolShape { n, pixels: h * w, c })
                }
                Work::Activation(activation) => FoldedWork::Activation { activation, channels },
                Work::Add => FoldedWork::Sum { relu: false, channels },
                Work::Junction => FoldedWork::Sum { relu: true, channels },
                Work::Dense(dense) => {
                    let shape = ConvShape::new([1, 1, 1, dense.inputs], dense.outputs, [1; 2], 1, 0)?;
                    FoldedWork::Conv {
                        weights: Trained { kernel: dense.kernel, bias: Some(dense.bias), norm: None },
                        shape: FoldedShape::Full(shape),
                        accumulate: false,
                        activation: if dense.relu { Activation::Relu } else { Activation::Linear },
                    }
                }
                _ => return Err(misread()),
            };
            push(work, len);
            return Ok(());
        }
    };
    match filters {
        Filters::Full(full) => push(conv(full, image()?, norm)?, len),
        Filters::Depthwise(channelwise) => push(depthwise(channelwise, norm)?.0, len),
        Filters::Separable(both) => {
            let (work, between) = depthwise(both.depthwise, None)?;
            push(work, between.iter().product());
            push(conv(both.pointwise, between, norm)?, len);
            // The value between the two has no layer of its own.
            let value = layers.len() + drafts.len();
            if let [.., first, second] = &mut drafts[..] {
                first.output = value;
                second.inputs = vec![value];
            }
        }
    }
    Ok(())
}

/// Has a convolution add the other way of a sum where that lies, if only the sum reads either. It is then computed where the sum was.
fn add_while_storing(mut drafts: Vec<Draft>) -> Vec<Draft> {
    let mut at = 0;
    while at < drafts.len() {
        let found = match (drafts[at].work, &drafts[at].inputs[..]) {
            // The later one, which need not wait for the other way.
            (FoldedWork::Sum { relu, .. }, &[a, b]) => [(a, b), (b, a)]
                .into_iter()
                .filter_map(|(way, other)| Some((addable(&drafts, at, way, other)?, other, relu)))
                .max_by_key(|(conv, ..)| *conv),
            _ => None,
        };
        let Some((conv, other, relu)) = found else {
            at += 1;
            continue;
        };
        let mut draft = drafts.remove(conv);
        let sum = &mut drafts[at - 1];
        if let FoldedWork::Conv { accumulate, activation, .. } = &mut draft.work {
            *accumulate = true;
            *activation = if relu { Activation::Relu } else { Activation::Linear };
        }
        *sum = Draft { leaves: sum.leaves, output: sum.output, adds_to: Some(other), ..draft };
    }
    drafts
}

/// Where the convolution stands that leaves `way`, if it can be computed in the place of the sum at `at` and be added to `other` there.
fn addable(drafts: &[Draft], at: usize, way: usize, other: usize) -> Option<usize> {
    let conv = drafts[..at].iter().position(|draft| draft.output == way)?;
    let Draft { work, inputs, .. } = &drafts[conv];
    let is_plain = matches!(work, FoldedWork::Conv { accumulate: false, activation: Activation::Linear, .. });
    let readers = drafts.iter().flat_map(|draft| &draft.inputs).filter(|&&input| input == way).count();
    let is_read_later = drafts[at + 1..].iter().any(|draft| draft.reads(other));
    // What it reads must still be there, and stay there while it stores.
    let loses_input = inputs.contains(&other)
        || drafts[conv..at].iter().any(|draft| draft.adds_to.is_some_and(|value| inputs.contains(&value)));
    (is_plain && readers == 1 && !is_read_later && !loses_input).then_some(conv)
}

/// Gives each value a room: of those that are free by then the smallest that is large enough, or the largest made larger, or a new one.
fn place(drafts: Vec<Draft>) -> Folded {
    let mut rooms: Vec<Room> = Vec::new();
    // Which value is in each room, until its last reader has read it.
    let mut holds: Vec<Option<usize>> = Vec::new();
    let mut steps = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.iter().enumerate() {
        let Draft { layer, leaves, work, value, .. } = *draft;
        let room_of = |value: usize| holds.iter().position(|&held| held == Some(value));
        let reads: Vec<usize> = draft.inputs.iter().filter_map(|&input| room_of(input)).collect();
        let writes = draft.adds_to.and_then(room_of).unwrap_or_else(|| {
            let is_free = |room: &usize| holds[*room].is_none() && rooms[*room].storage == value.storage;
            let free = (0..rooms.len()).filter(is_free);
            let fits = free.clone().filter(|&room| rooms[room].len >= value.len).min_by_key(|&room| rooms[room].len);
            fits.or_else(|| free.max_by_key(|&room| rooms[room].len)).unwrap_or(rooms.len())
        });
        if writes == rooms.len() {
            rooms.push(value);
            holds.push(None);
        }
        rooms[writes].len = rooms[writes].len.max(value.len);
        holds[writes] = Some(draft.output);
        let is_read = |value: usize| drafts[at + 1..].iter().any(|later| later.reads(value));
        holds.iter_mut().for_each(|held| *held = held.filter(|&value| is_read(value)));
        steps.push(FoldedStep { layer, leaves, work, reads, writes, value });
    }
    Folded { steps, rooms }
}

impl Draft {
    /// Whether it needs a value.
    fn reads(&self, value: usize) -> bool {
        self.inputs.contains(&value) || self.adds_to == Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, MINIATURES, ModelConfig, NETWORKS, Network, resnet50, xception};

    fn folded(network: Network) -> (Folded, Architecture) {
        let architecture = Architecture::new(&ModelConfig { image_size: 75, ..ModelConfig::new(network, 7) }).unwrap();
        let plan = Plan::new(&architecture, 0.9).unwrap();
        (Folded::new(&plan, &architecture.layers).unwrap(), architecture)
    }

    /// How many convolutions there are, how many of them add, and how many sums are left.
    fn count(Folded { steps, .. }: &Folded) -> [usize; 3] {
        let count = |of: fn(&FoldedWork) -> bool| steps.iter().filter(|step| of(&step.work)).count();
        [
            count(|work| matches!(work, FoldedWork::Conv { .. })),
            count(|work| matches!(work, FoldedWork::Conv { accumulate: true, .. })),
            count(|work| matches!(work, FoldedWork::Sum { .. })),
        ]
    }

    #[test]
    fn every_sum_of_the_networks_is_the_end_of_a_convolution() {
        // Its convolutions and three dense layers.
        assert_eq!(count(&folded(resnet50::NETWORK).0), [53 + 3, 16, 0]);
        // Of two convolutions each of 34 separable ones.
        assert_eq!(count(&folded(xception::NETWORK).0), [2 * 34 + 6 + 3, 12, 0]);
    }

    #[test]
    fn four_rooms_and_two_for_the_head_are_enough() {
        for network in NETWORKS {
            let (Folded { rooms, .. }, _) = folded(network);
            let count = |storage| rooms.iter().filter(|room| room.storage == storage).count();
            assert!(count(Storage::Activation) <= 4 && count(Storage::Full) <= 2, "{network}: {rooms:?}");
        }
    }

    /// Runs the steps on the names of values instead of numbers: what a step reads must be what its layer reads, and of a sum the
    /// convolution is added to the other way.
    #[test]
    fn nothing_is_overwritten_before_it_is_read() {
        for network in NETWORKS.into_iter().chain(MINIATURES) {
            let (Folded { steps, rooms }, architecture) = folded(network);
            let mut held: Vec<Option<usize>> = vec![None; rooms.len()];
            for step in &steps {
                let room = rooms[step.writes];
                assert!(step.value.len <= room.len && step.value.storage == room.storage);
                let layer = &architecture.layers[step.leaves];
                let reads: Vec<usize> = step.reads.iter().map(|&room| held[room].expect("a value")).collect();
                assert!(step.reads.iter().all(|room| *room != step.writes), "{}", layer.name);
                match step.work {
                    FoldedWork::Conv { accumulate: true, .. } => {
                        let other = held[step.writes].expect("the other way");
                        let sum = if layer.inputs.len() == 2 { layer } else { &architecture.layers[layer.inputs[0]] };
                        assert!(sum.inputs.contains(&other), "{} adds to {other}", layer.name);
                    }
                    FoldedWork::MaxPool(_) | FoldedWork::GlobalPool(..) | FoldedWork::Activation { .. } => {
                        // A pool may have taken the zeros in front of it.
                        let behind = |input: &usize| *input == reads[0] || architecture.layers[*input].inputs == reads;
                        assert!(layer.inputs.iter().all(behind), "{} reads {reads:?}", layer.name);
                    }
                    _ => {}
                }
                held[step.writes] = Some(step.leaves);
            }
            assert_eq!(steps.last().map(|step| step.leaves), Some(architecture.layers.len() - 1));
        }
    }
}
