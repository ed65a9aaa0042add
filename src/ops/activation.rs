//! An activation that is computed by itself.

use crate::autograd::Tape;
use crate::device::{Activation, BatchNormApply, BatchNormBackwardReduce, Device, DeviceError, Real, Storage};
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use crate::value::{Gradient, Slot, Value};

/// `a = activation(x)`. Behind a batch norm it costs nothing to leave it to the reader instead: see
/// [`batch_norm`](super::batch_norm).
///
/// # Errors
/// The device's.
pub fn forward<D: Device>(tape: &mut Tape<D>, x: &Value<D>, activation: Activation) -> Result<Value<D>, DeviceError> {
    let values = x.values(tape.device())?;
    let norm = identity(tape.device(), values.shape().channels())?;
    let mut a = Tensor::new(tape.device(), values.shape(), Storage::Activation)?;
    let rows = values.shape().into();
    let operands = BatchNormApply { a: a.view_mut(), y: values.view(), norm: norm.view(), activation };
    tape.device().batch_norm_apply(operands, rows)?;
    tape.check("its output", a.view())?;
    let slot = tape.slot_if(x.slot.is_some());
    if let (Some(a), Some(x)) = (slot, x.slot) {
        tape.record(move |tape, parameters| backward(tape, parameters, a, x, values, norm, activation));
    }
    Ok(Value::ready(a, slot))
}

fn backward<D: Device>(
    tape: &mut Tape<D>,
    _: &mut Parameters<D>,
    a: Slot,
    x: Slot,
    values: Tensor<D>,
    norm: Tensor<D>,
    activation: Activation,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(a) else { return Ok(()) };
    let da = gradient.into_tensor()?;
    let device = tape.device();
    let mut dx = Tensor::new(device, values.shape(), Storage::Activation)?;
    let mut sums = Tensor::new(device, [2, values.shape().channels()], Storage::Full)?;
    let operands = BatchNormBackwardReduce {
        dz: dx.view_mut(),
        sums: sums.view_mut(),
        da: da.view(),
        y: values.view(),
        norm: norm.view(),
        activation,
    };
    device.batch_norm_backward_reduce(operands, values.shape().into())?;
    tape.add(x, Gradient::Ready(dx))
}

/// The `norm [4, C]` of a batch norm that changes nothing, so that its kernels compute the activation alone.
fn identity<D: Device>(device: &D, channels: usize) -> Result<Tensor<D>, DeviceError> {
    let mut norm = Tensor::new(device, [4, channels], Storage::Full)?;
    device.fill(norm.view_mut(), D::Real::default())?;
    let (scale, _) = D::split_mut(norm.view_mut(), channels);
    device.fill(scale, D::Real::from_f64(1.0))?;
    Ok(norm)
}
