//! Convolution: the three gradients by themselves, and behind an input transform with the reducing epilogue.

use crate::case::{
    Case, Point, SHAPES, assert_gradients, behind_transform, convolve, dot, free_norm, fresh, point, values,
};
use crate::support::generator;
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, BatchNormBackwardReduce, BatchNormKernels, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights,
    ConvForward, ConvKernels, ConvShape, InputTransform, OutputGradient, ReduceEpilogue, Rows,
};
use rand::RngExt;

/// `Σ dy·(conv(x, w) + bias) + Σ other·x`, where the second term is another consumer of `x` whose gradient came first.
pub struct Convolution {
    pub shape: ConvShape,
    pub point: Point,
    pub dy: Vec<f64>,
    pub other: Vec<f64>,
}

impl Convolution {
    pub fn draw(seed: u64, shape: ConvShape) -> Self {
        Convolution {
            point: point(seed, [("x", shape.input_len()), ("w", shape.weights_len()), ("bias", shape.k)]),
            dy: values(seed, "dy", shape.output_len()),
            other: values(seed, "other", shape.input_len()),
            shape,
        }
    }

    /// The gradients as kernels give them that believe in another geometry.
    pub fn gradients_over(&self, shape: &ConvShape) -> Point {
        let dy = OutputGradient::Ready(&self.dy[..]);
        let (mut dx, mut dw, mut dbias) = (self.other.clone(), vec![0.0; shape.weights_len()], vec![0.0; shape.k]);
        let (x, w) = (&self.point["x"][..], &self.point["w"][..]);
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: true, epilogue: None, dy, w };
        Reference::EXACT.conv_backward_data(operands, shape).unwrap();
        let operands = ConvBackwardWeights { dw: &mut dw[..], dy, x, transform: None };
        Reference::EXACT.conv_backward_weights(operands, shape).unwrap();
        Reference::EXACT.conv_backward_bias(ConvBackwardBias { dbias: &mut dbias, dy }, shape).unwrap();
        Point::from([("x", dx), ("w", dw), ("bias", dbias)])
    }
}

impl Case for Convolution {
    fn name(&self) -> String {
        format!("{:?}", self.shape)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let y = convolve(&at["x"], None, &at["w"], Some(&at["bias"]), &self.shape);
        dot(&y, &self.dy) + dot(&at["x"], &self.other)
    }

    fn gradients(&self) -> Point {
        self.gradients_over(&self.shape)
    }
}

/// `Σ dy·conv(a, w) + Σ other·a` with the pending input `a = relu(scale·x + shift)`.
pub struct Transformed {
    pub convolution: Convolution,
    pub point: Point,
    pub mean: Vec<f64>,
}

impl Transformed {
    pub fn draw(seed: u64, shape: ConvShape) -> Self {
        let vectors = [("x", shape.input_len()), ("w", shape.weights_len()), ("scale", shape.c), ("shift", shape.c)];
        Transformed {
            convolution: Convolution::draw(seed, shape),
            point: point(seed, vectors),
            mean: values(seed, "mean", shape.c),
        }
    }

    /// The gradients as kernels give them that apply this transform while loading, or none.
    pub fn gradients_loading(&self, transform: Option<&[f64]>) -> Point {
        let Convolution { shape, dy, other, .. } = &self.convolution;
        let norm = free_norm(&self.point, &self.mean);
        let dy = OutputGradient::Ready(&dy[..]);
        let (mut dx, mut dw, mut sums) = (other.clone(), vec![0.0; shape.weights_len()], fresh(2 * shape.c));
        let (x, w, activation) = (&self.point["x"][..], &self.point["w"][..], Activation::Relu);
        let epilogue = Some(ReduceEpilogue { sums: &mut sums[..], y: x, norm: &norm[..], activation });
        let operands = ConvBackwardData { dx: &mut dx[..], accumulate: true, epilogue, dy, w };
        Reference::EXACT.conv_backward_data(operands, shape).unwrap();
        let transform = transform.map(|norm| InputTransform { norm, activation });
        let operands = ConvBackwardWeights { dw: &mut dw[..], dy, x, transform };
        Reference::EXACT.conv_backward_weights(operands, shape).unwrap();
        let mut gradients = Point::from(behind_transform(&self.point, &self.mean, &dx, &sums));
        gradients.insert("w", dw);
        gradients
    }
}

impl Case for Transformed {
    fn name(&self) -> String {
        format!("a transform into {:?}", self.convolution.shape)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let Convolution { shape, dy, other, .. } = &self.convolution;
        let norm = free_norm(at, &self.mean);
        let y = convolve(&at["x"], Some(&norm), &at["w"], None, shape);
        // A 1×1 convolution with the identity writes the activation out.
        let unit: Vec<f64> = (0..shape.c * shape.c).map(|i| f64::from(i / shape.c == i % shape.c)).collect();
        let all = ConvShape::new([shape.n, shape.h, shape.w, shape.c], shape.c, [1, 1], 1, 0).unwrap();
        let a = convolve(&at["x"], Some(&norm), &unit, None, &all);
        dot(&y, dy) + dot(&a, other)
    }

