//! Max pool with and without an input transform, and the global poolings.

use crate::case::{Case, Point, SHAPES, assert_gradients, behind_transform, dot, free_norm, fresh, point, values};
use crate::support::generator;
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, BatchNormBackwardReduce, BatchNormKernels, GlobalAveragePoolBackward, GlobalMaxPoolBackward,
    GlobalPoolForward, GlobalPoolShape, InputTransform, MaxPoolBackward, MaxPoolForward, Outside, Padding, PoolKernels,
    PoolShape, Rows,
};
use rand::RngExt;

/// `Σ dy·max_pool(x)`, or of the pending `relu(scale·x + shift)` if the point has a scale.
pub struct MaxPool {
    pub shape: PoolShape,
    pub point: Point,
    pub dy: Vec<f64>,
    mean: Option<Vec<f64>>,
}

impl MaxPool {
    pub fn draw(seed: u64, shape: PoolShape) -> Self {
        let dy = values(seed, "dy", shape.output_len());
        MaxPool { shape, point: point(seed, [("x", shape.input_len())]), dy, mean: None }
    }

    fn draw_transformed(seed: u64, shape: PoolShape) -> Self {
        let vectors = [("x", shape.input_len()), ("scale", shape.c), ("shift", shape.c)];
        let mean = Some(values(seed, "mean", shape.c));
        MaxPool { point: point(seed, vectors), mean, ..Self::draw(seed, shape) }
    }

    fn norm(&self, at: &Point) -> Option<Vec<f64>> {
        self.mean.as_ref().map(|mean| free_norm(at, mean))
    }
}

impl Case for MaxPool {
    fn name(&self) -> String {
        format!("{:?}, transformed: {}", self.shape, self.mean.is_some())
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let norm = self.norm(at);
        let transform = norm.as_deref().map(|norm| InputTransform { norm, activation: Activation::Relu });
        let mut y = fresh(self.shape.output_len());
        let operands = MaxPoolForward { y: &mut y[..], x: &at["x"][..], transform };
        Reference::EXACT.max_pool_forward(operands, &self.shape).unwrap();
        dot(&y, &self.dy)
    }

    fn gradients(&self) -> Point {
        let (shape, x) = (&self.shape, &self.point["x"]);
        let norm = self.norm(&self.point);
        let transform = norm.as_deref().map(|norm| InputTransform { norm, activation: Activation::Relu });
        let mut da = fresh(shape.input_len());
        let operands = MaxPoolBackward { dx: &mut da[..], dy: &self.dy[..], x, transform };
        Reference::EXACT.max_pool_backward(operands, shape).unwrap();
        let (Some(norm), Some(mean)) = (norm, &self.mean) else { return Point::from([("x", da)]) };
        let (mut dz, mut sums) = (fresh(shape.input_len()), fresh(2 * shape.c));
        let rows = Rows { rows: shape.n * shape.h * shape.w, channels: shape.c };
        let operands = BatchNormBackwardReduce {
            dz: &mut dz[..],
            sums: &mut sums[..],
            da: &da[..],
            y: &x[..],
            norm: &norm[..],
            activation: Activation::Relu,
        };
        Reference::EXACT.batch_norm_backward_reduce(operands, rows).unwrap();
        Point::from(behind_transform(&self.point, mean, &dz, &sums))
    }
}

/// `Σ dy·global_pool(x)`.
pub struct GlobalPool {
    pub shape: GlobalPoolShape,
    point: Point,
    pub dy: Vec<f64>,
    max: bool,
}

impl GlobalPool {
    pub fn draw(seed: u64, shape: GlobalPoolShape, max: bool) -> Self {
        let dy = values(seed, "dy", shape.output_len());
        GlobalPool { shape, point: point(seed, [("x", shape.input_len())]), dy, max }
    }
}

impl Case for GlobalPool {
    fn name(&self) -> String {
        format!("{:?}, max: {}", self.shape, self.max)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        let mut y = fresh(self.shape.output_len());
        let operands = GlobalPoolForward { y: &mut y[..], x: &at["x"][..] };
        match self.max {
            false => Reference::EXACT.global_average_pool_forward(operands, &self.shape).unwrap(),
            true => Reference::EXACT.global_max_pool_forward(operands, &self.shape).unwrap(),
        }
        dot(&y, &self.dy)
    }

    fn gradients(&self) -> Point {
        let mut dx = fresh(self.shape.input_len());
        match self.max {
            false => {
                let operands = GlobalAveragePoolBackward { dx: &mut dx[..], dy: &self.dy[..] };
                Reference::EXACT.global_average_pool_backward(operands, &self.shape).unwrap();
            }
            true => {
                let operands = GlobalMaxPoolBackward { dx: &mut dx[..], dy: &self.dy[..], x: &self.point["x"] };
                Reference::EXACT.global_max_pool_backward(operands, &self.shape).unwrap();
            }
        }
        Point::from([("x", dx)])
    }
}

#[test]
fn max_pool_on_random_shapes() {
    for seed in 0..SHAPES {
        let mut random = generator(seed);
        let shape = loop {
            let [n, c] = [3, 3].map(|most| random.random_range(1..=most));
            let [h, w] = [8, 8].map(|most| random.random_range(1..=most));
            let [window, stride, pad] = [4, 3, 3].map(|most| random.random_range(1..=most));
            let outside = [Outside::Zeros, Outside::Nothing][seed as usize % 2];
            if let Ok(shape) = PoolShape::new([n, h, w, c], window, stride, pad - 1, outside) {
                break shape;
            }
        };
        assert_gradients(&MaxPool::draw(seed, shape));
        assert_gradients(&MaxPool::draw_transformed(seed, shape));
    }
}

#[test]
fn max_pool_on_the_networks_shapes() {
    for (seed, extents) in (100..).zip([[2, 75, 74, 3], [1, 38, 39, 2], [2, 5, 6, 3], [1, 1, 1, 1], [3, 1, 2, 2]]) {
        for (pad, outside) in [
            (1.into(), Outside::Zeros),
            (1.into(), Outside::Nothing),
            (Padding { before: 0, after: 1 }, Outside::Nothing),
        ] {
            let Ok(shape) = PoolShape::new(extents, 3, 2, pad, outside) else { continue };
            assert_gradients(&MaxPool::draw(seed, shape));
            assert_gradients(&MaxPool::draw_transformed(seed, shape));
        }
    }
}

#[test]
fn global_pools_on_random_and_the_networks_shapes() {
    for seed in 0..SHAPES {
        let mut random = generator(seed);
        let [n, pixels, c] = [3, 30, 5].map(|most| random.random_range(1..=most));
        for max in [false, true] {
            assert_gradients(&GlobalPool::draw(seed, GlobalPoolShape { n, pixels, c }, max));
        }
    }
    for (seed, [n, pixels, c]) in (100..).zip([[2, 5 * 5, 7], [1, 1, 1], [3, 1, 2], [1, 8 * 8, 3]]) {
        for max in [false, true] {
            assert_gradients(&GlobalPool::draw(seed, GlobalPoolShape { n, pixels, c }, max));
        }
    }
}
