//! Adam over the whole parameter arena in one call.

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

/// Refuses operands of [`AdamKernels::adam`], given by their lengths, that contradict one another.
pub fn check_adam(w: usize, m: usize, v: usize, gradients: usize, loss: usize, rate: usize) -> Result<(), DeviceError> {
    check_lengths(
        "adam",
        &[("m", m, w), ("v", v, w), ("gradients", gradients, w), ("loss", loss, 1), ("rate", rate, 1)],
    )
}

/// The optimiser's kernel.
pub trait AdamKernels: Memory {
    /// Keras's Adam: `m += (g − m)(1 − β₁)`, `v += (g² − v)(1 − β₂)`, `w −= rate·m/(√v + ε)`. ε stays outside the bias
    /// correction, unlike in the paper of Kingma and Ba.
    ///
    /// `rate [1]` is [`AdamConstants::corrected_rate`], in the device's memory because it changes from step to step while
    /// the launch does not. If `loss [1]` is not finite nothing is written: a step that diverged leaves the weights alone.
    fn adam(
        &self,
        w: Self::ViewMut<'_>,
        m: Self::ViewMut<'_>,
        v: Self::ViewMut<'_>,
        gradients: Self::View<'_>,
        loss: Self::View<'_>,
        rate: Self::View<'_>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError>;
}
