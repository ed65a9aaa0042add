//! Adam, an element at a time.

use super::Reference;
use crate::device::{AdamKernels, AdamStep, DeviceError, check_lengths};

impl AdamKernels for Reference {
    fn adam(
        &self,
        w: &mut [f64],
        m: &mut [f64],
        v: &mut [f64],
        gradients: &[f64],
        step: &AdamStep,
    ) -> Result<(), DeviceError> {
        let operands = [("m", m.len(), w.len()), ("v", v.len(), w.len()), ("gradients", gradients.len(), w.len())];
        check_lengths("adam", &operands)?;
        let rate = step.corrected_rate();
        for i in 0..w.len() {
            let g = gradients[i];
            m[i] += (g - m[i]) * (1.0 - step.beta1);
            v[i] += (g * g - v[i]) * (1.0 - step.beta2);
            w[i] -= rate * m[i] / (v[i].sqrt() + step.epsilon);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Rates whose powers are short: √(1 − ¾ᵗ) and 1 − ½ᵗ.
    fn step(t: u64) -> AdamStep {
        AdamStep { rate: 0.1, beta1: 0.5, beta2: 0.75, epsilon: 0.5, t }
    }

    #[test]
    fn two_steps_by_hand() {
        let (mut w, mut m, mut v) = (vec![1.0, -1.0], vec![0.0; 2], vec![0.0; 2]);
        // g = 4: m = 2, v = 4, rate = 0.1·√¼/½ = 0.1; w −= 0.1·2/(2 + ½) = 0.08. A zero gradient moves nothing.
        Reference.adam(&mut w, &mut m, &mut v, &[4.0, 0.0], &step(1)).unwrap();
        assert_eq!((m[0], v[0]), (2.0, 4.0));
        assert_relative_eq!(w[0], 0.92, max_relative = 1e-15);
        assert_eq!((w[1], m[1], v[1]), (-1.0, 0.0, 0.0));
        // g = −2: m = 0, v = 4: the moments cancel. g = 2: m = 1, v = 1, rate = 0.1·√(7/16)/(3/4).
        Reference.adam(&mut w, &mut m, &mut v, &[-2.0, 2.0], &step(2)).unwrap();
        assert_eq!((m[0], v[0], m[1], v[1]), (0.0, 4.0, 1.0, 1.0));
        assert_relative_eq!(w[0], 0.92, max_relative = 1e-15);
        assert_relative_eq!(w[1], -1.0 - 0.1 * (7f64 / 16.0).sqrt() / 0.75 / 1.5, max_relative = 1e-15);
    }

    #[test]
    fn epsilon_stands_outside_the_bias_correction() {
        // Keras: α·√(1−β₂)/(1−β₁)·m/(√v + ε) = 0.1·1e-7/(√1e-3·1e-7 + 1e-7)·√1e-3 at g = 1e-7, which is 3.07e-3.
        // The paper's form corrects √v first and gives 0.1·1e-7/(1e-7 + 1e-7) = 5e-2.
        let keras = AdamStep { rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, t: 1 };
        let (mut w, mut m, mut v) = ([0.0], [0.0], [0.0]);
        Reference.adam(&mut w, &mut m, &mut v, &[1e-7], &keras).unwrap();
        let root = 1e-3f64.sqrt();
        assert_relative_eq!(w[0], -0.1 * root / (root + 1.0), max_relative = 1e-12);
    }

    #[test]
    fn the_first_step_is_the_rate_whatever_the_gradient() {
        let keras = AdamStep { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 0.0, t: 1 };
        let (mut w, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        Reference.adam(&mut w, &mut m, &mut v, &[1e5, -1e-5], &keras).unwrap();
        assert_relative_eq!(w[0], -1e-3, max_relative = 1e-12);
        assert_relative_eq!(w[1], 1e-3, max_relative = 1e-12);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let error = Reference.adam(&mut [0.0; 2], &mut [0.0; 2], &mut [0.0; 1], &[0.0; 2], &step(1)).unwrap_err();
        assert_eq!(error.to_string(), "adam: operand v has 1 elements, its shape asks for 2");
    }
}
