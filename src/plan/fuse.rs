//! Which layers are computed together: the table of rules, and the walk that applies it.

use super::step::{Step, Work};
use crate::device::BatchNormConstants;
use crate::network::{Architecture, Convolution, Layer, Op};
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;

/// Two steps that become one.
pub struct Rule {
    /// What it is called.
    pub name: &'static str,
    /// What the two compute together, if they can: the second is the only one to read the first one's value.
    pub merge: fn(&Step, &Step) -> Option<Work>,
}

/// All rules. Each is tried on the whole network before the next one.
pub const RULES: [Rule; 4] = [
    Rule {
        // Kernels take what lies outside the image as zero.
        name: "padding",
        merge: |first, second| match (first.work, second.work) {
            (Work::Pad(zeros), Work::Conv { conv, bias }) => {
                Some(Work::Conv { conv: Conv { pad: conv.pad + zeros, ..conv }, bias })
            }
            (Work::Pad(zeros), Work::MaxPool { window, stride, pad }) => {
                Some(Work::MaxPool { window, stride, pad: pad + zeros })
            }
            _ => None,
        },
    },
    Rule {
        // The convolution sums up what the batch norm needs to know of its output while it stores it. A bias only moves the mean,
        // so the batch norm adds it there. Scale and shift are applied by whoever reads the value.
        name: "norm",
        merge: |first, second| match (first.work, second.work) {
            (Work::Conv { conv, bias }, Work::Norm(norm)) => {
                let norm = BatchNorm { bias, ..norm };
                Some(Work::ConvNorm { conv, norm, relu: false, layers: [first.output(), second.output()] })
            }
            _ => None,
        },
    },
    Rule {
        // Whoever applies the scale and shift applies the ReLU as well.
        name: "relu",
        merge: |first, second| match (first.work, second.work) {
            (Work::ConvNorm { conv, norm, relu: false, layers }, Work::Relu) => {
                Some(Work::ConvNorm { conv, norm, relu: true, layers })
            }
            _ => None,
        },
    },
    Rule {
        // One pass applies the batch norms in front of a sum, adds, and takes the larger of the sum and 0.
        name: "junction",
        merge: |first, second| match (first.work, second.work) {
            (Work::Add, Work::Relu) => Some(Work::Junction),
            _ => None,
        },
    },
];

/// The steps of a network: a layer each at first, then what the rules make of them.
pub(super) fn steps(architecture: &Architecture, momentum: f64) -> Vec<Step> {
    let mut steps = Vec::new();
    for at in order(&architecture.layers) {
        let layer = &architecture.layers[at];
        let work = work(architecture, layer, momentum);
        steps.push(Step { layers: vec![at], inputs: layer.inputs.clone(), frees: Vec::new(), work });
    }
    for rule in &RULES {
        apply(rule, &mut steps);
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
fn apply(rule: &Rule, steps: &mut Vec<Step>) {
    let mut second = 0;
    while second < steps.len() {
        match merged(rule, steps, second) {
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
fn merged(rule: &Rule, steps: &[Step], second: usize) -> Option<(usize, Step)> {
    let reader = &steps[second];
    reader.inputs.iter().enumerate().find_map(|(slot, input)| {
        let first = steps.iter().position(|step| step.output() == *input)?;
        let readers = steps.iter().flat_map(|step| &step.inputs).filter(|&read| read == input).count();
        let work = (readers == 1).then(|| (rule.merge)(&steps[first], reader))??;
        let layers = [&steps[first].layers[..], &reader.layers].concat();
        let inputs = [&reader.inputs[..slot], &steps[first].inputs, &reader.inputs[slot + 1..]].concat();
        Some((first, Step { layers, inputs, frees: Vec::new(), work }))
    })
}

/// The layers in the order in which they compute: each behind those that it reads, and those in Keras's order. So the projection of a
/// block comes before its branch: its backward pass then runs last and finds the gradient of the shared input already there, to add to
/// while storing.
fn order(layers: &[Layer]) -> Vec<usize> {
    fn visit(at: usize, layers: &[Layer], order: &mut Vec<usize>, seen: &mut [bool]) {
        if !std::mem::replace(&mut seen[at], true) {
            layers[at].inputs.iter().for_each(|&input| visit(input, layers, order, seen));
            order.push(at);
        }
    }
    let mut order = Vec::with_capacity(layers.len());
    visit(layers.len() - 1, layers, &mut order, &mut vec![false; layers.len()]);
    order
}

/// What one layer computes by itself.
fn work(architecture: &Architecture, layer: &Layer, momentum: f64) -> Work {
    let span = |tensor: &str| architecture.span(layer, tensor);
    match layer.op {
        Op::Input => Work::Images,
        Op::ZeroPad(zeros) => Work::Pad(zeros),
        Op::Conv(Convolution { filters, window, stride, pad, bias }) => {
            let conv = Conv { kernel: span("kernel"), filters, window: [window; 2], stride, pad };
            Work::Conv { conv, bias: bias.then(|| span("bias")) }
        }
        Op::BatchNorm { epsilon, .. } => Work::Norm(BatchNorm {
            gamma: span("gamma"),
            beta: span("beta"),
            mean: span("moving_mean"),
            variance: span("moving_variance"),
            bias: None,
            constants: BatchNormConstants { momentum, epsilon },
        }),
        Op::Relu => Work::Relu,
        Op::MaxPool { window, stride } => Work::MaxPool { window, stride, pad: 0 },
        Op::Add => Work::Add,
        Op::GlobalPool(pooling) => Work::GlobalPool(pooling),
        Op::Dense { outputs, relu } => {
            let inputs = architecture.layers[layer.inputs[0]].output[0];
            Work::Dense(Dense { kernel: span("kernel"), bias: span("bias"), inputs, outputs, relu })
        }
    }
}
