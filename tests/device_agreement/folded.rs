//! Convolutions of a network that only answers, on devices that fold.

use super::{
    ACTIVATIONS, Array, BF16_ROUNDING, Case, EPSILON, Output, narrow, numbers, sum_tolerance, support, threads,
};
use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, ConvShape, DepthwiseShape, Device, Foldable, FoldedForward, FoldedKernels, FoldedShape, Padding,
    Precision, Storage,
};

/// One convolution.
#[derive(Debug)]
struct Folded {
    shape: FoldedShape,
    accumulate: bool,
    activation: Activation,
    seed: u64,
}

impl Case for Folded {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Folded { ref shape, accumulate, activation, seed } = *self;
        // Scaled by powers of two filters are as exact in bfloat16 as they were.
        let x = Array::activation(device, &narrow(seed, shape.input_len()));
        let w = narrow(seed + 1, shape.weights_len());
        let scale: Vec<f64> = (0..shape.channels()).map(|at| [0.5, -1.0, 2.0][at % 3]).collect();
        let bias = numbers(seed + 2, shape.channels());
        let filters = Foldable { w: &w, scale: &scale, bias: &bias, storage: Storage::Activation };
        let filters = device.fold(filters, shape).unwrap();
        let mut y = match accumulate {
            true => Array::activation(device, &narrow(seed + 3, shape.output_len())),
            false => Array::blank_activation(device, shape.output_len()),
        };
        let operands = FoldedForward { y: y.view_mut(), accumulate, x: x.view(), filters: &filters, activation };
        device.folded_forward(operands, shape).unwrap();
        let terms = shape.flops() as usize / shape.output_len() / 2 + 2;
        vec![y.output(device, "y", sum_tolerance(terms, 1.0))]
    }
}

fn check(shape: FoldedShape, seed: u64) {
    for (at, activation) in ACTIVATIONS.into_iter().enumerate() {
        let case = Folded { shape, accumulate: at % 2 == 0, activation, seed: 10 * seed + at as u64 };
        let expected = &case.run(&Reference::EXACT)[0];
        for (precision, stored) in [(Precision::F32, 0.0), (Precision::Bf16, BF16_ROUNDING)] {
            let (what, found) = (format!("{case:?} in {precision:?}"), case.run(&Cpu::storing(precision).poisoned()));
            let rtol = 4.0 * EPSILON + stored;
            support::compare(&what, &found[0].values, &expected.values, expected.tolerance, rtol).unwrap();
            if seed.is_multiple_of(4) {
                threads::repeats_in(precision, &case);
            }
        }
    }
}

fn full(input: [usize; 4], filters: usize, window: [usize; 2], stride: usize, pad: impl Into<Padding>, seed: u64) {
    check(FoldedShape::Full(ConvShape::new(input, filters, window, stride, pad).unwrap()), seed);
}

fn depthwise(input: [usize; 4], window: usize, stride: usize, pad: impl Into<Padding>, seed: u64) {
    check(FoldedShape::Depthwise(DepthwiseShape::new(input, [window; 2], stride, pad).unwrap()), seed);
}

#[test]
fn plain_products() {
    // One pixel, fewer filters than a panel has, whole panels and one more; then a tile of pixels, one less and one more.
    for (seed, [n, side, c, k]) in
        [[1, 1, 7, 3], [3, 1, 64, 33], [1, 5, 48, 129], [2, 2, 31, 64], [1, 10, 40, 300], [5, 3, 16, 16]]
            .into_iter()
            .enumerate()
    {
        full([n, side, side, c], k, [1, 1], 1, 0, seed as u64);
    }
    for (seed, width) in [(6, 119), (7, 120), (8, 121)] {
        full([1, 1, width, 20], 40, [1, 1], 1, 0, seed);
        full([1, 3, width, 20], 24, [1, 1], 1, 0, seed + 4);
    }
}

