//! The roundings of a precision: what the CUDA kernels round, and where. Sums stay in `f64`, so a CUDA device differs from this one
//! only by its own sums, which are in `f32` and in another order.
//!
//! Rounding to bfloat16 alone moves the loss of a freshly drawn ResNet-50 by several percent, so a comparison with exact numbers
//! could not tell a wrong kernel from a right one.

use super::Reference;
use crate::device::{ConvShape, Precision};
use half::bf16;

impl Reference {
    /// Rounds what is stored as an activation.
    pub(super) fn store(&self, values: &mut [f64]) {
        if self.rounding == Some(Precision::Bf16) {
            // By way of `f32`, as the kernels sum. And straight from an `f64`, `half` drops the last bits before it looks for a tie.
            values.iter_mut().for_each(|x| *x = bf16::from_f32(*x as f32).to_f64());
        }
    }

    /// The factors of a convolution's products, rounded if tensor cores multiply them. Those take channels and filters in multiples of
    /// 16 bytes; and, with kernels of its own, the stem's three channels.
    pub(super) fn factors(&self, mut values: Vec<f64>, shape: &ConvShape) -> Vec<f64> {
        let precision = self.rounding.unwrap_or(Precision::F32);
        let chunk = 16 / precision.bytes();
        let is_stem = [shape.c, shape.r, shape.s] == [3, 7, 7] && shape.k.is_multiple_of(8);
        if is_stem || shape.c.is_multiple_of(chunk) && shape.k.is_multiple_of(chunk) {
            match precision {
                Precision::F32 => {}
                Precision::Tf32 => values.iter_mut().for_each(|x| *x = tf32(*x)),
                Precision::Bf16 => self.store(&mut values),
            }
        }
        values
    }

    /// The factors of a dense layer's products, which tensor cores multiply in every precision but `f32`.
    pub(super) fn dense_factors(&self, values: &[f64]) -> Vec<f64> {
        match self.rounding {
            None | Some(Precision::F32) => values.to_vec(),
            Some(Precision::Tf32 | Precision::Bf16) => values.iter().map(|&x| tf32(x)).collect(),
        }
    }
}

/// Ten bits of mantissa, ties away from zero.
fn tf32(x: f64) -> f64 {
    let x = x as f32;
    f64::from(if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & !0x1fff) } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 + 2⁻⁸ is a tie between two bfloat16 numbers, and 1 + 2⁻¹¹ between two of tf32.
    const VALUES: [f64; 4] = [1.0 + 1.0 / 256.0, -1.0 - 3.0 / 256.0, 1.0 + 1.0 / 2048.0, f64::INFINITY];

    #[test]
    fn a_number_just_above_a_tie_is_rounded_up() {
        let mut values = [1.0 + 1.0 / 256.0 + f64::from(f32::EPSILON)];
        Reference::rounding(Precision::Bf16).store(&mut values);
        assert_eq!(values, [1.0 + 2.0 / 256.0]);
    }

    #[test]
    fn activations_are_stored_narrow_in_bf16_alone() {
        let stored = |device: Reference| {
            let mut values = VALUES;
            device.store(&mut values);
            values
        };
        assert_eq!(stored(Reference::rounding(Precision::Bf16)), [1.0, -1.0 - 4.0 / 256.0, 1.0, f64::INFINITY]);
        for device in [Reference::EXACT, Reference::rounding(Precision::F32), Reference::rounding(Precision::Tf32)] {
            assert_eq!(stored(device), VALUES);
        }
    }

    #[test]
    fn factors_are_rounded_where_tensor_cores_multiply() {
        let tf32 = [VALUES[0], VALUES[1], 1.0 + 1.0 / 1024.0, f64::INFINITY];
        let bf16 = [1.0, -1.0 - 4.0 / 256.0, 1.0, f64::INFINITY];
        let factors = |precision, c, k, filter: usize| {
            let shape = ConvShape::new([1, 8, 8, c], k, [filter; 2], 1, 0).unwrap();
            Reference::rounding(precision).factors(VALUES.to_vec(), &shape)
        };
        assert_eq!(factors(Precision::F32, 8, 8, 1), VALUES);
        assert_eq!(factors(Precision::Tf32, 4, 12, 1), tf32);
        assert_eq!(factors(Precision::Bf16, 8, 16, 3), bf16);
        assert_eq!(factors(Precision::Bf16, 3, 8, 7), bf16, "the stem");
        for (c, k) in [(12, 8), (8, 12), (3, 8)] {
            assert_eq!(factors(Precision::Bf16, c, k, 1), VALUES, "{c} channels and {k} filters go to CUDA cores");
        }
        for precision in [Precision::Tf32, Precision::Bf16] {
            assert_eq!(Reference::rounding(precision).dense_factors(&VALUES), tf32);
        }
        assert_eq!(Reference::rounding(Precision::F32).dense_factors(&VALUES), VALUES);
        assert_eq!(Reference::EXACT.dense_factors(&VALUES), VALUES);
    }

    #[test]
    fn no_rounding_hides_a_nan() {
        let mut values = [f64::NAN];
        Reference::rounding(Precision::Bf16).store(&mut values);
        assert!(values[0].is_nan() && tf32(f64::NAN).is_nan());
    }
}
