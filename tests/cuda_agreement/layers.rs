//! Channel counts that the tensor cores' tiles take whole, around the tiles' edges; the shared cases have mostly odd ones.

use super::conv::{Conv, FUSED, Fusions, PLAIN};
use super::network;
use super::{Array, Case, Output, activation_of, agree, compare, cuda, grid, grid_norm, narrow, sum_tolerance};
use onesheet::device::cuda::Precision;
use onesheet::device::cuda::scratch::TICKETS;
use onesheet::device::{
    Activation, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, Device, InputTransform,
    Memory, OutputGradient, Padding, ReduceEpilogue,
};
use onesheet::network::NETWORKS;
use std::collections::BTreeSet;

fn check(input: [usize; 4], k: usize, filter: usize, stride: usize, pad: impl Into<Padding>, seed: u64) {
    let shape = ConvShape::new(input, k, [filter, filter], stride, pad).unwrap();
    agree(&Conv { shape, fusions: PLAIN, seed });
    agree(&Conv { shape, fusions: FUSED, seed: seed + 20 });
}

/// The windows and strides of every network over its maps of few pixels, one less and one more, all extents unequal.
#[test]
fn the_networks_widths() {
    let shapes = NETWORKS.into_iter().flat_map(|network| network::layers::layers(network, 1, 150));
    let few = shapes.map(|layer| layer.shape).filter(|shape| shape.h <= 19);
    let distinct: BTreeSet<_> = few.map(|shape| (shape.h, shape.r, shape.stride, shape.pad)).collect();
    assert!(distinct.contains(&(5, 3, 1, 1)) && distinct.contains(&(19, 3, 2, 1)), "{distinct:?}");
    for (seed, (side, window, stride, pad)) in distinct.into_iter().enumerate() {
        for (side, seed) in
            [(side - 1, 0), (side, 17), (side + 1, 34)].map(|(side, more)| (side, 50 * seed as u64 + more))
        {
            let (n, c, k) = if window == 1 { (2, 24, 40) } else { (1, 16, 24) };
            check([n, side, side + 1, c], k, window, stride, pad, seed);
        }
    }
}

/// Tiles hold 64 or 128 pixels and as many filters; a slice of the sum 16 to 64 channels.
#[test]
fn around_the_edges_of_tiles() {
    for (seed, pixels) in [63, 64, 65, 127, 128, 129, 257].into_iter().enumerate() {
        check([1, 1, pixels, 32], 72, 1, 1, 0, 50 * seed as u64);
    }
    for (seed, filters) in [56, 64, 72, 120, 128, 136].into_iter().enumerate() {
        check([1, 3, 5, 40], filters, 1, 1, 0, 50 * seed as u64);
        check([1, 3, 5, filters], 40, 3, 1, 1, 50 * seed as u64 + 9);
    }
}

/// So many pixels that GPUs of about a hundred multiprocessors take the large tiles (a test of `choose/conv/product.rs` has these
/// very shapes), and that the sums over pixels are merged in two levels; with fewer columns than the tile, and fewer pixels.
#[test]
fn large_tiles() {
    check([2, 66, 67, 16], 120, 1, 1, 0, 1);
    check([2, 66, 67, 120], 16, 1, 1, 0, 60);
    check([2, 67, 66, 8], 64, 3, 1, 1, 120);
    check([2, 67, 66, 64], 8, 1, 1, 0, 180);
    check([2, 131, 134, 24], 56, 1, 2, 0, 240);
}

#[test]
fn every_fusion_alone_and_together() {
    for (index, filter) in [1, 3].into_iter().enumerate() {
        for bits in 0..32 {
            let [norm, ends, owed, accumulate, bounded] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let norm = norm.then(|| activation_of(bits));
            let activation =
                if bounded { activation_of(1 + u64::from(bits.count_ones() % 2)) } else { Activation::Linear };
            let shape = ConvShape::new([2, 7, 5, 16], 24, [filter, filter], 1, index).unwrap();
            agree(&Conv { shape, fusions: Fusions { norm, ends, owed, accumulate, activation }, seed: bits });
        }
    }
}

/// The activations but ReLU in each of the tiles, which are compiled for them once more.
#[test]
fn bounds_in_every_tile() {
    for norm in [Activation::Linear, Activation::Relu6].map(Some) {
        for (input, k, filter) in [([2, 66, 67, 16], 120, 1), ([2, 67, 66, 8], 64, 3), ([2, 7, 6, 40], 72, 3)] {
            let shape = ConvShape::new(input, k, [filter, filter], 1, filter / 2).unwrap();
            let case = Conv { shape, fusions: Fusions { norm, activation: Activation::Relu6, ..FUSED }, seed: 3 };
            assert_eq!(compare(&case, &[Precision::Tf32, Precision::Bf16]), Ok(()));
        }
    }
}

