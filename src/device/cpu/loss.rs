//! The loss: a few hundred logits, in `f64`.

use super::memory::Cpu;
use super::view::{View, ViewMut, stored_as};
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{BceForwardBackward, DeviceError, Elements, LossKernels, LossShape, Sigmoid};

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

/// σ(z); e^−z may become infinite, and 1/∞ is the right answer.
fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}
