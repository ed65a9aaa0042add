//! Batch norm and the junction.

use super::{
    ACTIVATIONS, Array, Case, EPSILON, Output, activation_of, agree, grid, grid_norm, narrow, norm_before, numbers,
    sum_tolerance,
};
use onesheet::device::{
    Activation, BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants,
    BatchNormFinalise, BatchNormFold, BatchNormStatistics, Device, Masked, Projection, ResidualBackward,
    ResidualForward, Rows,
};

/// The per-channel kernels.
#[derive(Debug)]
pub struct Channels {
    pub channels: usize,
    pub bias: bool,
    pub seed: u64,
}

impl Case for Channels {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Channels { channels, bias, seed } = *self;
        let array = |values: Vec<f64>| Array::new(device, &values);
        let mut stats = numbers(seed, 2 * channels);
        stats[channels..].iter_mut().for_each(|variance| *variance = f64::from(variance.abs() as f32));
        let variance = array(stats[channels..].to_vec());
        let mean = array(numbers(seed + 1, channels));
        let stats = array(stats);
        let gamma = array(numbers(seed + 2, channels));
        let beta = array(numbers(seed + 3, channels));
        let shift = array(numbers(seed + 4, channels));
        let shift = bias.then(|| shift.view());
        let constants = BatchNormConstants { momentum: 0.99, epsilon: 1.001e-5 };

        let mut norm = Array::blank(device, 4 * channels);
        let mut running_mean = array(numbers(seed + 5, channels));
        let mut running_variance = array(numbers(seed + 6, channels));
        let operands = BatchNormFinalise {
            norm: norm.view_mut(),
            running_mean: running_mean.view_mut(),
            running_variance: running_variance.view_mut(),
            stats: stats.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            bias: shift,
        };
        device.batch_norm_finalise(operands, channels, constants).unwrap();
        let mut folded = Array::blank(device, 4 * channels);
        let operands = BatchNormFold {
            norm: folded.view_mut(),
            running_mean: mean.view(),
            running_variance: variance.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            bias: shift,
        };
        device.batch_norm_fold(operands, channels, constants.epsilon).unwrap();

        let sums = array(numbers(seed + 7, 2 * channels));
        let given = array(grid_norm(seed + 8, channels));
        let mut k = Array::blank(device, 3 * channels);
        let mut dgamma = array(numbers(seed + 9, channels));
        let mut dbeta = array(numbers(seed + 10, channels));
        let shape = Rows { rows: 37, channels };
        let operands = BatchNormBackwardFinalise {
            k: k.view_mut(),
            dgamma: dgamma.view_mut(),
            dbeta: dbeta.view_mut(),
            sums: sums.view(),
            gamma: gamma.view(),
            norm: given.view(),
        };
        device.batch_norm_backward_finalise(operands, shape).unwrap();
        vec![
            norm.output(device, "norm", 4.0 * EPSILON),
            running_mean.output(device, "running_mean", EPSILON),
            running_variance.output(device, "running_variance", EPSILON),
            folded.output(device, "folded norm", 4.0 * EPSILON),
            k.output(device, "k", 4.0 * EPSILON),
            dgamma.output(device, "dgamma", 2.0 * EPSILON),
            dbeta.output(device, "dbeta", 2.0 * EPSILON),
        ]
    }
}

/// The passes over activations.
#[derive(Debug)]
pub struct Passes {
    pub shape: Rows,
    pub activation: Activation,
    pub projected: bool,
    /// Whether the junction has one.
    pub relu: bool,
    pub seed: u64,
}

impl Case for Passes {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Passes { shape, activation, projected, relu, seed } = *self;
        let stored = |values: Vec<f64>| Array::activation(device, &values);
        let blank = || Array::blank_activation(device, shape.len());
        let sums = || Array::blank(device, 2 * shape.channels);
        let norm = Array::new(device, &norm_before(activation, seed + 1, shape.channels));
        let shortcut_norm = Array::new(device, &grid_norm(seed + 3, shape.channels));
        let [y, shortcut] = [0, 2].map(|offset| stored(grid(seed + offset, shape.len())));
        let gradient = stored(narrow(seed + 4, shape.len()));
        let element = 4.0 * EPSILON;
        // A term is a gradient of at most 1 times a deviation of at most 2.
        let sum = sum_tolerance(shape.rows, 2.0);

