//! Class-weighted binary cross-entropy, where the backward pass begins.

use crate::device::{Device, DeviceError, LossShape, Pass, Storage};
use crate::tensor::Tensor;

/// Writes the mean loss over batch and classes to `loss [1]`, and returns its gradient with respect to the logits `[N, C]`,
/// the seed of [`Tape::backward`](crate::autograd::Tape::backward). The two come from one pass over the logits.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the operands' shapes disagree.
pub fn binary_cross_entropy<D: Device>(
    device: &D,
    loss: &mut Tensor<D>,
    logits: &Tensor<D>,
    targets: &Tensor<D>,
    class_weights: &Tensor<D>,
) -> Result<Tensor<D>, DeviceError> {
    let shape = match (logits.shape().extents(), class_weights.shape().extents()) {
        (&[n, classes], &[weights]) if targets.shape() == logits.shape() && weights == classes => {
            LossShape { n, classes }
        }
        _ => {
            let (z, t, w) = (logits.shape(), targets.shape(), class_weights.shape());
            let reason = format!("logits {z:?}, targets {t:?} and class weights {w:?} do not match");
            return Err(DeviceError::Shape { kernel: "binary cross-entropy", reason });
        }
    };
    device.enter("loss", Pass::Forward);
    let mut dlogits = Tensor::new(device, [shape.n, shape.classes], Storage::Full)?;
    device.bce_forward_backward(
        loss.view_mut(),
        dlogits.view_mut(),
        logits.view(),
        targets.view(),
        class_weights.view(),
        &shape,
    )?;
    Ok(dlogits)
}

/// Probabilities `[N, C]` from logits.
///
/// # Errors
/// The device's.
pub fn sigmoid<D: Device>(device: &D, logits: &Tensor<D>) -> Result<Tensor<D>, DeviceError> {
    let mut p = Tensor::new(device, logits.shape(), Storage::Full)?;
    device.sigmoid(p.view_mut(), logits.view())?;
    Ok(p)
}
