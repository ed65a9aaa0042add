//! Class-weighted binary cross-entropy.

use crate::case::{Case, Point, SHAPES, assert_gradients, fresh, point};
use crate::support::{generator, seeded};
use onesheet::device::reference::Reference;
use onesheet::device::{BceForwardBackward, LossKernels, LossShape};
use rand::RngExt;

/// The loss of logits that reach from sure to very sure, against random targets.
pub struct CrossEntropy {
    pub shape: LossShape,
    point: Point,
    targets: Vec<f64>,
    weights: Vec<f64>,
}

impl CrossEntropy {
    pub fn draw(seed: u64, shape: LossShape) -> Self {
        let terms = shape.n * shape.classes;
        let mut point = point(seed, [("logits", terms)]);
        point.get_mut("logits").unwrap().iter_mut().for_each(|z| *z *= 8.0);
        let targets = seeded(seed, terms, 0.0, 1.0).into_iter().map(|u| f64::from(u < 0.3)).collect();
        CrossEntropy { shape, point, targets, weights: seeded(seed, shape.classes, 0.2, 3.0) }
    }

    fn run(&self, at: &Point, weights: &[f64]) -> (f64, Vec<f64>) {
        let (mut loss, mut dlogits) = ([f64::NAN], fresh(self.targets.len()));
        let operands = BceForwardBackward {
            loss: &mut loss[..],
            dlogits: &mut dlogits,
            logits: &at["logits"][..],
            targets: &self.targets,
            weights,
        };
        Reference::EXACT.bce_forward_backward(operands, &self.shape).unwrap();
        (loss[0], dlogits)
    }

    /// The gradient under other class weights.
    pub fn gradients_weighted(&self, weights: &[f64]) -> Point {
        Point::from([("logits", self.run(&self.point, weights).1)])
    }
}

impl Case for CrossEntropy {
    fn name(&self) -> String {
        format!("{:?}", self.shape)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        self.run(at, &self.weights).0
    }

    fn gradients(&self) -> Point {
        self.gradients_weighted(&self.weights)
    }
}

#[test]
fn random_shapes() {
    for seed in 0..SHAPES {
        let mut random = generator(seed);
        let [n, classes] = [5, 8].map(|most| random.random_range(1..=most));
        assert_gradients(&CrossEntropy::draw(seed, LossShape { n, classes }));
    }
    assert_gradients(&CrossEntropy::draw(100, LossShape { n: 128, classes: 7 }));
}

#[test]
fn a_class_without_a_positive_example() {
    let mut case = CrossEntropy::draw(101, LossShape { n: 6, classes: 3 });
    case.targets.iter_mut().skip(1).step_by(3).for_each(|t| *t = 0.0);
    assert_gradients(&case);
}

#[test]
fn targets_between_no_and_yes() {
    for seed in 0..SHAPES {
        let mut case = CrossEntropy::draw(200 + seed, LossShape { n: 5, classes: 3 });
        case.targets = seeded(seed, case.targets.len(), 0.0, 1.0);
        assert_gradients(&case);
    }
}
