//! Depthwise convolution: all passes of one geometry, with every fused end on and off.

use super::network::layers::{self, DepthwiseLayer};
use super::{Array, Case, Output, agree, grid, grid_norm, narrow, numbers, sum_tolerance};
use onesheet::device::{
    Activation, DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseShape, Device,
    InputTransform, OutputGradient, Padding, ReduceEpilogue,
};
use onesheet::network::NETWORKS;

/// What is fused into the passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fusions {
    /// The input is owed a batch norm with this behind it, and the data gradient is reduced for it.
    pub norm: Option<Activation>,
    /// The output's statistics are taken.
    pub stats: bool,
    /// The output's gradient is owed.
    pub owed: bool,
    /// The data gradient is added to what is there.
    pub accumulate: bool,
}

/// Nothing fused.
pub const PLAIN: Fusions = Fusions { norm: None, stats: false, owed: false, accumulate: false };

/// Everything fused, as in MobileNet.
pub const FUSED: Fusions = Fusions { norm: Some(Activation::Relu6), stats: true, owed: true, accumulate: true };

/// Forward, data gradient and weight gradient of one depthwise convolution.
#[derive(Debug)]
pub struct Depthwise {
    pub shape: DepthwiseShape,
    pub fusions: Fusions,
    pub seed: u64,
}

impl Case for Depthwise {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Depthwise { ref shape, fusions, seed } = *self;
        let array = |values: Vec<f64>| Array::new(device, &values);
        // So large that a ReLU6 sees all of its parts; exact all the same.
        let x = grid(seed, shape.input_len()).into_iter().map(|x| 8.0 * x).collect::<Vec<_>>();
        let x = Array::activation(device, &x);
        let norm = array(grid_norm(seed + 1, shape.c));
        let w = Array::weights(device, &narrow(seed + 2, shape.weights_len()));
        let dz = Array::activation(device, &narrow(seed + 4, shape.output_len()));
        let raw = Array::activation(device, &narrow(seed + 5, shape.output_len()));
        let k = array(numbers(seed + 6, 3 * shape.c));

        let transform = fusions.norm.map(|activation| InputTransform { norm: norm.view(), activation });
        let dy = match fusions.owed {
            true => OutputGradient::Owed { dz: dz.view(), y: raw.view(), k: k.view() },
            false => OutputGradient::Ready(dz.view()),
        };
        // Bounds of an element: of the transformed input, and of the output's gradient.
        let (input, slope) = (if fusions.norm.is_some() { 9.0 } else { 8.0 }, if fusions.owed { 3.0 } else { 1.0 });
        let (taps, pixels) = (shape.r * shape.s, shape.n * shape.p * shape.q);

        let mut y = Array::blank_activation(device, shape.output_len());
        let mut stats = Array::blank(device, 2 * shape.c);
        let wanted = fusions.stats.then(|| stats.view_mut());
        let operands = DepthwiseForward { y: y.view_mut(), stats: wanted, x: x.view(), transform, w: w.view() };
        device.depthwise_forward(operands, shape).unwrap();
        let forward = sum_tolerance(taps + 1, input);
        let mut outputs = vec![y.output(device, "y", forward)];
        if fusions.stats {
            // A variance is a mean of squares, each off by twice the product of a value, about √taps, and its error;
            // those of different pixels partly cancel. What storing the output rounds counts likewise.
            let spread = (input * (taps as f64).sqrt()).max(1.0);
            outputs.push(stats.output(device, "stats", 0.5 * spread * forward).rounded(1, spread * spread));
        }

        let mut dx = match fusions.accumulate {
            true => Array::activation(device, &narrow(seed + 7, shape.input_len())),
            false => Array::blank_activation(device, shape.input_len()),
        };
        let mut sums = Array::blank(device, 2 * shape.c);
        let epilogue = fusions.norm.map(|activation| ReduceEpilogue {
            sums: sums.view_mut(),
            y: x.view(),
            norm: norm.view(),
            activation,
        });
        let operands =
            DepthwiseBackwardData { dx: dx.view_mut(), accumulate: fusions.accumulate, epilogue, dy, w: w.view() };
        device.depthwise_backward_data(operands, shape).unwrap();
        let backward = sum_tolerance(taps + 1, slope);
        outputs.push(dx.output(device, "dx", backward));
        if fusions.norm.is_some() {
            // Errors of the summands are independent; the sum's own roundings come on top.
            let inputs = shape.n * shape.h * shape.w;
            let summand = slope * input * (taps as f64).sqrt();
            let tolerance = 4.0 * input * backward * (inputs as f64).sqrt() + sum_tolerance(inputs, summand);
            outputs.push(sums.output(device, "sums", tolerance).rounded(inputs, summand));
        }

        let mut dw = array(numbers(seed + 8, shape.weights_len()));
        let operands = DepthwiseBackwardWeights { dw: dw.view_mut(), dy, x: x.view(), transform };
        device.depthwise_backward_weights(operands, shape).unwrap();
        outputs.push(dw.output(device, "dw", sum_tolerance(pixels + 1, input * slope)));
        outputs
    }
}

/// Plain, and with everything fused.
pub fn check(input: [usize; 4], filter: [usize; 2], stride: usize, pad: impl Into<Padding>, seed: u64) {
    let shape = DepthwiseShape::new(input, filter, stride, pad).unwrap();
    agree(&Depthwise { shape, fusions: PLAIN, seed });
    agree(&Depthwise { shape, fusions: FUSED, seed: seed + 20 });
}

/// Paddings of 3×3 filters: MobileNet's with stride 2, that with stride 1, and the others.
pub const PADDINGS: [Padding; 4] = [
    Padding { before: 0, after: 1 },
    Padding { before: 1, after: 1 },
    Padding { before: 1, after: 0 },
    Padding { before: 0, after: 0 },
];

