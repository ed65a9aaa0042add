//! The passes over activations where their kernels turn corners: 16 bytes of channels or single ones, slices of 128 channels
//! in bfloat16 and 64 in float, blocks that share the rows; and what no tolerance would see.

use super::batch_norm::Passes;
use super::head::check_bad_numbers;
use super::pool::{self, Global};
use super::{ACTIVATIONS, Array, activation_of, agree, cuda, grid, grid_norm, narrow, norm_before, numbers};
use onesheet::device::cuda::Precision;
use onesheet::device::cuda::modules::Module;
use onesheet::device::{
    Activation, AdamKernels, BatchNormApply, BatchNormBackwardReduce, BatchNormKernels, BatchNormStatistics,
    ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, Device, DeviceError, GlobalPoolForward,
    GlobalPoolShape, InputTransform, Masked, MaxPoolBackward, MaxPoolForward, Memory, OutputGradient, Outside, Padding,
    PoolKernels, PoolShape, Projection, ReduceEpilogue, ResidualBackward, ResidualForward, Rows, SquaredNorm,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

/// A spill would cost every step its traffic, in silence; and a kernel of which no block fits would fail only when launched.
#[test]
fn no_kernel_spills_and_each_fits() {
    for precision in PRECISIONS {
        for module in Module::ALL {
            let file = cuda::gpu().module(module, precision).unwrap();
            for (kernel, resources) in file.kernels() {
                assert_eq!(resources.local_bytes, 0, "{kernel} of {}: {resources:?}", file.name);
                assert!(resources.resident_blocks > 0, "{kernel} of {}: {resources:?}", file.name);
            }
        }
    }
}

#[test]
fn rows_around_the_edges_of_blocks() {
    // 8, 16 and 32 channels go 256 to 32 lines a block deep, 136 and 264 in two and three slices.
    let shapes =
        [(1, 8), (255, 8), (513, 8), (31, 64), (33, 64), (129, 64), (15, 128), (17, 136), (65, 264), (3, 1032)];
    for (seed, (rows, channels)) in shapes.into_iter().enumerate() {
        for (projected, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let activation = activation_of(seed as u64 + u64::from(projected));
            agree(&Passes { shape: Rows { rows, channels }, activation, projected, relu, seed: 30 * seed as u64 });
        }
    }
}

#[test]
fn windows_of_whole_groups() {
    let shapes = [
        ([1, 19, 20, 64], 3, 2, 1),
        ([2, 10, 9, 136], 3, 2, 1),
        ([3, 5, 4, 8], 3, 2, 0),
        ([1, 2, 3, 16], 3, 2, 2),
        ([2, 7, 8, 24], 2, 2, 0),
        ([3, 1, 1, 16], 3, 2, 1),
        ([2, 7, 5, 24], 2, 2, 1),
        ([1, 6, 7, 40], 5, 1, 2),
        ([1, 17, 18, 8], 16, 3, 5),
    ];
    for (seed, (input, window, stride, pad)) in shapes.into_iter().enumerate() {
        pool::check(input, window, stride, pad, 30 * seed as u64);
    }
    // Xception's over even sides.
    pool::check([1, 18, 20, 136], 3, 2, Padding { before: 0, after: 1 }, 7);
    for (seed, (n, pixels, c)) in [(2, 25, 2048), (3, 9, 136), (1, 300, 8)].into_iter().enumerate() {
        agree(&Global { shape: GlobalPoolShape { n, pixels, c }, seed: 30 * seed as u64 });
    }
}

/// Whichever block is last: the simulated GPU runs them in no fixed order, and neither does a real one.
#[test]
fn sums_repeat_bit_for_bit() {
    for precision in PRECISIONS {
        let device = cuda::device(precision);
        let shape = Rows { rows: 2000, channels: 64 };
        let (dout, y) = (narrow(1, shape.len()), narrow(2, shape.len()));
        let [dout, y] = [dout, y].map(|values| Array::activation(&device, &values));
        let norm = Array::new(&device, &grid_norm(3, shape.channels));
        let once = |relu: bool| {
            let mut dz = Array::blank_activation(&device, shape.len());
            let [mut sums, mut projected] = [(); 2].map(|()| Array::blank(&device, 2 * shape.channels));
            let projection = Projection { sums: projected.view_mut(), y: dout.view(), norm: norm.view() };
            let operands = ResidualBackward {
                masked: relu.then(|| Masked { dz: dz.view_mut(), out: y.view() }),
                sums: sums.view_mut(),
                dout: dout.view(),
                y: y.view(),
                norm: norm.view(),
                projection: Some(projection),
            };
            device.residual_backward(operands, shape).unwrap();
            [sums, projected].map(|sums| device.download(sums.view()).unwrap())
        };
        for relu in [false, true] {
            let first = once(relu);
            assert!((0..4).all(|_| once(relu) == first), "sums differ from run to run on {}", device.name());
        }
    }
}

/// A hundred norms of ten blocks' numbers: the last block adds up what the others left, in their order.
#[test]
fn norms_repeat_bit_for_bit() {
    let device = cuda::device(Precision::F32);
    let x = Array::new(&device, &numbers(1, 10 * 16_384 - 5));
    let once = || {
        let mut sum = Array::blank(&device, 1);
        device.squared_norm(SquaredNorm { sum: sum.view_mut(), x: x.suffix(1) }).unwrap();
        device.download(sum.view()).unwrap()[0].to_bits()
    };
    let first = once();
    assert!((0..100).all(|_| once() == first), "norms differ from run to run");
}

#[test]
fn a_norm_loses_no_bad_number() {
    check_bad_numbers(&cuda::device(Precision::F32));
}

/// The channels of `found` that hold a NaN.
fn poisoned<D: Device>(device: &D, found: &Array<D>, channels: usize) -> Vec<usize> {
    let values = device.download(found.view()).unwrap();
    let nan =
        values.into_iter().map(|value| value.into()).enumerate().filter(|(_, value): &(usize, f64)| value.is_nan());
    let mut nan: Vec<usize> = nan.map(|(i, _)| i % channels).collect();
    nan.dedup();
    nan
}

#[test]
fn nothing_swallows_nan() {
    for (precision, channels) in PRECISIONS.into_iter().flat_map(|precision| [(precision, 8), (precision, 5)]) {
        let device = cuda::device(precision);
        let shape = Rows { rows: 9, channels };
        let mut faulty = grid(1, shape.len());
        faulty[4 * channels + 3] = f64::NAN;
        let faulty = Array::activation(&device, &faulty);
        let sound = Array::activation(&device, &grid(2, shape.len()));
        let is_in_channel_3 = |found: &Array<_>, what: &str| {
            assert_eq!(poisoned(&device, found, channels), [3], "{what} of {channels} channels on {}", device.name());
        };

        let mut a = Array::blank_activation(&device, shape.len());
        let mut sums = Array::blank(&device, 2 * channels);
        let windows = [Outside::Zeros, Outside::Nothing]
            .map(|outside| PoolShape::new([1, 3, 3, channels], 3, 2, 1, outside).unwrap());
        let mut largest = Array::blank_activation(&device, windows[0].output_len());
        for activation in ACTIVATIONS {
            let norm = Array::new(&device, &norm_before(activation, 3, channels));
            let (y, n) = (faulty.view(), norm.view());
            device.batch_norm_apply(BatchNormApply { a: a.view_mut(), y, norm: n, activation }, shape).unwrap();
            is_in_channel_3(&a, "batch_norm_apply");
            let (dz, sums_of_dz, da) = (a.view_mut(), sums.view_mut(), sound.view());
            let operands = BatchNormBackwardReduce { dz, sums: sums_of_dz, da, y, norm: n, activation };
            device.batch_norm_backward_reduce(operands, shape).unwrap();
            is_in_channel_3(&a, "batch_norm_backward_reduce");
            is_in_channel_3(&sums, "its sums");
            let transform = Some(InputTransform { norm: n, activation });
            for window in &windows {
                device.max_pool_forward(MaxPoolForward { y: largest.view_mut(), x: y, transform }, window).unwrap();
                is_in_channel_3(&largest, "max_pool_forward");
            }
        }
        for window in &windows {
            let operands = MaxPoolForward { y: largest.view_mut(), x: faulty.view(), transform: None };
            device.max_pool_forward(operands, window).unwrap();
            is_in_channel_3(&largest, "max_pool_forward");
        }
        let operands = BatchNormStatistics { stats: sums.view_mut(), y: faulty.view() };
        device.batch_norm_statistics(operands, shape).unwrap();
        is_in_channel_3(&sums, "batch_norm_statistics");

        let norm = Array::new(&device, &grid_norm(3, channels));
        let places = [(&faulty, &sound, false), (&sound, &faulty, false), (&sound, &faulty, true)];
        for ((y, shortcut, owed), relu) in places.into_iter().flat_map(|place| [(place, false), (place, true)]) {
            let operands = ResidualForward {
                out: a.view_mut(),
                y: y.view(),
                norm: norm.view(),
                shortcut: shortcut.view(),
                shortcut_norm: owed.then(|| norm.view()),
                relu,
            };
            device.residual_forward(operands, shape).unwrap();
            is_in_channel_3(&a, "residual_forward");
        }
        let operands = ResidualBackward {
            masked: Some(Masked { dz: a.view_mut(), out: faulty.view() }),
            sums: sums.view_mut(),
            dout: sound.view(),
            y: sound.view(),
            norm: norm.view(),
            projection: None,
        };
        device.residual_backward(operands, shape).unwrap();
        is_in_channel_3(&a, "residual_backward");
        is_in_channel_3(&sums, "its sums");
        for (dout, y) in [(&faulty, &sound), (&sound, &faulty)] {
            let (sums_of_dout, dout, y, norm) = (sums.view_mut(), dout.view(), y.view(), norm.view());
            let operands = ResidualBackward { masked: None, sums: sums_of_dout, dout, y, norm, projection: None };
            device.residual_backward(operands, shape).unwrap();
            is_in_channel_3(&sums, "the sums without a ReLU");
        }

        let whole = GlobalPoolShape { n: 1, pixels: 9, c: channels };
        let mut y = Array::blank(&device, channels);
        device.global_max_pool_forward(GlobalPoolForward { y: y.view_mut(), x: faulty.view() }, &whole).unwrap();
        is_in_channel_3(&y, "global_max_pool_forward");
        device.global_average_pool_forward(GlobalPoolForward { y: y.view_mut(), x: faulty.view() }, &whole).unwrap();
        is_in_channel_3(&y, "global_average_pool_forward");
    }
}

/// On tensor cores and on CUDA cores.
#[test]
fn no_convolution_swallows_nan() {
    for (precision, channels) in PRECISIONS.into_iter().flat_map(|precision| [(precision, 8), (precision, 5)]) {
        let device = cuda::device(precision);
        let shape = ConvShape::new([1, 3, 3, channels], channels, [1, 1], 1, 0).unwrap();
        let mut faulty = grid(1, shape.input_len());
        faulty[4 * channels + 3] = f64::NAN;
        let faulty = Array::activation(&device, &faulty);
        let w = Array::weights(&device, &narrow(2, shape.weights_len()));
        let dy = Array::activation(&device, &narrow(3, shape.output_len()));
        for activation in ACTIVATIONS {
            let norm = Array::new(&device, &norm_before(activation, 4, channels));
            let what = format!("{channels} channels and {activation:?} on {}", device.name());
            let (x, norm, gradient) = (faulty.view(), norm.view(), OutputGradient::Ready(dy.view()));
            let transform = Some(InputTransform { norm, activation });

            let mut y = Array::blank_activation(&device, shape.output_len());
            let operands = ConvForward {
                y: y.view_mut(),
                stats: None,
                x,
                transform,
                w: w.view(),
                bias: None,
                activation: Activation::Linear,
            };
            device.conv_forward(operands, &shape).unwrap();
            for (i, value) in device.download(y.view()).unwrap().into_iter().enumerate() {
                assert_eq!(value.is_nan(), i / channels == 4, "y at {i} of {what}");
            }
            let mut dx = Array::blank_activation(&device, shape.input_len());
            let mut sums = Array::blank(&device, 2 * channels);
            let epilogue = Some(ReduceEpilogue { sums: sums.view_mut(), y: x, norm, activation });
            let operands =
                ConvBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy: gradient, w: w.view() };
            device.conv_backward_data(operands, &shape).unwrap();
            let mut dw = Array::new(&device, &vec![0.0; shape.weights_len()]);
            let operands = ConvBackwardWeights { dw: dw.view_mut(), dy: gradient, x, transform };
            device.conv_backward_weights(operands, &shape).unwrap();
            for (name, found) in [("dx", &dx), ("sums", &sums), ("dw", &dw)] {
                assert_eq!(poisoned(&device, found, channels), [3], "{name} of {what}");
            }
        }
    }
}

#[test]
fn what_a_kernel_cannot_read_is_refused() {
    let device = cuda::device(Precision::Bf16);
    let shape = Rows { rows: 2, channels: 8 };
    let (full, norm) = (Array::new(&device, &grid(1, shape.len())), Array::new(&device, &grid_norm(2, 8)));
    let mut a = Array::blank_activation(&device, shape.len());
    let (y, norm) = (full.view(), norm.view());
    let operands = BatchNormApply { a: a.view_mut(), y, norm, activation: Activation::Relu };
    let refused = device.batch_norm_apply(operands, shape);
    assert!(matches!(refused, Err(DeviceError::Shape { kernel: "batch_norm_apply", .. })), "{refused:?}");

    let window = PoolShape::new([1, 17, 17, 1], 17, 1, 0, Outside::Zeros).unwrap();
    let x = Array::activation(&device, &grid(3, 289));
    let (dy, mut dx) = (Array::activation(&device, &[1.0]), Array::blank_activation(&device, 289));
    let operands = MaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: x.view(), transform: None };
    let refused = device.max_pool_backward(operands, &window);
    assert!(matches!(refused, Err(DeviceError::Shape { kernel: "max_pool_backward", .. })), "{refused:?}");
}
