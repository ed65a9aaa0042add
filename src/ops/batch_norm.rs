//! Batch norm: a scale and a shift a channel, computed here and applied by whoever loads the activation next.

use super::conv::{Activation, ConvOutput, rows};
use crate::autograd::{Gradient, Node, Slot, Tape};
use crate::device::{BatchNormConstants, Device, DeviceError, Storage};
use crate::parameters::{Parameters, Span};
use crate::tensor::{Shape, Tensor};

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
    /// The bias of the convolution in front, which enters the means only.
    pub bias: Option<Span>,
    /// Momentum and epsilon.
    pub constants: BatchNormConstants,
}

/// A batch norm's output before any ReLU: raw values and the scale and shift owed to them.
pub struct Normalised<D: Device> {
    pub(crate) slot: Option<Slot>,
    pub(crate) y: Tensor<D>,
    /// `norm [4, C]`.
    pub(crate) norm: Tensor<D>,
}

impl<D: Device> Normalised<D> {
    /// The activation behind a ReLU, still pending.
    pub fn relu(self) -> Activation<D> {
        Activation { slot: self.slot, raw: self.y, owed: Some(self.norm) }
    }

    /// `[N, H, W, C]`.
    pub fn shape(&self) -> Shape {
        self.y.shape()
    }
}

/// Training: normalises by the batch's own statistics and moves the running averages.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the convolution in front took no statistics.
pub fn train<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    x: ConvOutput<D>,
    layer: BatchNorm,
) -> Result<Normalised<D>, DeviceError> {
    let channels = x.y.shape().channels();
    let Some(stats) = &x.stats else {
        let reason = "the convolution in front took no batch statistics".to_string();
        return Err(DeviceError::Shape { kernel: "batch norm", reason });
    };
    let mut norm = Tensor::new(tape.device(), [4, channels], Storage::Full)?;
    let (mean, variance) = parameters.averages.pair_mut(layer.mean, layer.variance);
    let weights = &parameters.weights;
    tape.device().batch_norm_finalise(
        norm.view_mut(),
        mean,
        variance,
        stats.view(),
        weights.view(layer.gamma),
        weights.view(layer.beta),
        layer.bias.map(|bias| weights.view(bias)),
        channels,
        layer.constants,
    )?;
    tape.check("its scale and shift", norm.view())?;
    tape.check("its moving mean", parameters.averages.view(layer.mean))?;
    tape.check("its moving variance", parameters.averages.view(layer.variance))?;
    let wanted = x.slot.is_some() || parameters.is_trainable(layer.gamma);
    Ok(record(tape, x, norm, wanted, Some(layer)))
}

/// Inference: normalises by the running averages. A frozen batch norm does so in training too, and passes its gradient on
/// without moving. The bias of the convolution in front gets no gradient either: freezing a prefix of the layers never
/// freezes a batch norm behind a convolution that trains.
///
/// # Errors
/// The device's.
pub fn infer<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: ConvOutput<D>,
    layer: BatchNorm,
) -> Result<Normalised<D>, DeviceError> {
    let channels = x.y.shape().channels();
    let mut norm = Tensor::new(tape.device(), [4, channels], Storage::Full)?;
    tape.device().batch_norm_fold(
        norm.view_mut(),
        parameters.averages.view(layer.mean),
        parameters.averages.view(layer.variance),
        parameters.weights.view(layer.gamma),
        parameters.weights.view(layer.beta),
        layer.bias.map(|bias| parameters.weights.view(bias)),
        channels,
        layer.constants.epsilon,
    )?;
    tape.check("its scale and shift", norm.view())?;
    let wanted = x.slot.is_some();
    Ok(record(tape, x, norm, wanted, None))
}

fn record<D: Device>(
    tape: &mut Tape<D>,
    x: ConvOutput<D>,
    norm: Tensor<D>,
    wanted: bool,
    trained: Option<BatchNorm>,
) -> Normalised<D> {
    let slot = tape.slot_if(wanted);
    if let Some(z) = slot {
        tape.push(Node::BatchNorm { z, y: x.slot, raw: x.y.clone(), norm: norm.clone(), trained });
    }
    Normalised { slot, y: x.y, norm }
}

/// Batch norm's rule: turns the gradient behind it into `k`, three numbers a channel, and leaves the rest owed.
pub(crate) fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    z: Slot,
    y: Option<Slot>,
    raw: Tensor<D>,
    norm: Tensor<D>,
    trained: Option<BatchNorm>,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(z) else { return Ok(()) };
    let device = tape.device();
    let shape = rows(raw.shape());
    let channels = shape.channels;
    let (dz, sums) = match gradient {
        Gradient::Reduced { dz, sums } => (dz, sums),
        unreduced => {
            let da = unreduced.into_tensor();
            let mut dz = Tensor::new(device, raw.shape(), Storage::Activation)?;
            let mut sums = Tensor::new(device, [2, channels], Storage::Full)?;
            device.batch_norm_backward_reduce(
                dz.view_mut(),
                sums.view_mut(),
                da.view(),
                raw.view(),
                norm.view(),
                crate::device::Activation::Relu,
                shape,
            )?;
            (dz, sums)
        }
    };
    let mut k = Tensor::new(device, [3, channels], Storage::Full)?;
    match trained {
        Some(layer) => {
            let (dgamma, dbeta) = parameters.gradients.pair_mut(layer.gamma, layer.beta);
            let gamma = parameters.weights.view(layer.gamma);
            device.batch_norm_backward_finalise(k.view_mut(), dgamma, dbeta, sums.view(), gamma, norm.view(), shape)?;
            tape.check("the gradient of its gamma", parameters.gradients.view(layer.gamma))?;
            tape.check("the gradient of its beta", parameters.gradients.view(layer.beta))?;
        }
        None => {
            let (scale, rest) = D::split_mut(k.view_mut(), channels);
            device.copy(scale, norm.rows(0..1))?;
            device.fill(rest, D::Real::default())?;
        }
    }
    match y {
        Some(y) => tape.put(y, Gradient::Owed { dz, y: raw, k }),
        None => Ok(()),
    }
}
