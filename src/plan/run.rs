//! The forward pass: runs a plan's steps and records them on the tape.

use super::{Filters, Plan, Step, Work};
use crate::autograd::Tape;
use crate::device::{Device, DeviceError};
use crate::network::Layer;
use crate::ops::batch_norm::{self, BatchNorm};
use crate::ops::{activation, conv, dense, depthwise, pool, residual, separable};
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use crate::value::Value;

/// Whose statistics batch norm takes.
pub enum Statistics<'a, D: Device> {
    /// Training: the batch's, which also move the running averages. A frozen batch norm keeps to its averages.
    Batch(&'a mut Parameters<D>),
    /// Inference: the running averages.
    Running(&'a Parameters<D>),
}

impl<D: Device> Statistics<'_, D> {
    fn parameters(&self) -> &Parameters<D> {
        match self {
            Statistics::Batch(parameters) => parameters,
            Statistics::Running(parameters) => parameters,
        }
    }

    /// Whether this batch norm takes the batch's.
    fn are_the_batchs(&self, norm: &BatchNorm) -> bool {
        matches!(self, Statistics::Batch(parameters) if parameters.is_trainable(norm.gamma))
    }
}

/// From images `[N, H, W, 3]` to logits `[N, genres]`. `layers` are those of the network that the plan is of.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the images do not fit.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    plan: &Plan,
    layers: &[Layer],
    images: Value<D>,
) -> Result<Value<D>, DeviceError> {
    let mut values: Vec<Option<Value<D>>> = (0..layers.len()).map(|_| None).collect();
    values[0] = Some(images);
    for step in plan.steps.iter().filter(|step| step.work != Work::Images) {
        let inputs: Vec<Value<D>> = step.inputs.iter().filter_map(|&input| values[input].clone()).collect();
        step.frees.iter().for_each(|&input| values[input] = None);
        let value = run(tape, statistics, step, layers, inputs)?;
        values[step.output()] = Some(if step.leaves_debt { value } else { value.settled(tape.device())? });
    }
    values.pop().flatten().ok_or_else(|| misread(&layers[layers.len() - 1], 0))
}

fn run<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    step: &Step,
    layers: &[Layer],
    mut inputs: Vec<Value<D>>,
) -> Result<Value<D>, DeviceError> {
    let output = &layers[step.output()];
    tape.enter(&output.name);
    match (step.work, &mut inputs[..]) {
        (Work::Pad(zeros), [x]) => pool::pad(tape, x, zeros),
        (Work::Conv(conv), [x]) => Ok(conv::forward(tape, statistics.parameters(), x, conv, false)?.0),
        (Work::ConvActivation { conv, activation }, [x]) => {
            let (y, _) = conv::forward(tape, statistics.parameters(), x, conv, false)?;
            activation::forward(tape, &y, activation)
        }
        (Work::Depthwise(conv), [x]) => Ok(depthwise::forward(tape, statistics.parameters(), x, conv, false)?.0),
        (Work::Separable(conv), [x]) => Ok(separable::forward(tape, statistics.parameters(), x, conv, false)?.0),
        (Work::Norm(norm), [x]) => {
            let x = x.clone().settled(tape.device())?;
            let stats = match statistics.are_the_batchs(&norm) {
                true => Some(batch_norm::statistics(tape, &x)?),
                false => None,
            };
            self::norm(tape, statistics, x, stats, norm)
        }
        (Work::ConvNorm { conv, norm, layers: at }, [x]) => {
            conv_norm(tape, statistics, x, conv, norm, at.map(|at| &layers[at].name[..]))
        }
        (Work::Activation(activation), [x]) => activation::forward(tape, x, activation),
        (Work::Add, [a, b]) => residual::join(tape, [a, b], false),
        (Work::Junction, [a, b]) => residual::join(tape, [a, b], true),
        (Work::MaxPool { window, stride, pad, outside }, [x]) => pool::max(tape, x, window, stride, pad, outside),
        (Work::GlobalPool(pooling), [x]) => pool::global(tape, x, pooling),
        (Work::Dense(layer), [x]) => dense::forward(tape, statistics.parameters(), x, layer),
        (_, inputs) => Err(misread(output, inputs.len())),
    }
}

/// A step that computes from another number of values than it was given.
fn misread(layer: &Layer, inputs: usize) -> DeviceError {
    let reason = format!("{} is not computed from {inputs} values", layer.name);
    DeviceError::Shape { kernel: "plan", reason }
}

fn conv_norm<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    x: &Value<D>,
    conv: Filters,
    norm: BatchNorm,
    [at, behind]: [&str; 2],
) -> Result<Value<D>, DeviceError> {
    tape.enter(at);
    let (parameters, takes) = (statistics.parameters(), statistics.are_the_batchs(&norm));
    let (y, stats) = match conv {
        Filters::Full(conv) => conv::forward(tape, parameters, x, conv, takes)?,
        Filters::Depthwise(conv) => depthwise::forward(tape, parameters, x, conv, takes)?,
        Filters::Separable(conv) => separable::forward(tape, parameters, x, conv, takes)?,
    };
    tape.enter(behind);
    self::norm(tape, statistics, y, stats, norm)
}

/// A batch norm of the batch's own `stats`, or of the running averages if there are none.
fn norm<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    y: Value<D>,
    stats: Option<Tensor<D>>,
    norm: BatchNorm,
) -> Result<Value<D>, DeviceError> {
    match (statistics, stats) {
        (Statistics::Batch(parameters), Some(stats)) => batch_norm::train(tape, parameters, y, &stats, norm),
        (statistics, _) => batch_norm::infer(tape, statistics.parameters(), y, norm),
    }
}
