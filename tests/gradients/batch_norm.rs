//! The fused chain: convolution → batch norm → ReLU → convolution, back through the reducing epilogue, `k` and the owed
//! gradient; in training, in inference form, and with a consumer that cannot pay while loading.

use crate::case::{Case, Point, SHAPES, assert_gradients, convolve, dot, fresh, point, values};
use crate::support::{generator, seeded};
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants,
    BatchNormFinalise, BatchNormFold, BatchNormKernels, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights,
    ConvForward, ConvKernels, ConvShape, InputTransform, OutputGradient, ReduceEpilogue, Rows,
};
use rand::RngExt;

/// Keras's.
pub const CONSTANTS: BatchNormConstants = BatchNormConstants { momentum: 0.99, epsilon: 1.001e-5 };

/// `norm [4, C]` of `y` by its own statistics, which `shape`'s convolution of `x` takes on the way.
pub fn train(x: &[f64], w: &[f64], gamma: &[f64], beta: &[f64], shape: &ConvShape) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut stats, mut norm) = (fresh(shape.output_len()), fresh(2 * shape.k), fresh(4 * shape.k));
    let (mut mean, mut variance) = (vec![0.0; shape.k], vec![1.0; shape.k]);
    let operands = ConvForward {
        y: &mut y[..],
        stats: Some(&mut stats[..]),
        x,
        transform: None,
        w,
        bias: None,
        activation: Activation::Linear,
    };
    Reference::EXACT.conv_forward(operands, shape).unwrap();
    let operands = BatchNormFinalise {
        norm: &mut norm[..],
        running_mean: &mut mean[..],
        running_variance: &mut variance[..],
        stats: &stats[..],
        gamma,
        beta,
        bias: None,
    };
    Reference::EXACT.batch_norm_finalise(operands, shape.k, CONSTANTS).unwrap();
    (y, norm)
}

/// The convolution's output as batch norm sees it.
pub fn rows(shape: &ConvShape) -> Rows {
    Rows { rows: shape.n * shape.p * shape.q, channels: shape.k }
}

/// What becomes of an intermediate value on its way back; the honest ones leave it alone.
pub type Tamper = fn(&str, &mut [f64]);

/// Who reads the activation behind the batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Consumer {
    /// A second convolution, which pays while loading and reduces in its epilogue.
    Convolution,
    /// Somebody for whom the activation is written out, and whose gradient is reduced in a pass of its own.
    Applied,
}

/// `Σ dy·conv(relu(bn(conv(x, w₁) + bias)), w₂)`, or `Σ dy·relu(bn(…))`.
pub struct Chain {
    shapes: [ConvShape; 2],
    consumer: Consumer,
    point: Point,
    dy: Vec<f64>,
    /// Running mean and variance, if these and not the batch's are what normalises.
    running: Option<[Vec<f64>; 2]>,
}

impl Chain {
    pub fn draw(seed: u64, shapes: [ConvShape; 2], consumer: Consumer, frozen: bool) -> Self {
        let [first, second] = shapes;
        let k = first.k;
        let vectors = [("x", first.input_len()), ("w1", first.weights_len()), ("bias", k), ("gamma", k), ("beta", k)];
        let mut point = point(seed, vectors);
        let outputs = match consumer {
            Consumer::Convolution => {
                point.insert("w2", values(seed, "w2", second.weights_len()));
                second.output_len()
            }
            Consumer::Applied => first.output_len(),
        };
        let running = frozen.then(|| [values(seed, "mean", k), seeded(seed, k, 0.5, 2.0)]);
        Chain { shapes, consumer, point, dy: values(seed, "dy", outputs), running }
    }

    /// The first convolution's output, and the `norm` it goes on with.
    fn forward(&self, at: &Point) -> (Vec<f64>, Vec<f64>) {
        let (x, w, gamma, beta) = (&at["x"], &at["w1"], &at["gamma"], &at["beta"]);
        let first = &self.shapes[0];
        let Some([mean, variance]) = &self.running else { return train(x, w, gamma, beta, first) };
        let (y, mut norm) = (convolve(x, None, w, None, first), fresh(4 * first.k));
        let operands = BatchNormFold {
            norm: &mut norm[..],
            running_mean: &mean[..],
            running_variance: &variance[..],
            gamma,
            beta,
            bias: Some(&at["bias"]),
        };
        Reference::EXACT.batch_norm_fold(operands, first.k, CONSTANTS.epsilon).unwrap();
        (y, norm)
    }

