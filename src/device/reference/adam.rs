//! The end of a step, an element at a time.

use super::Reference;
use crate::device::{AdamConstants, AdamKernels, AdamStep, DeviceError, Restore, SquaredNorm};

impl AdamKernels for Reference {
    fn squared_norm(&self, operands: SquaredNorm<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let SquaredNorm { sum, x } = operands;
        sum[0] = x.iter().map(|x| x * x).sum();
        Ok(())
    }

    fn adam(&self, operands: AdamStep<&[f64], &mut [f64]>, constants: &AdamConstants) -> Result<(), DeviceError> {
        operands.check()?;
        let AdamStep { w, m, v, gradients, outcome, rate } = operands;
        if !outcome.iter().all(|number| number.is_finite()) {
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

    fn restore(&self, operands: Restore<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let Restore { to, from, outcome } = operands;
        if !outcome.iter().all(|number| number.is_finite()) {
            to.copy_from_slice(from);
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

    /// The outcome of a sound step.
    const SOUND: [f64; 3] = [1.0, 2.0, 3.0];

    /// Step `t` at learning rate `rate`, a sound one.
    fn step(w: &mut [f64], m: &mut [f64], v: &mut [f64], g: &[f64], rate: f64, t: u64, constants: &AdamConstants) {
        let rate = [constants.corrected_rate(rate, t)];
        let operands = AdamStep { w, m, v, gradients: g, outcome: &SOUND, rate: &rate };
        Reference::EXACT.adam(operands, constants).unwrap();
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
    fn a_bad_step_moves_nothing_and_goes_back() {
        for (at, bad) in (0..3).flat_map(|at| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|bad| (at, bad))) {
            let mut outcome = SOUND;
            outcome[at] = bad;
            let (mut w, mut m, mut v) = ([1.0], [2.0], [3.0]);
            let (g, rate) = ([4.0], [0.1]);
            let operands =
                AdamStep { w: &mut w[..], m: &mut m, v: &mut v, gradients: &g[..], outcome: &outcome, rate: &rate };
            Reference::EXACT.adam(operands, &SHORT).unwrap();
            assert_eq!([w[0], m[0], v[0]], [1.0, 2.0, 3.0], "{outcome:?}");
            Reference::EXACT.restore(Restore { to: &mut w, from: &[5.0], outcome: &outcome }).unwrap();
            assert_eq!(w, [5.0], "{outcome:?}");
        }
        let mut w = [1.0];
        Reference::EXACT.restore(Restore { to: &mut w, from: &[5.0], outcome: &SOUND }).unwrap();
        assert_eq!(w, [1.0]);
    }

    #[test]
    fn a_norm_by_hand() {
        let mut sum = [f64::NAN];
        Reference::EXACT.squared_norm(SquaredNorm { sum: &mut sum, x: &[3.0, -4.0, 0.5] }).unwrap();
        assert_eq!(sum, [25.25]);
        Reference::EXACT.squared_norm(SquaredNorm { sum: &mut sum, x: &[] }).unwrap();
        assert_eq!(sum, [0.0]);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            Reference::EXACT.squared_norm(SquaredNorm { sum: &mut sum, x: &[3.0, bad, 1.0] }).unwrap();
            assert!(!sum[0].is_finite(), "{bad}");
        }
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let adam = |v: &mut [f64], outcome: &[f64]| {
            let (mut w, mut m, gradients) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            let operands = AdamStep { w: &mut w[..], m: &mut m, v, gradients: &gradients[..], outcome, rate: &[0.0] };
            Reference::EXACT.adam(operands, &SHORT).unwrap_err().to_string()
        };
        assert_eq!(adam(&mut [0.0], &SOUND), "adam: operand v has 1 elements, its shape asks for 2");
        assert_eq!(adam(&mut [0.0; 2], &[0.0]), "adam: operand outcome has 1 elements, its shape asks for 3");
        let mut w = [0.0; 2];
        let operands = Restore { to: &mut w[..], from: &[0.0; 3][..], outcome: &SOUND };
        let error = Reference::EXACT.restore(operands).unwrap_err();
        assert_eq!(error.to_string(), "restore: operand from has 3 elements, its shape asks for 2");
        let error = Reference::EXACT.squared_norm(SquaredNorm { sum: &mut w, x: &[0.0; 3] }).unwrap_err();
        assert_eq!(error.to_string(), "squared_norm: operand sum has 2 elements, its shape asks for 1");
    }
}
