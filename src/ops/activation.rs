//! An activation that is not computed together with the layer in front of it.

use crate::autograd::Tape;
use crate::device::{Activation, BatchNormBackwardReduce, Device, DeviceError, Storage};
use crate::tensor::Tensor;
use crate::value::{Gradient, Owed, Slot, Value};

/// `a = activation(x)`, left to whoever reads the value: it is owed as if behind a batch norm that changes nothing. Others may read `x`
/// itself, so the gradient of `a` has a slot of its own.
///
/// # Errors
/// The device's.
pub fn forward<D: Device>(tape: &mut Tape<D>, x: &Value<D>, activation: Activation) -> Result<Value<D>, DeviceError> {
    let raw = x.values(tape.device())?;
    let norm = tape.identity(raw.shape().channels())?;
    let slot = tape.slot_if(x.slot.is_some());
    if let (Some(a), Some(x)) = (slot, x.slot) {
        let (raw, norm) = (raw.clone(), norm.clone());
        tape.record(move |tape, _| backward(tape, a, x, raw, norm, activation));
    }
    Ok(Value { slot, raw, owed: Owed::Norm { norm, activation } })
}

/// What the activation lets pass goes to `x`.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    a: Slot,
    x: Slot,
    raw: Tensor<D>,
    norm: Tensor<D>,
    activation: Activation,
) -> Result<(), DeviceError> {
    let dx = match tape.take(a) {
        None => return Ok(()),
        // Whoever read the value has undone the activation. The sums are for a batch norm, and there is none.
        Some(Gradient::Reduced { dz, .. }) => dz,
        Some(unreduced) => undo(tape.device(), unreduced.into_tensor()?, &raw, &norm, activation)?.0,
    };
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
