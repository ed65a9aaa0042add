//! Class-weighted binary cross-entropy, where the backward pass begins.

use crate::device::{Device, DeviceError, LossShape, Pass, Storage};
use crate::tensor::Tensor;

/// Writes the mean loss over batch and classes to `loss [1]`, and returns its gradient with respect to the logits `[N, C]`,
/// the seed of [`Tape::backward`](crate::autograd::Tape::backward). The two come from one pass over the logits. `targets [N, C]` are
/// 0 or 1, `class_weights [C]` weigh a genre's term.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the logits are no matrix.
pub fn binary_cross_entropy<D: Device>(
    device: &D,
    loss: D::ViewMut<'_>,
    logits: &Tensor<D>,
    targets: D::View<'_>,
    class_weights: D::View<'_>,
) -> Result<Tensor<D>, DeviceError> {
    let &[n, classes] = logits.shape().extents() else {
        let reason = format!("logits are [N, C], and these are {:?}", logits.shape());
        return Err(DeviceError::Shape { kernel: "binary cross-entropy", reason });
    };
    let shape = LossShape { n, classes };
    device.enter("loss", Pass::Forward);
    let mut dlogits = Tensor::new(device, [shape.n, shape.classes], Storage::Full)?;
    device.bce_forward_backward(loss, dlogits.view_mut(), logits.view(), targets, class_weights, &shape)?;
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