/// Windows that reach farther over one side of the image than over the other; with a stride over single pixels also windows
/// that see nothing but padding.
#[test]
fn padding_on_one_side() {
    for (seed, (before, after)) in [(0, 1), (1, 0), (2, 1), (0, 5)].into_iter().enumerate() {
        let pad = Padding { before, after };
        for (filter, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
            check([2, 8, 7, 16], 24, filter, stride, pad, 50 * seed as u64);
        }
    }
    // The stem's own filters, with its padding before the image and another behind.
    for after in [0, 2, 9] {
        let shape = ConvShape::new([2, 20, 33, 3], 8, [7, 7], 2, Padding { before: 3, after }).unwrap();
        agree(&Conv { shape, fusions: Fusions { ends: true, ..PLAIN }, seed: 1 });
    }
}

/// Weight gradients: many splits of few weights, tiles that begin and end within a tap, and the largest filter whose taps are
/// bits of a pixel's word, one less and one more.
#[test]
fn weight_gradients_split_and_straddle() {
    check([4, 19, 21, 8], 16, 3, 1, 1, 1);
    check([2, 9, 10, 24], 72, 3, 1, 1, 60);
    check([1, 33, 31, 16], 8, 2, 3, 0, 120);
    for (seed, filter) in [14, 15, 16].into_iter().enumerate() {
        check([1, 17, 16, 8], 8, filter, 1, 7, 180 + 50 * seed as u64);
    }
}

/// The stem's own path: 7×7 over three channels, at its size and around.
#[test]
fn stems() {
    for (seed, (h, w)) in [(9, 7), (16, 33), (31, 64), (64, 65), (20, 150)].into_iter().enumerate() {
        for k in [8, 64] {
            let shape = ConvShape::new([2, h, w, 3], k, [7, 7], 2, 3).unwrap();
            let activation = activation_of(seed as u64);
            for fusions in [PLAIN, Fusions { ends: true, activation, ..PLAIN }] {
                agree(&Conv { shape, fusions, seed: 10 * seed as u64 });
            }
        }
    }
}

/// A stem's pixels see exactly the image's pixels under them, wherever its rows begin in memory.
#[test]
fn a_stem_spreads_nan_no_further_than_its_taps() {
    for (h, w) in [(20, 36), (19, 37), (20, 37), (19, 36)] {
        let shape = ConvShape::new([2, h, w, 3], 8, [7, 7], 2, 3).unwrap();
        for (y, x, c) in [(0, 0, 0), (9, 17, 1), (10, 18, 2), (h - 1, w - 1, 2)] {
            let mut image = grid(1, shape.input_len());
            image[((h + y) * w + x) * 3 + c] = f64::NAN;
            for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                let device = cuda::device(precision);
                let image = Array::activation(&device, &image);
                let filters = Array::weights(&device, &narrow(2, shape.weights_len()));
                let mut out = Array::blank_activation(&device, shape.output_len());
                let operands = ConvForward {
                    y: out.view_mut(),
                    stats: None,
                    x: image.view(),
                    transform: None,
                    w: filters.view(),
                    bias: None,
                    activation: Activation::Linear,
                };
                device.conv_forward(operands, &shape).unwrap();
                for (i, value) in device.download(out.view()).unwrap().into_iter().enumerate() {
                    let (pixel, image) = (i / shape.k % (shape.p * shape.q), i / shape.k / (shape.p * shape.q));
                    // Tap 0 lies three pixels up and to the left of the output pixel's place.
                    let sees = |place: usize, at: usize| (2 * place..2 * place + 7).contains(&(at + 3));
                    let sees = image == 1 && sees(pixel / shape.q, y) && sees(pixel % shape.q, x);
                    assert_eq!(value.is_nan(), sees, "({y}, {x}, {c}) of {h}x{w} at {i} on {}", device.name());
                }
            }
        }
    }
}

/// A convolution of channels that make vectors, whose norm begins so many floats behind one.
#[derive(Debug)]
struct NormBehind(usize);

