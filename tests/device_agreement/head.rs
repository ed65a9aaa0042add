//! The small families: dense layers, the loss, Adam, the input, and memory itself.

use super::{Array, Case, EPSILON, Output, agree, grid, narrow, numbers, sum_tolerance};
use onesheet::device::adam::MARKS;
use onesheet::device::{self, AdamConstants, AdamStep, BceForwardBackward, DenseBackwardData, DenseBackwardWeights};
use onesheet::device::{DenseForward, DenseShape, Device, ImageShape, LossShape, PixelFormat, Placement, Real};
use onesheet::device::{ReluBackward, Sigmoid, SquaredNorm};

#[derive(Debug)]
pub struct Dense {
    pub shape: DenseShape,
    pub relu: bool,
    /// Elements of the arena in front of each parameter.
    pub offset: usize,
    pub seed: u64,
}

impl Case for Dense {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Dense { ref shape, relu, offset, seed } = *self;
        let DenseShape { n, inputs, outputs } = *shape;
        let array = |offset, len| Array::new(device, &narrow(seed + offset, len));
        let (x, dz) = (array(0, n * inputs), array(3, n * outputs));
        let (w, b) = (array(1, offset + outputs * inputs), array(2, offset + outputs));
        let (mut y, mut dx) = (Array::blank(device, n * outputs), Array::blank(device, n * inputs));
        let (mut dw, mut db) = (array(4, offset + outputs * inputs), array(5, offset + outputs));
        let (w, b) = (w.suffix(offset), b.suffix(offset));
        device.dense_forward(DenseForward { y: y.view_mut(), relu, x: x.view(), w, b }, shape).unwrap();
        device.dense_backward_data(DenseBackwardData { dx: dx.view_mut(), dz: dz.view(), w }, shape).unwrap();
        let operands =
            DenseBackwardWeights { dw: dw.suffix_mut(offset), db: db.suffix_mut(offset), dz: dz.view(), x: x.view() };
        device.dense_backward_weights(operands, shape).unwrap();
        vec![
            y.output(device, "y", sum_tolerance(inputs + 1, 1.0)),
            dx.output(device, "dx", sum_tolerance(outputs, 1.0)),
            dw.output(device, "dw", sum_tolerance(n + 1, 1.0)),
            db.output(device, "db", sum_tolerance(n + 1, 1.0)),
        ]
    }
}

/// The ReLU's gradient, and what memory can do.
#[derive(Debug)]
pub struct Elements {
    pub len: usize,
    pub seed: u64,
}

impl Case for Elements {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Elements { len, seed } = *self;
        let (dy, y) = (Array::new(device, &numbers(seed, len)), Array::new(device, &grid(seed + 1, len)));
        let [mut dz, mut copy, mut total, mut same] = [(); 4].map(|()| Array::blank(device, len));
        let gradient = Array::activation(device, &narrow(seed, len));
        let [mut stored, mut sum, mut one] = [(); 3].map(|()| Array::blank_activation(device, len));
        device.copy(stored.view_mut(), y.view()).unwrap();
        device.copy(sum.view_mut(), stored.view()).unwrap();
        device.add(sum.view_mut(), gradient.view()).unwrap();
        device.fill(one.view_mut(), D::Real::from_f64(1.0)).unwrap();
        device.relu_backward(ReluBackward { dz: dz.view_mut(), dy: dy.view(), y: y.view() }).unwrap();
        device.copy(copy.view_mut(), y.view()).unwrap();
        device.copy(total.view_mut(), y.view()).unwrap();
        device.add(total.view_mut(), dy.view()).unwrap();
        device.fill(same.view_mut(), D::Real::default()).unwrap();
        vec![
            dz.output(device, "dz", 0.0),
            copy.output(device, "copy", 0.0),
            total.output(device, "sum", EPSILON),
            same.output(device, "fill", 0.0),
            stored.output(device, "stored", 0.0),
            sum.output(device, "stored sum", EPSILON),
            one.output(device, "ones", 0.0),
        ]
    }
}

#[derive(Debug)]
pub struct Loss {
    pub shape: LossShape,
    /// Bound of the logits.
    pub reach: f64,
    /// Whether targets lie between no and yes.
    pub unsure: bool,
    pub seed: u64,
}