        let mut stats = sums();
        device.batch_norm_statistics(BatchNormStatistics { stats: stats.view_mut(), y: y.view() }, shape).unwrap();
        let mut a = blank();
        let operands = BatchNormApply { a: a.view_mut(), y: y.view(), norm: norm.view(), activation };
        device.batch_norm_apply(operands, shape).unwrap();
        let (mut dz, mut reduced) = (blank(), sums());
        let operands = BatchNormBackwardReduce {
            dz: dz.view_mut(),
            sums: reduced.view_mut(),
            da: gradient.view(),
            y: y.view(),
            norm: norm.view(),
            activation,
        };
        device.batch_norm_backward_reduce(operands, shape).unwrap();
        let mut outputs = vec![
            // Each row's own rounding, and an error of the mean so far that later rows make smaller again.
            // Up to 256 squares are summed in f32 before anything wider.
            stats.output(device, "stats", 64.0 * EPSILON),
            a.output(device, "a", element),
            dz.output(device, "dz", 0.0),
            reduced.output(device, "sums", sum),
        ];

        let mut out = blank();
        let operands = ResidualForward {
            out: out.view_mut(),
            y: y.view(),
            norm: norm.view(),
            shortcut: shortcut.view(),
            shortcut_norm: projected.then(|| shortcut_norm.view()),
            relu,
        };
        device.residual_forward(operands, shape).unwrap();
        let (mut dz, mut reduced, mut projected_sums) = (blank(), sums(), sums());
        let projection = projected.then(|| Projection {
            sums: projected_sums.view_mut(),
            y: shortcut.view(),
            norm: shortcut_norm.view(),
        });
        let operands = ResidualBackward {
            masked: relu.then(|| Masked { dz: dz.view_mut(), out: out.view() }),
            sums: reduced.view_mut(),
            dout: gradient.view(),
            y: y.view(),
            norm: norm.view(),
            projection,
        };
        device.residual_backward(operands, shape).unwrap();
        outputs.push(out.output(device, "out", element));
        if relu {
            outputs.push(dz.output(device, "junction's dz", 0.0));
        }
        outputs.push(reduced.output(device, "junction's sums", sum));
        if projected {
            outputs.push(projected_sums.output(device, "projection's sums", sum));
        }
        outputs
    }
}

/// What is infinite passes its gradient where there is no bound.
#[derive(Debug)]
struct Infinite {
    activation: Activation,
}

impl Case for Infinite {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let shape = Rows { rows: 6, channels: 1 };
        let y = Array::activation(device, &[f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.5, 6.0, 6.5]);
        let (gradient, norm) = (Array::activation(device, &[1.0; 6]), Array::new(device, &[1.0, 0.0, 0.0, 1.0]));
        let mut dz = Array::blank_activation(device, 6);
        let mut sums = Array::blank(device, 2);
        let operands = BatchNormBackwardReduce {
            dz: dz.view_mut(),
            sums: sums.view_mut(),
            da: gradient.view(),
            y: y.view(),
            norm: norm.view(),
            activation: self.activation,
        };
        device.batch_norm_backward_reduce(operands, shape).unwrap();
        vec![dz.output(device, "dz", 0.0)]
    }
}

#[test]
fn what_is_infinite_passes_where_there_is_no_bound() {
    for activation in ACTIVATIONS {
        agree(&Infinite { activation });
    }
}

#[test]
fn channels() {
    for (seed, channels) in [1, 2, 63, 64, 65, 200].into_iter().enumerate() {
        for bias in [false, true] {
            agree(&Channels { channels, bias, seed: 20 * seed as u64 });
        }
    }
}

#[test]
fn passes() {
    // Tiles hold 256 rows or 32 Ki elements, lanes are 64 channels.
    let shapes =
        [(1, 1), (3, 5), (255, 3), (256, 4), (257, 7), (513, 64), (130, 256), (1000, 65), (17, 2048), (38, 100)];
    for (seed, (rows, channels)) in shapes.into_iter().enumerate() {
        for (projected, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let activation = activation_of(seed as u64 + u64::from(projected));
            agree(&Passes { shape: Rows { rows, channels }, activation, projected, relu, seed: 20 * seed as u64 });
        }
    }
}

/// Variance 1/4 about a mean of 64, exact even in bfloat16.
#[derive(Debug)]
struct FarFromZero {
    channels: usize,
}

impl Case for FarFromZero {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let shape = Rows { rows: 3000, channels: self.channels };
        let y: Vec<f64> =
            (0..shape.len()).map(|i| if (i / shape.channels).is_multiple_of(2) { 64.5 } else { 63.5 }).collect();
        let (y, mut stats) = (Array::activation(device, &y), Array::blank(device, 2 * shape.channels));
        device.batch_norm_statistics(BatchNormStatistics { stats: stats.view_mut(), y: y.view() }, shape).unwrap();
        vec![stats.output(device, "stats", 64.0 * EPSILON)]
    }
}

#[test]
fn statistics_far_from_zero() {
    for channels in [5, 64] {
        agree(&FarFromZero { channels });
    }
}
