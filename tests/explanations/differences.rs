//! The gradient of a logit with respect to the last feature map, against central differences of the head on the reference device.

use crate::support::{assert_close, compare, seeded};
use crate::{GENRES, POSTERS, config, model, small, with_posters};
use onesheet::autograd::Tape;
use onesheet::device::reference::Reference;
use onesheet::model::Model;
use onesheet::ops::pool::Pooling;
use onesheet::plan;
use onesheet::tensor::Tensor;
use onesheet::value::Value;
use std::rc::Rc;

const STEP: f64 = 1e-5;

/// The logits `[POSTERS, GENRES]` of a feature map.
fn logits(model: &Model<Reference>, features: &Tensor<Reference>) -> Vec<f64> {
    let mut tape = Tape::inference(Rc::clone(model.device()));
    let features = Value::ready(features.clone(), None);
    let logits = plan::head(&mut tape, model.parameters(), model.plan(), features).unwrap();
    logits.values(model.device()).unwrap().to_host(model.device()).unwrap()
}

/// The gradient of each poster's logit of `genre`, value by value.
fn differences(model: &Model<Reference>, features: &Tensor<Reference>, genre: usize) -> Vec<f64> {
    let values = features.to_host(model.device()).unwrap();
    let each = values.len() / POSTERS;
    let logit = |at: usize, by: f64| {
        let mut moved = values.clone();
        moved[at] += by;
        let moved = Tensor::from_host(&Reference::EXACT, shape(features), &moved).unwrap();
        logits(model, &moved)[at / each * GENRES + genre]
    };
    (0..values.len()).map(|at| (logit(at, STEP) - logit(at, -STEP)) / (2.0 * STEP)).collect()
}

fn shape(features: &Tensor<Reference>) -> [usize; 4] {
    features.shape().extents().try_into().unwrap()
}

#[test]
fn the_gradient_of_each_logit_is_that_of_finite_differences() {
    for network in small() {
        for pooling in [Pooling::Average, Pooling::Max] {
            let mut model = model(Reference::EXACT, config(network, pooling));
            // Drawn, since behind a ReLU many values are 0, and a maximum of those has no derivative.
            let shape = shape(&with_posters(crate::SIZE, |posters| model.features(posters)).unwrap());
            let drawn = seeded(11, shape.iter().product(), -1.0, 1.0);
            let features = Tensor::from_host(&Reference::EXACT, shape, &drawn).unwrap();
            for genre in 0..GENRES {
                let what = format!("{network}, {pooling:?}, genre {genre}");
                let found = model.feature_gradient(&features, genre).unwrap().to_host(model.device()).unwrap();
                let expected = differences(&model, &features, genre);
                assert!(expected.iter().any(|value| value.abs() > 1e-3), "{what}: something is there to compare");
                assert_close(&what, &found, &expected, 1e-8, 1e-6);
                let other = differences(&model, &features, (genre + 1) % GENRES);
                compare(&what, &found, &other, 1e-8, 1e-6).expect_err("another genre's gradient is noticed");
            }
        }
    }
}

#[test]
fn base_and_head_are_the_whole_network() {
    for network in small() {
        let model = model(Reference::EXACT, config(network, Pooling::Average));
        with_posters(crate::SIZE, |posters| {
            let whole = model.logits(posters).unwrap().to_host(model.device()).unwrap();
            let features = model.features(posters).unwrap();
            assert_close(network.name, &logits(&model, &features), &whole, 1e-12, 1e-12);
        });
    }
}
