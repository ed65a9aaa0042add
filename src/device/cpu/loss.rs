//! The loss: a few hundred logits, in `f64`.

use super::memory::Cpu;
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{DeviceError, LossKernels, LossShape, check_lengths};

impl LossKernels for Cpu {
    fn bce_forward_backward(
        &self,
        loss: &mut [f32],
        dlogits: &mut [f32],
        logits: &[f32],
        targets: &[f32],
        weights: &[f32],
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        let count = shape.n * shape.classes;
        check_lengths(
            "bce_forward_backward",
            &[
                ("loss", loss.len(), 1),
                ("dlogits", dlogits.len(), count),
                ("logits", logits.len(), count),
                ("targets", targets.len(), count),
                ("weights", weights.len(), shape.classes),
            ],
        )?;
        let reads = 2 * count + shape.classes;
        let _clock = self.clock("bce_forward_backward", shape.flops(), reads, count + 1);
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

    fn sigmoid(&self, p: &mut [f32], z: &[f32]) -> Result<(), DeviceError> {
        check_lengths("sigmoid", &[("z", z.len(), p.len())])?;
        let _clock = self.clock("sigmoid", SIGMOID_FLOPS * p.len() as u64, z.len(), p.len());
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
