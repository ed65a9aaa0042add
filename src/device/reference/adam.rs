//! Adam, an element at a time.

use super::Reference;
use crate::device::adam::check_adam;
use crate::device::{AdamConstants, AdamKernels, DeviceError};

impl AdamKernels for Reference {
    fn adam(
        &self,
        w: &mut [f64],
        m: &mut [f64],
        v: &mut [f64],
        gradients: &[f64],
        loss: &[f64],
        rate: &[f64],
        constants: &AdamConstants,
    ) -> Result<(), DeviceError> {
        check_adam(w.len(), m.len(), v.len(), gradients.len(), loss.len(), rate.len())?;
        if !loss[0].is_finite() {
            return Ok(());
        }
        for i in 0..w.len() {
            let g = gradients[i];
            m[i] += (g - m[i]) * (1.0 - constants.beta1);
            v[i] += (g * g - v[i]) * (1.0 - constants.beta2);
            w[i] -= rate[0] * m[i] / (v[i].sqrt() + constants.epsilon);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Constants whose powers are short: √(1 − ¾ᵗ) and 1 − ½ᵗ.
    const SHORT: AdamConstants = AdamConstants { beta1: 0.5, beta2: 0.75, epsilon: 0.5 };

    /// Step `t` at learning rate `rate`, on a finite loss.
    fn step(w: &mut [f64], m: &mut [f64], v: &mut [f64], g: &[f64], rate: f64, t: u64, constants: &AdamConstants) {
        Reference.adam(w, m, v, g, &[1.0], &[constants.corrected_rate(rate, t)], constants).unwrap();
    }

    #[test]
    fn two_steps_by_hand() {
        let (mut w, mut m, mut v) = (vec![1.0, -1.0], vec![0.0; 2], vec![0.0; 2]);
        // g = 4: m = 2, v = 4, rate = 0.1·√¼/½ = 0.1; w −= 0.1·2/(2 + ½) = 0.08. A zero gradient moves nothing.
        step(&mut w, &mut m, &mut v, &[4.0, 0.0], 0.1, 1, &SHORT);
        assert_eq!((m[0], v[0]), (2.0, 4.0));
        assert_relative_eq!(w[0], 0.92, max_relative = 1e-15);
        assert_eq!((w[1], m[1], v[1]), (-1.0, 0.0, 0.0));
        // g = −2: m = 0, v = 4: the moments cancel. g = 2: m = 1, v = 1, rate = 0.1·√(7/16)/(3/4).
        step(&mut w, &mut m, &mut v, &[-2.0, 2.0], 0.1, 2, &SHORT);
        assert_eq!((m[0], v[0], m[1], v[1]), (0.0, 4.0, 1.0, 1.0));
        assert_relative_eq!(w[0], 0.92, max_relative = 1e-15);
        assert_relative_eq!(w[1], -1.0 - 0.1 * (7f64 / 16.0).sqrt() / 0.75 / 1.5, max_relative = 1e-15);
    }

    #[test]
    fn epsilon_stands_outside_the_bias_correction() {
        // Keras: α·√(1−β₂)/(1−β₁)·m/(√v + ε) = 0.1·1e-7/(√1e-3·1e-7 + 1e-7)·√1e-3 at g = 1e-7, which is 3.07e-3.
        // The paper's form corrects √v first and gives 0.1·1e-7/(1e-7 + 1e-7) = 5e-2.
        let (mut w, mut m, mut v) = ([0.0], [0.0], [0.0]);
        step(&mut w, &mut m, &mut v, &[1e-7], 0.1, 1, &AdamConstants::default());
        let root = 1e-3f64.sqrt();
        assert_relative_eq!(w[0], -0.1 * root / (root + 1.0), max_relative = 1e-12);
    }

    #[test]
    fn the_first_step_is_the_rate_whatever_the_gradient() {
        let constants = AdamConstants { epsilon: 0.0, ..AdamConstants::default() };
        let (mut w, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        step(&mut w, &mut m, &mut v, &[1e5, -1e-5], 1e-3, 1, &constants);
        assert_relative_eq!(w[0], -1e-3, max_relative = 1e-12);
        assert_relative_eq!(w[1], 1e-3, max_relative = 1e-12);
    }

    #[test]
    fn a_loss_that_is_no_number_moves_nothing() {
        for loss in [f64::NAN, f64::INFINITY] {
            let (mut w, mut m, mut v) = ([1.0], [2.0], [3.0]);
            Reference.adam(&mut w, &mut m, &mut v, &[4.0], &[loss], &[0.1], &SHORT).unwrap();
            assert_eq!([w[0], m[0], v[0]], [1.0, 2.0, 3.0]);
        }
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let (mut w, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 1]);
        let error = Reference.adam(&mut w, &mut m, &mut v, &[0.0; 2], &[0.0], &[0.0], &SHORT).unwrap_err();
        assert_eq!(error.to_string(), "adam: operand v has 1 elements, its shape asks for 2");
    }
}
