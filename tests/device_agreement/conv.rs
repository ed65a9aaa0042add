//! Convolution: all passes of one geometry, with every fused end on and off.

use super::{
    Array, Case, Output, activation_of, agree, grid, largest_behind, narrow, norm_before, numbers, sum_tolerance,
};
use onesheet::device::{
    Activation, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvShape, Device,
    InputTransform, OutputGradient, Padding, ReduceEpilogue,
};

/// What is fused into the passes.
#[derive(Clone, Copy, Debug)]
pub struct Fusions {
    /// The input is owed a batch norm and this behind it, and the data gradient is reduced for it.
    pub norm: Option<Activation>,
    /// A bias is added and the output's statistics are taken.
    pub ends: bool,
    /// The output's gradient is owed.
    pub owed: bool,
    /// The data gradient is added to what is there.
    pub accumulate: bool,
    /// What is applied to the output; and, to an input that owes nothing, what gave it, so that the data gradient undoes it.
    pub activation: Activation,
}

/// Nothing fused.
pub const PLAIN: Fusions =
    Fusions { norm: None, ends: false, owed: false, accumulate: false, activation: Activation::Linear };

/// Everything fused, with a ReLU.
pub const FUSED: Fusions =
    Fusions { norm: Some(Activation::Relu), ends: true, owed: true, accumulate: true, activation: Activation::Relu };

/// Forward, data gradient, weight gradient and bias gradient of one convolution.
#[derive(Debug)]
pub struct Conv {
    pub shape: ConvShape,
    pub fusions: Fusions,
    pub seed: u64,
}

impl Case for Conv {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Conv { ref shape, fusions, seed } = *self;
        let array = |values: Vec<f64>| Array::new(device, &values);
        let x = Array::activation(device, &grid(seed, shape.input_len()));
        let norm = array(match fusions.norm {
            Some(activation) => norm_before(activation, seed + 1, shape.c),
            None => [vec![1.0; shape.c], vec![0.0; 3 * shape.c]].concat(),
        });
        let w = Array::weights(device, &narrow(seed + 2, shape.weights_len()));
        let bias = array(numbers(seed + 3, shape.k));
        let dz = Array::activation(device, &narrow(seed + 4, shape.output_len()));
        let raw = Array::activation(device, &narrow(seed + 5, shape.output_len()));
        let k = array(numbers(seed + 6, 3 * shape.k));

        let transform = fusions.norm.map(|activation| InputTransform { norm: norm.view(), activation });
        let gradient = match fusions.owed {
            true => OutputGradient::Owed { dz: dz.view(), y: raw.view(), k: k.view() },
            false => OutputGradient::Ready(dz.view()),
        };
        // Bounds of an element: of the transformed input, and of the output's gradient.
        let (input, slope) = (fusions.norm.map_or(1.0, largest_behind), if fusions.owed { 3.0 } else { 1.0 });
        let (taps, pixels) = (shape.r * shape.s, shape.n * shape.p * shape.q);

        // Products whose factors a device that stores them narrow has rounded.
        let rounded = |yes: bool, terms| if yes { terms } else { 0 };

        let mut y = Array::blank_activation(device, shape.output_len());
        let mut stats = Array::blank(device, 2 * shape.k);
        let bias = fusions.ends.then(|| bias.view());
        let wanted = fusions.ends.then(|| stats.view_mut());
        let operands = ConvForward {
            y: y.view_mut(),
            stats: wanted,
            x: x.view(),
            transform,
            w: w.view(),
            bias,
            activation: fusions.activation,
        };
        device.conv_forward(operands, shape).unwrap();
        let forward = sum_tolerance(taps * shape.c + 1, input);
        let mut outputs =
            vec![y.output(device, "y", forward).rounded(rounded(fusions.norm.is_some(), taps * shape.c), input)];
        if fusions.ends {
            // A variance is a mean of squares, each off by twice the product of a value, about √terms, and its error;
            // those of different pixels partly cancel.
            let spread = (input * ((taps * shape.c) as f64).sqrt()).max(1.0);
            outputs.push(stats.output(device, "stats", 0.5 * spread * forward).rounded(1, spread * spread));
        }

