//! The forward pass: runs a plan's steps and records them on the tape.

use super::{Plan, Step, Work};
use crate::autograd::{Slot, Tape};
use crate::device::{Device, DeviceError};
use crate::network::Layer;
use crate::ops::batch_norm::{self, BatchNorm, Normalised};
use crate::ops::conv::{self, Activation, Conv};
use crate::ops::residual::{self, Shortcut};
use crate::ops::{dense, pool};
use crate::parameters::Parameters;
use crate::tensor::Tensor;

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
}

/// A value on its way from one step to the next.
enum Value<D: Device> {
    Activation(Activation<D>),
    Normalised(Normalised<D>),
    /// `[N, C]`, and where its gradient is kept.
    Vectors(Tensor<D>, Option<Slot>),
}

/// The values that later steps read, at the places of the layers that they are of.
struct Values<D: Device>(Vec<Option<Value<D>>>);

impl<D: Device> Values<D> {
    /// A value that is read for the last time, or a copy of it.
    fn take(&mut self, step: &Step, input: usize) -> Option<Value<D>> {
        if step.frees.contains(&input) {
            return self.0[input].take();
        }
        match &self.0[input] {
            Some(Value::Activation(activation)) => Some(Value::Activation(activation.clone())),
            Some(Value::Vectors(vectors, slot)) => Some(Value::Vectors(vectors.clone(), *slot)),
            Some(Value::Normalised(_)) | None => None,
        }
    }
}

/// From images `[N, H, W, 3]` to logits `[N, genres]`, with the slot from which a backward pass starts. `layers` are those of the
/// network that the plan is of.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the images do not fit.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    plan: &Plan,
    layers: &[Layer],
    images: &Activation<D>,
) -> Result<(Tensor<D>, Option<Slot>), DeviceError> {
    let mut values = Values((0..plan.values).map(|_| None).collect());
    let mut last = 0;
    for step in &plan.steps {
        last = step.output();
        values.0[last] = Some(run(tape, statistics, step, layers, images, &mut values)?);
    }
    match values.0[last].take() {
        Some(Value::Vectors(logits, slot)) => Ok((logits, slot)),
        _ => Err(misread(&layers[last])),
    }
}

fn run<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    step: &Step,
    layers: &[Layer],
    images: &Activation<D>,
    values: &mut Values<D>,
) -> Result<Value<D>, DeviceError> {
    let output = &layers[step.output()];
    let mut inputs = step.inputs.iter().map(|&input| values.take(step, input));
    let inputs: [Option<Value<D>>; 2] = std::array::from_fn(|_| inputs.next().flatten());
    Ok(match (step.work, inputs) {
        (Work::Images, _) => Value::Activation(images.clone()),
        (Work::ConvNorm { conv, norm, relu, layers: at }, [Some(Value::Activation(x)), _]) => {
            let names = at.map(|at| &layers[at].name[..]);
            let z = conv_norm(tape, statistics, &x, conv, norm, names)?;
            if relu { Value::Activation(z.relu()) } else { Value::Normalised(z) }
        }
        (Work::MaxPool { window, stride, pad }, [Some(Value::Activation(x)), _]) => {
            tape.enter(&output.name);
            Value::Activation(pool::max(tape, &x, window, stride, pad)?)
        }
        (Work::Junction, [Some(around), Some(Value::Normalised(branch))]) => {
            let shortcut = match around {
                Value::Activation(x) => Shortcut::Identity(x),
                Value::Normalised(z) => Shortcut::Projection(z),
                Value::Vectors(..) => return Err(misread(output)),
            };
            tape.enter(&output.name);
            Value::Activation(residual::join(tape, branch, shortcut)?)
        }
        (Work::GlobalPool(pooling), [Some(Value::Activation(x)), _]) => {
            tape.enter(&output.name);
            let (vectors, slot) = pool::global(tape, &x, pooling)?;
            Value::Vectors(vectors, slot)
        }
        (Work::Dense(layer), [Some(Value::Vectors(x, slot)), _]) => {
            tape.enter(&output.name);
            let (vectors, slot) = dense::forward(tape, statistics.parameters(), (x, slot), layer)?;
            Value::Vectors(vectors, slot)
        }
        _ => return Err(misread(output)),
    })
}

fn conv_norm<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    x: &Activation<D>,
    conv: Conv,
    norm: BatchNorm,
    [at, behind]: [&str; 2],
) -> Result<Normalised<D>, DeviceError> {
    tape.enter(at);
    match statistics {
        Statistics::Batch(parameters) if parameters.is_trainable(norm.gamma) => {
            let y = conv::forward(tape, parameters, x, conv, true)?;
            tape.enter(behind);
            batch_norm::train(tape, parameters, y, norm)
        }
        _ => {
            let y = conv::forward(tape, statistics.parameters(), x, conv, false)?;
            tape.enter(behind);
            batch_norm::infer(tape, statistics.parameters(), y, norm)
        }
    }
}

/// A step that was given another kind of value than it computes from.
fn misread(layer: &Layer) -> DeviceError {
    let reason = format!("{} cannot be computed from what the layers in front of it leave", layer.name);
    DeviceError::Shape { kernel: "plan", reason }
}
