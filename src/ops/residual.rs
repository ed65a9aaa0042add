//! Where a residual block ends: the sum of two ways, alone or with all that surrounds it.

use crate::autograd::Tape;
use crate::device::{Activation, Device, DeviceError, Projection, ResidualBackward, ResidualForward, Storage};
use crate::tensor::{Shape, Tensor};
use crate::value::{Gradient, Owed, Slot, Value};

/// `out = a + b`.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the two differ in shape.
pub fn sum<D: Device>(tape: &mut Tape<D>, [a, b]: [&Value<D>; 2]) -> Result<Value<D>, DeviceError> {
    refuse_unequal(a.shape(), b.shape())?;
    let device = tape.device();
    let mut out = Tensor::new(device, a.shape(), Storage::Activation)?;
    device.copy(out.view_mut(), a.values(device)?.view())?;
    device.add(out.view_mut(), b.values(device)?.view())?;
    tape.check("its output", out.view())?;
    let inputs = [a.slot, b.slot];
    let slot = tape.slot_if(inputs.iter().any(Option::is_some));
    if let Some(out) = slot {
        tape.record(move |tape, _| {
            let Some(gradient) = tape.take(out) else { return Ok(()) };
            let dout = gradient.into_tensor()?;
            inputs.into_iter().flatten().try_for_each(|slot| tape.add(slot, Gradient::Ready(dout.clone())))
        });
    }
    Ok(Value::ready(out, slot))
}

/// The junction, in one pass: `out = max(0, branch + around)`, where the branch owes its batch norm, without an activation, and the way
/// around may owe one too (a projection).
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the two ways differ in shape or the branch owes nothing.
pub fn join<D: Device>(tape: &mut Tape<D>, branch: Value<D>, around: Value<D>) -> Result<Value<D>, DeviceError> {
    refuse_unequal(branch.shape(), around.shape())?;
    let shape = branch.shape();
    let Owed::Norm { norm, activation: Activation::Linear } = branch.owed else {
        let reason = "the branch owes no batch norm".to_owned();
        return Err(DeviceError::Shape { kernel: "residual", reason });
    };
    let (slot_branch, branch) = (branch.slot, Way { y: branch.raw, norm });
    let slot_around = around.slot;
    let (values, projection) = match around {
        Value { raw: y, owed: Owed::Norm { norm, activation: Activation::Linear }, .. } => {
            (y.clone(), Some(Way { y, norm }))
        }
        finished => (finished.values(tape.device())?, None),
    };
    let mut out = Tensor::new(tape.device(), shape, Storage::Activation)?;
    let operands = ResidualForward {
        out: out.view_mut(),
        y: branch.y.view(),
        norm: branch.norm.view(),
        shortcut: values.view(),
        shortcut_norm: projection.as_ref().map(|projection| projection.norm.view()),
    };
    tape.device().residual_forward(operands, shape.into())?;
    tape.check("its output", out.view())?;
    let slots = [slot_branch, slot_around];
    let slot = tape.slot_if(slots.iter().any(Option::is_some));
    if let Some(slot) = slot {
        let saved = out.clone();
        tape.record(move |tape, _| backward(tape, slot, saved, slots, branch, projection));
    }
    Ok(Value::ready(out, slot))
}

/// A way whose batch norm, without an activation, is paid at the junction.
struct Way<D: Device> {
    y: Tensor<D>,
    norm: Tensor<D>,
}

fn refuse_unequal(a: Shape, b: Shape) -> Result<(), DeviceError> {
    if a == b {
        return Ok(());
    }
    Err(DeviceError::Shape { kernel: "residual", reason: format!("one way is {a:?}, the other {b:?}") })
}

/// The gradient that the ReLU lets pass goes both ways, with the reductions for each batch norm in front. The sign of `out` says what
/// passes.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    slot: Slot,
    out: Tensor<D>,
    [slot_branch, slot_around]: [Option<Slot>; 2],
    branch: Way<D>,
    projection: Option<Way<D>>,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(slot) else { return Ok(()) };
    let dout = gradient.into_tensor()?;
    let device = tape.device();
    let channels = out.shape().channels();
    let new_sums = || Tensor::new(device, [2, channels], Storage::Full);
    let mut dz = Tensor::new(device, out.shape(), Storage::Activation)?;
    let mut sums = new_sums()?;
    let mut sums_around = projection.as_ref().map(|_| new_sums()).transpose()?;
    let projection = match (&projection, &mut sums_around) {
        (Some(Way { y, norm }), Some(sums)) => {
            Some(Projection { sums: sums.view_mut(), y: y.view(), norm: norm.view() })
        }
        _ => None,
    };
    let operands = ResidualBackward {
        dz: dz.view_mut(),
        sums: sums.view_mut(),
        dout: dout.view(),
        out: out.view(),
        y: branch.y.view(),
        norm: branch.norm.view(),
        projection,
    };
    device.residual_backward(operands, out.shape().into())?;
    if let Some(around) = slot_around {
        let dz = dz.clone();
        let gradient = match sums_around {
            Some(sums) => Gradient::Reduced { dz, sums },
            None => Gradient::Ready(dz),
        };
        tape.add(around, gradient)?;
    }
    match slot_branch {
        Some(branch) => tape.add(branch, Gradient::Reduced { dz, sums }),
        None => Ok(()),
    }
}
