//! Sigmoid and class-weighted binary cross-entropy, from logits.

use super::{DeviceError, Memory};

/// The geometry of the loss: one row per poster, one column per genre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LossShape {
    /// Posters.
    pub n: usize,
    /// Genres.
    pub classes: usize,
}

impl LossShape {
    /// Multiplications, additions and functions of the loss and its gradient.
    pub fn flops(&self) -> u64 {
        12 * (self.n * self.classes) as u64
    }
}

/// Those of a sigmoid, for each element.
pub const SIGMOID_FLOPS: u64 = 2;

/// The loss and the probabilities.
pub trait LossKernels: Memory {
    /// `loss[0] = 1/(N·C) Σ weight[c]·(max(z,0) − z·t + ln(1 + e^−|z|))` and its gradient
    /// `dlogits = weight[c]·(σ(z) − t)/(N·C)`, in one pass. This form overflows for no logit.
    ///
    /// `targets [N, C]` are 0 or 1; `weights [C]` weigh a genre's whole term.
    fn bce_forward_backward(
        &self,
        loss: Self::ViewMut<'_>,
        dlogits: Self::ViewMut<'_>,
        logits: Self::View<'_>,
        targets: Self::View<'_>,
        weights: Self::View<'_>,
        shape: &LossShape,
    ) -> Result<(), DeviceError>;

    /// `p = 1/(1 + e^−z)`.
    fn sigmoid(&self, p: Self::ViewMut<'_>, z: Self::View<'_>) -> Result<(), DeviceError>;
}