    /// The gradients, with a hand on the intermediate values.
    pub fn gradients_tampered(&self, tamper: Tamper) -> Point {
        let ([first, second], at) = (&self.shapes, &self.point);
        let (y, norm) = self.forward(at);
        let (mut dz, mut sums) = (fresh(first.output_len()), fresh(2 * first.k));
        let mut gradients: Point = at.iter().map(|(&name, values)| (name, vec![0.0; values.len()])).collect();
        match self.consumer {
            Consumer::Convolution => {
                let (dy, w) = (OutputGradient::Ready(&self.dy[..]), &at["w2"][..]);
                let (y, norm, activation) = (&y[..], &norm[..], Activation::Relu);
                let epilogue = Some(ReduceEpilogue { sums: &mut sums[..], y, norm, activation });
                let operands = ConvBackwardData { dx: &mut dz[..], accumulate: false, epilogue, dy, w };
                Reference::EXACT.conv_backward_data(operands, second).unwrap();
                let dw = &mut gradients.get_mut("w2").unwrap()[..];
                let transform = Some(InputTransform { norm, activation });
                let operands = ConvBackwardWeights { dw, dy, x: y, transform };
                Reference::EXACT.conv_backward_weights(operands, second).unwrap();
            }
            Consumer::Applied => {
                let operands = BatchNormBackwardReduce {
                    dz: &mut dz[..],
                    sums: &mut sums[..],
                    da: &self.dy[..],
                    y: &y[..],
                    norm: &norm[..],
                    activation: Activation::Relu,
                };
                Reference::EXACT.batch_norm_backward_reduce(operands, rows(first)).unwrap();
            }
        }
        tamper("dz", &mut dz);
        tamper("sums", &mut sums);
        let (mut k, mut dgamma, mut dbeta) = (fresh(3 * first.k), vec![0.0; first.k], vec![0.0; first.k]);
        let operands = BatchNormBackwardFinalise {
            k: &mut k[..],
            dgamma: &mut dgamma[..],
            dbeta: &mut dbeta[..],
            sums: &sums[..],
            gamma: &at["gamma"],
            norm: &norm[..],
        };
        Reference::EXACT.batch_norm_backward_finalise(operands, rows(first)).unwrap();
        if self.running.is_some() {
            // Inference form: the statistics do not depend on y.
            k = [&norm[..first.k], &vec![0.0; 2 * first.k]].concat();
        }
        tamper("k", &mut k);
        let owed = OutputGradient::Owed { dz: &dz[..], y: &y[..], k: &k[..] };
        let (mut dx, w) = (fresh(first.input_len()), &at["w1"][..]);
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: false, epilogue: None, dy: owed, w };
        Reference::EXACT.conv_backward_data(operands, first).unwrap();
        let dw = &mut gradients.get_mut("w1").unwrap()[..];
        let operands = ConvBackwardWeights { dw, dy: owed, x: &at["x"][..], transform: None };
        Reference::EXACT.conv_backward_weights(operands, first).unwrap();
        // In training this comes out as zero by itself, whatever the rounding: batch norm takes the bias out again.
        let operands = ConvBackwardBias { dbias: &mut gradients.get_mut("bias").unwrap()[..], dy: owed };
        Reference::EXACT.conv_backward_bias(operands, first).unwrap();
        gradients.extend([("x", dx), ("gamma", dgamma), ("beta", dbeta)]);
        gradients
    }
}

impl Case for Chain {
    fn name(&self) -> String {
        format!("{:?} in front of {:?}, frozen: {}", self.shapes, self.consumer, self.running.is_some())
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let (y, norm) = self.forward(at);
        if self.consumer == Consumer::Convolution {
            return dot(&convolve(&y, Some(&norm), &at["w2"], None, &self.shapes[1]), &self.dy);
        }
        let mut a = fresh(y.len());
        let operands = BatchNormApply { a: &mut a[..], y: &y[..], norm: &norm[..], activation: Activation::Relu };
        Reference::EXACT.batch_norm_apply(operands, rows(&self.shapes[0])).unwrap();
        dot(&a, &self.dy)
    }

    fn gradients(&self) -> Point {
        self.gradients_tampered(|_, _| {})
    }
}

/// A convolution of at least a few pixels a channel, and another that fits behind it.
pub fn random_pair(seed: u64) -> [ConvShape; 2] {
    let mut random = generator(seed);
    let mut draw = |[n, h, w, c]: [usize; 4]| loop {
        let [k, r, s, stride, pad] = [4, 3, 3, 2, 2].map(|most| random.random_range(1..=most));
        match ConvShape::new([n, h, w, c], k, [r, s], stride, pad - 1) {
            Ok(shape) if shape.p * shape.q * n >= 6 => return shape,
            _ => continue,
        }
    };
    let first = draw([1 + seed as usize % 3, 7, 6, 1 + seed as usize % 4]);
    [first, draw([first.n, first.p, first.q, first.k])]
}

/// A bottleneck's 1×1 and 3×3 at one of the network's sizes.
fn bottleneck(size: usize, stride: usize) -> [ConvShape; 2] {
    let first = ConvShape::new([2, size, size - 1, 3], 2, [1, 1], stride, 0).unwrap();
    [first, ConvShape::new([2, first.p, first.q, 2], 3, [3, 3], 1, 1).unwrap()]
}

fn assert_all_forms(seed: u64, shapes: [ConvShape; 2]) {
    for consumer in [Consumer::Convolution, Consumer::Applied] {
        for frozen in [false, true] {
            assert_gradients(&Chain::draw(seed, shapes, consumer, frozen));
        }
    }
}

#[test]
fn random_shapes() {
    for seed in 0..SHAPES {
        assert_all_forms(seed, random_pair(seed));
    }
}

#[test]
fn the_networks_shapes() {
    for (seed, size) in (100..).zip([38, 19, 10, 5]) {
        assert_all_forms(seed, bottleneck(size, 1));
        assert_all_forms(seed, bottleneck(size, 2));
    }
}

#[test]
fn one_pixel_has_no_statistics_to_speak_of() {
    let shape = ConvShape::new([1, 1, 1, 2], 2, [1, 1], 1, 0).unwrap();
    assert_all_forms(200, [shape, shape]);
}
