//! What ends a training step: the check of its numbers, Adam over the whole parameter arena in one call, and the way back
//! if the check failed.
//!
//! The check is three numbers on the device, the *outcome* of a step: its loss, and the squared norms of the gradients and of
//! batch norm's running averages, which the forward pass has moved. A step is *bad* if one of them is not finite. No kernel
//! swallows a NaN and no sum loses an infinity, so whatever went wrong on the way shows there. The device itself then leaves
//! the model as it was, so nobody has to wait for the host to look.

use super::{DeviceError, Memory, check_lengths};

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

/// Refuses operands of [`AdamKernels::adam`], given by their lengths, that contradict one another.
pub fn check_adam(
    w: usize,
    m: usize,
    v: usize,
    gradients: usize,
    outcome: usize,
    rate: usize,
) -> Result<(), DeviceError> {
    check_lengths(
        "adam",
        &[("m", m, w), ("v", v, w), ("gradients", gradients, w), ("outcome", outcome, OUTCOME), ("rate", rate, 1)],
    )
}

/// Refuses operands of [`AdamKernels::restore`], given by their lengths, that contradict one another.
pub fn check_restore(to: usize, from: usize, outcome: usize) -> Result<(), DeviceError> {
    check_lengths("restore", &[("from", from, to), ("outcome", outcome, OUTCOME)])
}

/// The end of a training step.
pub trait AdamKernels: Memory {
    /// `sum[0] = Σ x²`, the squared Euclidean norm, added up in an order that the number of elements and where they begin in
    /// memory fix. Not finite if an element is not, or if the norm is too large for an `f32`'s square: from 1.8e19 on.
    fn squared_norm(&self, sum: Self::ViewMut<'_>, x: Self::View<'_>) -> Result<(), DeviceError>;

    /// Keras's Adam: `m += (g − m)(1 − β₁)`, `v += (g² − v)(1 − β₂)`, `w −= rate·m/(√v + ε)`. ε stays outside the bias
    /// correction, unlike in the paper of Kingma and Ba.
    ///
    /// `rate [1]` is [`AdamConstants::corrected_rate`], in the device's memory because it changes from step to step while
    /// the launch does not. Nothing is written unless all of `outcome [3]` are finite: a bad step leaves the weights alone.
    fn adam(
        &self,
        w: Self::ViewMut<'_>,
        m: Self::ViewMut<'_>,
        v: Self::ViewMut<'_>,
        gradients: Self::View<'_>,
        outcome: Self::View<'_>,
        rate: Self::View<'_>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError>;

    /// `to = from` unless all of `outcome [3]` are finite: puts back what a bad step moved before it was known to be one.
    fn restore(&self, to: Self::ViewMut<'_>, from: Self::View<'_>, outcome: Self::View<'_>) -> Result<(), DeviceError>;
}
