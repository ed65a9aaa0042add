//! The geometry of a convolution as its kernels see it (`kernels/conv/geometry.cuh`).

use crate::device::cuda::arguments::arguments;
use crate::device::{ConvShape, DeviceError};

/// A count as the kernels hold it.
///
/// # Errors
/// [`DeviceError::Shape`] when it does not fit in 31 bits.
pub(in crate::device::cuda) fn extent(kernel: &'static str, count: usize) -> Result<i32, DeviceError> {
    i32::try_from(count)
        .map_err(|_| DeviceError::Shape { kernel, reason: format!("{count} is more than its indices reach") })
}

arguments! {
    /// A convolution as the kernels see it.
    struct ConvGeometry {
        n: i32,
        h: i32,
        w: i32,
        c: i32,
        k: i32,
        r: i32,
        s: i32,
        stride: i32,
        pad: i32,
        p: i32,
        q: i32,
    }
}

impl ConvGeometry {
    pub(super) fn new(kernel: &'static str, shape: &ConvShape) -> Result<Self, DeviceError> {
        let of = |count| extent(kernel, count);
        Ok(ConvGeometry {
            n: of(shape.n)?,
            h: of(shape.h)?,
            w: of(shape.w)?,
            c: of(shape.c)?,
            k: of(shape.k)?,
            r: of(shape.r)?,
            s: of(shape.s)?,
            stride: of(shape.stride)?,
            pad: of(shape.pad)?,
            p: of(shape.p)?,
            q: of(shape.q)?,
        })
    }
}

arguments! {
    /// Division by a number known at the launch, as a multiplication.
    struct Divisor {
        divisor: i32,
        multiplier: u32,
        shift: u32,
    }
}

impl Divisor {
    pub(in crate::device::cuda) fn new(divisor: u32) -> Self {
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier = match divisor {
            1 => 0,
            _ => (1u64 << (31 + shift)).div_ceil(u64::from(divisor)) as u32,
        };
        Divisor { divisor: divisor as i32, multiplier, shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Divisor::split` of the kernels.
    fn quotient(by: Divisor, x: u32) -> u32 {
        if by.divisor == 1 { x } else { ((u64::from(x << 1) * u64::from(by.multiplier)) >> 32) as u32 >> by.shift }
    }

    #[test]
    fn divisors_divide() {
        for divisor in (1..2000).chain([4095, 4096, 4097, 65_535, 1 << 30, i32::MAX as u32]) {
            let by = Divisor::new(divisor);
            for x in (0..3 * divisor.min(700)).chain([1 << 20, (1 << 31) - 2, (1 << 31) - 1]) {
                assert_eq!(quotient(by, x), x / divisor, "{x} / {divisor}");
            }
        }
    }
}
