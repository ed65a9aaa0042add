//! Which layers are computed together: the table of rules, and the walk that applies it.

use super::step::{Filters, Step, Work};
use crate::device::{Activation, BatchNormConstants, Outside};
use crate::network::{self, Architecture, Convolution, Layer, Op};
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;
use crate::ops::depthwise::Depthwise;
use crate::ops::separable::Separable;

/// What may be computed together.
pub struct Rule {
    /// What it is called, where somebody switches it off.
    pub name: &'static str,
    /// What it saves, in words.
    pub saves: &'static str,
    kind: Kind,
}

enum Kind {
    /// Two steps become one: what they compute together, if they can. The second is the only one to read the first one's value.
    Merge(fn(&Step, &Step) -> Option<Work>),
    /// The same, or what a step computes instead if it is both of them already: Keras writes some pairs as one layer.
    MergeOrRewrite { two: fn(&Step, &Step) -> Option<Work>, one: fn(&Step) -> Option<Work> },
    /// What is owed to a value, a scale and a shift or an activation, or to its gradient is left to whoever reads the value.
    LeaveDebt,
}

/// All rules. Each is tried on the whole network before the next one.
pub const RULES: [Rule; 6] = [
    Rule {
        name: "padding",
        saves: "a padded copy of the image: kernels take what lies outside as zero",
        kind: Kind::Merge(|first, second| match (first.work, second.work) {
            (Work::Pad(zeros), Work::Conv(conv)) => Some(Work::Conv(Conv { pad: conv.pad + zeros, ..conv })),
            (Work::Pad(zeros), Work::ConvActivation { conv, activation }) => {
                Some(Work::ConvActivation { conv: Conv { pad: conv.pad + zeros, ..conv }, activation })
            }
            (Work::Pad(zeros), Work::Depthwise(conv)) => {
                Some(Work::Depthwise(Depthwise { pad: conv.pad + zeros, ..conv }))
            }
            (Work::Pad(zeros), Work::MaxPool { window, stride, pad, outside: Outside::Zeros }) => {
                Some(Work::MaxPool { window, stride, pad: pad + zeros, outside: Outside::Zeros })
            }
            _ => None,
        }),
    },
    Rule {
        // A bias only moves the mean, so the batch norm adds it there.
        name: "norm",
        saves: "a pass for the statistics: the convolution sums them up while it stores its output",
        kind: Kind::Merge(|first, second| match (first.work, second.work) {
            (Work::Conv(conv), Work::Norm(norm)) => {
                let (conv, norm) = (Conv { bias: None, ..conv }, BatchNorm { bias: conv.bias, ..norm });
                Some(Work::ConvNorm { conv: Filters::Full(conv), norm, layers: [first.output(), second.output()] })
            }
            (Work::Depthwise(conv), Work::Norm(norm)) => {
                Some(Work::ConvNorm { conv: Filters::Depthwise(conv), norm, layers: [first.output(), second.output()] })
            }
            (Work::Separable(conv), Work::Norm(norm)) => {
                Some(Work::ConvNorm { conv: Filters::Separable(conv), norm, layers: [first.output(), second.output()] })
            }
            _ => None,
        }),
    },
    Rule {
        name: "activation",
        saves: "a pass for the activation: whoever applies scale and shift applies it as well",
        kind: Kind::Merge(|first, second| match (first.work, second.work) {
            (Work::ConvNorm { conv, norm, layers }, Work::Activation(activation)) => {
                followed_by(norm, activation).map(|norm| Work::ConvNorm { conv, norm, layers })
            }
            (Work::Norm(norm), Work::Activation(activation)) => followed_by(norm, activation).map(Work::Norm),
            _ => None,
        }),
    },
    Rule {
        name: "epilogue",
        saves: "the sum of a bias's gradient, and an activation in every reader: applied while storing, undone and summed while its gradient is stored",
        kind: Kind::MergeOrRewrite {
            two: |first, second| match (first.work, second.work) {
                (Work::Conv(conv), Work::Activation(activation)) if conv.activation == Activation::Linear => {
                    Some(Work::Conv(Conv { activation, ..conv }))
                }
                _ => None,
            },
            one: |step| match step.work {
                Work::ConvActivation { conv, activation } => Some(Work::Conv(Conv { activation, ..conv })),
                _ => None,
            },
        },
    },
    Rule {
        name: "debt",
        saves: "a pass for scale and shift, or for an activation each way: whoever reads the value does it while loading or storing",
        kind: Kind::LeaveDebt,
    },
    Rule {
        name: "junction",
        saves: "a pass for the ReLU behind a sum: whoever adds takes the larger of the sum and 0",
        kind: Kind::Merge(|first, second| match (first.work, second.work) {
            (Work::Add, Work::Activation(Activation::Relu)) => Some(Work::Junction),
            _ => None,
        }),
    },
];

/// The batch norm with what follows it.
fn followed_by(norm: BatchNorm, activation: Activation) -> Option<BatchNorm> {
    (norm.activation == Activation::Linear).then_some(BatchNorm { activation, ..norm })
}

