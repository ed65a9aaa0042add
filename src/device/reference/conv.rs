//! Convolution by its definition: seven nested loops, a bounds check for the padding.

use super::{Reference, activate, activation_gradient, gradient, grid, moments, paid, reduce_sums};
use crate::device::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError,
    OutputGradient, ReduceEpilogue,
};
use std::ops::Range;

/// Calls `visit(x, w, y)` for the products in `y += x·w`, taps in the padding left out: with the element of `y`, and with the C
/// elements of `x` and of `w` that lie together under a tap. All three passes are sums over these triples; they differ in which
/// of the three they sum into.
fn each_tap(shape: &ConvShape, mut visit: impl FnMut(Range<usize>, Range<usize>, usize)) {
    let &ConvShape { n: images, h, w: width, c: channels, k: filters, r: rows, s: columns, stride, pad, p, q } = shape;
    // Filters outside, so that a large network's weights are read from memory once.
    for k in 0..filters {
        for (r, s) in grid(rows, columns) {
            let w = ((k * rows + r) * columns + s) * channels;
            for n in 0..images {
                for (i, j) in grid(p, q) {
                    // Still offset by `pad`, to stay in the unsigned numbers.
                    let (y, x) = (i * stride + r, j * stride + s);
                    if y < pad || y >= h + pad || x < pad || x >= width + pad {
                        continue;
                    }
                    let x = ((n * h + y - pad) * width + x - pad) * channels;
                    visit(x..x + channels, w..w + channels, ((n * p + i) * q + j) * filters + k);
                }
            }
        }
    }
}

impl ConvKernels for Reference {
    fn conv_forward(&self, operands: ConvForward<&[f64], &mut [f64]>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvForward { y, stats, x, transform, w, bias, activation } = operands;
        let (x, w) = (self.factors(paid(x, shape.c, transform), shape), self.factors(w.to_vec(), shape));
        for (i, y) in y.iter_mut().enumerate() {
            *y = bias.map_or(0.0, |bias| bias[i % shape.k]);
        }
        each_tap(shape, |xs, ws, yi| y[yi] += x[xs].iter().zip(&w[ws]).map(|(x, w)| x * w).sum::<f64>());
        y.iter_mut().for_each(|y| *y = activate(activation, *y));
        self.store(y);
        if let Some(stats) = stats {
            moments(stats, y, shape.k);
        }
        Ok(())
    }

    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<&[f64], &mut [f64]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        if !accumulate {
            dx.fill(0.0);
        }
        let (dy, w) = (self.factors(self.formed(&dy, shape), shape), self.factors(w.to_vec(), shape));
        each_tap(shape, |xs, ws, yi| add_scaled(&mut dx[xs], &w[ws], dy[yi]));
        self.store(dx);
        if let Some(ReduceEpilogue { sums, y, norm, activation }) = epilogue {
            for (i, dx) in dx.iter_mut().enumerate() {
                let c = i % shape.c;
                *dx = activation_gradient(activation, norm[c] * y[i] + norm[shape.c + c], *dx);
            }
            reduce_sums(sums, dx, y, norm, shape.c);
        }
        Ok(())
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<&[f64], &mut [f64]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let (dy, x) = (self.factors(self.formed(&dy, shape), shape), self.factors(paid(x, shape.c, transform), shape));
        each_tap(shape, |xs, ws, yi| add_scaled(&mut dw[ws], &x[xs], dy[yi]));
        Ok(())
    }

    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<&[f64], &mut [f64]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardBias { dbias, dy } = operands;
        for (i, dy) in self.formed(&dy, shape).into_iter().enumerate() {
            dbias[i % shape.k] += dy;
        }
        Ok(())
    }
}

impl Reference {
    /// The output's gradient, as it is stored.
    fn formed(&self, dy: &OutputGradient<&[f64]>, shape: &ConvShape) -> Vec<f64> {
        let mut formed: Vec<f64> = (0..shape.output_len()).map(|i| gradient(dy, i, shape.k)).collect();
        self.store(&mut formed);
        formed
    }
}

