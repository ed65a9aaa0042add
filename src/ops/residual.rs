//! Where a residual block ends: the sum of two ways, with the batch norms that they still owe.

use super::activation;
use crate::autograd::Tape;
use crate::device::{Activation, Device, DeviceError, Masked, Projection, ResidualBackward, ResidualForward, Storage};
use crate::tensor::{Shape, Tensor};
use crate::value::{Gradient, Owed, Slot, Value};

/// The junction: `out = a + b`, or with a `relu` the larger of that and 0. One pass computes it, and the batch norm that either way owes,
/// or both, if no activation follows that.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the two ways differ in shape.
pub fn join<D: Device>(tape: &mut Tape<D>, [a, b]: [&Value<D>; 2], relu: bool) -> Result<Value<D>, DeviceError> {
    refuse_unequal(a.shape(), b.shape())?;
    // The kernel pays for one way, and for the one around it if that owes too.
    let (branch, projection, [slot_branch, slot_around], around) = match [Way::of(a), Way::of(b)] {
        [projection, Some(branch)] => (branch, projection, [b.slot, a.slot], a),
        [Some(branch), None] => (branch, None, [a.slot, b.slot], b),
        [None, None] => {
            let sum = sum(tape, [a, b])?;
            return if relu { activation::forward(tape, &sum, Activation::Relu) } else { Ok(sum) };
        }
    };
    let shortcut = match &projection {
        Some(Way { y, .. }) => y.clone(),
        None => around.values(tape.device())?,
    };
    let mut out = Tensor::new(tape.device(), a.shape(), Storage::Activation)?;
    let operands = ResidualForward {
        out: out.view_mut(),
        y: branch.y.view(),
        norm: branch.norm.view(),
        shortcut: shortcut.view(),
        shortcut_norm: projection.as_ref().map(|projection| projection.norm.view()),
        relu,
    };
    tape.device().residual_forward(operands, a.shape().into())?;
    tape.check("its output", out.view())?;
    let slots = [slot_branch, slot_around];
    let slot = tape.slot_if(slots.iter().any(Option::is_some));
    if let Some(slot) = slot {
        let passed = relu.then(|| out.clone());
        tape.record(move |tape, _| backward(tape, slot, passed, slots, branch, projection));
    }
    Ok(Value::ready(out, slot))
}

/// A way whose batch norm, without an activation, is paid at the junction.
struct Way<D: Device> {
    y: Tensor<D>,
    norm: Tensor<D>,
}

impl<D: Device> Way<D> {
    fn of(value: &Value<D>) -> Option<Self> {
        match &value.owed {
            Owed::Norm { norm, activation: Activation::Linear } => {
                Some(Way { y: value.raw.clone(), norm: norm.clone() })
            }
            _ => None,
        }
    }
}

fn refuse_unequal(a: Shape, b: Shape) -> Result<(), DeviceError> {
    if a == b {
        return Ok(());
    }
    Err(DeviceError::Shape { kernel: "residual", reason: format!("one way is {a:?}, the other {b:?}") })
}

/// `out = a + b`, where neither owes a batch norm that a junction could pay.
fn sum<D: Device>(tape: &mut Tape<D>, [a, b]: [&Value<D>; 2]) -> Result<Value<D>, DeviceError> {
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

/// One gradient goes both ways, with the reductions for each batch norm in front: what the ReLU lets pass, as the sign of `out` says,
/// or what arrives, if there was none.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    slot: Slot,
    out: Option<Tensor<D>>,
    [slot_branch, slot_around]: [Option<Slot>; 2],
    branch: Way<D>,
    projection: Option<Way<D>>,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(slot) else { return Ok(()) };
    let dout = gradient.into_tensor()?;
    let device = tape.device();
    let new_sums = || Tensor::new(device, [2, dout.shape().channels()], Storage::Full);
    let mut dz = out.as_ref().map(|out| Tensor::new(device, out.shape(), Storage::Activation)).transpose()?;
    let mut sums = new_sums()?;
    let mut sums_around = projection.as_ref().map(|_| new_sums()).transpose()?;
    let projection = match (&projection, &mut sums_around) {
        (Some(Way { y, norm }), Some(sums)) => {
            Some(Projection { sums: sums.view_mut(), y: y.view(), norm: norm.view() })
        }
        _ => None,
    };
    let masked = match (&out, &mut dz) {
        (Some(out), Some(dz)) => Some(Masked { dz: dz.view_mut(), out: out.view() }),
        _ => None,
    };
    let (sums_of_branch, y, norm) = (sums.view_mut(), branch.y.view(), branch.norm.view());
    let operands = ResidualBackward { masked, sums: sums_of_branch, dout: dout.view(), y, norm, projection };
    device.residual_backward(operands, dout.shape().into())?;
    let dz = dz.unwrap_or(dout);
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