impl Case for NormBehind {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let shape = ConvShape::new([1, 5, 6, 16], 8, [1, 1], 1, 0).unwrap();
        let x = Array::activation(device, &grid(1, shape.input_len()));
        let norm = [vec![0.0; self.0], grid_norm(2, shape.c)].concat();
        let norm = Array::new(device, &norm);
        let norm = norm.suffix(self.0);
        let w = Array::weights(device, &narrow(3, shape.weights_len()));
        let dy = Array::activation(device, &narrow(4, shape.output_len()));
        let mut y = Array::blank_activation(device, shape.output_len());
        let mut dx = Array::blank_activation(device, shape.input_len());
        let mut sums = Array::blank(device, 2 * shape.c);
        let transform = Some(InputTransform { norm, activation: Activation::Relu });
        let operands = ConvForward {
            y: y.view_mut(),
            stats: None,
            x: x.view(),
            transform,
            w: w.view(),
            bias: None,
            activation: Activation::Linear,
        };
        device.conv_forward(operands, &shape).unwrap();
        let epilogue = Some(ReduceEpilogue { sums: sums.view_mut(), y: x.view(), norm, activation: Activation::Relu });
        let gradient = OutputGradient::Ready(dy.view());
        let operands = ConvBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy: gradient, w: w.view() };
        device.conv_backward_data(operands, &shape).unwrap();
        let (pixels, summand) = (shape.n * shape.h * shape.w, 2.0 * (shape.k as f64).sqrt());
        let backward = sum_tolerance(shape.k, 1.0);
        let sums_tolerance = 4.0 * backward * (pixels as f64).sqrt() + sum_tolerance(pixels, summand);
        vec![
            y.output(device, "y", sum_tolerance(shape.c, 2.0)).rounded(shape.c, 2.0),
            dx.output(device, "dx", backward),
            sums.output(device, "sums", sums_tolerance).rounded(pixels, summand),
        ]
    }
}

/// The tensor cores' kernels read a norm by 16 bytes, so they must leave one that lies anywhere to the CUDA cores'.
#[test]
fn a_norm_may_begin_anywhere() {
    for floats in 0..4 {
        agree(&NormBehind(floats));
    }
}

/// Strided data gradients of filters that skip and overlap: on CUDA cores in every precision.
#[test]
fn strides_of_larger_filters() {
    check([2, 13, 10, 16], 24, 3, 2, 1, 1);
    check([1, 12, 15, 8], 16, 5, 3, 2, 2);
    check([2, 9, 8, 8], 8, 2, 3, 0, 3);
}

/// Enough pixels that every multiprocessor gets one of the large tiles of the CUDA cores.
#[test]
fn tiles_for_every_multiprocessor() {
    for (filter, stride, pad) in [(1, 1, 0), (3, 1, 1), (3, 2, 1)] {
        let shape = ConvShape::new([1, 116 * stride, 115, 4], 8, [filter, filter], stride, pad).unwrap();
        for fusions in [PLAIN, FUSED] {
            let case = Conv { shape, fusions, seed: 7 };
            assert_eq!(compare(&case, &[Precision::F32]), Ok(()));
        }
    }
}

/// Blocks that find out which is the last of them draw tickets, and a device has so many.
#[test]
fn more_tickets_than_there_are_are_refused() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let device = cuda::device(precision);
        let shape = ConvShape::new([1, 1, 1, 8], 64 * (TICKETS + 1), [1, 1], 1, 0).unwrap();
        let x = Array::activation(&device, &narrow(1, shape.input_len()));
        let w = Array::weights(&device, &vec![0.0; shape.weights_len()]);
        let mut y = Array::blank_activation(&device, shape.output_len());
        let mut stats = Array::blank(&device, 2 * shape.k);
        let (x, w, stats) = (x.view(), w.view(), Some(stats.view_mut()));
        let operands =
            ConvForward { y: y.view_mut(), stats, x, transform: None, w, bias: None, activation: Activation::Linear };
        let refused = device.conv_forward(operands, &shape).unwrap_err();
        assert!(refused.to_string().contains("tickets"), "{refused} on {}", device.name());
    }
}

/// Statistics and gradients come from many blocks, which finish in any order.
#[test]
fn convolutions_repeat_bit_for_bit() {
    for (precision, side, c, k) in [
        (Precision::F32, 40, 8, 16),
        (Precision::F32, 40, 3, 8),
        (Precision::Tf32, 70, 3, 8),
        (Precision::Bf16, 70, 3, 8),
    ] {
        let device = cuda::device(precision);
        let shape = ConvShape::new([2, side, side, c], k, [7, 7], 2, 3).unwrap();
        let x = Array::activation(&device, &narrow(1, shape.input_len()));
        let dy = Array::activation(&device, &narrow(2, shape.output_len()));
        let w = Array::weights(&device, &narrow(3, shape.weights_len()));
        let once = || {
            let mut y = Array::blank_activation(&device, shape.output_len());
            let mut stats = Array::blank(&device, 2 * k);
            let mut dw = Array::new(&device, &vec![0.0; shape.weights_len()]);
            let (x, w, dy) = (x.view(), w.view(), OutputGradient::Ready(dy.view()));
            let wanted = Some(stats.view_mut());
            let operands = ConvForward {
                y: y.view_mut(),
                stats: wanted,
                x,
                transform: None,
                w,
                bias: None,
                activation: Activation::Linear,
            };
            device.conv_forward(operands, &shape).unwrap();
            let operands = ConvBackwardWeights { dw: dw.view_mut(), dy, x, transform: None };
            device.conv_backward_weights(operands, &shape).unwrap();
            [stats, dw].map(|array| device.download(array.view()).unwrap())
        };
        let first = once();
        assert!((0..3).all(|_| once() == first), "sums differ from run to run on {}", device.name());
    }
}
