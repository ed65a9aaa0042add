//! The convolutions of a network as its plan computes them, equal ones together: for benches and tests.

#![allow(dead_code, reason = "each bench takes what it needs")]

use onesheet::device::{Activation, ConvShape, DepthwiseShape};
use onesheet::network::{Architecture, ModelConfig, Network};
use onesheet::plan::{Filters, Plan, Work};

/// A convolution, how often the network has it, and what is fused to it there.
pub struct Layer {
    /// Keras's name of the first that is so.
    pub name: String,
    /// Its geometry.
    pub shape: ConvShape,
    /// How many are so.
    pub count: usize,
    /// What follows the batch norm that its input owes, if it owes one.
    pub owed: Option<Activation>,
    /// What its data gradient undoes: that, or what the convolution in front has applied.
    pub undone: Option<Activation>,
    /// Whether its data gradient is added to what another consumer of its input has left.
    pub accumulates: bool,
    /// What it applies to its own output.
    pub activation: Activation,
}

impl Layer {
    /// Whether the two are the same work.
    fn is_like(&self, other: &Layer) -> bool {
        let work = |of: &Layer| (of.shape, of.owed, of.undone, of.accumulates, of.activation);
        work(self) == work(other)
    }
}

/// The layers over `n` posters of `size`×`size`.
pub fn layers(network: Network, n: usize, size: usize) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for planned in convolutions(network, size) {
        let (Filters::Full(conv), [h, w, c]) = (planned.filters, planned.input) else { continue };
        let Convolution { name, owed, undone, accumulates, .. } = planned;
        let shape =
            ConvShape::new([n, h, w, c], conv.filters, conv.window, conv.stride, conv.pad).expect("it is planned");
        let layer = Layer { name, shape, count: 1, owed, undone, accumulates, activation: conv.activation };
        match layers.iter_mut().find(|other| other.is_like(&layer)) {
            Some(layer) => layer.count += 1,
            None => layers.push(layer),
        }
    }
    layers
}

/// A convolution as the plan has it.
#[derive(Clone)]
struct Convolution {
    name: String,
    filters: Filters,
    /// Extents of the input, without the batch.
    input: [usize; 3],
    owed: Option<Activation>,
    undone: Option<Activation>,
    accumulates: bool,
    /// Whether a batch norm follows.
    normed: bool,
}

fn convolutions(network: Network, size: usize) -> Vec<Convolution> {
    let (architecture, plan) = planned(network, size);
    let steps = plan.steps();
    let mut found = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let (filters, own, normed) = match step.work {
            Work::ConvNorm { conv, layers: [own, _], .. } => (conv, own, true),
            Work::Conv(conv) | Work::ConvActivation { conv, .. } => (Filters::Full(conv), step.output(), false),
            Work::Depthwise(conv) => (Filters::Depthwise(conv), step.output(), false),
            Work::Separable(conv) => (Filters::Separable(conv), step.output(), false),
            _ => continue,
        };
        let reads = step.inputs[0];
        let input = architecture.layers[reads].output[..].try_into().expect("a convolution reads images");
        let owed = steps.iter().find_map(|step| match step.work {
            Work::ConvNorm { norm, .. } if step.output() == reads => Some(norm.activation),
            Work::Activation(activation) if step.output() == reads => Some(activation),
            _ => None,
        });
        let applied = steps.iter().find_map(|step| match step.work {
            Work::Conv(conv) if step.output() == reads && conv.activation != Activation::Linear => {
                Some(conv.activation)
            }
            _ => None,
        });
        // The backward pass comes to later readers first.
        let accumulates = steps[at + 1..].iter().any(|later| later.inputs.contains(&reads));
        let (name, undone) = (architecture.layers[own].name.clone(), owed.or(applied));
        let whole = Convolution { name, filters, input, owed, undone, accumulates, normed };
        match filters {
            Filters::Separable(conv) => {
                let [p, q, _] = architecture.layers[own].output[..] else { panic!("it makes images") };
                found.push(Convolution { filters: Filters::Depthwise(conv.depthwise), normed: false, ..whole.clone() });
                // Nobody else reads what is between the two, and nothing is owed to it.
                let (filters, input) = (Filters::Full(conv.pointwise), [p, q, input[2]]);
                found.push(Convolution { filters, input, owed: None, undone: None, accumulates: false, ..whole });
            }
            _ => found.push(whole),
        }
    }
    found
}

/// A network laid out, and its plan.
pub fn planned(network: Network, size: usize) -> (Architecture, Plan) {
    let config = ModelConfig { image_size: size, ..ModelConfig::new(network, 7) };
    let architecture = Architecture::new(&config).expect("the images are large enough");
    let plan = Plan::new(&architecture, config.momentum).expect("there are kernels for every network");
    (architecture, plan)
}

/// A depthwise convolution, how often the network has it, and what is fused to it there.
pub struct DepthwiseLayer {
    /// Keras's name of the first that is so.
    pub name: String,
    /// Its geometry.
    pub shape: DepthwiseShape,
    /// How many are so.
    pub count: usize,
    /// What follows the batch norm that its input owes, if it owes one.
    pub owed: Option<Activation>,
    /// Whether its data gradient is added to what another consumer of its input has left.
    pub accumulates: bool,
    /// Whether a batch norm follows, which it takes statistics for and which owes it its gradient.
    pub normed: bool,
}

/// The depthwise layers over `n` posters of `size`×`size`.
pub fn depthwise(network: Network, n: usize, size: usize) -> Vec<DepthwiseLayer> {
    let mut layers: Vec<DepthwiseLayer> = Vec::new();
    for Convolution { name, filters, input: [h, w, c], owed, accumulates, normed, .. } in convolutions(network, size) {
        let Filters::Depthwise(conv) = filters else { continue };
        let shape = DepthwiseShape::new([n, h, w, c], conv.window, conv.stride, conv.pad).expect("it is planned");
        let fused = (shape, owed, accumulates, normed);
        let same = |layer: &&mut DepthwiseLayer| (layer.shape, layer.owed, layer.accumulates, layer.normed) == fused;
        match layers.iter_mut().find(same) {
            Some(layer) => layer.count += 1,
            None => layers.push(DepthwiseLayer { name, shape, count: 1, owed, accumulates, normed }),
        }
    }
    layers
}
