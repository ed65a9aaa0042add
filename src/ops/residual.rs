//! The junction where a residual block ends: batch norm, shortcut, sum and ReLU in one pass.

use super::batch_norm::Normalised;
use super::conv::{Activation, rows};
use crate::autograd::{Gradient, Node, Slot, Tape};
use crate::device::{Device, DeviceError, Projection, Storage};
use crate::tensor::{Shape, Tensor};

/// The other way around a block.
pub enum Shortcut<D: Device> {
    /// The block's input.
    Identity(Activation<D>),
    /// A 1×1 convolution of it and its batch norm.
    Projection(Normalised<D>),
}

impl<D: Device> Shortcut<D> {
    fn slot(&self) -> Option<Slot> {
        match self {
            Shortcut::Identity(activation) => activation.slot,
            Shortcut::Projection(normalised) => normalised.slot,
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Shortcut::Identity(activation) => activation.shape(),
            Shortcut::Projection(normalised) => normalised.shape(),
        }
    }
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
    if shape != shortcut.shape() {
        let reason = format!("the branch is {shape:?}, the shortcut {:?}", shortcut.shape());
        return Err(DeviceError::Shape { kernel: "residual", reason });
    }
    let device = tape.device();
    let mut out = Tensor::new(device, shape, Storage::Activation)?;
    let (shortcut_values, shortcut_norm) = match &shortcut {
        Shortcut::Identity(activation) => (activation.values(device)?, None),
        Shortcut::Projection(projection) => (projection.y.clone(), Some(projection.norm.view())),
    };
    device.residual_forward(
        out.view_mut(),
        branch.y.view(),
        branch.norm.view(),
        shortcut_values.view(),
        shortcut_norm,
        rows(shape),
    )?;
    tape.check("its output", out.view())?;
    let slot = tape.slot_if(branch.slot.is_some() || shortcut.slot().is_some());
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
    let mut shortcut_sums = match &shortcut {
        Shortcut::Projection(_) => Some(Tensor::new(device, [2, shape.channels], Storage::Full)?),
        Shortcut::Identity(_) => None,
    };
    let projection = match (&shortcut, &mut shortcut_sums) {
        (Shortcut::Projection(Normalised { y, norm, .. }), Some(sums)) => {
            Some(Projection { sums: sums.view_mut(), y: y.view(), norm: norm.view() })
        }
        _ => None,
    };
    device.residual_backward(
        dz.view_mut(),
        sums.view_mut(),
        dout.view(),
        activation.view(),
        branch.y.view(),
        branch.norm.view(),
        projection,
        shape,
    )?;
    let aside = match shortcut_sums {
        Some(sums) => Gradient::Reduced { dz: dz.clone(), sums },
        None => Gradient::Ready(dz.clone()),
    };
    if let Some(slot) = shortcut.slot() {
        tape.add(slot, aside)?;
    }
    match branch.slot {
        Some(slot) => tape.put(slot, Gradient::Reduced { dz, sums }),
        None => Ok(()),
    }
}
