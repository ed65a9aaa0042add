//! The loss: a few hundred logits, in `f64`.

use super::memory::Cpu;
use super::view::{View, ViewMut, stored_as};
use crate::device::loss::{ASYMMETRIC_FLOPS, SIGMOID_FLOPS};
use crate::device::{BceForwardBackward, DeviceError, Elements, Focus, LossKernels, LossShape, Sigmoid};

impl LossKernels for Cpu {
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<View<'_>, ViewMut<'_>>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "bce_forward_backward";
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let count = shape.n * shape.classes;
        let reads = logits.bytes() + targets.bytes() + weights.bytes();
        let _clock = self.clock(KERNEL, shape.flops(), reads, loss.bytes() + dlogits.bytes());
        stored_as!(f32, KERNEL; loss, dlogits, logits, targets, weights);
        let mut total = 0.0;
        let weights = weights.iter().cycle();
        for (((dlogit, logit), target), weight) in dlogits.iter_mut().zip(logits).zip(targets).zip(weights) {
            let [z, t, weight] = [*logit, *target, *weight].map(f64::from);
            // Not z.max(0.0), which turns NaN into 0.
            let positive = if z < 0.0 { 0.0 } else { z };
            total += weight * (positive - z * t + (-z.abs()).exp().ln_1p());
            *dlogit = (weight * (logistic(z) - t) / count as f64) as f32;
        }
        loss[0] = (total / count as f64) as f32;
        Ok(())
    }

    fn asymmetric_forward_backward(
        &self,
        operands: BceForwardBackward<View<'_>, ViewMut<'_>>,
        focus: &Focus,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "asymmetric_forward_backward";
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let count = shape.n * shape.classes;
        let reads = logits.bytes() + targets.bytes() + weights.bytes();
        let _clock = self.clock(KERNEL, ASYMMETRIC_FLOPS * count as u64, reads, loss.bytes() + dlogits.bytes());
        stored_as!(f32, KERNEL; loss, dlogits, logits, targets, weights);
        let mut total = 0.0;
        let weights = weights.iter().cycle();
        for (((dlogit, logit), target), weight) in dlogits.iter_mut().zip(logits).zip(targets).zip(weights) {
            let [z, t, weight] = [*logit, *target, *weight].map(f64::from);
            let (term, slope) = asymmetric(z, t, focus);
            total += weight * term;
            *dlogit = (weight * slope / count as f64) as f32;
        }
        loss[0] = (total / count as f64) as f32;
        Ok(())
    }

    fn sigmoid(&self, operands: Sigmoid<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "sigmoid";
        operands.check()?;
        let Sigmoid { p, z } = operands;
        let _clock = self.clock(KERNEL, SIGMOID_FLOPS * p.count() as u64, z.bytes(), p.bytes());
        stored_as!(f32, KERNEL; p, z);
        for (p, z) in p.iter_mut().zip(z) {
            *p = logistic(f64::from(*z)) as f32;
        }
        Ok(())
    }
}

/// The asymmetric loss of a logit and its gradient, in the form that [`LossKernels::asymmetric_forward_backward`] gives. Powers come from
/// logarithms that are at hand.
fn asymmetric(z: f64, t: f64, &Focus { positive, negative, margin }: &Focus) -> (f64, f64) {
    let e = (-z.abs()).exp();
    let [p, q] = if z >= 0.0 { [1.0, e] } else { [e, 1.0] }.map(|part| part / (1.0 + e));
    // −ln p and −ln q.
    let minus_ln = |z: f64| e.ln_1p() + if z > 0.0 { z } else { 0.0 };
    let (ln_p, ln_q) = (-minus_ln(-z), -minus_ln(z));
    // 0 times −∞ is none.
    let power = |ln: f64, gamma: f64| if gamma == 0.0 { 1.0 } else { (gamma * ln).exp() };
    let missing = power(ln_q, positive);
    let (yes, dyes) = (missing * -ln_p, -missing * (q - positive * p * ln_p));
    let s = p - margin;
    let (no, dno) = if margin == 0.0 {
        let present = power(ln_p, negative);
        (present * -ln_q, present * (p - negative * q * ln_q))
    } else if s <= 0.0 {
        (0.0, 0.0)
    } else {
        let (present, cost) = (power(s.ln(), negative), -(-s).ln_1p());
        (present * cost, present * p * q * (1.0 / (q + margin) + negative * (cost / s)))
    };
    (t * yes + (1.0 - t) * no, t * dyes + (1.0 - t) * dno)
}

/// σ(z); e^−z may become infinite, and 1/∞ is the right answer.
fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}
