//! Depthwise convolutions of 3×3 where their kernels turn corners: columns of pixels cut into strips, slices of 128 channels
//! in bfloat16 and 64 in float; and what no tolerance would see.

use super::depthwise::{Depthwise, FUSED, check};
use super::{Array, agree, cuda, grid, grid_norm, narrow};
use onesheet::device::cuda::Precision;
use onesheet::device::{
    Activation, DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape,
    DeviceError, InputTransform, Memory, OutputGradient, Padding, ReduceEpilogue,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

#[test]
fn columns_in_strips() {
    for (seed, height) in [7, 8, 9, 16, 17, 33].into_iter().enumerate() {
        check([2, height, 5, 8], [3, 3], 1, 1, 100 * seed as u64);
        check([1, height, 6, 16], [3, 3], 2, Padding { before: 0, after: 1 }, 100 * seed as u64 + 50);
        check([1, height, 7, 8], [3, 3], 2, 1, 100 * seed as u64 + 70);
    }
}

#[test]
fn channels_in_slices() {
    for (seed, c) in [64, 72, 128, 136, 264].into_iter().enumerate() {
        check([1, 5, 6, c], [3, 3], 1 + seed % 2, 1, 100 * seed as u64);
    }
}

/// So many pixels that every block has several columns for each of its lines.
#[test]
fn more_columns_than_threads() {
    for (seed, (stride, pad)) in [(1, 1.into()), (2, Padding { before: 0, after: 1 })].into_iter().enumerate() {
        let shape = DepthwiseShape::new([40, 6, 2500 / 3, 8], [3, 3], stride, pad).unwrap();
        agree(&Depthwise { shape, fusions: FUSED, seed: 60 * seed as u64 });
    }
}

/// Spans of parameters begin at any float.
#[test]
fn filters_may_begin_anywhere() {
    for precision in PRECISIONS {
        let device = cuda::device(precision);
        let shape = DepthwiseShape::new([1, 5, 6, 16], [3, 3], 1, 1).unwrap();
        let x = Array::activation(&device, &grid(1, shape.input_len()));
        let filter = narrow(2, shape.weights_len());
        let forward = |behind: usize| {
            let w = Array::weights(&device, &[vec![0.0; behind], filter.clone()].concat());
            let mut y = Array::blank_activation(&device, shape.output_len());
            let w = w.suffix(behind);
            let operands = DepthwiseForward { y: y.view_mut(), stats: None, x: x.view(), transform: None, w };
            let (done, plan) = device.planned(|| device.depthwise_forward(operands, &shape));
            done.unwrap();
            (device.download(y.view()).unwrap(), plan[0].kernel)
        };
        let aligned = forward(0);
        assert_eq!(aligned.1, "depthwise_forward_3x3");
        for behind in 1..4 {
            assert_eq!(forward(behind), aligned, "on {}", device.name());
        }
    }
}

/// Statistics and sums come from many blocks, which finish in any order.
#[test]
fn sums_repeat_bit_for_bit() {
    for (precision, c) in PRECISIONS.into_iter().flat_map(|precision| [(precision, 32), (precision, 5)]) {
        let device = cuda::device(precision);
        let shape = DepthwiseShape::new([3, 33, 40, c], [3, 3], 1, 1).unwrap();
        let [x, dy] = [1, 2].map(|seed| Array::activation(&device, &narrow(seed, shape.input_len())));
        let w = Array::weights(&device, &narrow(3, shape.weights_len()));
        let norm = Array::new(&device, &grid_norm(4, c));
        let once = || {
            let [mut y, mut dx] = [(); 2].map(|()| Array::blank_activation(&device, shape.output_len()));
            let [mut stats, mut sums] = [(); 2].map(|()| Array::blank(&device, 2 * c));
            let mut dw = Array::new(&device, &vec![0.0; shape.weights_len()]);
            let stats_view = Some(stats.view_mut());
            let operands =
                DepthwiseForward { y: y.view_mut(), stats: stats_view, x: x.view(), transform: None, w: w.view() };
            device.depthwise_forward(operands, &shape).unwrap();
            let (sums_view, y, norm) = (sums.view_mut(), x.view(), norm.view());
            let epilogue = Some(ReduceEpilogue { sums: sums_view, y, norm, activation: Activation::Relu6 });
            let dy = OutputGradient::Ready(dy.view());
            let operands = DepthwiseBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy, w: w.view() };
            device.depthwise_backward_data(operands, &shape).unwrap();
            let operands = DepthwiseBackwardWeights { dw: dw.view_mut(), dy, x: x.view(), transform: None };
            device.depthwise_backward_weights(operands, &shape).unwrap();
            [stats, sums, dw].map(|array| device.download(array.view()).unwrap())
        };
        let first = once();
        assert!((0..3).all(|_| once() == first), "sums of {c} channels differ from run to run on {}", device.name());
    }
}

/// One NaN in the input shows in the outputs whose windows it is in, whatever the activation, and in no others.
#[test]
fn nan_spreads_no_further_than_its_taps() {
    for (c, stride, before) in [(8, 1, 1), (8, 2, 0), (5, 1, 1), (5, 2, 0)] {
        let shape = DepthwiseShape::new([2, 9, 10, c], [3, 3], stride, Padding { before, after: 1 }).unwrap();
        for (h, w) in [(0, 0), (4, 5), (8, 9)] {
            let mut image = grid(1, shape.input_len());
            image[((9 + h) * 10 + w) * c + 3] = f64::NAN;
            for (precision, activation) in [
                (Precision::F32, Activation::Linear),
                (Precision::Bf16, Activation::Relu),
                (Precision::Bf16, Activation::Relu6),
            ] {
                let device = cuda::device(precision);
                let x = Array::activation(&device, &image);
                let filter = Array::weights(&device, &narrow(2, shape.weights_len()));
                let norm = Array::new(&device, &grid_norm(3, c));
                let mut y = Array::blank_activation(&device, shape.output_len());
                let transform = Some(InputTransform { norm: norm.view(), activation });
                let operands =
                    DepthwiseForward { y: y.view_mut(), stats: None, x: x.view(), transform, w: filter.view() };
                device.depthwise_forward(operands, &shape).unwrap();
                for (i, value) in device.download(y.view()).unwrap().into_iter().enumerate() {
                    let (pixel, image) = (i / c % (shape.p * shape.q), i / c / (shape.p * shape.q));
                    let sees = |place: usize, at: usize| (0..3).any(|tap| place * stride + tap == at + before);
                    let sees = image == 1 && i % c == 3 && sees(pixel / shape.q, h) && sees(pixel % shape.q, w);
                    assert_eq!(value.is_nan(), sees, "({h}, {w}) of {shape:?} at {i} on {}", device.name());
                }
            }
        }
    }
}

#[test]
fn what_a_kernel_cannot_read_is_refused() {
    let device = cuda::device(Precision::Bf16);
    let shape = DepthwiseShape::new([1, 4, 4, 8], [3, 3], 1, 1).unwrap();
    // Not stored as activations are.
    let x = Array::new(&device, &grid(1, shape.input_len()));
    let w = Array::weights(&device, &narrow(2, shape.weights_len()));
    let mut y = Array::blank_activation(&device, shape.output_len());
    let operands = DepthwiseForward { y: y.view_mut(), stats: None, x: x.view(), transform: None, w: w.view() };
    let refused = device.depthwise_forward(operands, &shape);
    assert!(matches!(refused, Err(DeviceError::Shape { kernel: "depthwise_forward", .. })), "{refused:?}");
}