#[test]
fn every_fusion_alone_and_together() {
    let norms = [None, Some(Activation::Linear), Some(Activation::Relu), Some(Activation::Relu6)];
    for (stride, c) in [(1, 6), (2, 8)] {
        let shape = DepthwiseShape::new([2, 7, 5, c], [3, 3], stride, PADDINGS[2 - stride]).unwrap();
        for norm in norms {
            for bits in 0..8 {
                let [stats, owed, accumulate] = [1, 2, 4].map(|bit| bits & bit != 0);
                agree(&Depthwise { shape, fusions: Fusions { norm, stats, owed, accumulate }, seed: bits });
            }
        }
    }
}

#[test]
fn random_odd_shapes() {
    use rand::RngExt;
    let mut random = super::support::generator(7);
    for seed in 0..30 {
        let [r, s] = [(); 2].map(|()| random.random_range(1..=5));
        let [n, c] = [3, 20].map(|most| random.random_range(1..=most));
        let [h, w] = [r, s].map(|least| random.random_range(least..=12));
        let [before, after] = [(); 2].map(|()| random.random_range(0..=3));
        check([n, h, w, c], [r, s], random.random_range(1..=3), Padding { before, after }, 1000 + 50 * seed);
    }
}

#[test]
fn channels_strides_and_paddings() {
    for (seed, c) in [1, 3, 8, 32, 257].into_iter().enumerate() {
        for stride in 1..=3 {
            let pad = PADDINGS[(seed + stride) % 4];
            check([2, 9, 8, c], [3, 3], stride, pad, 100 * seed as u64 + stride as u64);
        }
    }
    for (seed, pad) in PADDINGS.into_iter().enumerate() {
        for stride in 1..=2 {
            check([1, 6, 7, 16], [3, 3], stride, pad, 1000 + 10 * seed as u64 + stride as u64);
        }
    }
}

#[test]
fn one_of_everything() {
    check([1, 1, 1, 1], [1, 1], 1, 0, 1);
    check([1, 1, 1, 1], [3, 3], 1, 1, 2);
    check([1, 1, 1, 8], [3, 3], 1, 1, 3);
    check([1, 1, 1, 8], [3, 3], 2, 1, 4);
    check([1, 2, 1, 8], [3, 3], 2, Padding { before: 1, after: 1 }, 5);
    check([3, 1, 9, 70], [1, 3], 1, 0, 6);
    check([2, 9, 1, 7], [3, 1], 2, 1, 7);
}

#[test]
fn padding_wider_than_the_filter() {
    check([2, 3, 4, 5], [1, 1], 1, 1, 1);
    check([1, 3, 2, 5], [2, 2], 1, 3, 2);
    check([1, 1, 1, 3], [1, 1], 4, Padding { before: 3, after: 0 }, 3);
    check([1, 4, 3, 8], [3, 3], 2, Padding { before: 4, after: 5 }, 4);
    check([1, 4, 3, 8], [3, 3], 1, Padding { before: 5, after: 3 }, 5);
}

#[derive(Debug)]
struct FarFromZero;

/// Variance 1/1024 about a mean of 4, all exact even in bfloat16. Sums of squares that are not taken about a mean lose a
/// thousandth of it.
impl Case for FarFromZero {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let shape = DepthwiseShape::new([1, 20, 20, 8], [3, 3], 1, 1).unwrap();
        let x: Vec<f64> = (0..3200).map(|i| 4.0 + if i / 8 % 2 == 0 { 1.0 } else { -1.0 } / 32.0).collect();
        let identity: Vec<f64> = (0..72).map(|i| if i / 8 == 4 { 1.0 } else { 0.0 }).collect();
        let (x, w) = (Array::activation(device, &x), Array::weights(device, &identity));
        let (mut y, mut stats) = (Array::blank_activation(device, 3200), Array::blank(device, 16));
        let stats_view = Some(stats.view_mut());
        let operands =
            DepthwiseForward { y: y.view_mut(), stats: stats_view, x: x.view(), transform: None, w: w.view() };
        device.depthwise_forward(operands, &shape).unwrap();
        vec![y.output(device, "y", 0.0), stats.output(device, "stats", 4e-9)]
    }
}

#[test]
fn statistics_far_from_zero() {
    agree(&FarFromZero);
}

/// The depthwise layers of every network at 150×150 over so many images, with what is fused to each.
pub fn of_the_networks(n: usize) -> Vec<Depthwise> {
    let mut cases: Vec<Depthwise> = Vec::new();
    for layer in NETWORKS.into_iter().flat_map(|network| layers::depthwise(network, n, 150)) {
        let DepthwiseLayer { shape, owed: norm, accumulates: accumulate, normed, .. } = layer;
        let fusions = Fusions { norm, stats: normed, owed: normed, accumulate };
        if !cases.iter().any(|case| (case.shape, case.fusions) == (shape, fusions)) {
            cases.push(Depthwise { shape, fusions, seed: 100 * cases.len() as u64 });
        }
    }
    cases
}

#[test]
fn the_networks_shapes() {
    let cases = of_the_networks(1);
    let has = |side, c, stride, normed| {
        let mut cases = cases.iter().map(|case| (case.shape, case.fusions.stats));
        cases.any(|(shape, stats)| (shape.h, shape.c, shape.stride, stats) == (side, c, stride, normed))
    };
    // MobileNet's first and last, and Xception's.
    assert!(has(75, 32, 1, true) && has(4, 1024, 1, true) && has(72, 64, 1, false) && has(5, 1536, 1, false));
    cases.iter().for_each(agree);
}
