//! Convolution, and the activations it reads and leaves.

use crate::autograd::{Gradient, Node, Slot, Tape};
use crate::device::Activation::Relu;
use crate::device::{ConvShape, Device, DeviceError, InputTransform, OutputGradient, ReduceEpilogue, Storage};
use crate::parameters::{Parameters, Span};
use crate::tensor::{Shape, Tensor};

/// A convolution's parameters and what of its geometry does not depend on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// `[K, R, S, C]`.
    pub kernel: Span,
    /// K.
    pub filters: usize,
    /// R and S.
    pub window: [usize; 2],
    /// Step between output pixels.
    pub stride: usize,
    /// Zero pixels on each side.
    pub pad: usize,
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

/// What flows between layers: finished values, or values with a batch norm's scale, shift and ReLU still owed.
pub struct Activation<D: Device> {
    pub(crate) slot: Option<Slot>,
    pub(crate) raw: Tensor<D>,
    /// `norm [4, C]` of the batch norm in front, if it is still owed.
    pub(crate) owed: Option<Tensor<D>>,
}

impl<D: Device> Activation<D> {
    /// The network's input. With a slot, the tape keeps its gradient.
    pub fn input(values: Tensor<D>, slot: Option<Slot>) -> Self {
        Activation { slot, raw: values, owed: None }
    }

    /// `[N, H, W, C]`.
    pub fn shape(&self) -> Shape {
        self.raw.shape()
    }

    /// The values, paid for now if they are still owed.
    pub fn values(&self, device: &D) -> Result<Tensor<D>, DeviceError> {
        let Some(norm) = &self.owed else { return Ok(self.raw.clone()) };
        let mut values = Tensor::new(device, self.shape(), Storage::Activation)?;
        device.batch_norm_apply(values.view_mut(), self.raw.view(), norm.view(), Relu, rows(self.shape()))?;
        Ok(values)
    }

    /// What a kernel that pays while loading needs to know.
    pub(super) fn transform(&self) -> Option<InputTransform<D::View<'_>>> {
        self.owed.as_ref().map(|norm| InputTransform { norm: norm.view(), activation: Relu })
    }
}

impl<D: Device> Clone for Activation<D> {
    fn clone(&self) -> Self {
        Activation { slot: self.slot, raw: self.raw.clone(), owed: self.owed.clone() }
    }
}

/// A row a pixel.
pub(super) fn rows(shape: Shape) -> crate::device::Rows {
    let channels = shape.channels();
    crate::device::Rows { rows: shape.len() / channels.max(1), channels }
}

/// A convolution's output, with the statistics the batch norm behind it asked for.
pub struct ConvOutput<D: Device> {
    pub(crate) slot: Option<Slot>,
    pub(crate) y: Tensor<D>,
    /// `stats [2, K]`.
    pub(crate) stats: Option<Tensor<D>>,
}

/// `y [N, P, Q, K] = conv(x, kernel)`, the bias left to the batch norm behind it; with `statistics`, also the batch statistics of `y` for
/// [`batch_norm::train`](super::batch_norm::train).
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the input does not fit the layer.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: &Activation<D>,
    layer: Conv,
    statistics: bool,
) -> Result<ConvOutput<D>, DeviceError> {
    let shape = layer.shape(x.shape())?;
    let device = tape.device();
    let mut y = Tensor::new(device, [shape.n, shape.p, shape.q, shape.k], Storage::Activation)?;
    let mut stats = match statistics {
        true => Some(Tensor::new(device, [2, shape.k], Storage::Full)?),
        false => None,
    };
    device.conv_forward(
        y.view_mut(),
        stats.as_mut().map(Tensor::view_mut),
        x.raw.view(),
        x.transform(),
        parameters.weights.view(layer.kernel),
        None,
        &shape,
    )?;
    tape.check("its output", y.view())?;
    if let Some(stats) = &stats {
        tape.check("the mean and variance of its output", stats.view())?;
    }
    let slot = tape.slot_if(x.slot.is_some() || parameters.is_trainable(layer.kernel));
    if let Some(slot) = slot {
        tape.push(Node::Conv { y: slot, x: x.clone(), layer });
    }
    Ok(ConvOutput { slot, y, stats })
}

/// The convolution's rule: the weight gradient, then the data gradient with the mask and the reductions of the batch norm
/// in front, if the input still owed it.
pub(crate) fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    y: Slot,
    x: Activation<D>,
    layer: Conv,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(y) else { return Ok(()) };
    let shape = layer.shape(x.shape())?;
    let formed = match &gradient {
        Gradient::Owed { dz, y, k } => tape.device().conv_form_gradient(dz.view(), y.view(), k.view(), &shape)?,
        Gradient::Ready(_) | Gradient::Reduced { .. } => None,
    };
    let dy = match (&formed, &gradient) {
        (Some(dy), _) => OutputGradient::Ready(D::view(dy, 0..shape.output_len())),
        (None, Gradient::Ready(dy) | Gradient::Reduced { dz: dy, .. }) => OutputGradient::Ready(dy.view()),
        (None, Gradient::Owed { dz, y, k }) => OutputGradient::Owed { dz: dz.view(), y: y.view(), k: k.view() },
    };
    if parameters.is_trainable(layer.kernel) {
        let dw = parameters.gradients.view_mut(layer.kernel);
        tape.device().conv_backward_weights(dw, dy, x.raw.view(), x.transform(), &shape)?;
        tape.check("the gradient of its kernel", parameters.gradients.view(layer.kernel))?;
    }
    let Some(slot) = x.slot else { return Ok(()) };
    let earlier = tape.take(slot);
    let accumulate = earlier.is_some();
    let device = tape.device();
    let mut dx = match earlier {
        Some(earlier) => earlier.into_tensor().into_unique(device)?,
        None => Tensor::new(device, x.shape(), Storage::Activation)?,
    };
    let mut sums = match &x.owed {
        Some(_) => Some(Tensor::new(device, [2, shape.c], Storage::Full)?),
        None => None,
    };
    let epilogue = match (&x.owed, &mut sums) {
        (Some(norm), Some(sums)) => {
            Some(ReduceEpilogue { sums: sums.view_mut(), y: x.raw.view(), norm: norm.view(), activation: Relu })
        }
        _ => None,
    };
    let w = parameters.weights.view(layer.kernel);
    device.conv_backward_data(dx.view_mut(), accumulate, epilogue, dy, w, &shape)?;
    tape.put(
        slot,
        match sums {
            Some(sums) => Gradient::Reduced { dz: dx, sums },
            None => Gradient::Ready(dx),
        },
    )
}