impl Case for Loss {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Loss { ref shape, reach, unsure, seed } = *self;
        let count = shape.n * shape.classes;
        let logits: Vec<f64> = numbers(seed, count).into_iter().map(|z| f64::from((reach * z) as f32)).collect();
        let target = |t: f64| if unsure { f64::from((0.5 + 0.5 * t) as f32) } else { f64::from(u8::from(t > 0.0)) };
        let targets: Vec<f64> = numbers(seed + 1, count).into_iter().map(target).collect();
        let weights: Vec<f64> = numbers(seed + 2, shape.classes).into_iter().map(f64::abs).collect();
        let [logits, targets, weights] = [logits, targets, weights].map(|values| Array::new(device, &values));
        let (mut loss, mut dlogits) = (Array::blank(device, 1), Array::blank(device, count));
        let operands = BceForwardBackward {
            loss: loss.view_mut(),
            dlogits: dlogits.view_mut(),
            logits: logits.view(),
            targets: targets.view(),
            weights: weights.view(),
        };
        device.bce_forward_backward(operands, shape).unwrap();
        let mut p = Array::blank(device, count);
        device.sigmoid(Sigmoid { p: p.view_mut(), z: logits.view() }).unwrap();
        vec![
            loss.output(device, "loss", EPSILON),
            dlogits.output(device, "dlogits", EPSILON / count as f64),
            p.output(device, "p", EPSILON),
        ]
    }
}

/// The outcome of a sound step.
pub const SOUND: [f64; 3] = [1.0, 2.0, 3.0];

/// Three steps of Adam.
#[derive(Debug)]
pub struct Adam {
    pub len: usize,
    /// Parameters in front that do not train; those of the moments may be another number.
    pub frozen: [usize; 2],
    pub outcome: [f64; 3],
    /// Whether some weights decay.
    pub decays: bool,
    pub clip_norm: f64,
    pub seed: u64,
}

impl Case for Adam {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Adam { len, frozen: [frozen, shift], ref outcome, decays, clip_norm, seed } = *self;
        // Sixteen that do, sixteen that don't, and such as begin and end anywhere.
        let marks: Vec<f64> = numbers(seed + 9, len.div_ceil(MARKS))
            .into_iter()
            .enumerate()
            .map(|(at, mark)| [65535.0, 0.0, (32768.0 + 32767.0 * mark).floor()][at % 3])
            .collect();
        let marks = Array::new(device, &marks);
        let mut w = Array::weights(device, &numbers(seed, frozen + len));
        let [mut m, mut v] = [(); 2].map(|()| Array::new(device, &vec![0.0; shift + len]));
        for t in 1..=3 {
            let gradients = Array::new(device, &numbers(seed + t, frozen + len));
            let constants = AdamConstants { clip_norm, ..AdamConstants::default() };
            let (outcome, rate) = (Array::new(device, outcome), constants.corrected_rate(1e-3, t));
            let rates = Array::new(device, &[f64::from(rate as f32), 0.25]);
            let operands = AdamStep {
                w: w.suffix_mut(frozen),
                m: m.suffix_mut(shift),
                v: v.suffix_mut(shift),
                gradients: gradients.suffix(frozen),
                decaying: decays.then(|| marks.view()),
                outcome: outcome.view(),
                rates: rates.view(),
            };
            device.adam(operands, &constants).unwrap();
        }
        vec![
            w.output(device, "w", 4.0 * EPSILON),
            m.output(device, "m", 4.0 * EPSILON),
            v.output(device, "v", 4e-3 * EPSILON),
        ]
    }
}

/// A squared norm, of numbers that begin anywhere.
#[derive(Debug)]
pub struct Norm {
    pub len: usize,
    /// Elements in front that do not count.
    pub frozen: usize,
    /// What the numbers are: one for all, or drawn.
    pub all: Option<f64>,
    pub seed: u64,
}

impl Case for Norm {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Norm { len, frozen, all, seed } = *self;
        let values = match all {
            Some(value) => vec![f64::from(value as f32); frozen + len],
            None => numbers(seed, frozen + len),
        };
        let sum = values[frozen..].iter().map(|x| x * x).sum::<f64>();
        vec![Output::new("sum", vec![norm(device, &values, frozen)], 16.0 * EPSILON * sum)]
    }
}

