//! The forward pass: runs a plan's steps and records them on the tape, or records how to run them again.

use super::{Filters, Plan, Step, Work};
use crate::autograd::Tape;
use crate::device::{Device, DeviceError};
use crate::network::Layer;
use crate::ops::batch_norm::{self, BatchNorm};
use crate::ops::{activation, conv, dense, depthwise, pool, residual, separable};
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use crate::value::{Owed, Slot, Value};
use std::ops::Range;

/// Whose statistics batch norm takes.
pub enum Statistics<'a, D: Device> {
    /// Training: the batch's, which also move the running averages. A frozen batch norm keeps to its averages.
    Batch(&'a mut Parameters<D>),
    /// Inference: the running averages.
    Running(&'a Parameters<D>),
    /// Training, for a step that is computed again: what the first time made of the batch's, the `norm [4, C]` of the step's batch norm if
    /// it has one. Moves no running average.
    Again(&'a Parameters<D>, Option<Tensor<D>>),
}

impl<D: Device> Statistics<'_, D> {
    fn parameters(&self) -> &Parameters<D> {
        match self {
            Statistics::Batch(parameters) => parameters,
            Statistics::Running(parameters) | Statistics::Again(parameters, _) => parameters,
        }
    }

    /// Whether this batch norm takes the batch's.
    fn are_the_batchs(&self, norm: &BatchNorm) -> bool {
        !matches!(self, Statistics::Running(_)) && self.parameters().is_trainable(norm.gamma)
    }
}

/// The values that are there, by the place of their layers.
type Values<D> = Vec<Option<Value<D>>>;

/// From images `[N, H, W, 3]` to logits `[N, genres]`. In training, of each of the plan's segments but the last the tape keeps only
/// what later ones read, and runs its steps again in the backward pass.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the images do not fit.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    plan: &Plan,
    images: Value<D>,
) -> Result<Value<D>, DeviceError> {
    let mut values: Values<D> = plan.layers.iter().map(|_| None).collect();
    values[0] = Some(images);
    // Whoever does not train keeps no value longer than its readers need it.
    let again_too = match statistics {
        Statistics::Batch(_) => &plan.segments[..plan.segments.len() - 1],
        _ => &[],
    };
    for segment in again_too {
        let read = |at: &usize| plan.steps[segment.clone()].iter().any(|step| step.inputs.contains(at));
        let inputs = values.iter().enumerate().map(|(at, value)| value.clone().filter(|_| read(&at))).collect();
        let rules = tape.rules();
        let mut norms = Vec::new();
        for step in &plan.steps[segment.clone()] {
            norms.push(take(tape, statistics, step, plan, &mut values)?);
        }
        if tape.forget(rules) {
            let outputs = plan.steps[segment.clone()].iter().map(Step::output);
            let outputs = outputs.filter_map(|at| Some((at, values[at].as_ref()?.slot()?))).collect();
            let (plan, segment) = (plan.clone(), segment.clone());
            tape.record(move |tape, parameters| again(tape, parameters, &plan, segment, inputs, norms, outputs));
        }
    }
    for step in &plan.steps[again_too.last().map_or(0, |segment| segment.end)..] {
        take(tape, statistics, step, plan, &mut values)?;
    }
    values.pop().flatten().ok_or_else(|| misread(&plan.layers[plan.layers.len() - 1], 0))
}

/// From images `[N, H, W, 3]` to the last feature map, `[N, H, W, C]`, in inference mode: all steps in front of the global pooling.
///
/// # Errors
/// As for [`forward`].
pub fn features<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    plan: &Plan,
    images: Value<D>,
) -> Result<Value<D>, DeviceError> {
    let pooling = plan.pooling();
    let mut values: Values<D> = plan.layers.iter().map(|_| None).collect();
    values[0] = Some(images);
    for step in &plan.steps[..pooling] {
        take(tape, &mut Statistics::Running(parameters), step, plan, &mut values)?;
    }
    let pooled = &plan.steps[pooling];
    let features = values[pooled.inputs[0]].take();
    features.ok_or_else(|| misread(&plan.layers[pooled.output()], 0))?.settled(tape.device())
}

/// From the last feature map to logits `[N, genres]`: the global pooling and the dense layers behind it.
///
/// # Errors
/// As for [`forward`].
pub fn head<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    plan: &Plan,
    features: Value<D>,
) -> Result<Value<D>, DeviceError> {
    let steps = &plan.steps[plan.pooling()..];
    let mut values: Values<D> = plan.layers.iter().map(|_| None).collect();
    values[steps[0].inputs[0]] = Some(features);
    for step in steps {
        take(tape, &mut Statistics::Running(parameters), step, plan, &mut values)?;
    }
    values.pop().flatten().ok_or_else(|| misread(&plan.layers[plan.layers.len() - 1], 0))
}

/// Runs a segment's steps again from its inputs, with the first time's `norms`, and has the tape record them this time. The gradients
/// that have arrived for the first time's `outputs` are theirs.
fn again<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    plan: &Plan,
    segment: Range<usize>,
    mut values: Values<D>,
    norms: Vec<Option<Tensor<D>>>,
    outputs: Vec<(usize, Slot)>,
) -> Result<(), DeviceError> {
    for (step, norm) in plan.steps[segment].iter().zip(norms) {
        take(tape, &mut Statistics::Again(parameters, norm), step, plan, &mut values)?;
    }
    for (at, before) in outputs {
        let slot = values[at].as_ref().and_then(Value::slot);
        if let (Some(gradient), Some(slot)) = (tape.take(before), slot) {
            tape.put(slot, gradient)?;
        }
    }
    Ok(())
}

/// Takes a step: its inputs from the `values`, and its own value to them. Returns the `norm [4, C]` that its batch norm has made, if it has
/// one.
fn take<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    step: &Step,
    plan: &Plan,
    values: &mut Values<D>,
) -> Result<Option<Tensor<D>>, DeviceError> {
    if step.work == Work::Images {
        return Ok(None);
    }
    let inputs: Vec<Value<D>> = step.inputs.iter().filter_map(|&input| values[input].clone()).collect();
    step.frees.iter().for_each(|&input| values[input] = None);
    let value = run(tape, statistics, step, &plan.layers, inputs)?;
    let norm = match &value.owed {
        Owed::Norm { norm, .. } => Some(norm.clone()),
        Owed::Nothing | Owed::Mask { .. } => None,
    };
    values[step.output()] = Some(if step.leaves_debt { value } else { value.settled(tape.device())? });
    Ok(norm)
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
        (Statistics::Again(parameters, Some(before)), Some(_)) => {
            Ok(batch_norm::again(tape, parameters, y, before.clone(), norm))
        }
        (statistics, _) => batch_norm::infer(tape, statistics.parameters(), y, norm),
    }
}
