//! Batch norm: a scale and a shift per channel, computed here and applied by whoever loads the value next.

use crate::autograd::Tape;
use crate::device::{
    Activation, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormStatistics, Device, DeviceError, Storage,
};
use crate::parameters::{Parameters, Span};
use crate::tensor::Tensor;
use crate::value::{Gradient, Owed, Slot, Value};

/// A batch norm's parameters and averages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Scale `[C]`.
    pub gamma: Span,
    /// Shift `[C]`; follows gamma in the arena.
    pub beta: Span,
    /// Running mean `[C]`.
    pub mean: Span,
    /// Running variance `[C]`; follows the mean in its arena.
    pub variance: Span,
    /// The bias of the convolution in front, if that leaves it out: it enters the means only.
    pub bias: Option<Span>,
    /// Momentum and epsilon.
    pub constants: BatchNormConstants,
    /// What follows.
    pub activation: Activation,
}

/// The statistics of a batch, `stats [2, C]`: mean and biased variance of each channel. For a value whose convolution took none
/// while it stored it.
///
/// # Errors
/// The device's.
pub fn statistics<D: Device>(tape: &Tape<D>, y: &Value<D>) -> Result<Tensor<D>, DeviceError> {
    let rows = y.shape().into();
    let mut stats = Tensor::new(tape.device(), [2, y.shape().channels()], Storage::Full)?;
    let operands = BatchNormStatistics { stats: stats.view_mut(), y: y.raw.view() };
    tape.device().batch_norm_statistics(operands, rows)?;
    tape.check("the mean and variance of its input", stats.view())?;
    Ok(stats)
}

/// Training: normalises by the batch's own statistics, `stats [2, C]`, and moves the running averages. `y` owes nothing.
///
/// # Errors
/// The device's.
pub fn train<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    y: Value<D>,
    stats: &Tensor<D>,
    layer: BatchNorm,
) -> Result<Value<D>, DeviceError> {
    let channels = y.shape().channels();
    let mut norm = Tensor::new(tape.device(), [4, channels], Storage::Full)?;
    let (running_mean, running_variance) = parameters.averages.pair_mut(layer.mean, layer.variance);
    let weights = &parameters.weights;
    let operands = BatchNormFinalise {
        norm: norm.view_mut(),
        running_mean,
        running_variance,
        stats: stats.view(),
        gamma: weights.view(layer.gamma),
        beta: weights.view(layer.beta),
        bias: layer.bias.map(|bias| weights.view(bias)),
    };
    tape.device().batch_norm_finalise(operands, channels, layer.constants)?;
    tape.check("its scale and shift", norm.view())?;
    tape.check("its moving mean", parameters.averages.view(layer.mean))?;
    tape.check("its moving variance", parameters.averages.view(layer.variance))?;
    let wanted = y.slot.is_some() || parameters.is_trainable(layer.gamma);
    Ok(leave(tape, y, norm, wanted, layer, true))
}

/// Training, for a value that is computed again: normalises by the `norm [4, C]` that [`train`] made of the batch's statistics.
pub fn again<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    y: Value<D>,
    norm: Tensor<D>,
    layer: BatchNorm,
) -> Value<D> {
    let wanted = y.slot.is_some() || parameters.is_trainable(layer.gamma);
    leave(tape, y, norm, wanted, layer, true)
}

/// Inference: normalises by the running averages. A frozen batch norm does so in training too, and passes its gradient on
/// without moving. The bias of the convolution in front gets no gradient either: freezing a prefix of the layers never
/// freezes a batch norm behind a convolution that trains. `y` owes nothing.
///
/// # Errors
/// The device's.
pub fn infer<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    y: Value<D>,
    layer: BatchNorm,
) -> Result<Value<D>, DeviceError> {
    let channels = y.shape().channels();
    let mut norm = Tensor::new(tape.device(), [4, channels], Storage::Full)?;
    let operands = BatchNormFold {
        norm: norm.view_mut(),
        running_mean: parameters.averages.view(layer.mean),
        running_variance: parameters.averages.view(layer.variance),
        gamma: parameters.weights.view(layer.gamma),
        beta: parameters.weights.view(layer.beta),
        bias: layer.bias.map(|bias| parameters.weights.view(bias)),
    };
    tape.device().batch_norm_fold(operands, channels, layer.constants.epsilon)?;
    tape.check("its scale and shift", norm.view())?;
    let wanted = y.slot.is_some();
    Ok(leave(tape, y, norm, wanted, layer, false))
}

/// Leaves the scale, the shift and the activation to whoever reads the value.
fn leave<D: Device>(
    tape: &mut Tape<D>,
    y: Value<D>,
    norm: Tensor<D>,
    wanted: bool,
    layer: BatchNorm,
    trained: bool,
) -> Value<D> {
    let slot = tape.slot_if(wanted);
    if let Some(z) = slot {
        let (raw, norm) = (y.raw.clone(), norm.clone());
        tape.record(move |tape, parameters| backward(tape, parameters, z, y.slot, raw, norm, layer, trained));
    }
    Value { slot, raw: y.raw, owed: Owed::Norm { norm, activation: layer.activation } }
}

/// Turns the gradient behind the activation into `k`, three numbers per channel, and leaves the rest to the convolution in front.
/// `trained` says whether the statistics were the batch's.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    z: Slot,
    y: Option<Slot>,
    raw: Tensor<D>,
    norm: Tensor<D>,
    layer: BatchNorm,
    trained: bool,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(z) else { return Ok(()) };
    let device = tape.device();
    let rows = raw.shape().into();
    let channels = raw.shape().channels();
    let (dz, sums) = match gradient {
        Gradient::Reduced { dz, sums } => (dz, sums),
        unreduced => {
            let da = unreduced.into_tensor()?;
            let mut dz = Tensor::new(device, raw.shape(), Storage::Activation)?;
            let mut sums = Tensor::new(device, [2, channels], Storage::Full)?;
            let operands = BatchNormBackwardReduce {
                dz: dz.view_mut(),
                sums: sums.view_mut(),
                da: da.view(),
                y: raw.view(),
                norm: norm.view(),
                activation: layer.activation,
            };
            device.batch_norm_backward_reduce(operands, rows)?;
            (dz, sums)
        }
    };
    let mut k = Tensor::new(device, [3, channels], Storage::Full)?;
    if trained {
        let (dgamma, dbeta) = parameters.gradients.pair_mut(layer.gamma, layer.beta);
        let operands = BatchNormBackwardFinalise {
            k: k.view_mut(),
            dgamma,
            dbeta,
            sums: sums.view(),
            gamma: parameters.weights.view(layer.gamma),
            norm: norm.view(),
        };
        device.batch_norm_backward_finalise(operands, rows)?;
        tape.check("the gradient of its gamma", parameters.gradients.view(layer.gamma))?;
        tape.check("the gradient of its beta", parameters.gradients.view(layer.beta))?;
    } else {
        let (scale, rest) = D::split_mut(k.view_mut(), channels);
        device.copy(scale, norm.rows(0..1))?;
        device.fill(rest, D::Real::default())?;
    }
    match y {
        Some(y) => tape.add(y, Gradient::Owed { dz, y: raw, k }),
        None => Ok(()),
    }
}