    fn gradients(&self) -> Point {
        self.gradients_loading(Some(&free_norm(&self.point, &self.mean)))
    }
}

/// `Σ dy·activation(conv(x, w) + bias) + Σ other·x`, where what the activation lets pass is known from its output alone, and the
/// gradient of the bias is the sum that the mask leaves.
pub struct Activated {
    pub convolution: Convolution,
    pub activation: Activation,
}

impl Activated {
    pub fn draw(seed: u64, shape: ConvShape) -> Self {
        let mut convolution = Convolution::draw(seed, shape);
        // So that some sums are above 6.
        convolution.point.get_mut("w").unwrap().iter_mut().for_each(|w| *w *= 4.0);
        Activated { convolution, activation: [Activation::Relu, Activation::Relu6][seed as usize % 2] }
    }

    fn output(&self, at: &Point) -> Vec<f64> {
        let shape = &self.convolution.shape;
        let mut y = fresh(shape.output_len());
        let (x, w, bias) = (&at["x"][..], &at["w"][..], Some(&at["bias"][..]));
        let operands =
            ConvForward { y: &mut y[..], stats: None, x, transform: None, w, bias, activation: self.activation };
        Reference::EXACT.conv_forward(operands, shape).unwrap();
        y
    }

    /// The gradients as they are if the mask is that of this activation.
    pub fn gradients_masked(&self, activation: Activation) -> Point {
        let Convolution { shape, ref point, ref dy, ref other } = self.convolution;
        let (y, channels) = (self.output(point), shape.k);
        let norm = [vec![1.0; channels], vec![0.0; 3 * channels]].concat();
        let (mut dz, mut sums) = (fresh(dy.len()), fresh(2 * channels));
        let (y, norm, rows) = (&y[..], &norm[..], Rows { rows: dy.len() / channels, channels });
        let operands =
            BatchNormBackwardReduce { dz: &mut dz[..], sums: &mut sums[..], da: &dy[..], y, norm, activation };
        Reference::EXACT.batch_norm_backward_reduce(operands, rows).unwrap();
        let masked = Convolution { shape, point: point.clone(), dy: dz, other: other.clone() };
        let mut gradients = masked.gradients();
        gradients.insert("bias", sums[..channels].to_vec());
        gradients
    }
}

impl Case for Activated {
    fn name(&self) -> String {
        format!("{:?} of {:?}", self.activation, self.convolution.shape)
    }

    fn point(&self) -> &Point {
        &self.convolution.point
    }

    fn loss(&self, at: &Point) -> f64 {
        dot(&self.output(at), &self.convolution.dy) + dot(&at["x"], &self.convolution.other)
    }

    fn gradients(&self) -> Point {
        self.gradients_masked(self.activation)
    }
}

/// Random extents that fit one another, filters of all sizes from 1×1, strides and paddings up to beyond the filter.
pub fn random_shape(seed: u64) -> ConvShape {
    let mut random = generator(seed);
    loop {
        let [n, c, k] = [3, 4, 4].map(|most| random.random_range(1..=most));
        let [h, w] = [8, 8].map(|most| random.random_range(1..=most));
        let [r, s] = [4, 4].map(|most| random.random_range(1..=most));
        if let Ok(shape) =
            ConvShape::new([n, h, w, c], k, [r, s], random.random_range(1..=3), random.random_range(0..=3))
        {
            return shape;
        }
    }
}

/// The network's maps and filters with few channels and unequal extents, and the smallest ones possible.
fn real_shapes() -> Vec<ConvShape> {
    let mut shapes = vec![
        ConvShape::new([1, 150, 149, 3], 2, [7, 7], 2, 3),
        ConvShape::new([2, 75, 74, 1], 2, [3, 3], 1, 1),
        ConvShape::new([1, 1, 1, 1], 1, [1, 1], 1, 0),
        ConvShape::new([1, 1, 1, 3], 2, [3, 3], 1, 1),
        ConvShape::new([1, 1, 1, 2], 3, [7, 7], 2, 3),
        ConvShape::new([1, 1, 1, 2], 3, [1, 1], 2, 0),
    ];
    for size in [38, 19, 10, 5] {
        shapes.push(ConvShape::new([2, size, size - 1, 3], 4, [1, 1], 1, 0));
        shapes.push(ConvShape::new([2, size, size + 1, 3], 2, [1, 1], 2, 0));
        shapes.push(ConvShape::new([1, size, size - 1, 2], 3, [3, 3], 1, 1));
    }
    shapes.into_iter().map(Result::unwrap).collect()
}

#[test]
fn random_shapes() {
    for seed in 0..SHAPES {
        let shape = random_shape(seed);
        assert_gradients(&Convolution::draw(seed, shape));
        assert_gradients(&Transformed::draw(seed, shape));
        assert_gradients(&Activated::draw(seed, shape));
    }
}

#[test]
fn the_networks_shapes() {
    for (seed, shape) in (100..).zip(real_shapes()) {
        assert_gradients(&Convolution::draw(seed, shape));
        assert_gradients(&Transformed::draw(seed, shape));
        assert_gradients(&Activated::draw(seed, shape));
    }
}