        let mut dx = match fusions.accumulate {
            true => Array::activation(device, &narrow(seed + 7, shape.input_len())),
            false => Array::blank_activation(device, shape.input_len()),
        };
        let mut sums = Array::blank(device, 2 * shape.c);
        let wanted = sums.view_mut();
        let masked = fusions.norm.or((fusions.activation != Activation::Linear).then_some(fusions.activation));
        let epilogue =
            masked.map(|activation| ReduceEpilogue { sums: wanted, y: x.view(), norm: norm.view(), activation });
        let (accumulate, w) = (fusions.accumulate, w.view());
        let operands = ConvBackwardData { dx: dx.view_mut(), accumulate, epilogue, dy: gradient, w };
        device.conv_backward_data(operands, shape).unwrap();
        let backward = sum_tolerance(taps * shape.k + 1, slope);
        outputs.push(dx.output(device, "dx", backward).rounded(rounded(fusions.owed, taps * shape.k), slope));
        if masked.is_some() {
            // Errors of the summands are independent; the sum's own roundings come on top.
            let inputs = shape.n * shape.h * shape.w;
            let summand = slope * ((taps * shape.k) as f64).sqrt();
            let tolerance = 4.0 * backward * (inputs as f64).sqrt() + sum_tolerance(inputs, 2.0 * summand);
            outputs.push(sums.output(device, "sums", tolerance).rounded(inputs, 2.0 * summand));
        }

        let mut dw = array(numbers(seed + 8, shape.weights_len()));
        let operands = ConvBackwardWeights { dw: dw.view_mut(), dy: gradient, x: x.view(), transform };
        device.conv_backward_weights(operands, shape).unwrap();
        let terms = rounded(fusions.owed || fusions.norm.is_some(), pixels);
        outputs.push(dw.output(device, "dw", sum_tolerance(pixels + 1, input * slope)).rounded(terms, input * slope));

        let mut dbias = array(numbers(seed + 9, shape.k));
        device.conv_backward_bias(ConvBackwardBias { dbias: dbias.view_mut(), dy: gradient }, shape).unwrap();
        let terms = rounded(fusions.owed, pixels);
        outputs.push(dbias.output(device, "dbias", sum_tolerance(pixels + 1, slope)).rounded(terms, slope));
        outputs
    }
}

fn check(input: [usize; 4], k: usize, filter: [usize; 2], stride: usize, pad: impl Into<Padding>, seed: u64) {
    let shape = ConvShape::new(input, k, filter, stride, pad).unwrap();
    agree(&Conv { shape, fusions: PLAIN, seed });
    let (norm, activation) = (Some(activation_of(seed)), activation_of(seed / 3));
    agree(&Conv { shape, fusions: Fusions { norm, activation, ..FUSED }, seed: seed + 20 });
}

#[test]
fn every_fusion_alone_and_together() {
    for (index, filter) in [[1, 1], [3, 3]].into_iter().enumerate() {
        for bits in 0..32 {
            let [norm, ends, owed, accumulate, bounded] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let norm = norm.then(|| activation_of(bits));
            let activation =
                if bounded { activation_of(1 + u64::from(bits.count_ones() % 2)) } else { Activation::Linear };
            let shape = ConvShape::new([2, 7, 5, 6], 9, filter, 1, index).unwrap();
            agree(&Conv { shape, fusions: Fusions { norm, ends, owed, accumulate, activation }, seed: bits });
        }
    }
}

#[test]
fn random_odd_shapes() {
    use rand::RngExt;
    let mut random = super::support::generator(7);
    for seed in 0..60 {
        let [r, s] = [(); 2].map(|()| random.random_range(1..=5));
        let [n, c, k] = [3, 20, 20].map(|most| random.random_range(1..=most));
        let [h, w] = [r, s].map(|least| random.random_range(least..=12));
        let stride = random.random_range(1..=3);
        let [before, after] = [(); 2].map(|()| random.random_range(0..=3));
        check([n, h, w, c], k, [r, s], stride, Padding { before, after }, 1000 + 50 * seed);
    }
}

#[test]
fn one_of_everything() {
    check([1, 1, 1, 1], 1, [1, 1], 1, 0, 1);
    check([1, 1, 1, 1], 1, [3, 3], 1, 1, 2);
    check([1, 1, 1, 5], 3, [1, 1], 2, 0, 3);
    check([1, 2, 1, 1], 70, [3, 1], 2, 1, 4);
    check([3, 1, 9, 70], 1, [1, 3], 1, 0, 5);
}

#[test]
fn strides_on_odd_sizes() {
    check([2, 19, 37, 8], 5, [1, 1], 2, 0, 1);
    check([2, 10, 5, 8], 5, [1, 1], 2, 0, 2);
    check([2, 9, 11, 6], 4, [3, 3], 2, 1, 3);
    check([1, 15, 14, 3], 4, [7, 7], 2, 3, 4);
    check([1, 13, 8, 3], 4, [2, 4], 3, 2, 5);
}

