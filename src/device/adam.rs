//! What ends a training step: the check of its numbers, Adam over the whole parameter arena in one call, and the way back
//! if the check failed.
//!
//! The check is three numbers on the device, the *outcome* of a step: its loss, and the squared norms of the gradients and of
//! batch norm's running averages, which the forward pass has moved. A step is *bad* if one of them is not finite. No kernel
//! swallows a NaN and no sum loses an infinity, so whatever went wrong on the way shows there. The device itself then leaves
//! the model as it was, so nobody has to wait for the host to look.

use super::{DeviceError, Elements, Memory, check_lengths};

/// Adam's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct AdamConstants {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the raw second moment.
    pub epsilon: f64,
}

impl Default for AdamConstants {
    /// Keras's.
    fn default() -> Self {
        AdamConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-7 }
    }
}

impl AdamConstants {
    /// Both bias corrections of step `t`, counted from 1, folded into the learning rate, as Keras does:
    /// `rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ)`.
    pub fn corrected_rate(&self, rate: f64, t: u64) -> f64 {
        let t = t as f64;
        rate * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}

/// Multiplications and additions of a step, for each parameter.
pub const ADAM_FLOPS: u64 = 11;

/// Multiplications and additions of a squared norm, for each element.
pub const SQUARED_NORM_FLOPS: u64 = 2;

/// Numbers in a step's outcome: loss, squared norm of the gradients, squared norm of the running averages.
pub const OUTCOME: usize = 3;

/// Operands of [`AdamKernels::squared_norm`].
pub struct SquaredNorm<V, M> {
    /// `sum [1]`, written.
    pub sum: M,
    /// `x`, any number of elements.
    pub x: V,
}

impl<V: Elements, M: Elements> SquaredNorm<V, M> {
    /// Refuses a sum that is not one number.
    pub fn check(&self) -> Result<(), DeviceError> {
        check_lengths("squared_norm", &[("sum", self.sum.count(), 1)])
    }
}

/// Operands of [`AdamKernels::adam`]. Weights, moments and gradients are of one length.
pub struct AdamStep<V, M> {
    /// `w`, the weights, updated.
    pub w: M,
    /// `m`, the first moments, updated.
    pub m: M,
    /// `v`, the raw second moments, updated.
    pub v: M,
    /// `g`, the gradients.
    pub gradients: V,
    /// `outcome [3]` of the step.
    pub outcome: V,
    /// `rate [1]`, which is [`AdamConstants::corrected_rate`]: in the device's memory because it changes from step to step
    /// while the launch does not.
    pub rate: V,
}

impl<V: Elements, M: Elements> AdamStep<V, M> {
    /// Refuses operands that contradict one another.
    pub fn check(&self) -> Result<(), DeviceError> {
        let len = self.w.count();
        let operands = [
            ("m", self.m.count(), len),
            ("v", self.v.count(), len),
            ("gradients", self.gradients.count(), len),
            ("outcome", self.outcome.count(), OUTCOME),
            ("rate", self.rate.count(), 1),
        ];
        check_lengths("adam", &operands)
    }
}

/// Operands of [`AdamKernels::restore`].
pub struct Restore<V, M> {
    /// What a step moved, written if that step was bad.
    pub to: M,
    /// What it was before, as long.
    pub from: V,
    /// `outcome [3]` of the step.
    pub outcome: V,
}

impl<V: Elements, M: Elements> Restore<V, M> {
    /// Refuses operands that contradict one another.
    pub fn check(&self) -> Result<(), DeviceError> {
        let operands = [("from", self.from.count(), self.to.count()), ("outcome", self.outcome.count(), OUTCOME)];
        check_lengths("restore", &operands)
    }
}

/// The end of a training step.
pub trait AdamKernels: Memory {
    /// `sum[0] = Σ x²`, the squared Euclidean norm, added up in an order that the number of elements and where they begin in
    /// memory fix. Not finite if an element is not, or if the norm is too large for an `f32`'s square: from 1.8e19 on.
    fn squared_norm(&self, operands: SquaredNorm<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;

    /// Keras's Adam: `m += (g − m)(1 − β₁)`, `v += (g² − v)(1 − β₂)`, `w −= rate·m/(√v + ε)`. ε stays outside the bias
    /// correction, unlike in the paper of Kingma and Ba.
    ///
    /// Nothing is written unless all of `outcome` are finite: a bad step leaves the weights alone.
    fn adam(
        &self,
        operands: AdamStep<Self::View<'_>, Self::ViewMut<'_>>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError>;

    /// `to = from` unless all of `outcome` are finite: puts back what a bad step moved before it was known to be one.
    fn restore(&self, operands: Restore<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;
}