#[test]
fn windows_strides_and_paddings() {
    full([2, 9, 8, 5], 21, [3, 3], 2, 1, 20);
    full([1, 7, 7, 130], 40, [3, 3], 2, Padding { before: 0, after: 1 }, 21);
    full([2, 8, 8, 24], 70, [1, 1], 2, 0, 22);
    full([1, 23, 23, 3], 16, [7, 7], 2, 3, 23);
    full([3, 40, 33, 3], 35, [5, 4], 1, 2, 24);
    full([1, 4, 4, 4], 4, [4, 4], 1, 0, 25);
    // Patches that one thread forms tile by tile, and two for all tiles at once.
    full([1, 50, 50, 72], 40, [3, 3], 2, 1, 28);
    // Runs of one number more than are copied as if all were of one length.
    full([1, 9, 9, 11], 5, [3, 3], 2, 1, 29);
}

/// Too few channels for Winograd's transform to pay.
#[test]
fn three_by_three_of_stride_one() {
    full([1, 5, 5, 32], 48, [3, 3], 1, 1, 30);
    full([3, 24, 24, 16], 33, [3, 3], 1, 1, 32);
    full([2, 19, 22, 20], 16, [3, 3], 1, 0, 36);
}

/// Rows of filters that are whole blocks of a product: the input is read with zeros around it. In `f32` the first is multiplied by
/// Winograd's transform.
#[test]
fn lines_behind_each_other() {
    full([2, 19, 22, 32], 48, [3, 3], 1, 1, 50);
    full([1, 5, 5, 64], 40, [3, 3], 1, 1, 52);
    full([2, 9, 8, 32], 16, [3, 3], 1, 0, 53);
    full([3, 8, 9, 8], 7, [5, 4], 1, 2, 54);
    full([1, 70, 40, 32], 33, [2, 1], 1, 1, 55);
    full([9, 4, 3, 64], 130, [3, 3], 1, 2, 56);
    full([2, 20, 21, 128], 40, [3, 3], 1, 1, 57);
}

/// Images: rows of filters are filled up to whole blocks, lines may be a stride apart, and there may be zeros on one side alone.
#[test]
fn lines_of_an_image() {
    full([2, 31, 33, 3], 64, [7, 7], 2, 3, 70);
    full([1, 20, 19, 3], 32, [3, 3], 2, Padding { before: 0, after: 1 }, 71);
    full([3, 15, 14, 3], 33, [3, 3], 2, 0, 72);
    full([2, 12, 30, 3], 64, [3, 3], 1, 1, 73);
    full([1, 17, 9, 1], 5, [5, 3], 3, Padding { before: 1, after: 2 }, 76);
}

/// Winograd's transform over too few tiles for all threads: each takes some of the output channels.
#[test]
fn few_tiles_are_shared_by_output_channels() {
    full([1, 12, 12, 64], 48, [3, 3], 1, 1, 60);
}

#[test]
fn each_channel_by_itself() {
    depthwise([2, 9, 8, 21], 3, 1, 1, 40);
    depthwise([1, 12, 11, 40], 3, 2, Padding { before: 0, after: 1 }, 41);
    depthwise([3, 5, 5, 130], 5, 1, 2, 44);
}

#[test]
fn operands_of_another_shape_are_refused() {
    let device = Cpu::new();
    let shape = FoldedShape::Full(ConvShape::new([1, 2, 2, 3], 4, [1; 2], 1, 0).unwrap());
    let channelwise = FoldedShape::Depthwise(DepthwiseShape::new([1, 2, 2, 3], [1; 2], 1, 0).unwrap());
    let four = [0.5; 4];
    let storage = Storage::Activation;
    let fold = |w: &[f64], scale: &[f64], shape| device.fold(Foldable { w, scale, bias: &four, storage }, shape);
    assert!(fold(&[1.0; 11], &four, &shape).is_err());
    assert!(fold(&[1.0; 12], &four[1..], &shape).is_err());
    let filters = fold(&[1.0; 12], &four, &shape).unwrap();
    let forward = |y: usize, x: usize, shape| {
        let (mut y, x) = (Array::blank_activation(&device, y), Array::activation(&device, &vec![1.0; x]));
        let activation = Activation::Linear;
        let operands = FoldedForward { y: y.view_mut(), accumulate: false, x: x.view(), filters: &filters, activation };
        device.folded_forward(operands, shape)
    };
    assert!(forward(16, 12, &shape).is_ok());
    assert!(forward(15, 12, &shape).is_err() && forward(16, 11, &shape).is_err());
    assert!(forward(12, 12, &channelwise).unwrap_err().to_string().contains("another kind"));
}