/// Windows that reach farther over one side of the image than over the other.
#[test]
fn padding_on_one_side() {
    for (seed, (before, after)) in [(0, 1), (1, 0), (2, 1), (0, 5)].into_iter().enumerate() {
        let pad = Padding { before, after };
        for (stride, seed) in [(1, 120 * seed as u64), (2, 120 * seed as u64 + 40), (3, 120 * seed as u64 + 80)] {
            check([2, 8, 7, 5], 6, [1, 1], stride, pad, seed);
            check([1, 7, 8, 6], 5, [3, 3], stride, pad, seed + 1);
        }
    }
    // MobileNet's first layer.
    check([2, 12, 10, 3], 32, [3, 3], 2, Padding { before: 0, after: 1 }, 2);
}

#[test]
fn padding_wider_than_the_filter() {
    check([2, 3, 4, 5], 6, [1, 1], 1, 1, 1);
    check([1, 3, 2, 5], 6, [2, 2], 1, 3, 2);
    check([1, 2, 2, 3], 4, [1, 2], 2, 4, 3);
}

/// Tiles hold 128 pixels, a weight gradient's tiles 256, its chunks at least 512; lanes are 64 channels, blocks of columns
/// 512, 576 or 768.
#[test]
fn around_the_edges_of_tiles() {
    for (seed, pixels) in [127, 128, 129, 255, 257, 511, 512, 513, 1023, 1025].into_iter().enumerate() {
        check([1, 1, pixels, 3], 5, [1, 1], 1, 0, 40 * seed as u64);
        check([1, 1, pixels, 3], 5, [1, 3], 1, 1, 40 * seed as u64);
        check([pixels, 1, 2, 3], 5, [1, 1], 2, 0, 40 * seed as u64);
    }
    for (seed, channels) in [63, 64, 65, 127, 128, 129].into_iter().enumerate() {
        check([1, 3, 4, channels], 3, [1, 1], 1, 0, 40 * seed as u64);
        check([1, 3, 4, 3], channels, [3, 3], 1, 1, 40 * seed as u64);
    }
    for (seed, channels) in [511, 512, 513, 575, 577, 767, 768, 769, 1537].into_iter().enumerate() {
        check([1, 3, 2, channels], 4, [1, 1], 1, 0, 40 * seed as u64);
        check([1, 3, 3, channels], 4, [1, 1], 2, 0, 40 * seed as u64);
        check([1, 3, 2, 4], channels, [1, 1], 1, 0, 40 * seed as u64);
    }
    for (seed, channels) in [85, 86, 171].into_iter().enumerate() {
        check([1, 3, 4, channels], 2, [3, 3], 1, 1, 40 * seed as u64);
        check([1, 5, 4, channels], 2, [3, 3], 2, 1, 40 * seed as u64);
    }
}

/// Enough channels and tiles for Winograd's form in all passes, on images whose last tiles reach over the edge: the forward pass by tiles
/// of 2×2 outputs, the gradients by tiles of 4×4. The data gradient pads by what is missing from 2.
#[test]
fn winograds_tiles_over_the_edges() {
    check([2, 25, 23, 100], 90, [3, 3], 1, 0, 1);
    check([2, 21, 26, 100], 90, [3, 3], 1, 1, 2);
    check([2, 19, 21, 100], 90, [3, 3], 1, 2, 3);
    check([2, 21, 22, 100], 90, [3, 3], 1, Padding { before: 0, after: 2 }, 4);
    // With so many channels and so few pixels the gradients take 2×2 as well.
    check([14, 6, 2, 256], 256, [3, 3], 1, 1, 5);
}

#[derive(Debug)]
struct FarFromZero;

/// Variance 1/1024 about a mean of 4, all exact even in bfloat16.
impl Case for FarFromZero {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let shape = ConvShape::new([1, 20, 20, 8], 8, [1, 1], 1, 0).unwrap();
        let x: Vec<f64> = (0..3200).map(|i| 4.0 + if i / 8 % 2 == 0 { 1.0 } else { -1.0 } / 32.0).collect();
        let identity: Vec<f64> = (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let (x, w) = (Array::activation(device, &x), Array::weights(device, &identity));
        let (mut y, mut stats) = (Array::blank_activation(device, 3200), Array::blank(device, 16));
        let (x, w, wanted) = (x.view(), w.view(), Some(stats.view_mut()));
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
        vec![y.output(device, "y", 0.0), stats.output(device, "stats", 0.0)]
    }
}

#[test]
fn statistics_far_from_zero() {
    agree(&FarFromZero);
}
