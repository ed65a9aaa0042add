//! Sigmoid and class-weighted binary cross-entropy, from logits.

use super::{DeviceError, Elements, Memory, check_lengths};

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

/// Multiplications, additions and functions of a sigmoid, for each element.
pub const SIGMOID_FLOPS: u64 = 2;

/// Operands of [`LossKernels::bce_forward_backward`].
pub struct BceForwardBackward<V, M> {
    /// `loss [1]`, written.
    pub loss: M,
    /// `dlogits [N, C]`, written.
    pub dlogits: M,
    /// `logits [N, C]`, the `z` of the formula.
    pub logits: V,
    /// `targets [N, C]`, its `t`: from 0 to 1.
    pub targets: V,
    /// `weights [C]`, one for each genre.
    pub weights: V,
}

impl<V: Elements, M: Elements> BceForwardBackward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, &LossShape { n, classes }: &LossShape) -> Result<(), DeviceError> {
        let operands = [
            ("loss", self.loss.count(), 1),
            ("dlogits", self.dlogits.count(), n * classes),
            ("logits", self.logits.count(), n * classes),
            ("targets", self.targets.count(), n * classes),
            ("weights", self.weights.count(), classes),
        ];
        check_lengths("bce_forward_backward", &operands)
    }
}

/// Operands of [`LossKernels::sigmoid`], both of one length.
pub struct Sigmoid<V, M> {
    /// `p`, the probabilities, written.
    pub p: M,
    /// `z`, the logits.
    pub z: V,
}

impl<V: Elements, M: Elements> Sigmoid<V, M> {
    /// Refuses logits that are not as many as the probabilities.
    pub fn check(&self) -> Result<(), DeviceError> {
        check_lengths("sigmoid", &[("z", self.z.count(), self.p.count())])
    }
}

/// The loss and the probabilities.
pub trait LossKernels: Memory {
    /// `loss[0] = 1/(N·C) Σ weight[c]·(max(z,0) − z·t + ln(1 + e^−|z|))` and its gradient
    /// `dlogits = weight[c]·(σ(z) − t)/(N·C)`, in one pass. This form overflows for no logit.
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &LossShape,
    ) -> Result<(), DeviceError>;

    /// `p = 1/(1 + e^−z)`.
    fn sigmoid(&self, operands: Sigmoid<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;
}