/// The steps of a network: a layer each at first, then what the rules make of them, but for those `without`.
pub(super) fn steps(architecture: &Architecture, momentum: f64, without: &[&str]) -> Vec<Step> {
    let mut steps = Vec::new();
    for at in order(&architecture.layers) {
        let layer = &architecture.layers[at];
        let work = work(architecture, layer, momentum);
        let (layers, inputs, frees) = (vec![at], layer.inputs.clone(), Vec::new());
        steps.push(Step { layers, inputs, frees, work, leaves_debt: false });
    }
    for Rule { kind, .. } in RULES.iter().filter(|rule| !without.contains(&rule.name)) {
        match kind {
            Kind::Merge(merge) => apply(merge, &mut steps),
            Kind::MergeOrRewrite { two, one } => {
                apply(two, &mut steps);
                steps.iter_mut().for_each(|step| step.work = one(step).unwrap_or(step.work));
            }
            Kind::LeaveDebt => steps.iter_mut().for_each(|step| step.leaves_debt = true),
        }
    }
    let mut read_later = vec![false; architecture.layers.len()];
    for step in steps.iter_mut().rev() {
        let mut frees: Vec<usize> = step.inputs.iter().copied().filter(|&input| !read_later[input]).collect();
        frees.dedup();
        step.inputs.iter().for_each(|&input| read_later[input] = true);
        step.frees = frees;
    }
    steps
}

/// Merges every pair of steps that the rule takes.
fn apply(merge: &fn(&Step, &Step) -> Option<Work>, steps: &mut Vec<Step>) {
    let mut second = 0;
    while second < steps.len() {
        match merged(merge, steps, second) {
            Some((first, step)) => {
                steps[second] = step;
                steps.remove(first);
                // The merged step stands one place further in front now, so `second` is the step behind it.
            }
            None => second += 1,
        }
    }
}

/// The step that the rule makes of `steps[second]` and one that only it reads, with the place of that one.
fn merged(merge: &fn(&Step, &Step) -> Option<Work>, steps: &[Step], second: usize) -> Option<(usize, Step)> {
    let reader = &steps[second];
    reader.inputs.iter().enumerate().find_map(|(slot, input)| {
        let first = steps.iter().position(|step| step.output() == *input)?;
        let readers = steps.iter().flat_map(|step| &step.inputs).filter(|&read| read == input).count();
        let work = (readers == 1).then(|| merge(&steps[first], reader))??;
        let layers = [&steps[first].layers[..], &reader.layers].concat();
        let inputs = [&reader.inputs[..slot], &steps[first].inputs, &reader.inputs[slot + 1..]].concat();
        Some((first, Step { layers, inputs, frees: Vec::new(), work, leaves_debt: reader.leaves_debt }))
    })
}

/// The layers in the order in which they compute: each behind those that it reads, and of two ways the shorter first. So the projection
/// of a block comes before its branch: its backward pass then runs last and finds the gradient of the shared input already there, to add
/// to while storing.
fn order(layers: &[Layer]) -> Vec<usize> {
    fn visit(at: usize, layers: &[Layer], depths: &[usize], order: &mut Vec<usize>, seen: &mut [bool]) {
        if !std::mem::replace(&mut seen[at], true) {
            let mut inputs = layers[at].inputs.clone();
            inputs.sort_by_key(|&input| depths[input]);
            inputs.into_iter().for_each(|input| visit(input, layers, depths, order, seen));
            order.push(at);
        }
    }
    // How many layers lie in front of each, on the longest way.
    let mut depths = vec![0; layers.len()];
    for (at, layer) in layers.iter().enumerate() {
        depths[at] = layer.inputs.iter().map(|&input| depths[input] + 1).max().unwrap_or(0);
    }
    let mut order = Vec::with_capacity(layers.len());
    visit(layers.len() - 1, layers, &depths, &mut order, &mut vec![false; layers.len()]);
    order
}

/// What one layer computes by itself.
fn work(architecture: &Architecture, layer: &Layer, momentum: f64) -> Work {
    let span = |tensor: &str| architecture.span(layer, tensor);
    match layer.op {
        Op::Input => Work::Images,
        Op::ZeroPad(zeros) => Work::Pad(zeros),
        Op::Conv { convolution: Convolution { filters, window, stride, pad, bias }, relu } => {
            let bias = bias.then(|| span("bias"));
            let conv = Conv {
                kernel: span("kernel"),
                bias,
                activation: Activation::Linear,
                filters,
                window: [window; 2],
                stride,
                pad,
            };
            match relu {
                true => Work::ConvActivation { conv, activation: Activation::Relu },
                false => Work::Conv(conv),
            }
        }
        Op::DepthwiseConv(network::Depthwise { window, stride, pad }) => {
            Work::Depthwise(Depthwise { kernel: span("depthwise_kernel"), window: [window; 2], stride, pad })
        }
        Op::SeparableConv { depthwise: network::Depthwise { window, stride, pad }, filters } => {
            let kernel = span("pointwise_kernel");
            Work::Separable(Separable {
                depthwise: Depthwise { kernel: span("depthwise_kernel"), window: [window; 2], stride, pad },
                pointwise: Conv {
                    kernel,
                    bias: None,
                    activation: Activation::Linear,
                    filters,
                    window: [1; 2],
                    stride: 1,
                    pad: 0.into(),
                },
            })
        }
        Op::BatchNorm { epsilon, .. } => Work::Norm(BatchNorm {
            gamma: span("gamma"),
            beta: span("beta"),
            mean: span("moving_mean"),
            variance: span("moving_variance"),
            bias: None,
            constants: BatchNormConstants { momentum, epsilon },
            activation: Activation::Linear,
        }),
        Op::Activation(activation) => Work::Activation(activation),
        Op::MaxPool { window, stride, pad } => {
            // Windows that reach over no edge see the zeros of a padding layer in front, and may take them along.
            let outside = if pad.total() == 0 { Outside::Zeros } else { Outside::Nothing };
            Work::MaxPool { window, stride, pad, outside }
        }
        Op::Add => Work::Add,
        Op::GlobalPool(pooling) => Work::GlobalPool(pooling),
        Op::Dense { outputs, relu } => {
            let inputs = architecture.layers[layer.inputs[0]].output[0];
            Work::Dense(Dense { kernel: span("kernel"), bias: span("bias"), inputs, outputs, relu })
        }
    }
}
