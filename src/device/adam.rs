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
    /// A gradient whose Euclidean norm over all parameters is larger is scaled down to it.
    pub clip_norm: f64,
}

impl Default for AdamConstants {
    /// Keras's, and no norm too large.
    fn default() -> Self {
        AdamConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-7, clip_norm: f64::INFINITY }
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
pub const ADAM_FLOPS: u64 = 12;

/// Multiplications and additions of a squared norm, for each element.
pub const SQUARED_NORM_FLOPS: u64 = 2;

/// Numbers in a step's outcome: loss, squared norm of the gradients, squared norm of the running averages.
pub const OUTCOME: usize = 3;

/// Rates of a step, which change from one to the next while its launches do not: Adam's corrected rate, and the share of itself that
/// each weight which decays loses.
pub const RATES: usize = 2;

/// Weights whose marks are one number: see [`AdamStep::decaying`]. As many bits are exact in every number that a device has.
pub const MARKS: usize = 16;

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
    /// Which weights decay, none without it: a number for each sixteen, the sum of 2ⁱ over those whose place among them is i.
    pub decaying: Option<V>,
    /// `outcome [3]` of the step.
    pub outcome: V,
    /// `rates [2]`: [`AdamConstants::corrected_rate`], and the learning rate times the weight decay. In the device's memory because
    /// they change from step to step while the launch does not.
    pub rates: V,
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
            ("rates", self.rates.count(), RATES),
        ];
        check_lengths("adam", &operands)?;
        match &self.decaying {
            Some(marks) => check_lengths("adam", &[("decaying", marks.count(), len.div_ceil(MARKS))]),
            None => Ok(()),
        }
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

/// Operands of [`AdamKernels::average`].
pub struct Average<V, M> {
    /// The moving average, updated.
    pub to: M,
    /// What is averaged, as long.
    pub from: V,
    /// `outcome [3]` of the step.
    pub outcome: V,
    /// `towards [1]`, the weight of the new value: in the device's memory, as the optimiser's rates are.
    pub towards: V,
}

impl<V: Elements, M: Elements> Average<V, M> {
    /// Refuses operands that contradict one another.
    pub fn check(&self) -> Result<(), DeviceError> {
        let operands = [
            ("from", self.from.count(), self.to.count()),
            ("outcome", self.outcome.count(), OUTCOME),
            ("towards", self.towards.count(), 1),
        ];
        check_lengths("average", &operands)
    }
}

/// Multiplications and additions of a moving average, for each element.
pub const AVERAGE_FLOPS: u64 = 3;

/// The end of a training step.
pub trait AdamKernels: Memory {
    /// `sum[0] = Σ x²`, the squared Euclidean norm, added up in an order that the number of elements and where they begin in
    /// memory fix. Not finite if an element is not, or if the norm is too large for an `f32`'s square: from 1.8e19 on.
    fn squared_norm(&self, operands: SquaredNorm<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;

    /// Keras's Adam: `m += (g − m)(1 − β₁)`, `v += (g² − v)(1 − β₂)`, `w −= rate·m/(√v + ε)`. ε stays outside the bias
    /// correction, unlike in the paper of Kingma and Ba.
    ///
    /// Before it `g *= min(1, clip/‖g‖)`, where ‖g‖ is the root of `outcome`'s second number (Pascanu et al. 2013), and
    /// `w −= decay·w` for the weights that decay, apart from the gradient (Loshchilov and Hutter 2019).
    ///
    /// Nothing is written unless all of `outcome` are finite: a bad step leaves the weights alone.
    fn adam(
        &self,
        operands: AdamStep<Self::View<'_>, Self::ViewMut<'_>>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError>;

    /// `to = from` unless all of `outcome` are finite: puts back what a bad step moved before it was known to be one.
    fn restore(&self, operands: Restore<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;

    /// `to += (from − to)·towards`, unless not all of `outcome` are finite.
    fn average(&self, operands: Average<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;
}
