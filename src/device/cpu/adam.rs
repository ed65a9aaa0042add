//! The end of a step: Adam is one streaming pass over four arenas, the norm in front of it one over one.

use super::memory::{CHUNK, Cpu};
use super::simd::simd;
use super::view::{View, ViewMut, stored_as};
use crate::device::adam::{ADAM_FLOPS, AVERAGE_FLOPS, MARKS, SQUARED_NORM_FLOPS};
use crate::device::{AdamConstants, AdamKernels, AdamStep, Average, DeviceError, Elements, Restore, SquaredNorm};
use rayon::prelude::*;

/// Sums that a chunk's squares go to in turn, so that they are added side by side.
const LANES: usize = 16;

impl AdamKernels for Cpu {
    fn squared_norm(&self, operands: SquaredNorm<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "squared_norm";
        operands.check()?;
        let SquaredNorm { sum, x } = operands;
        let _clock = self.clock(KERNEL, SQUARED_NORM_FLOPS * x.count() as u64, x.bytes(), sum.bytes());
        stored_as!(f32, KERNEL; sum, x);
        let mut partials = vec![0.0; x.len().div_ceil(CHUNK)];
        partials.par_iter_mut().zip(x.par_chunks(CHUNK)).for_each(|(partial, x)| add_squares(x, partial));
        // The chunks follow from the length, and their sums are added in order: no thread has a say.
        sum[0] = partials.iter().sum::<f64>() as f32;
        Ok(())
    }

    fn adam(&self, operands: AdamStep<View<'_>, ViewMut<'_>>, constants: &AdamConstants) -> Result<(), DeviceError> {
        const KERNEL: &str = "adam";
        operands.check()?;
        let AdamStep { w, m, v, gradients, decaying, outcome, rates } = operands;
        let marks = decaying.map_or(0, |marks| marks.bytes());
        let reads = 4 * w.bytes() + marks + outcome.bytes() + rates.bytes();
        let _clock = self.clock(KERNEL, ADAM_FLOPS * w.count() as u64, reads, 3 * w.bytes());
        let decaying = decaying.map(|marks| marks.of::<f32>(KERNEL)).transpose()?;
        stored_as!(f32, KERNEL; w, m, v, gradients, outcome, rates);
        if !is_sound(outcome) {
            return Ok(());
        }
        if let Some(marks) = decaying {
            let chunks = w.par_chunks_mut(CHUNK).zip(marks.par_chunks(CHUNK / MARKS));
            chunks.for_each(|(w, marks)| decay(w, marks, rates[1]));
        }
        let rate = rates[0];
        let norm = f64::from(outcome[1]).sqrt();
        // Exactly 1 where the norm is small enough, which changes no bit.
        let scale = if norm > constants.clip_norm { (constants.clip_norm / norm) as f32 } else { 1.0 };
        let (towards_g, towards_g2) = ((1.0 - constants.beta1) as f32, (1.0 - constants.beta2) as f32);
        let epsilon = constants.epsilon as f32;
        (w.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK), gradients.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(w, m, v, g)| update(w, m, v, g, scale, rate, towards_g, towards_g2, epsilon));
        Ok(())
    }

    fn restore(&self, operands: Restore<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "restore";
        operands.check()?;
        let Restore { to, from, outcome } = operands;
        // After a sound step, which nearly all are, it reads the outcome and nothing else.
        let _clock = self.clock(KERNEL, 0, outcome.bytes(), 0);
        stored_as!(f32, KERNEL; to, from, outcome);
        if !is_sound(outcome) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn average(&self, operands: Average<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "average";
        operands.check()?;
        let Average { to, from, outcome, towards } = operands;
        let reads = 2 * to.bytes() + outcome.bytes() + towards.bytes();
        let _clock = self.clock(KERNEL, AVERAGE_FLOPS * to.count() as u64, reads, to.bytes());
        stored_as!(f32, KERNEL; to, from, outcome, towards);
        if is_sound(outcome) {
            let chunks = to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK));
            chunks.for_each(|(to, from)| move_towards(to, from, towards[0]));
        }
        Ok(())
    }
}

/// Whether a step's numbers are all finite.
fn is_sound(outcome: &[f32]) -> bool {
    outcome.iter().all(|number| number.is_finite())
}

simd! {
    /// `sum += Σ x²`. Squares of `f32` are exact in `f64`, and none is too large for it.
    fn add_squares(x: &[f32], sum: &mut f64) {
        let mut lanes = [0.0; LANES];
        let groups = x.chunks_exact(LANES);
        for (lane, x) in lanes.iter_mut().zip(groups.remainder()) {
            *lane += f64::from(*x) * f64::from(*x);
        }
        for group in groups {
            for (lane, x) in lanes.iter_mut().zip(group) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        *sum += lanes.iter().sum::<f64>();
    }

    /// Takes from each weight of a chunk that is marked its share `amount`.
    fn decay(w: &mut [f32], marks: &[f32], amount: f32) {
        for (w, marks) in w.chunks_mut(MARKS).zip(marks) {
            let marks = *marks as u32;
            if marks == (1 << MARKS) - 1 {
                // As nearly all are: kernels are long.
                for w in w {
                    *w -= amount * *w;
                }
            } else if marks != 0 {
                for (place, w) in w.iter_mut().enumerate() {
                    if (marks >> place) & 1 == 1 {
                        *w -= amount * *w;
                    }
                }
            }
        }
    }

    /// `to += (from − to)·towards`.
    fn move_towards(to: &mut [f32], from: &[f32], towards: f32) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += (from - *to) * towards;
        }
    }

    /// One chunk's step.
    fn update(
        w: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        g: &[f32],
        scale: f32,
        rate: f32,
        towards_g: f32,
        towards_g2: f32,
        epsilon: f32,
    ) {
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = scale * g;
            *m += (g - *m) * towards_g;
            *v += (g * g - *v) * towards_g2;
            *w -= rate * *m / (v.sqrt() + epsilon);
        }
    }
}
