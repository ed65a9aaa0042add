//! Adam over the whole parameter arena in one call.

use super::{DeviceError, Memory};

/// What one Adam step needs besides the arenas.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the raw second moment.
    pub epsilon: f64,
    /// This step's number, from 1.
    pub t: u64,
}

impl AdamStep {
    /// Both bias corrections folded into the rate, as Keras does: `rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ)`.
    pub fn corrected_rate(&self) -> f64 {
        let t = self.t as f64;
        self.rate * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}

/// The optimiser's kernel.
pub trait AdamKernels: Memory {
    /// Keras's Adam: `m += (g − m)(1 − β₁)`, `v += (g² − v)(1 − β₂)`,
    /// `w −= corrected_rate·m/(√v + ε)`. ε stays outside the bias correction, unlike in the paper of Kingma and Ba.
    fn adam(
        &self,
        w: Self::ViewMut<'_>,
        m: Self::ViewMut<'_>,
        v: Self::ViewMut<'_>,
        gradients: Self::View<'_>,
        step: &AdamStep,
    ) -> Result<(), DeviceError>;
}
