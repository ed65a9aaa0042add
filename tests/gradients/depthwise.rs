//! Depthwise convolution: the gradients of its input, behind an activation that a batch norm owes, and of its filters.

use crate::case::{
    Case, Point, SHAPES, assert_gradients, behind_transform, check, dot, free_norm, fresh, point, values,
};
use crate::support::generator;
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape,
    InputTransform, OutputGradient, Padding, ReduceEpilogue,
};
use rand::RngExt;

/// `Σ dy·depthwise(a, w) + Σ other·a` with the pending input `a = activation(scale·x + shift)`, where the second term is
/// another consumer of `a` whose gradient came first.
struct Depthwise {
    shape: DepthwiseShape,
    activation: Activation,
    point: Point,
    mean: Vec<f64>,
    /// The gradient of the output is owed: `dy = k₀·dz + k₁·y + k₂`.
    dz: Vec<f64>,
    y: Vec<f64>,
    k: Vec<f64>,
    other: Vec<f64>,
}

impl Depthwise {
    fn draw(seed: u64, shape: DepthwiseShape, activation: Activation) -> Self {
        let vectors = [("x", shape.input_len()), ("w", shape.weights_len()), ("scale", shape.c), ("shift", shape.c)];
        let mut point = point(seed, vectors);
        // Far enough apart that all parts of a ReLU6 see some.
        point.get_mut("scale").unwrap().iter_mut().for_each(|scale| *scale *= 16.0);
        Depthwise {
            shape,
            activation,
            point,
            mean: values(seed, "mean", shape.c),
            dz: values(seed, "dz", shape.output_len()),
            y: values(seed, "y", shape.output_len()),
            k: values(seed, "k", 3 * shape.c),
            other: values(seed, "other", shape.input_len()),
        }
    }

    fn convolve(&self, at: &Point, w: &[f64], shape: &DepthwiseShape) -> Vec<f64> {
        let (norm, mut y) = (free_norm(at, &self.mean), fresh(shape.output_len()));
        let transform = Some(InputTransform { norm: &norm[..], activation: self.activation });
        let operands = DepthwiseForward { y: &mut y[..], stats: None, x: &at["x"][..], transform, w };
        Reference::EXACT.depthwise_forward(operands, shape).unwrap();
        y
    }

    /// The gradients as kernels give them that believe in another geometry.
    fn gradients_over(&self, shape: &DepthwiseShape) -> Point {
        let norm = free_norm(&self.point, &self.mean);
        let dy = OutputGradient::Owed { dz: &self.dz[..], y: &self.y[..], k: &self.k[..] };
        let (mut dx, mut dw, mut sums) = (self.other.clone(), vec![0.0; shape.weights_len()], fresh(2 * shape.c));
        let (x, w, activation) = (&self.point["x"][..], &self.point["w"][..], self.activation);
        let epilogue = Some(ReduceEpilogue { sums: &mut sums[..], y: x, norm: &norm[..], activation });
        let data = DepthwiseBackwardData { dx: &mut dx[..], accumulate: true, epilogue, dy, w };
        Reference::EXACT.depthwise_backward_data(data, shape).unwrap();
        let transform = Some(InputTransform { norm: &norm[..], activation });
        let weights = DepthwiseBackwardWeights { dw: &mut dw[..], dy, x, transform };
        Reference::EXACT.depthwise_backward_weights(weights, shape).unwrap();
        let mut gradients = Point::from(behind_transform(&self.point, &self.mean, &dx, &sums));
        gradients.insert("w", dw);
        gradients
    }
}

impl Case for Depthwise {
    fn name(&self) -> String {
        format!("{:?} behind {:?}", self.shape, self.activation)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let DepthwiseShape { n, h, w, c, .. } = self.shape;
        let form =
            |(i, (dz, y)): (usize, (&f64, &f64))| self.k[i % c] * dz + self.k[c + i % c] * y + self.k[2 * c + i % c];
        let dy: Vec<f64> = self.dz.iter().zip(&self.y).enumerate().map(form).collect();
        // Filters of a single 1 write the activation out.
        let unit = DepthwiseShape::new([n, h, w, c], [1, 1], 1, 0).unwrap();
        let a = self.convolve(at, &vec![1.0; c], &unit);
        dot(&self.convolve(at, &at["w"], &self.shape), &dy) + dot(&a, &self.other)
    }

    fn gradients(&self) -> Point {
        self.gradients_over(&self.shape)
    }
}

const ACTIVATIONS: [Activation; 3] = [Activation::Linear, Activation::Relu, Activation::Relu6];

#[test]
fn random_shapes() {
    for seed in 0..3 * SHAPES {
        let mut random = generator(seed);
        let shape = loop {
            let [n, c, r, s] = [3, 4, 4, 4].map(|most| random.random_range(1..=most));
            let [h, w] = [8, 8].map(|most| random.random_range(1..=most));
            let [before, after] = [3, 3].map(|most| random.random_range(0..=most));
            let stride = random.random_range(1..=3);
            if let Ok(shape) = DepthwiseShape::new([n, h, w, c], [r, s], stride, Padding { before, after }) {
                break shape;
            }
        };
        assert_gradients(&Depthwise::draw(seed, shape, ACTIVATIONS[seed as usize % 3]));
    }
}

/// MobileNet's maps with few channels and unequal extents; the smallest ones possible.
#[test]
fn the_networks_shapes() {
    let behind = Padding { before: 0, after: 1 };
    let shapes = [
        ([1, 75, 74, 2], 1, 1.into()),
        ([1, 75, 74, 2], 2, behind),
        ([2, 37, 38, 3], 1, 1.into()),
        ([2, 37, 38, 3], 2, behind),
        ([1, 18, 17, 3], 2, behind),
        ([3, 9, 8, 3], 2, behind),
        ([3, 4, 4, 5], 1, 1.into()),
        ([1, 1, 1, 1], 1, 1.into()),
    ];
    for (seed, (input, stride, pad)) in (100..).zip(shapes) {
        let shape = DepthwiseShape::new(input, [3, 3], stride, pad).unwrap();
        assert_gradients(&Depthwise::draw(seed, shape, ACTIVATIONS[seed as usize % 3]));
    }
}

/// The check is worth something: it rejects a pad on the wrong side, a channel's filter moved by one, an activation that
/// lets too much through.
#[test]
fn planted_bugs_are_caught() {
    let shape = DepthwiseShape::new([2, 7, 6, 3], [3, 3], 2, Padding { before: 0, after: 1 }).unwrap();
    let case = Depthwise::draw(1, shape, Activation::Relu6);
    let mut shifted = case.gradients();
    shifted.get_mut("w").unwrap().rotate_left(1);
    let unbounded = Depthwise::draw(1, shape, Activation::Relu);
    let wrong = [case.gradients_over(&DepthwiseShape { pad: 1, ..shape }), shifted, unbounded.gradients()];
    assert_eq!(check(&case, &case.gradients()), Ok(()));
    assert!(wrong.iter().all(|wrong| check(&case, wrong).is_err()));
}
