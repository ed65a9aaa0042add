//! Depthwise convolution by its definition: six nested loops, a bounds check for the padding.

use super::{Reference, activation_gradient, gradient, grid, moments, reduce_sums, transformed};
use crate::device::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape, DeviceError,
    ReduceEpilogue,
};

/// Calls `visit(x, w, y)` with the three element indices of every product in `y += x·w`, taps in the padding left out.
fn each_product(shape: &DepthwiseShape, mut visit: impl FnMut(usize, usize, usize)) {
    let &DepthwiseShape { n: images, h, w: width, c: channels, r: rows, s: columns, stride, pad, p, q } = shape;
    for n in 0..images {
        for (i, j) in grid(p, q) {
            for (r, s) in grid(rows, columns) {
                // Still offset by `pad`, to stay in the unsigned numbers.
                let (y, x) = (i * stride + r, j * stride + s);
                if y < pad || y >= h + pad || x < pad || x >= width + pad {
                    continue;
                }
                for c in 0..channels {
                    visit(
                        ((n * h + y - pad) * width + x - pad) * channels + c,
                        (r * columns + s) * channels + c,
                        ((n * p + i) * q + j) * channels + c,
                    );
                }
            }
        }
    }
}

impl DepthwiseKernels for Reference {
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<&[f64], &mut [f64]>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseForward { y, stats, x, transform, w } = operands;
        y.fill(0.0);
        each_product(shape, |xi, wi, yi| y[yi] += transformed(x[xi], xi % shape.c, shape.c, transform) * w[wi]);
        self.store(y);
        if let Some(stats) = stats {
            moments(stats, y, shape.c);
        }
        Ok(())
    }

    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<&[f64], &mut [f64]>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        if !accumulate {
            dx.fill(0.0);
        }
        each_product(shape, |xi, wi, yi| dx[xi] += gradient(&dy, yi, shape.c) * w[wi]);
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

    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<&[f64], &mut [f64]>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardWeights { dw, dy, x, transform } = operands;
        each_product(shape, |xi, wi, yi| {
            dw[wi] += gradient(&dy, yi, shape.c) * transformed(x[xi], xi % shape.c, shape.c, transform);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Activation, InputTransform, OutputGradient, Padding};

    /// What an allocation holds.
    fn fresh(len: usize) -> Vec<f64> {
        vec![f64::NAN; len]
    }

    fn forward(x: &[f64], transform: Option<InputTransform<&[f64]>>, w: &[f64], shape: &DepthwiseShape) -> Vec<f64> {
        let mut y = fresh(shape.output_len());
        let operands = DepthwiseForward { y: &mut y[..], stats: None, x, transform, w };
        Reference::EXACT.depthwise_forward(operands, shape).unwrap();
        y
    }

    #[test]
    fn each_channel_has_its_own_filter() {
        // 1×3 pixels of two channels under 1×2 filters (1, 10) and (100, 1000), which slide without being turned.
        let shape = DepthwiseShape::new([1, 1, 3, 2], [1, 2], 1, 0).unwrap();
        let y = forward(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], None, &[1.0, 100.0, 10.0, 1000.0], &shape);
        assert_eq!(y, [21.0, 5400.0, 32.0, 6500.0]);
    }

    #[test]
    fn padding_stands_on_the_side_that_is_named() {
        // Stride 2 over 4 pixels and one behind, as in MobileNet: windows (0, 1, 2) and (2, 3, –).
        let w = [100.0, 10.0, 1.0];
        let behind = DepthwiseShape::new([1, 1, 4, 1], [1, 3], 2, Padding { before: 0, after: 1 }).unwrap();
        assert_eq!((behind.p, behind.q), (1, 2));
        assert_eq!(forward(&[1.0, 2.0, 3.0, 4.0], None, &w, &behind), [123.0, 340.0]);
        // One in front: windows (–, 0, 1) and (1, 2, 3), of the filters' middle row.
        let front = DepthwiseShape::new([1, 3, 4, 1], [3, 3], 2, Padding { before: 1, after: 0 }).unwrap();
        let (image, w) =
            ([1.0, 2.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0, 5.0, 5.0, 5.0, 5.0], [[9.0; 3], w, [0.0; 3]].concat());
        assert_eq!((front.p, front.q), (1, 2));
        assert_eq!(forward(&image, None, &w, &front), [12.0, 234.0]);
    }

    #[test]
    fn padding_is_zero_after_the_transform() {
        // relu6(2·x + 1): −1 becomes 0, 3 becomes 6, and the padding stays 0 although relu6(shift) is 1.
        let shape = DepthwiseShape::new([1, 1, 2, 1], [3, 3], 1, 1).unwrap();
        let norm = [2.0, 1.0, f64::NAN, f64::NAN];
        let transform = Some(InputTransform { norm: &norm[..], activation: Activation::Relu6 });
        assert_eq!(forward(&[-1.0, 3.0], transform, &[1.0; 9], &shape), [6.0, 6.0]);
    }

    #[test]
    fn statistics_are_those_of_the_stored_output() {
        let shape = DepthwiseShape::new([2, 1, 1, 2], [1, 1], 1, 0).unwrap();
        let (mut y, mut stats) = (fresh(4), fresh(4));
        let (x, w) = (&[1.0, 2.0, 3.0, 6.0][..], &[2.0, -1.0][..]);
        let operands = DepthwiseForward { y: &mut y[..], stats: Some(&mut stats[..]), x, transform: None, w };
        Reference::EXACT.depthwise_forward(operands, &shape).unwrap();
        assert_eq!((&y[..], &stats[..]), (&[2.0, -2.0, 6.0, -6.0][..], &[4.0, -4.0, 4.0, 4.0][..]));
    }

    #[test]
    fn the_data_gradient_scatters_masks_and_sums() {
        // dy (1, 2) under the filter (10, 1) gives (10, 21, 2) on top of 1 each; 2·y − 3 is awake at y = 2 and 4, not at 1.
        let shape = DepthwiseShape::new([1, 1, 3, 1], [1, 2], 1, 0).unwrap();
        let (y, norm) = (&[2.0, 1.0, 4.0][..], &[2.0, -3.0, 1.5, 1.0][..]);
        let (dy, w) = (OutputGradient::Ready(&[1.0, 2.0][..]), &[10.0, 1.0][..]);
        let (mut dx, mut sums) = (vec![1.0; 3], fresh(2));
        let epilogue = Some(ReduceEpilogue { sums: &mut sums[..], y, norm, activation: Activation::Relu });
        let operands = DepthwiseBackwardData { dx: &mut dx[..], accumulate: true, epilogue, dy, w };
        Reference::EXACT.depthwise_backward_data(operands, &shape).unwrap();
        assert_eq!((dx, sums), (vec![11.0, 0.0, 3.0], vec![14.0, 11.0 * 0.5 + 3.0 * 2.5]));
    }

    #[test]
    fn the_weight_gradient_forms_what_is_owed_on_both_sides() {
        // dy = 2·dz + 0.5·y + 1 = (5, 9); a = relu(x − 1) = (0, 1, 4); taps 5·0 + 9·1 and 5·1 + 9·4, on top of 100.
        let shape = DepthwiseShape::new([1, 1, 3, 1], [1, 2], 1, 0).unwrap();
        let transform = Some(InputTransform { norm: &[1.0, -1.0, 0.0, 1.0][..], activation: Activation::Relu });
        let dy = OutputGradient::Owed { dz: &[1.0, 2.0][..], y: &[4.0, 8.0][..], k: &[2.0, 0.5, 1.0][..] };
        let mut dw = vec![100.0; 2];
        let operands = DepthwiseBackwardWeights { dw: &mut dw[..], dy, x: &[-7.0, 2.0, 5.0][..], transform };
        Reference::EXACT.depthwise_backward_weights(operands, &shape).unwrap();
        assert_eq!(dw, [109.0, 141.0]);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let shape = DepthwiseShape::new([1, 2, 2, 3], [1, 1], 1, 0).unwrap();
        let (mut y, mut stats, x, w) = (fresh(12), fresh(5), [0.0; 12], [0.0; 3]);
        let operands =
            DepthwiseForward { y: &mut y[..], stats: Some(&mut stats[..]), x: &x[..], transform: None, w: &w[..] };
        let error = operands.check(&shape).unwrap_err().to_string();
        assert_eq!(error, "depthwise_forward: operand stats has 5 elements, its shape asks for 6");
        let dy = OutputGradient::Owed { dz: &x[..], y: &x[..], k: &x[..8] };
        let operands = DepthwiseBackwardData { dx: &mut y[..], accumulate: false, epilogue: None, dy, w: &w[..] };
        let error = operands.check(&shape).unwrap_err().to_string();
        assert_eq!(error, "depthwise_backward_data: operand dy.k has 8 elements, its shape asks for 9");
        let transform = Some(InputTransform { norm: &x[..11], activation: Activation::Linear });
        let dy = OutputGradient::Ready(&x[..]);
        let operands = DepthwiseBackwardWeights { dw: &mut y[..3], dy, x: &x[..], transform };
        let error = operands.check(&shape).unwrap_err().to_string();
        assert_eq!(error, "depthwise_backward_weights: operand transform.norm has 11 elements, its shape asks for 12");
    }
}