/// The squared norm of what stands behind the first `frozen` values.
fn norm<D: Device>(device: &D, values: &[f64], frozen: usize) -> f64 {
    let (x, mut sum) = (Array::new(device, values), Array::blank(device, 1));
    device.squared_norm(SquaredNorm { sum: sum.view_mut(), x: x.suffix(frozen) }).unwrap();
    sum.output(device, "sum", 0.0).values[0]
}

/// Panics unless a number that is not finite shows in a norm wherever it stands, and one as large as a gradient never gets
/// shows as well, but nothing smaller.
pub fn check_bad_numbers<D: Device>(device: &D) {
    for (len, at) in
        [1usize, 6, 40_001].into_iter().flat_map(|len| [0, 1, 2, 3, 4, 5, 16_384, 16_385, len - 1].map(|at| (len, at)))
    {
        let sound = numbers(1, 1 + len);
        for (bad, shows) in
            [(f64::NAN, true), (f64::INFINITY, true), (f64::NEG_INFINITY, true), (2e19, true), (1e19, false)]
        {
            let mut values = sound.clone();
            values[1 + at.min(len - 1)] = bad;
            let found = norm(device, &values, 1);
            assert_eq!(!found.is_finite(), shows, "{bad} at {at} of {len} gives {found}");
            assert_eq!(found.is_nan(), bad.is_nan(), "{bad} at {at} of {len} gives {found}");
        }
        // What stands in front does not count.
        let mut values = sound;
        values[0] = f64::NAN;
        assert!(norm(device, &values, 1).is_finite());
    }
}

/// The way back from a step.
#[derive(Debug)]
pub struct Restore {
    pub len: usize,
    pub outcome: [f64; 3],
    pub seed: u64,
}

impl Case for Restore {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Restore { len, ref outcome, seed } = *self;
        let (mut to, from) = (Array::new(device, &numbers(seed, len)), Array::new(device, &numbers(seed + 1, len)));
        let outcome = Array::new(device, outcome);
        let operands = device::Restore { to: to.view_mut(), from: from.view(), outcome: outcome.view() };
        device.restore(operands).unwrap();
        vec![to.output(device, "to", 0.0)]
    }
}

/// A moving average of weights that begin anywhere.
#[derive(Debug)]
pub struct Average {
    pub len: usize,
    /// Elements in front that stay; those of what is averaged may be another number.
    pub frozen: [usize; 2],
    pub outcome: [f64; 3],
    pub seed: u64,
}

impl Case for Average {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Average { len, frozen: [frozen, shift], ref outcome, seed } = *self;
        let mut to = Array::weights(device, &numbers(seed, frozen + len));
        let (from, outcome) = (Array::new(device, &numbers(seed + 1, shift + len)), Array::new(device, outcome));
        let towards = Array::new(device, &[0.125]);
        let operands = device::Average {
            to: to.suffix_mut(frozen),
            from: from.suffix(shift),
            outcome: outcome.view(),
            towards: towards.view(),
        };
        device.average(operands).unwrap();
        vec![to.output(device, "to", EPSILON)]
    }
}

#[derive(Debug)]
pub struct Image {
    pub shape: ImageShape,
    pub format: PixelFormat,
    pub seed: u64,
}

impl Case for Image {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Image { ref shape, ref format, seed } = *self;
        let pixels: Vec<u8> = numbers(seed, shape.len()).into_iter().map(|v| (128.0 + 127.0 * v) as u8).collect();
        let moves = numbers(seed + 1, 2 * shape.n);
        let placements: Vec<Placement> = moves
            .chunks_exact(2)
            .enumerate()
            .map(|(i, by)| Placement { flip: i % 2 == 1, shift_y: (by[0] * 5.0) as i8, shift_x: (by[1] * 5.0) as i8 })
            .collect();
        let pixels = device.upload_pixels(&pixels, &placements).unwrap();
        let mut x = Array::blank_activation(device, shape.len());
        device.image_forward(x.view_mut(), &pixels, format, shape).unwrap();
        // A pixel less a mean of about 128 that is rounded too.
        vec![x.output(device, "x", 128.0 * EPSILON)]
    }
}

#[test]
fn dense_layers() {
    let shapes = [(1, 1, 1), (1, 2048, 1024), (2, 3, 5), (32, 1024, 128), (33, 128, 7), (5, 65, 300), (17, 600, 17)];
    for (seed, (n, inputs, outputs)) in shapes.into_iter().enumerate() {
        for relu in [false, true] {
            let shape = DenseShape { n, inputs, outputs };
            agree(&Dense { shape, relu, offset: 0, seed: 10 * seed as u64 });
        }
    }
}

