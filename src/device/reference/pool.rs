//! Pooling, each window looked at afresh.

use super::{Reference, transformed};
use crate::device::{
    DeviceError, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape, InputTransform,
    MaxPoolBackward, MaxPoolForward, Outside, PoolKernels, PoolShape,
};

/// A running maximum that keeps the first of equals, and a NaN once it met one.
struct Best<T> {
    value: f64,
    at: T,
}

impl<T> Best<T> {
    fn of(candidates: impl Iterator<Item = (f64, T)>) -> Option<Self> {
        candidates.map(|(value, at)| Best { value, at }).reduce(|best, next| {
            if next.value > best.value || next.value.is_nan() && !best.value.is_nan() { next } else { best }
        })
    }
}

/// Calls `visit(y, value, x)` for every window: its element of `y`, its maximum, and the element of `x` that holds it,
/// which is none where a zero outside won.
fn each_window(
    x: &[f64],
    transform: Option<InputTransform<&[f64]>>,
    shape: &PoolShape,
    mut visit: impl FnMut(usize, f64, Option<usize>),
) {
    let &PoolShape { n: images, h, w, c: channels, window, stride, pad, outside, p, q } = shape;
    for y in 0..images * p * q * channels {
        let (c, j, i, n) = (y % channels, y / channels % q, y / channels / q % p, y / channels / q / p);
        let pixels = (0..window * window).filter_map(|tap| {
            // Still offset by `pad`, to stay in the unsigned numbers.
            let (row, column) = (i * stride + tap / window, j * stride + tap % window);
            if row < pad || row >= h + pad || column < pad || column >= w + pad {
                return (outside == Outside::Zeros).then_some((0.0, None));
            }
            let at = ((n * h + row - pad) * w + column - pad) * channels + c;
            Some((transformed(x[at], c, channels, transform), Some(at)))
        });
        if let Some(best) = Best::of(pixels) {
            visit(y, best.value, best.at);
        }
    }
}

/// Calls `visit(y, value, x)` for every channel of every image, as [`each_window`] does for windows.
fn each_channel(x: &[f64], shape: &GlobalPoolShape, mut visit: impl FnMut(usize, f64, usize)) {
    for y in 0..shape.output_len() {
        let (n, c) = (y / shape.c, y % shape.c);
        let pixels = (0..shape.pixels).map(|i| (n * shape.pixels + i) * shape.c + c).map(|at| (x[at], at));
        if let Some(best) = Best::of(pixels) {
            visit(y, best.value, best.at);
        }
    }
}

