//! Class-weighted binary cross-entropy, where the backward pass begins.

use crate::device::{BceForwardBackward, Device, DeviceError, LossShape, Pass, Sigmoid, Storage};
use crate::tensor::Tensor;

/// Writes the mean loss over batch and classes to the first element of `outcome`, and returns its gradient with respect to the
/// logits `[N, C]`, the seed of [`Tape::backward`](crate::autograd::Tape::backward). The two come from one pass over the logits.
/// `targets [N, C]` are from 0 to 1, `class_weights [C]` weigh a genre's term.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the logits are no matrix.
pub fn forward_backward<'a, D: Device>(
    device: &D,
    outcome: &mut Tensor<D>,
    logits: &'a Tensor<D>,
    targets: D::View<'a>,
    class_weights: D::View<'a>,
) -> Result<Tensor<D>, DeviceError> {
    let &[n, classes] = logits.shape().extents() else {
        let reason = format!("logits are [N, C], and these are {:?}", logits.shape());
        return Err(DeviceError::Shape { kernel: "loss", reason });
    };
    let shape = LossShape { n, classes };
    device.enter("loss", Pass::Forward);
    let mut dlogits = Tensor::new(device, [shape.n, shape.classes], Storage::Full)?;
    let (mean, _) = D::split_mut(outcome.view_mut(), 1);
    let operands = BceForwardBackward {
        loss: mean,
        dlogits: dlogits.view_mut(),
        logits: logits.view(),
        targets,
        weights: class_weights,
    };
    device.bce_forward_backward(operands, &shape)?;
    Ok(dlogits)
}

/// Probabilities `[N, C]` from logits.
///
/// # Errors
/// The device's.
pub fn sigmoid<D: Device>(device: &D, logits: &Tensor<D>) -> Result<Tensor<D>, DeviceError> {
    let mut p = Tensor::new(device, logits.shape(), Storage::Full)?;
    device.sigmoid(Sigmoid { p: p.view_mut(), z: logits.view() })?;
    Ok(p)
}
