//! An activation that is computed by itself.

use crate::autograd::Tape;
use crate::device::{Activation, BatchNormApply, BatchNormBackwardReduce, Device, DeviceError, Storage};
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
    let norm = tape.identity(values.shape().channels())?;
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
    let (dx, _) = undo(tape.device(), gradient.into_tensor()?, &values, &norm, activation)?;
    tape.add(x, Gradient::Ready(dx))
}

/// `dz = da·activation′(y)` and its `sums [2, C]`, of which the first row is Σ dz. `norm` is the [identity](Tape::identity).
pub(super) fn undo<D: Device>(
    device: &D,
    da: Tensor<D>,
    y: &Tensor<D>,
    norm: &Tensor<D>,
    activation: Activation,
) -> Result<(Tensor<D>, Tensor<D>), DeviceError> {
    let mut dz = Tensor::new(device, y.shape(), Storage::Activation)?;
    let mut sums = Tensor::new(device, [2, y.shape().channels()], Storage::Full)?;
    let operands = BatchNormBackwardReduce {
        dz: dz.view_mut(),
        sums: sums.view_mut(),
        da: da.view(),
        y: y.view(),
        norm: norm.view(),
        activation,
    };
    device.batch_norm_backward_reduce(operands, y.shape().into())?;
    Ok((dz, sums))
}
