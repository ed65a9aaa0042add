//! The junction where a residual block ends: batch norm, shortcut, sum and ReLU in one pass.

use super::batch_norm::Normalised;
use super::conv::{Activation, rows};
use crate::autograd::{Gradient, Node, Slot, Tape};
use crate::device::{Device, DeviceError, ReduceEpilogue, Storage};
use crate::tensor::Tensor;

/// The other way around a block.
pub enum Shortcut<D: Device> {
    /// The block's input.
    Identity(Activation<D>),
    /// A 1×1 convolution of it and its batch norm.
    Projection(Normalised<D>),
}

/// `out = max(0, branch + shortcut)`.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the two ways differ in shape.
pub fn join<D: Device>(
    tape: &mut Tape<D>,
    branch: Normalised<D>,
    shortcut: Shortcut<D>,
) -> Result<Activation<D>, DeviceError> {
    let shape = branch.shape();
    let other = match &shortcut {
        Shortcut::Identity(activation) => activation.shape(),
        Shortcut::Projection(normalised) => normalised.shape(),
    };
    if shape != other {
        let reason = format!("the branch is {shape:?}, the shortcut {other:?}");
        return Err(DeviceError::Shape { kernel: "residual", reason });
    }
    let device = tape.device();
    let mut out = Tensor::new(device, shape, Storage::Activation)?;
    let (shortcut_values, shortcut_norm, shortcut_slot) = match &shortcut {
        Shortcut::Identity(activation) => (activation.values(device)?, None, activation.slot),
        Shortcut::Projection(projection) => (projection.y.clone(), Some(projection.norm.view()), projection.slot),
    };
    device.residual_forward(
        out.view_mut(),
        branch.y.view(),
        branch.norm.view(),
        shortcut_values.view(),
        shortcut_norm,
        rows(shape),
    )?;
    let slot = tape.slot_if(branch.slot.is_some() || shortcut_slot.is_some());
    if let Some(slot) = slot {
        tape.push(Node::Junction { out: slot, activation: out.clone(), branch, shortcut });
    }
    Ok(Activation { slot, raw: out, owed: None })
}

/// The junction's rule: the masked gradient goes both ways, with the reductions for each batch norm in front.
pub(crate) fn backward<D: Device>(
    tape: &mut Tape<D>,
    out: Slot,
    activation: Tensor<D>,
    branch: Normalised<D>,
    shortcut: Shortcut<D>,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(out) else { return Ok(()) };
    let dout = gradient.into_tensor();
    let device = tape.device();
    let shape = rows(activation.shape());
    let mut dz = Tensor::new(device, activation.shape(), Storage::Activation)?;
    let mut sums = Tensor::new(device, [2, shape.channels], Storage::Full)?;
    let mut projected = match &shortcut {
        Shortcut::Projection(projection) => {
            Some((projection, Tensor::new(device, [2, shape.channels], Storage::Full)?))
        }
        Shortcut::Identity(_) => None,
    };
    device.residual_backward(
        dz.view_mut(),
        sums.view_mut(),
        dout.view(),
        activation.view(),
        branch.y.view(),
        branch.norm.view(),
        projected.as_mut().map(|(projection, sums)| ReduceEpilogue {
            sums: sums.view_mut(),
            y: projection.y.view(),
            norm: projection.norm.view(),
        }),
        shape,
    )?;
    if let Some(slot) = branch.slot {
        tape.put(slot, Gradient::Reduced { dz: dz.clone(), sums });
    }
    match (projected, &shortcut) {
        (Some((projection, sums)), _) => {
            if let Some(slot) = projection.slot {
                tape.put(slot, Gradient::Reduced { dz, sums });
            }
        }
        (None, Shortcut::Identity(input)) => {
            if let Some(slot) = input.slot {
                tape.add(slot, Gradient::Ready(dz))?;
            }
        }
        (None, Shortcut::Projection(_)) => {}
    }
    Ok(())
}