/// Tiles of 64 by 64, 32 deep, and operands that move by four numbers at once or one by one.
#[test]
fn dense_layers_around_the_edges_of_tiles() {
    for (seed, side) in [60, 63, 64, 65, 68, 127, 128, 132].into_iter().enumerate() {
        for (n, inputs, outputs) in [(side, 36, 8), (3, side, 24), (5, 28, side), (9, 4 * side, 12)] {
            let shape = DenseShape { n, inputs, outputs };
            agree(&Dense { shape, relu: seed % 2 == 1, offset: seed % 5, seed: 10 * seed as u64 });
        }
    }
}

#[test]
fn elements() {
    for (seed, len) in [0, 1, 15, 17, 16_383, 16_384, 16_385, 50_000].into_iter().enumerate() {
        agree(&Elements { len, seed: 10 * seed as u64 });
    }
}

#[test]
fn losses() {
    for (seed, (n, classes)) in [(1, 1), (3, 7), (128, 7), (5, 2)].into_iter().enumerate() {
        for reach in [1.0, 30.0, 1e4] {
            for unsure in [false, true] {
                agree(&Loss { shape: LossShape { n, classes }, reach, unsure, seed: 10 * seed as u64 });
            }
        }
    }
}

#[test]
fn adam() {
    for (seed, len) in [1, 100, 16_385].into_iter().enumerate() {
        for frozen in [[0, 0], [1, 1], [6, 6], [7, 3], [5, 0]] {
            for (decays, clip_norm) in [(false, f64::INFINITY), (true, f64::INFINITY), (true, 0.5), (false, 0.5)] {
                agree(&Adam { len, frozen, outcome: SOUND, decays, clip_norm, seed: 10 * seed as u64 });
            }
        }
    }
}

#[test]
fn averages() {
    for (seed, len) in [0, 1, 3, 100, 16_385].into_iter().enumerate() {
        for frozen in [[0, 0], [1, 1], [6, 6], [7, 3]] {
            agree(&Average { len, frozen, outcome: SOUND, seed: 10 * seed as u64 });
        }
    }
}

#[test]
fn a_bad_step_moves_nothing_and_goes_back() {
    for (at, bad) in (0..3).flat_map(|at| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|bad| (at, bad))) {
        let mut outcome = SOUND;
        outcome[at] = bad;
        agree(&Adam { len: 100, frozen: [2, 2], outcome, decays: true, clip_norm: 1.0, seed: 3 });
        agree(&Restore { len: 300, outcome, seed: 3 });
        agree(&Average { len: 300, frozen: [1, 1], outcome, seed: 3 });
    }
    for len in [0, 1, 255, 256, 257] {
        agree(&Restore { len, outcome: SOUND, seed: 3 });
        agree(&Restore { len, outcome: [f64::NAN; 3], seed: 3 });
    }
}

/// Blocks of 16384 on CUDA and on the processor.
#[test]
fn norms() {
    let lens = [0, 1, 3, 4, 5, 8, 63, 1023, 1024, 1025, 16_383, 16_384, 16_385, 16_388, 32_769, 50_000];
    for (seed, len) in lens.into_iter().enumerate() {
        for frozen in [0, 1, 2, 3, 4, 7] {
            agree(&Norm { len, frozen, all: None, seed: 10 * seed as u64 });
        }
    }
}

/// Added one to the other in `f32`, a million equal numbers lose three digits.
#[test]
fn norms_of_many_numbers_keep_their_digits() {
    agree(&Norm { len: 1_000_003, frozen: 1, all: Some(1e-3), seed: 0 });
    agree(&Norm { len: 70_000, frozen: 0, all: Some(1e16), seed: 0 });
}

#[test]
fn images() {
    let raw = PixelFormat { order: [0, 1, 2], scale: 1.0 / 255.0, shift: [0.0; 3] };
    let keras = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
    for (seed, (n, size)) in [(1, 1), (2, 3), (7, 10), (3, 25), (2, 75), (500, 1)].into_iter().enumerate() {
        for format in [raw, keras] {
            agree(&Image { shape: ImageShape { n, size }, format, seed: 10 * seed as u64 });
        }
    }
}
