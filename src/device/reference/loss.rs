//! Sigmoid and class-weighted binary cross-entropy, a term at a time.

use super::Reference;
use crate::device::{BceForwardBackward, DeviceError, LossKernels, LossShape, Sigmoid};

/// `1/(1 + e^−z)`. A huge negative `z` makes the exponential infinite and the quotient the zero that it should be.
fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

impl LossKernels for Reference {
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<&[f64], &mut [f64]>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let LossShape { n, classes } = *shape;
        let terms = n * classes;
        let mut sum = 0.0;
        for i in 0..terms {
            let (z, t, weight) = (logits[i], targets[i], weights[i % classes]);
            // Not `z.max(0.0)`, which would make a zero of a NaN.
            let positive_part = if z <= 0.0 { 0.0 } else { z };
            sum += weight * (positive_part - z * t + (-z.abs()).exp().ln_1p());
            dlogits[i] = weight * (logistic(z) - t) / terms as f64;
        }
        loss[0] = sum / terms as f64;
        Ok(())
    }

    fn sigmoid(&self, operands: Sigmoid<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let Sigmoid { p, z } = operands;
        for (p, &z) in p.iter_mut().zip(z) {
            *p = logistic(z);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use std::f64::consts::LN_2;

    fn bce(logits: &[f64], targets: &[f64], weights: &[f64]) -> (f64, Vec<f64>) {
        let shape = LossShape { n: logits.len() / weights.len(), classes: weights.len() };
        let (mut loss, mut dlogits) = ([f64::NAN], vec![f64::NAN; logits.len()]);
        let operands = BceForwardBackward { loss: &mut loss[..], dlogits: &mut dlogits, logits, targets, weights };
        Reference::EXACT.bce_forward_backward(operands, &shape).unwrap();
        (loss[0], dlogits)
    }

    #[test]
    fn equals_the_textbook_form() {
        // σ(ln 3) = 3/4 and σ(0) = 1/2: −(ln 3/4 + ln 1/2 + 5·ln 1/4 + 5·ln 1/2)/4.
        let (loss, dlogits) = bce(&[3f64.ln(), 0.0, 0.0, 3f64.ln()], &[1.0, 1.0, 1.0, 0.0], &[1.0, 5.0]);
        let expected = -(0.75f64.ln() + 5.0 * 0.5f64.ln() + 0.5f64.ln() + 5.0 * 0.25f64.ln()) / 4.0;
        assert_relative_eq!(loss, expected, max_relative = 1e-14);
        let expected = [-0.25 / 4.0, 5.0 * -0.5 / 4.0, -0.5 / 4.0, 5.0 * 0.75 / 4.0];
        for (found, expected) in dlogits.iter().zip(expected) {
            assert_relative_eq!(*found, expected, max_relative = 1e-14);
        }
    }

    #[test]
    fn huge_logits_neither_overflow_nor_vanish() {
        let (loss, dlogits) = bce(&[1e4, -1e4, 1e4, -1e4], &[1.0, 0.0, 0.0, 1.0], &[1.0]);
        assert_eq!(loss, 5e3);
        assert_eq!(dlogits, [0.0, 0.0, 0.25, -0.25]);
        // Small losses keep their digits: ln(1 + e^−40) is e^−40 and not ln 1.
        assert_relative_eq!(bce(&[40.0], &[1.0], &[1.0]).0, (-40f64).exp(), max_relative = 1e-15);
    }

    #[test]
    fn a_class_without_a_positive_example_learns_to_say_no() {
        let (loss, dlogits) = bce(&[0.0, 0.0], &[0.0, 0.0], &[2.0]);
        assert_relative_eq!(loss, 2.0 * LN_2, max_relative = 1e-15);
        assert_eq!(dlogits, [0.5, 0.5]);
        // Its balanced weight has no finite value; a weight of zero takes it out of the sum.
        assert_eq!(bce(&[3.0, -3.0], &[0.0, 0.0], &[0.0]), (0.0, vec![0.0, 0.0]));
    }

    #[test]
    fn a_logit_that_is_no_number_shows_in_the_loss() {
        let (loss, dlogits) = bce(&[0.0, f64::NAN], &[1.0, 1.0], &[1.0]);
        assert!(loss.is_nan() && dlogits[1].is_nan() && dlogits[0] == -0.25);
    }

    #[test]
    fn probabilities_stay_between_zero_and_one() {
        let mut p = vec![f64::NAN; 5];
        let z = [-1e4, 0.0, 3f64.ln(), 1e4, f64::INFINITY];
        Reference::EXACT.sigmoid(Sigmoid { p: &mut p, z: &z }).unwrap();
        assert_relative_eq!(p[2], 0.75, max_relative = 1e-15);
        assert_eq!([p[0], p[1], p[3], p[4]], [0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let shape = LossShape { n: 2, classes: 3 };
        let operands = BceForwardBackward {
            loss: &mut [0.0][..],
            dlogits: &mut [0.0; 6],
            logits: &[0.0; 6][..],
            targets: &[0.0; 6],
            weights: &[0.0; 2],
        };
        let error = Reference::EXACT.bce_forward_backward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "bce_forward_backward: operand weights has 2 elements, its shape asks for 3");
        let error = Reference::EXACT.sigmoid(Sigmoid { p: &mut [0.0], z: &[0.0; 2] }).unwrap_err();
        assert_eq!(error.to_string(), "sigmoid: operand z has 2 elements, its shape asks for 1");
    }
}
