//! Depthwise convolution.

use super::conv::{InputGradient, epilogue, nhwc};
use crate::autograd::Tape;
use crate::device::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseShape, Device, DeviceError, Padding,
    Storage,
};
use crate::parameters::{Parameters, Span};
use crate::tensor::{Shape, Tensor};
use crate::value::{Gradient, Slot, Value};

/// A depthwise convolution's filters and what of its geometry does not depend on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// `[R, S, C]`.
    pub kernel: Span,
    /// R and S.
    pub window: [usize; 2],
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros around the image.
    pub pad: Padding,
}

impl Depthwise {
    /// The geometry over an input of shape `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the input is no batch of images or too small.
    pub fn shape(&self, input: Shape) -> Result<DepthwiseShape, DeviceError> {
        DepthwiseShape::new(nhwc("depthwise convolution", input)?, self.window, self.stride, self.pad)
    }
}

/// `y [N, P, Q, C] = depthwise(x, kernel)`; with `statistics`, also the batch statistics of `y` for
/// [`batch_norm::train`](super::batch_norm::train), taken while it is stored.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the input does not fit the layer.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: &Value<D>,
    layer: Depthwise,
    statistics: bool,
) -> Result<(Value<D>, Option<Tensor<D>>), DeviceError> {
    let shape = layer.shape(x.shape())?;
    let device = tape.device();
    let mut y = Tensor::new(device, [shape.n, shape.p, shape.q, shape.c], Storage::Activation)?;
    let mut stats = match statistics {
        true => Some(Tensor::new(device, [2, shape.c], Storage::Full)?),
        false => None,
    };
    let operands = DepthwiseForward {
        y: y.view_mut(),
        stats: stats.as_mut().map(Tensor::view_mut),
        x: x.raw.view(),
        transform: x.transform(),
        w: parameters.weights.view(layer.kernel),
    };
    device.depthwise_forward(operands, &shape)?;
    tape.check("its output", y.view())?;
    if let Some(stats) = &stats {
        tape.check("the mean and variance of its output", stats.view())?;
    }
    let slot = tape.slot_if(x.slot.is_some() || parameters.is_trainable(layer.kernel));
    if let Some(y) = slot {
        let x = x.clone();
        tape.record(move |tape, parameters| backward(tape, parameters, y, x, layer));
    }
    Ok((Value::ready(y, slot), stats))
}

/// The gradient of the filters, then that of the input.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    y: Slot,
    x: Value<D>,
    layer: Depthwise,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(y) else { return Ok(()) };
    let shape = layer.shape(x.shape())?;
    let dy = gradient.of_output();
    if parameters.is_trainable(layer.kernel) {
        let dw = parameters.gradients.view_mut(layer.kernel);
        let operands = DepthwiseBackwardWeights { dw, dy, x: x.raw.view(), transform: x.transform() };
        tape.device().depthwise_backward_weights(operands, &shape)?;
        tape.check("the gradient of its kernel", parameters.gradients.view(layer.kernel))?;
    }
    let Some(slot) = x.slot else { return Ok(()) };
    let InputGradient { mut dx, accumulate, mut sums } = InputGradient::begin(tape, slot, &x)?;
    let (epilogue, w) = (epilogue(&x, &mut sums), parameters.weights.view(layer.kernel));
    let operands = DepthwiseBackwardData { dx: dx.view_mut(), accumulate, epilogue, dy, w };
    tape.device().depthwise_backward_data(operands, &shape)?;
    tape.put(slot, Gradient::of_input(dx, sums))
}
