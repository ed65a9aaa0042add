//! Convolution.

use super::activation;
use crate::autograd::Tape;
use crate::device::{
    Activation, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvShape, Device, DeviceError,
    OutputGradient, Padding, ReduceEpilogue, Storage,
};
use crate::parameters::{Parameters, Span};
use crate::tensor::{Shape, Tensor};
use crate::value::{Gradient, Owed, Slot, Value};

/// A convolution's parameters and what of its geometry does not depend on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// `[K, R, S, C]`.
    pub kernel: Span,
    /// `[K]`, if one is added here: the batch norm behind can do that for nothing.
    pub bias: Option<Span>,
    /// What is applied behind the bias, in the same pass.
    pub activation: Activation,
    /// K.
    pub filters: usize,
    /// R and S.
    pub window: [usize; 2],
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros around the image.
    pub pad: Padding,
}

impl Conv {
    /// The geometry over an input of shape `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the input is no batch of images or too small.
    pub fn shape(&self, input: Shape) -> Result<ConvShape, DeviceError> {
        ConvShape::new(nhwc("convolution", input)?, self.filters, self.window, self.stride, self.pad)
    }
}

/// The four extents of a batch of images.
pub(super) fn nhwc(kernel: &'static str, shape: Shape) -> Result<[usize; 4], DeviceError> {
    shape
        .extents()
        .try_into()
        .map_err(|_| DeviceError::Shape { kernel, reason: format!("{shape:?} is not [N, H, W, C]") })
}

/// `y [N, P, Q, K] = activation(conv(x, kernel) + bias)`; with `statistics`, also the batch statistics of `y` for
/// [`batch_norm::train`](super::batch_norm::train), taken while it is stored.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the input does not fit the layer.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: &Value<D>,
    layer: Conv,
    statistics: bool,
) -> Result<(Value<D>, Option<Tensor<D>>), DeviceError> {
    let shape = layer.shape(x.shape())?;
    let device = tape.device();
    let mut y = Tensor::new(device, [shape.n, shape.p, shape.q, shape.k], Storage::Activation)?;
    let mut stats = match statistics {
        true => Some(Tensor::new(device, [2, shape.k], Storage::Full)?),
        false => None,
    };
    let operands = ConvForward {
        y: y.view_mut(),
        stats: stats.as_mut().map(Tensor::view_mut),
        x: x.raw.view(),
        transform: x.transform(),
        w: parameters.weights.view(layer.kernel),
        bias: layer.bias.map(|bias| parameters.weights.view(bias)),
        activation: layer.activation,
    };
    device.conv_forward(operands, &shape)?;
    tape.check("its output", y.view())?;
    if let Some(stats) = &stats {
        tape.check("the mean and variance of its output", stats.view())?;
    }
    let slot = tape.slot_if(x.slot.is_some() || parameters.is_trainable(layer.kernel));
    let mut y = Value::ready(y, slot);
    if let Some(slot) = slot {
        let mut activated = None;
        if layer.activation != Activation::Linear {
            let norm = tape.identity(shape.k)?;
            activated = Some((y.raw.clone(), norm.clone()));
            y.owed = Owed::Mask { norm, activation: layer.activation };
        }
        let x = x.clone();
        tape.record(move |tape, parameters| backward(tape, parameters, slot, activated, x, layer));
    }
    Ok((y, stats))
}

/// The gradients of kernel and bias, then that of the input: with the activation and the reductions of what is in front, if the input
/// has such. `activated` is the output that an activation gave, with its identity.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    y: Slot,
    activated: Option<(Tensor<D>, Tensor<D>)>,
    x: Value<D>,
    layer: Conv,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(y) else { return Ok(()) };
    let shape = layer.shape(x.shape())?;
    let (gradient, sums) = match activated {
        Some((y, norm)) => {
            let (dz, sums) = match gradient {
                // Whoever read it has undone the activation.
                Gradient::Reduced { dz, sums } => (dz, sums),
                unreduced => activation::undo(tape.device(), unreduced.into_tensor()?, &y, &norm, layer.activation)?,
            };
            (Gradient::Ready(dz), Some(sums))
        }
        None => (gradient, None),
    };
    let formed = tape.device().conv_form_gradient(gradient.of_output(), &shape)?;
    let dy = match &formed {
        Some(dy) => OutputGradient::Ready(D::view(dy, 0..shape.output_len())),
        None => gradient.of_output(),
    };
    if parameters.is_trainable(layer.kernel) {
        let dw = parameters.gradients.view_mut(layer.kernel);
        let operands = ConvBackwardWeights { dw, dy, x: x.raw.view(), transform: x.transform() };
        tape.device().conv_backward_weights(operands, &shape)?;
        tape.check("the gradient of its kernel", parameters.gradients.view(layer.kernel))?;
        if let Some(bias) = layer.bias {
            let dbias = parameters.gradients.view_mut(bias);
            match &sums {
                // The first row is Σ dz.
                Some(sums) => tape.device().add(dbias, sums.rows(0..1))?,
                None => tape.device().conv_backward_bias(ConvBackwardBias { dbias, dy }, &shape)?,
            }
            tape.check("the gradient of its bias", parameters.gradients.view(bias))?;
        }
    }
    let Some(slot) = x.slot else { return Ok(()) };
    let InputGradient { mut dx, accumulate, mut sums } = InputGradient::begin(tape, slot, &x)?;
    let (epilogue, w) = (epilogue(&x, &mut sums), parameters.weights.view(layer.kernel));
    let operands = ConvBackwardData { dx: dx.view_mut(), accumulate, epilogue, dy, w };
    tape.device().conv_backward_data(operands, &shape)?;
    tape.put(slot, Gradient::of_input(dx, sums))
}

/// Where a convolution's data gradient goes.
pub(super) struct InputGradient<D: Device> {
    /// What another reader of the input has left, or room.
    pub dx: Tensor<D>,
    /// Whether it has left anything.
    pub accumulate: bool,
    /// Room for the sums of the batch norm or bias in front, if the input says that its gradient may be reduced.
    pub sums: Option<Tensor<D>>,
}

impl<D: Device> InputGradient<D> {
    pub(super) fn begin(tape: &mut Tape<D>, slot: Slot, x: &Value<D>) -> Result<Self, DeviceError> {
        let earlier = tape.take(slot);
        let accumulate = earlier.is_some();
        let device = tape.device();
        let dx = match earlier {
            Some(earlier) => earlier.into_tensor()?.into_unique(device)?,
            None => Tensor::new(device, x.shape(), Storage::Activation)?,
        };
        let sums = match x.mask() {
            Some(_) => Some(Tensor::new(device, [2, x.shape().channels()], Storage::Full)?),
            None => None,
        };
        Ok(InputGradient { dx, accumulate, sums })
    }
}

/// The activation and the reductions of what is in front, if the input `x` says so.
pub(super) fn epilogue<'a, D: Device>(
    x: &'a Value<D>,
    sums: &'a mut Option<Tensor<D>>,
) -> Option<ReduceEpilogue<D::View<'a>, D::ViewMut<'a>>> {
    match (x.mask(), sums) {
        (Some((norm, activation)), Some(sums)) => {
            let (sums, y, norm) = (sums.view_mut(), x.raw.view(), norm.view());
            Some(ReduceEpilogue { sums, y, norm, activation })
        }
        _ => None,
    }
}
