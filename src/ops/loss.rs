//! Class-weighted binary cross-entropy and its asymmetric form, where the backward pass begins.

use crate::device::{BceForwardBackward, Device, DeviceError, Focus, LossShape, Pass, Sigmoid, Storage};
use crate::tensor::Tensor;

/// What a training step makes smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// Binary cross-entropy.
    #[default]
    CrossEntropy,
    /// The same, but terms that are nearly right count less: a focal loss, or an asymmetric one.
    Asymmetric(Focus),
}

impl Loss {
    /// The focal loss of Lin et al. 2017: one power for both answers, and no margin.
    pub fn focal(gamma: f64) -> Self {
        Loss::Asymmetric(Focus { positive: gamma, negative: gamma, margin: 0.0 })
    }

    /// Their power.
    pub const FOCAL: f64 = 2.0;

    /// The asymmetric loss of Ridnik et al. 2021 with the constants of their section 4.
    pub const ASYMMETRIC: Loss = Loss::Asymmetric(Focus { positive: 0.0, negative: 4.0, margin: 0.05 });
}

/// A loss, and what it is told of the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// The loss.
    pub loss: Loss,
    /// How much of a label is moved towards ½: 0 for none (Szegedy et al. 2016, section 7, for two answers).
    pub label_smoothing: f64,
}

impl Objective {
    /// What is told of a label, from 0 to 1: label·(1 − E) + E/2.
    pub fn target(&self, label: impl Into<f64>) -> f64 {
        label.into() * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
    }
}

/// Writes the mean loss over batch and classes to the first element of `outcome`, and returns its gradient with respect to the
/// logits `[N, C]`, the seed of [`Tape::backward`](crate::autograd::Tape::backward). The two come from one pass over the logits.
/// `targets [N, C]` are from 0 to 1, `class_weights [C]` weigh a genre's term.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the logits are no matrix.
pub fn forward_backward<'a, D: Device>(
    device: &D,
    loss: &Loss,
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
    match loss {
        Loss::CrossEntropy => device.bce_forward_backward(operands, &shape)?,
        Loss::Asymmetric(focus) => device.asymmetric_forward_backward(operands, focus, &shape)?,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_smoothed_towards_a_half() {
        let targets = |label_smoothing| {
            let objective = Objective { label_smoothing, ..Objective::default() };
            [0u8, 1].map(|label| objective.target(label))
        };
        assert_eq!([targets(0.0), targets(0.25), targets(1.0)], [[0.0, 1.0], [0.125, 0.875], [0.5, 0.5]]);
    }
}
