//! Adam: one streaming pass over four arenas.

use super::memory::{CHUNK, Cpu};
use super::simd::simd;
use crate::device::adam::{ADAM_FLOPS, check_adam};
use crate::device::{AdamConstants, AdamKernels, DeviceError};
use rayon::prelude::*;

impl AdamKernels for Cpu {
    fn adam(
        &self,
        w: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        gradients: &[f32],
        loss: &[f32],
        rate: &[f32],
        constants: &AdamConstants,
    ) -> Result<(), DeviceError> {
        check_adam(w.len(), m.len(), v.len(), gradients.len(), loss.len(), rate.len())?;
        let _clock = self.clock("adam", ADAM_FLOPS * w.len() as u64, 4 * w.len() + 2, 3 * w.len());
        if !loss[0].is_finite() {
            return Ok(());
        }
        let rate = rate[0];
        let (towards_g, towards_g2) = ((1.0 - constants.beta1) as f32, (1.0 - constants.beta2) as f32);
        let epsilon = constants.epsilon as f32;
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
