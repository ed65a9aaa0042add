//! The end of a step, an element at a time.

use super::Reference;
use crate::device::adam::MARKS;
use crate::device::{AdamConstants, AdamKernels, AdamStep, Average, DeviceError, Restore, SquaredNorm};

impl AdamKernels for Reference {
    fn squared_norm(&self, operands: SquaredNorm<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let SquaredNorm { sum, x } = operands;
        sum[0] = x.iter().map(|x| x * x).sum();
        Ok(())
    }

    fn adam(&self, operands: AdamStep<&[f64], &mut [f64]>, constants: &AdamConstants) -> Result<(), DeviceError> {
        operands.check()?;
        let AdamStep { w, m, v, gradients, decaying, outcome, rates } = operands;
        if !outcome.iter().all(|number| number.is_finite()) {
            return Ok(());
        }
        let norm = outcome[1].sqrt();
        let scale = if norm > constants.clip_norm { constants.clip_norm / norm } else { 1.0 };
        for i in 0..w.len() {
            let g = scale * gradients[i];
            m[i] += (g - m[i]) * (1.0 - constants.beta1);
            v[i] += (g * g - v[i]) * (1.0 - constants.beta2);
            if decaying.is_some_and(|marks| (marks[i / MARKS] / f64::powi(2.0, (i % MARKS) as i32)) as u32 % 2 == 1) {
                w[i] *= 1.0 - rates[1];
            }
            w[i] -= rates[0] * m[i] / (v[i].sqrt() + constants.epsilon);
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

    fn average(&self, operands: Average<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let Average { to, from, outcome, towards } = operands;
        if outcome.iter().all(|number| number.is_finite()) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = (1.0 - towards[0]) * *to + towards[0] * from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Constants whose powers are short: √(1 − ¾ᵗ) and 1 − ½ᵗ.
    const SHORT: AdamConstants = AdamConstants { beta1: 0.5, beta2: 0.75, epsilon: 0.5, clip_norm: f64::INFINITY };

    /// The outcome of a sound step.
    const SOUND: [f64; 3] = [1.0, 2.0, 3.0];

    /// Step `t` at learning rate `rate`, a sound one.
    fn step(w: &mut [f64], m: &mut [f64], v: &mut [f64], g: &[f64], rate: f64, t: u64, constants: &AdamConstants) {
        let rates = [constants.corrected_rate(rate, t), 0.0];
        let operands = AdamStep { w, m, v, gradients: g, decaying: None, outcome: &SOUND, rates: &rates };
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
            let operands = AdamStep {
                w: &mut w[..],
                m: &mut m,
                v: &mut v,
                gradients: &[4.0][..],
                decaying: Some(&[1.0]),
                outcome: &outcome,
                rates: &[0.1, 0.5],
            };
            Reference::EXACT.adam(operands, &SHORT).unwrap();
            assert_eq!([w[0], m[0], v[0]], [1.0, 2.0, 3.0], "{outcome:?}");
            Reference::EXACT.restore(Restore { to: &mut w, from: &[5.0], outcome: &outcome }).unwrap();
            assert_eq!(w, [5.0], "{outcome:?}");
        }
        let mut w = [1.0];
        Reference::EXACT.restore(Restore { to: &mut w, from: &[5.0], outcome: &SOUND }).unwrap();
        assert_eq!(w, [1.0]);
    }

    /// Of eighteen weights the first, the third and the last decay.
    #[test]
    fn marked_weights_decay_apart_from_the_gradient() {
        let (mut w, mut m, mut v) = ([8.0; 18], [0.0; 18], [0.0; 18]);
        let mut g = [0.0; 18];
        (g[2], g[3]) = (4.0, 4.0);
        let marks = [5.0, 2.0];
        let operands = AdamStep {
            w: &mut w[..],
            m: &mut m,
            v: &mut v,
            gradients: &g[..],
            decaying: Some(&marks),
            outcome: &SOUND,
            rates: &[0.1, 0.25],
        };
        Reference::EXACT.adam(operands, &SHORT).unwrap();
        // m = 2 and v = 4, as above; what decays enters neither.
        let mut expected = [8.0; 18];
        (expected[0], expected[2], expected[3], expected[17]) = (6.0, 6.0 - 0.08, 8.0 - 0.08, 6.0);
        w.iter()
            .zip(expected)
            .for_each(|(found, expected)| assert_relative_eq!(*found, expected, max_relative = 1e-15));
        assert_eq!((m[2], m[3], v[2], v[3], m[0], v[17]), (2.0, 2.0, 4.0, 4.0, 0.0, 0.0));
    }

    #[test]
    fn a_gradient_is_scaled_down_to_the_largest_norm() {
        // ‖g‖ = 10; at 5 each element is halved, at 10 and 20 none is.
        for (clip_norm, scale) in [(5.0, 0.5), (10.0, 1.0), (20.0, 1.0), (f64::INFINITY, 1.0)] {
            let (mut w, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            let operands = AdamStep {
                w: &mut w[..],
                m: &mut m,
                v: &mut v,
                gradients: &[6.0, -8.0][..],
                decaying: None,
                outcome: &[1.0, 100.0, 0.0],
                rates: &[0.0, 0.0],
            };
            Reference::EXACT.adam(operands, &AdamConstants { clip_norm, ..SHORT }).unwrap();
            assert_eq!(
                (m, v),
                ([3.0 * scale, -4.0 * scale], [9.0 * scale * scale, 16.0 * scale * scale]),
                "{clip_norm}"
            );
        }
    }

    #[test]
    fn an_average_by_hand() {
        let mut to = [8.0, -2.0];
        let mut moved = |outcome: &[f64]| {
            let operands = Average { to: &mut to[..], from: &[0.0, 6.0][..], outcome, towards: &[0.25] };
            Reference::EXACT.average(operands).unwrap();
            to
        };
        assert_eq!(moved(&SOUND), [6.0, 0.0]);
        assert_eq!(moved(&[1.0, f64::NAN, 0.0]), [6.0, 0.0]);
        assert_eq!(moved(&SOUND), [4.5, 1.5]);
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
        let adam = |v: &mut [f64], marks: &[f64], outcome: &[f64], rates: &[f64]| {
            let (mut w, mut m, gradients) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            let (decaying, gradients) = (Some(marks), &gradients[..]);
            let operands = AdamStep { w: &mut w[..], m: &mut m, v, gradients, decaying, outcome, rates };
            Reference::EXACT.adam(operands, &SHORT).unwrap_err().to_string()
        };
        let (mut two, one) = ([0.0; 2], [0.0]);
        let refused = |operand: &str, found, asked| {
            format!("adam: operand {operand} has {found} elements, its shape asks for {asked}")
        };
        assert_eq!(adam(&mut [0.0], &one, &SOUND, &[0.0; 2]), refused("v", 1, 2));
        assert_eq!(adam(&mut two, &one, &one, &[0.0; 2]), refused("outcome", 1, 3));
        assert_eq!(adam(&mut two, &one, &SOUND, &one), refused("rates", 1, 2));
        assert_eq!(adam(&mut two, &[0.0; 2], &SOUND, &[0.0; 2]), refused("decaying", 2, 1));
        let mut w = [0.0; 2];
        let operands = Restore { to: &mut w[..], from: &[0.0; 3][..], outcome: &SOUND };
        let error = Reference::EXACT.restore(operands).unwrap_err();
        assert_eq!(error.to_string(), "restore: operand from has 3 elements, its shape asks for 2");
        let error = Reference::EXACT.squared_norm(SquaredNorm { sum: &mut w, x: &[0.0; 3] }).unwrap_err();
        assert_eq!(error.to_string(), "squared_norm: operand sum has 2 elements, its shape asks for 1");
    }
}
