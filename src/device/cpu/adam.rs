//! Adam: one streaming pass over four arenas.

use super::memory::{CHUNK, Cpu};
use super::simd::simd;
use crate::device::{AdamKernels, AdamStep, DeviceError, check_lengths};
use rayon::prelude::*;

impl AdamKernels for Cpu {
    fn adam(
        &self,
        w: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        gradients: &[f32],
        step: &AdamStep,
    ) -> Result<(), DeviceError> {
        check_lengths(
            "adam",
            &[("m", m.len(), w.len()), ("v", v.len(), w.len()), ("gradients", gradients.len(), w.len())],
        )?;
        let rate = step.corrected_rate() as f32;
        let (towards_g, towards_g2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let epsilon = step.epsilon as f32;
        (w.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK), gradients.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(w, m, v, g)| update(w, m, v, g, rate, towards_g, towards_g2, epsilon));
        Ok(())
    }
}

simd! {
    /// One chunk's step.
    fn update(
        w: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        g: &[f32],
        rate: f32,
        towards_g: f32,
        towards_g2: f32,
        epsilon: f32,
    ) {
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            *m += (g - *m) * towards_g;
            *v += (g * g - *v) * towards_g2;
            *w -= rate * *m / (v.sqrt() + epsilon);
        }
    }
}