/// `to += factor·from`.
fn add_scaled(to: &mut [f64], from: &[f64], factor: f64) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Activation, InputTransform};

    /// What an allocation holds.
    fn fresh(len: usize) -> Vec<f64> {
        vec![f64::NAN; len]
    }

    fn forward(x: &[f64], norm: Option<&[f64]>, w: &[f64], bias: Option<&[f64]>, shape: &ConvShape) -> Vec<f64> {
        let mut y = fresh(shape.output_len());
        let transform = norm.map(|norm| InputTransform { norm, activation: Activation::Relu });
        Reference::EXACT
            .conv_forward(
                ConvForward { y: &mut y, stats: None, x, transform, w, bias, activation: Activation::Linear },
                shape,
            )
            .unwrap();
        y
    }

    #[test]
    fn a_filter_slides_without_being_turned() {
        // 2×3 pixels under one 1×2 filter: cross-correlation, so the first weight meets the left pixel.
        let shape = ConvShape::new([1, 2, 3, 1], 1, [1, 2], 1, 0).unwrap();
        let y = forward(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], None, &[10.0, 1.0], None, &shape);
        assert_eq!(y, [12.0, 23.0, 45.0, 56.0]);
    }

    #[test]
    fn channels_filters_and_images_keep_their_places() {
        // Two images of one pixel and two channels, three 1×1 filters.
        let shape = ConvShape::new([2, 1, 1, 2], 3, [1, 1], 1, 0).unwrap();
        let w = [1.0, 0.0, 0.0, 1.0, 1.0, -1.0];
        let y = forward(&[3.0, 5.0, 7.0, 11.0], None, &w, Some(&[0.0, 100.0, 0.5]), &shape);
        assert_eq!(y, [3.0, 105.0, -1.5, 7.0, 111.0, -3.5]);
    }

    #[test]
    fn stride_two_on_an_odd_size_with_padding() {
        // 3×1 pixels become 5×3. A 3×1 filter steps over columns 0 and 2 of those, and both are padding.
        let shape = ConvShape::new([1, 3, 1, 1], 1, [3, 1], 2, 1).unwrap();
        assert_eq!((shape.p, shape.q), (2, 2));
        assert_eq!(forward(&[1.0, 2.0, 4.0], None, &[100.0, 10.0, 1.0], None, &shape), [0.0; 4]);
        // A 3×3 filter fits once across, and its middle column meets pixels (–, 1, 2) and (2, 4, –).
        let shape = ConvShape::new([1, 3, 1, 1], 1, [3, 3], 2, 1).unwrap();
        let w = [9.0, 100.0, 9.0, 9.0, 10.0, 9.0, 9.0, 1.0, 9.0];
        assert_eq!(forward(&[1.0, 2.0, 4.0], None, &w, None, &shape), [12.0, 240.0]);
    }

    #[test]
    fn padding_is_zero_after_the_transform() {
        // relu(2·x + 1): −1 becomes 0, 3 becomes 7, and the padding stays 0 although relu(shift) is 1.
        let shape = ConvShape::new([1, 1, 2, 1], 1, [3, 3], 1, 1).unwrap();
        let y = forward(&[-1.0, 3.0], Some(&[2.0, 1.0, f64::NAN, f64::NAN]), &[1.0; 9], None, &shape);
        assert_eq!(y, [7.0, 7.0]);
    }

    #[test]
    fn statistics_are_those_of_the_stored_output() {
        let shape = ConvShape::new([2, 1, 2, 1], 2, [1, 1], 1, 0).unwrap();
        let (mut y, mut stats) = (fresh(8), fresh(4));
        let (x, w, bias) = (&[1.0, 2.0, 3.0, 6.0][..], &[1.0, -2.0][..], Some(&[10.0, 0.0][..]));
        let operands = ConvForward {
            y: &mut y[..],
            stats: Some(&mut stats[..]),
            x,
            transform: None,
            w,
            bias,
            activation: Activation::Linear,
        };
        Reference::EXACT.conv_forward(operands, &shape).unwrap();
        assert_eq!(y, [11.0, -2.0, 12.0, -4.0, 13.0, -6.0, 16.0, -12.0]);
        assert_eq!(stats, [13.0, -6.0, 3.5, 14.0]);
    }

    #[test]
    fn the_activation_follows_the_bias() {
        // Three pixels: 1·x − 5 is −1, 2 and 11, of which ReLU6 makes 0, 2 and 6.
        let shape = ConvShape::new([1, 1, 3, 1], 1, [1, 1], 1, 0).unwrap();
        let (mut y, mut stats) = (fresh(3), fresh(2));
        let (x, w, bias) = (&[4.0, 7.0, 16.0][..], &[1.0][..], Some(&[-5.0][..]));
        let (wanted, activation) = (Some(&mut stats[..]), Activation::Relu6);
        let operands = ConvForward { y: &mut y[..], stats: wanted, x, transform: None, w, bias, activation };
        Reference::EXACT.conv_forward(operands, &shape).unwrap();
        assert_eq!(y, [0.0, 2.0, 6.0]);
        assert_eq!(stats[0], 8.0 / 3.0);
    }

    #[test]
    fn the_data_gradient_scatters_what_the_forward_pass_gathered() {
        let shape = ConvShape::new([1, 1, 3, 1], 1, [1, 2], 1, 0).unwrap();
        let (w, dy) = (&[10.0, 1.0][..], OutputGradient::Ready(&[1.0, 2.0][..]));
        let mut dx = fresh(3);
        for (accumulate, expected) in [(false, [10.0, 21.0, 2.0]), (true, [20.0, 42.0, 4.0])] {
            let operands = ConvBackwardData { dx: &mut dx[..], accumulate, epilogue: None, dy, w };
            Reference::EXACT.conv_backward_data(operands, &shape).unwrap();
            assert_eq!(dx, expected);
        }
    }

    #[test]
    fn pixels_that_a_stride_skips_get_no_gradient() {
        let shape = ConvShape::new([1, 3, 2, 1], 1, [1, 1], 2, 0).unwrap();
        let (mut dx, dy, w) = (fresh(6), OutputGradient::Ready(&[5.0, 7.0][..]), &[2.0][..]);
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: false, epilogue: None, dy, w };
        Reference::EXACT.conv_backward_data(operands, &shape).unwrap();
        assert_eq!(dx, [10.0, 0.0, 0.0, 0.0, 14.0, 0.0]);
    }

    #[test]
    fn the_epilogue_masks_the_total_and_sums_what_is_left() {
        // da = 1·(3, 4, 5) on top of (1, 1, 1); relu(2·y − 3) is awake at y = 2 and 4, and asleep at 1.
        let shape = ConvShape::new([1, 1, 3, 1], 1, [1, 1], 1, 0).unwrap();
        let (y, norm) = (&[2.0, 1.0, 4.0][..], &[2.0, -3.0, 1.5, 1.0][..]);
        let (dy, w) = (OutputGradient::Ready(&[3.0, 4.0, 5.0][..]), &[1.0][..]);
        let (mut dx, mut sums) = (vec![1.0; 3], fresh(2));
        let epilogue = Some(ReduceEpilogue { sums: &mut sums[..], y, norm, activation: Activation::Relu });
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: true, epilogue, dy, w };
        Reference::EXACT.conv_backward_data(operands, &shape).unwrap();
        assert_eq!(dx, [4.0, 0.0, 6.0]);
        assert_eq!(sums, [10.0, 4.0 * 0.5 + 6.0 * 2.5]);
    }

    #[test]
    fn an_owed_gradient_is_formed_while_loading() {
        // One pixel, two filters: dy = k₀·dz + k₁·y + k₂ = (2·1 + 0.5·4 + 1, 3·10 − 1·5 + 0) = (5, 25).
        let shape = ConvShape::new([1, 1, 1, 1], 2, [1, 1], 1, 0).unwrap();
        let (dz, y, k) = ([1.0, 10.0], [4.0, 5.0], [2.0, 3.0, 0.5, -1.0, 1.0, 0.0]);
        let (owed, w) = (OutputGradient::Owed { dz: &dz[..], y: &y[..], k: &k[..] }, &[1.0, 10.0][..]);
        let (mut dx, mut dw, mut dbias) = (fresh(1), vec![1.0, 2.0], vec![100.0, 200.0]);
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: false, epilogue: None, dy: owed, w };
        Reference::EXACT.conv_backward_data(operands, &shape).unwrap();
        assert_eq!(dx, [255.0]);
        let operands = ConvBackwardWeights { dw: &mut dw[..], dy: owed, x: &[3.0][..], transform: None };
        Reference::EXACT.conv_backward_weights(operands, &shape).unwrap();
        assert_eq!(dw, [16.0, 77.0]);
        Reference::EXACT.conv_backward_bias(ConvBackwardBias { dbias: &mut dbias, dy: owed }, &shape).unwrap();
        assert_eq!(dbias, [105.0, 225.0]);
    }

    #[test]
    fn the_weight_gradient_accumulates_over_pixels_of_the_transformed_input() {
        // a = relu(x − 1) = (0, 1, 4); taps (left, right): 2·0 + 3·1 and 2·1 + 3·4, on top of 100.
        let shape = ConvShape::new([1, 1, 3, 1], 1, [1, 2], 1, 0).unwrap();
        let transform = Some(InputTransform { norm: &[1.0, -1.0, 0.0, 1.0][..], activation: Activation::Relu });
        let mut dw = vec![100.0; 2];
        let dy = OutputGradient::Ready(&[2.0, 3.0][..]);
        let operands = ConvBackwardWeights { dw: &mut dw[..], dy, x: &[-7.0, 2.0, 5.0][..], transform };
        Reference::EXACT.conv_backward_weights(operands, &shape).unwrap();
        assert_eq!(dw, [103.0, 114.0]);
    }

    #[test]
    fn what_was_never_written_shows() {
        let shape = ConvShape::new([1, 1, 2, 1], 1, [1, 1], 1, 0).unwrap();
        let y = forward(&[1.0, f64::NAN], Some(&[1.0, 0.0, 0.0, 1.0]), &[1.0], None, &shape);
        assert!(y[0] == 1.0 && y[1].is_nan());
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let shape = ConvShape::new([1, 2, 2, 1], 3, [1, 1], 1, 0).unwrap();
        let (mut y, x, w, bias) = (fresh(12), &[0.0; 4][..], &[0.0; 3][..], Some(&[0.0; 2][..]));
        let operands =
            ConvForward { y: &mut y[..], stats: None, x, transform: None, w, bias, activation: Activation::Linear };
        let error = Reference::EXACT.conv_forward(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "conv_forward: operand bias has 2 elements, its shape asks for 3");
        let owed = OutputGradient::Owed { dz: &y[..], y: &y[..], k: &[0.0; 3][..] };
        let operands = ConvBackwardBias { dbias: &mut [0.0; 3][..], dy: owed };
        let error = Reference::EXACT.conv_backward_bias(operands, &shape).unwrap_err();
        assert_eq!(error.to_string(), "conv_backward_bias: operand dy.k has 3 elements, its shape asks for 9");
    }
}
