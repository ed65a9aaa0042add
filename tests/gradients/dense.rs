//! Dense layers, with the ReLU and without.

use crate::case::{Case, Point, SHAPES, assert_gradients, dot, fresh, point, values};
use crate::support::generator;
use onesheet::device::reference::Reference;
use onesheet::device::{DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, ReluBackward};
use rand::RngExt;

/// `Σ dy·relu(x·wᵀ + b)`.
pub struct Dense {
    shape: DenseShape,
    relu: bool,
    point: Point,
    dy: Vec<f64>,
}

impl Dense {
    pub fn draw(seed: u64, shape: DenseShape, relu: bool) -> Self {
        let DenseShape { n, inputs, outputs } = shape;
        let vectors = [("x", n * inputs), ("w", outputs * inputs), ("b", outputs)];
        Dense { shape, relu, point: point(seed, vectors), dy: values(seed, "dy", n * outputs) }
    }

    fn forward(&self, at: &Point) -> Vec<f64> {
        let mut y = fresh(self.dy.len());
        let operands = DenseForward { y: &mut y[..], relu: self.relu, x: &at["x"][..], w: &at["w"], b: &at["b"] };
        Reference::EXACT.dense_forward(operands, &self.shape).unwrap();
        y
    }

    /// The gradients from `dz`, which is `dy` behind the ReLU's mask.
    pub fn gradients_from(&self, dz: &[f64]) -> Point {
        let [mut dx, mut dw, mut db] = ["x", "w", "b"].map(|name| vec![0.0; self.point[name].len()]);
        dx.fill(f64::NAN);
        let operands = DenseBackwardData { dx: &mut dx[..], dz, w: &self.point["w"] };
        Reference::EXACT.dense_backward_data(operands, &self.shape).unwrap();
        let operands = DenseBackwardWeights { dw: &mut dw[..], db: &mut db, dz, x: &self.point["x"] };
        Reference::EXACT.dense_backward_weights(operands, &self.shape).unwrap();
        Point::from([("x", dx), ("w", dw), ("b", db)])
    }

    /// `dy`, never masked.
    pub fn dy(&self) -> &[f64] {
        &self.dy
    }
}

impl Case for Dense {
    fn name(&self) -> String {
        format!("{:?}, relu: {}", self.shape, self.relu)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        dot(&self.forward(at), &self.dy)
    }

    fn gradients(&self) -> Point {
        if !self.relu {
            return self.gradients_from(&self.dy);
        }
        let mut dz = fresh(self.dy.len());
        let y = self.forward(&self.point);
        Reference::EXACT.relu_backward(ReluBackward { dz: &mut dz[..], dy: &self.dy[..], y: &y }).unwrap();
        self.gradients_from(&dz)
    }
}

#[test]
fn random_shapes() {
    for seed in 0..SHAPES {
        let mut random = generator(seed);
        let [n, inputs, outputs] = [4, 9, 6].map(|most| random.random_range(1..=most));
        for relu in [false, true] {
            assert_gradients(&Dense::draw(seed, DenseShape { n, inputs, outputs }, relu));
        }
    }
}

#[test]
fn the_head() {
    for (seed, [n, inputs, outputs]) in (100..).zip([[3, 2048, 16], [2, 1024, 128], [5, 128, 7], [1, 1, 1]]) {
        for relu in [false, true] {
            assert_gradients(&Dense::draw(seed, DenseShape { n, inputs, outputs }, relu));
        }
    }
}