impl PoolKernels for Reference {
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<&[f64], &mut [f64]>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolForward { y, x, transform } = operands;
        each_window(x, transform, shape, |i, value, _| y[i] = value);
        self.store(y);
        Ok(())
    }

    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<&[f64], &mut [f64]>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        dx.fill(0.0);
        each_window(x, transform, shape, |i, _, winner| {
            if let Some(at) = winner {
                dx[at] += dy[i];
            }
        });
        self.store(dx);
        Ok(())
    }

    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<&[f64], &mut [f64]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_average_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        for (i, y) in y.iter_mut().enumerate() {
            let (n, c) = (i / shape.c, i % shape.c);
            let sum: f64 = (0..shape.pixels).map(|pixel| x[(n * shape.pixels + pixel) * shape.c + c]).sum();
            *y = sum / shape.pixels as f64;
        }
        Ok(())
    }

    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<&[f64], &mut [f64]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalAveragePoolBackward { dx, dy } = operands;
        for (i, dx) in dx.iter_mut().enumerate() {
            let (n, c) = (i / shape.c / shape.pixels, i % shape.c);
            *dx = dy[n * shape.c + c] / shape.pixels as f64;
        }
        self.store(dx);
        Ok(())
    }

    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<&[f64], &mut [f64]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_max_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        each_channel(x, shape, |i, value, _| y[i] = value);
        Ok(())
    }

    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<&[f64], &mut [f64]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalMaxPoolBackward { dx, dy, x } = operands;
        dx.fill(0.0);
        each_channel(x, shape, |i, _, at| dx[at] = dy[i]);
        self.store(dx);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Activation, Padding};

    fn forward(x: &[f64], norm: Option<&[f64]>, shape: &PoolShape) -> Vec<f64> {
        let mut y = vec![f64::NAN; shape.output_len()];
        let transform = norm.map(|norm| InputTransform { norm, activation: Activation::Relu });
        Reference::EXACT.max_pool_forward(MaxPoolForward { y: &mut y, x, transform }, shape).unwrap();
        y
    }

    fn backward(dy: &[f64], x: &[f64], norm: Option<&[f64]>, shape: &PoolShape) -> Vec<f64> {
        let mut dx = vec![f64::NAN; shape.input_len()];
        let transform = norm.map(|norm| InputTransform { norm, activation: Activation::Relu });
        Reference::EXACT.max_pool_backward(MaxPoolBackward { dx: &mut dx, dy, x, transform }, shape).unwrap();
        dx
    }

    #[test]
    fn windows_overlap_and_their_gradients_add() {
        // 3×3/2 over 3×5 of one channel, no padding: both windows share the middle column, which holds the 9.
        let shape = PoolShape::new([1, 3, 5, 1], 3, 2, 0, Outside::Zeros).unwrap();
        #[rustfmt::skip]
        let x = [
            1.0, 2.0, 3.0, 4.0, 5.0,
            1.0, 2.0, 9.0, 4.0, 5.0,
            1.0, 2.0, 3.0, 4.0, 5.0,
        ];
        assert_eq!(forward(&x, None, &shape), [9.0, 9.0]);
        let mut expected = [0.0; 15];
        expected[7] = 30.0;
        assert_eq!(backward(&[10.0, 20.0], &x, None, &shape), expected);
    }

    #[test]
    fn ties_go_to_the_first_in_reading_order() {
        let shape = PoolShape::new([1, 2, 2, 1], 2, 1, 0, Outside::Zeros).unwrap();
        assert_eq!(backward(&[7.0], &[4.0, 5.0, 5.0, 5.0], None, &shape), [0.0, 7.0, 0.0, 0.0]);
    }

    #[test]
    fn a_window_won_by_the_padding_gives_its_gradient_to_nobody() {
        // Two channels of one pixel, 3×3/2 padded by 1: the padding's zeros beat −3, and not 2.
        let shape = PoolShape::new([1, 1, 1, 2], 3, 2, 1, Outside::Zeros).unwrap();
        assert_eq!(forward(&[-3.0, 2.0], None, &shape), [0.0, 2.0]);
        assert_eq!(backward(&[5.0, 7.0], &[-3.0, 2.0], None, &shape), [0.0, 7.0]);
        // A pixel of zero ties with the padding, whose corner comes first in reading order.
        assert_eq!(backward(&[5.0, 7.0], &[0.0, 2.0], None, &shape), [0.0, 7.0]);
    }

    #[test]
    fn where_nothing_lies_outside_the_pixels_inside_are_all() {
        // The same pixels: each wins its window, whatever its sign.
        let shape = PoolShape::new([1, 1, 1, 2], 3, 2, 1, Outside::Nothing).unwrap();
        assert_eq!(forward(&[-3.0, 2.0], None, &shape), [-3.0, 2.0]);
        assert_eq!(backward(&[5.0, 7.0], &[-3.0, 2.0], None, &shape), [5.0, 7.0]);
        // Of equals the first inside wins, also of the least that there can be.
        let shape = PoolShape::new([1, 2, 2, 1], 3, 2, Padding { before: 0, after: 1 }, Outside::Nothing).unwrap();
        assert_eq!(forward(&[f64::NEG_INFINITY; 4], None, &shape), [f64::NEG_INFINITY]);
        assert_eq!(backward(&[5.0], &[f64::NEG_INFINITY; 4], None, &shape), [5.0, 0.0, 0.0, 0.0]);
        let shape = PoolShape::new([1, 2, 2, 1], 3, 2, Padding { before: 1, after: 0 }, Outside::Nothing).unwrap();
        assert_eq!(backward(&[5.0], &[-1.0; 4], None, &shape), [5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_window_that_sees_no_pixel_needs_zeros_outside() {
        for pad in [Padding { before: 2, after: 0 }, Padding { before: 0, after: 2 }] {
            assert!(PoolShape::new([1, 4, 4, 1], 2, 1, pad, Outside::Zeros).is_ok());
            let error = PoolShape::new([1, 4, 4, 1], 2, 1, pad, Outside::Nothing).unwrap_err().to_string();
            assert!(error.contains("2x2") && error.contains("sees no pixel"), "{error}");
        }
    }

    #[test]
    fn padding_is_zero_after_the_transform() {
        // relu(−x + 1): (5, −2) become (0, 3); the padding stays 0 although relu(shift) is 1. Odd size, stride 2.
        let shape = PoolShape::new([1, 3, 1, 1], 3, 2, 1, Outside::Zeros).unwrap();
        let norm = Some(&[-1.0, 1.0, f64::NAN, f64::NAN][..]);
        assert_eq!(forward(&[5.0, 5.0, -2.0], norm, &shape), [0.0, 3.0]);
        // The gradient is that of the transformed input: neither scale nor mask is applied.
        assert_eq!(backward(&[1.0, 2.0], &[5.0, 5.0, -2.0], norm, &shape), [0.0, 0.0, 2.0]);
    }

    #[test]
    fn images_and_channels_keep_their_places() {
        let shape = PoolShape::new([2, 1, 2, 2], 1, 1, 0, Outside::Zeros).unwrap();
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(forward(&x, None, &shape), x);
        assert_eq!(backward(&x, &x, None, &shape), x);
    }

    /// Two images of three pixels and two channels.
    const GLOBAL: GlobalPoolShape = GlobalPoolShape { n: 2, pixels: 3, c: 2 };
    const MAP: [f64; 12] = [1.0, -5.0, 2.0, -1.0, 6.0, -1.0, 0.0, 8.0, 0.0, 9.0, 0.0, 10.0];

    #[test]
    fn the_average_is_over_pixels() {
        let mut y = vec![f64::NAN; 4];
        Reference::EXACT.global_average_pool_forward(GlobalPoolForward { y: &mut y, x: &MAP }, &GLOBAL).unwrap();
        assert_eq!(y, [3.0, -7.0 / 3.0, 0.0, 9.0]);
        let mut dx = vec![f64::NAN; 12];
        let operands = GlobalAveragePoolBackward { dx: &mut dx[..], dy: &[3.0, 6.0, 9.0, 12.0][..] };
        Reference::EXACT.global_average_pool_backward(operands, &GLOBAL).unwrap();
        assert_eq!(dx, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn the_maximum_is_over_pixels_and_ties_go_to_the_first() {
        let mut y = vec![f64::NAN; 4];
        Reference::EXACT.global_max_pool_forward(GlobalPoolForward { y: &mut y, x: &MAP }, &GLOBAL).unwrap();
        assert_eq!(y, [6.0, -1.0, 0.0, 10.0]);
        let mut dx = vec![f64::NAN; 12];
        let operands = GlobalMaxPoolBackward { dx: &mut dx[..], dy: &[3.0, 6.0, 9.0, 12.0][..], x: &MAP[..] };
        Reference::EXACT.global_max_pool_backward(operands, &GLOBAL).unwrap();
        assert_eq!(dx, [0.0, 0.0, 0.0, 6.0, 3.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 12.0]);
    }

    #[test]
    fn one_pixel_passes_through() {
        let shape = GlobalPoolShape { n: 1, pixels: 1, c: 3 };
        let (x, mut y) = ([1.0, -2.0, 3.0], vec![f64::NAN; 3]);
        Reference::EXACT.global_average_pool_forward(GlobalPoolForward { y: &mut y, x: &x }, &shape).unwrap();
        assert_eq!(y, x);
        Reference::EXACT.global_max_pool_forward(GlobalPoolForward { y: &mut y, x: &x }, &shape).unwrap();
        assert_eq!(y, x);
    }

    #[test]
    fn a_maximum_over_what_was_never_written_shows() {
        let shape = GlobalPoolShape { n: 1, pixels: 3, c: 1 };
        for at in 0..3 {
            let (mut x, mut y) = ([1.0, 2.0, 3.0], [0.0]);
            x[at] = f64::NAN;
            Reference::EXACT.global_max_pool_forward(GlobalPoolForward { y: &mut y, x: &x }, &shape).unwrap();
            assert!(y[0].is_nan());
        }
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let shape = PoolShape::new([1, 2, 2, 1], 2, 1, 0, Outside::Zeros).unwrap();
        let (mut y, mut dx, x) = ([0.0], [0.0; 4], [0.0; 4]);
        let transform = Some(InputTransform { norm: &[0.0; 3][..], activation: Activation::Relu });
        let operands = MaxPoolForward { y: &mut y[..], x: &x[..], transform };
        let error = Reference::EXACT.max_pool_forward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "max_pool_forward: operand transform.norm has 3 elements, its shape asks for 4");
        let operands = MaxPoolForward { y: &mut y[..], x: &x[..3], transform: None };
        let error = Reference::EXACT.max_pool_forward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "max_pool_forward: operand x has 3 elements, its shape asks for 4");
        let operands = MaxPoolBackward { dx: &mut dx[..], dy: &[0.0; 2][..], x: &x[..], transform: None };
        let error = Reference::EXACT.max_pool_backward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "max_pool_backward: operand dy has 2 elements, its shape asks for 1");
        let operands = MaxPoolBackward { dx: &mut dx[..], dy: &[0.0][..], x: &x[..], transform };
        let error = Reference::EXACT.max_pool_backward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "max_pool_backward: operand transform.norm has 3 elements, its shape asks for 4");
    }

    #[test]
    fn wrong_lengths_of_a_global_pool_name_the_kernel() {
        let (mut y, mut dx) = ([0.0; 4], [0.0; 12]);
        let operands = GlobalPoolForward { y: &mut y[..], x: &MAP[1..] };
        let error = Reference::EXACT.global_average_pool_forward(operands, &GLOBAL).unwrap_err();
        assert_eq!(error.to_string(), "global_average_pool_forward: operand x has 11 elements, its shape asks for 12");
        let operands = GlobalPoolForward { y: &mut y[1..], x: &MAP[..] };
        let error = Reference::EXACT.global_max_pool_forward(operands, &GLOBAL).unwrap_err();
        assert_eq!(error.to_string(), "global_max_pool_forward: operand y has 3 elements, its shape asks for 4");
        let operands = GlobalAveragePoolBackward { dx: &mut dx[..], dy: &y[1..] };
        let error = Reference::EXACT.global_average_pool_backward(operands, &GLOBAL).unwrap_err();
        assert_eq!(error.to_string(), "global_average_pool_backward: operand dy has 3 elements, its shape asks for 4");
        let operands = GlobalMaxPoolBackward { dx: &mut dx[..], dy: &y[..], x: &MAP[1..] };
        let error = Reference::EXACT.global_max_pool_backward(operands, &GLOBAL).unwrap_err();
        assert_eq!(error.to_string(), "global_max_pool_backward: operand x has 11 elements, its shape asks for 12");
    }
}
