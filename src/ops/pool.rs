//! Max pooling, zero padding and the global poolings.

use super::conv::nhwc;
use crate::autograd::Tape;
use crate::device::{
    Device, DeviceError, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape,
    MaxPoolBackward, MaxPoolForward, Outside, Padding, PoolShape, Storage,
};
use crate::tensor::{Shape, Tensor};
use crate::value::{Gradient, Slot, Value};

/// How the last feature map becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The mean over all pixels.
    #[default]
    Average,
    /// The maximum over all pixels, as the paper's code has it.
    Max,
}

/// The maximum over windows of `window`×`window`, `stride` apart, which reach over the input's edges by `pad`.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the window does not fit.
pub fn max<D: Device>(
    tape: &mut Tape<D>,
    x: &Value<D>,
    window: usize,
    stride: usize,
    pad: Padding,
    outside: Outside,
) -> Result<Value<D>, DeviceError> {
    let shape = PoolShape::new(nhwc("max pool", x.shape())?, window, stride, pad, outside)?;
    let device = tape.device();
    let mut y = Tensor::new(device, [shape.n, shape.p, shape.q, shape.c], Storage::Activation)?;
    let operands = MaxPoolForward { y: y.view_mut(), x: x.raw.view(), transform: x.transform() };
    device.max_pool_forward(operands, &shape)?;
    tape.check("its output", y.view())?;
    let slot = tape.slot_if(x.slot.is_some());
    if let Some(y) = slot {
        let x = x.clone();
        tape.record(move |tape, _| max_backward(tape, y, x, shape));
    }
    Ok(Value::ready(y, slot))
}

/// Zeros around an image: the maximum over windows of one pixel each.
///
/// # Errors
/// The device's.
pub fn pad<D: Device>(tape: &mut Tape<D>, x: &Value<D>, zeros: Padding) -> Result<Value<D>, DeviceError> {
    max(tape, x, 1, 1, zeros, Outside::Zeros)
}

/// The winners are found again from the input, so nothing but the input is saved.
fn max_backward<D: Device>(tape: &mut Tape<D>, y: Slot, x: Value<D>, shape: PoolShape) -> Result<(), DeviceError> {
    let (Some(gradient), Some(slot)) = (tape.take(y), x.slot) else { return Ok(()) };
    let mut dx = Tensor::new(tape.device(), x.shape(), Storage::Activation)?;
    let dy = gradient.into_tensor()?;
    let operands = MaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: x.raw.view(), transform: x.transform() };
    tape.device().max_pool_backward(operands, &shape)?;
    tape.add(slot, Gradient::Ready(dx))
}

/// One value per channel: `[N, H, W, C] → [N, C]`.
///
/// # Errors
/// The device's.
pub fn global<D: Device>(tape: &mut Tape<D>, x: &Value<D>, kind: Pooling) -> Result<Value<D>, DeviceError> {
    let values = x.values(tape.device())?;
    let shape = global_shape(x.shape())?;
    let mut y = Tensor::new(tape.device(), [shape.n, shape.c], Storage::Full)?;
    let operands = GlobalPoolForward { y: y.view_mut(), x: values.view() };
    match kind {
        Pooling::Average => tape.device().global_average_pool_forward(operands, &shape)?,
        Pooling::Max => tape.device().global_max_pool_forward(operands, &shape)?,
    }
    tape.check("its output", y.view())?;
    let slot = tape.slot_if(x.slot.is_some());
    if let (Some(y), Some(slot)) = (slot, x.slot) {
        let winners = match kind {
            Pooling::Average => None,
            Pooling::Max => Some(values),
        };
        let input = x.shape();
        tape.record(move |tape, _| global_backward(tape, y, slot, input, winners));
    }
    Ok(Value::ready(y, slot))
}

/// `winners` are the input's values, where the maximum was taken; an average needs none.
fn global_backward<D: Device>(
    tape: &mut Tape<D>,
    y: Slot,
    x: Slot,
    input: Shape,
    winners: Option<Tensor<D>>,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(y) else { return Ok(()) };
    let dy = gradient.into_tensor()?;
    let shape = global_shape(input)?;
    let mut dx = Tensor::new(tape.device(), input, Storage::Activation)?;
    match winners {
        None => {
            let operands = GlobalAveragePoolBackward { dx: dx.view_mut(), dy: dy.view() };
            tape.device().global_average_pool_backward(operands, &shape)?;
        }
        Some(values) => {
            let operands = GlobalMaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: values.view() };
            tape.device().global_max_pool_backward(operands, &shape)?;
        }
    }
    tape.add(x, Gradient::Ready(dx))
}

fn global_shape(input: Shape) -> Result<GlobalPoolShape, DeviceError> {
    let [n, h, w, c] = nhwc("global pool", input)?;
    Ok(GlobalPoolShape { n, pixels: h * w, c })
}
