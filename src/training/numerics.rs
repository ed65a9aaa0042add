//! Finding out where in a bad step the first number went wrong.

use crate::checks::NonFinite;
use crate::device::{Device, DeviceError};
use crate::model::{Batch, Model};

/// The first number that is not finite in a step over `batch`: in one of the model's own tensors, if it was there before the
/// step, else in the first result of forward and backward pass that has one. None if there is no such number, and then only a
/// norm was too large to be told.
///
/// Does both passes once more without Adam. The model is then as before, but for its gradients.
///
/// # Errors
/// The device's.
pub fn first_non_finite<D: Device>(
    model: &mut Model<D>,
    batch: &mut Batch<D>,
) -> Result<Option<NonFinite>, DeviceError> {
    for tensor in &model.architecture().tensors {
        let (layer, part) = tensor.name.rsplit_once('/').unwrap_or((&tensor.name, "tensor"));
        if let Some(found) = NonFinite::among(layer, None, &format!("its {part}"), &model.read(tensor)?) {
            return Ok(Some(found));
        }
    }
    model.first_non_finite(batch)
}
