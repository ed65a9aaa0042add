//! The maps by hand: the head's weights taken one by one, and the gradient by the chain rule.

use crate::support::{assert_close, compare};
use crate::{GENRES, POSTERS, config, model, small, values, with_posters};
use onesheet::device::Device;
use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::model::{Model, Posters};
use onesheet::network::{ModelConfig, NETWORKS, Network, resnet50};
use onesheet::ops::pool::Pooling;
use std::rc::Rc;

/// A dense layer on the host.
struct Dense {
    /// `[outputs][inputs]`.
    kernel: Vec<Vec<f64>>,
    bias: Vec<f64>,
}

/// The dense layers behind the global pooling; between two of them is a ReLU.
fn head<D: Device>(model: &Model<D>) -> Vec<Dense> {
    let architecture = model.architecture();
    let (_, head) = architecture.base_and_head();
    let read = |tensor: &onesheet::network::NamedTensor| {
        model.read(tensor).unwrap().into_iter().map(f64::from).collect::<Vec<f64>>()
    };
    let layer = |pair: &[onesheet::network::NamedTensor]| {
        let kernel = read(&pair[0]);
        let rows = kernel.chunks(pair[0].shape[1]).map(<[f64]>::to_vec).collect();
        Dense { kernel: rows, bias: read(&pair[1]) }
    };
    head.chunks(2).map(layer).collect()
}

/// `∂z/∂pooled` of one genre's logit, for one poster's pooled features.
fn gradient(head: &[Dense], pooled: &[f64], genre: usize) -> Vec<f64> {
    // Forward: which units of each hidden layer let something pass.
    let (mut values, mut passing) = (pooled.to_vec(), Vec::new());
    for Dense { kernel, bias } in &head[..head.len() - 1] {
        let sum = |(row, bias): (&Vec<f64>, &f64)| bias + row.iter().zip(&values).map(|(w, x)| w * x).sum::<f64>();
        let sums: Vec<f64> = kernel.iter().zip(bias).map(sum).collect();
        passing.push(sums.iter().map(|&sum| sum > 0.0).collect::<Vec<bool>>());
        values = sums.iter().map(|sum| sum.max(0.0)).collect();
    }
    // Back: a row of the last kernel, then through each layer in front of it.
    let mut gradient = head[head.len() - 1].kernel[genre].clone();
    for (Dense { kernel, .. }, passing) in head[..head.len() - 1].iter().zip(&passing).rev() {
        let column = |input: usize| -> f64 {
            let units = kernel.iter().zip(&gradient).zip(passing);
            units.map(|((row, g), &passes)| if passes { row[input] * g } else { 0.0 }).sum()
        };
        gradient = (0..kernel[0].len()).map(column).collect();
    }
    gradient
}

/// What [`Model::explain`] should say of all genres.
fn maps<D: Device>(model: &Model<D>, posters: Posters<'_>, pooling: Pooling) -> Vec<f64> {
    let features = model.features(posters).unwrap();
    let &[_, h, w, channels] = features.shape().extents() else { unreachable!() };
    let activations: Vec<f64> = features.to_host(model.device()).unwrap().into_iter().map(Into::into).collect();
    let head = head(model);
    let mut maps = Vec::new();
    for genre in 0..GENRES {
        for own in activations.chunks(h * w * channels) {
            let channel = |c: usize| own.iter().skip(c).step_by(channels).copied();
            let pooled: Vec<f64> = (0..channels)
                .map(|c| match pooling {
                    Pooling::Average => channel(c).sum::<f64>() / (h * w) as f64,
                    Pooling::Max => channel(c).fold(f64::NEG_INFINITY, f64::max),
                })
                .collect();
            let gradient = gradient(&head, &pooled, genre);
            for pixel in own.chunks(channels) {
                let sum: f64 = pixel.iter().zip(&gradient).map(|(a, g)| a * g / (h * w) as f64).sum();
                maps.push(sum.max(0.0));
            }
        }
    }
    maps
}

const ALL: [usize; GENRES] = [0, 1, 2, 3];

#[test]
fn the_maps_are_those_of_the_chain_rule_by_hand() {
    for network in small() {
        for pooling in [Pooling::Average, Pooling::Max] {
            let mut model = model(Reference::EXACT, config(network, pooling));
            with_posters(crate::SIZE, |posters| {
                let found = values(&model.explain(posters, &ALL).unwrap());
                let expected = maps(&model, posters, pooling);
                let what = format!("{network}, {pooling:?}");
                assert!(expected.iter().any(|&value| value > 1e-3), "{what}: something is there to compare");
                // Of numbers that are stored as f32.
                assert_close(&what, &found, &expected, 1e-6, 1e-6);
                let moved: Vec<f64> = expected.iter().map(|value| 1.01 * value).collect();
                compare(&what, &found, &moved, 1e-6, 1e-6).expect_err("a hundredth is noticed");
            });
        }
    }
}

/// Without a hidden layer the weights are the last kernel's for every poster: class activation mapping (Zhou et al. 2016).
#[test]
fn of_a_linear_head_the_maps_are_the_feature_maps_weighed_by_its_kernel() {
    let network = Network { head: &[], ..resnet50::MINIATURE };
    let mut model = model(Reference::EXACT, config(network, Pooling::Average));
    with_posters(crate::SIZE, |posters| {
        let features = model.features(posters).unwrap();
        let &[_, h, w, channels] = features.shape().extents() else { unreachable!() };
        let kernel = model.read(&model.architecture().base_and_head().1[0]).unwrap();
        let activations = features.to_host(model.device()).unwrap();
        let maps = model.explain(posters, &[3]).unwrap();
        assert_eq!((maps[0][0].height, maps[0][0].width), (h, w));
        let row = &kernel[3 * channels..];
        let expected: Vec<f64> = activations
            .chunks(channels)
            .map(|pixel| pixel.iter().zip(row).map(|(a, &w)| a * f64::from(w)).sum::<f64>().max(0.0) / (h * w) as f64)
            .collect();
        assert_eq!(expected.len(), POSTERS * h * w);
        assert_close("class activation maps", &values(&maps), &expected, 1e-6, 1e-6);
    });
}

/// Whole networks on the processor, in the smallest size whose last feature map has more than one pixel.
#[test]
fn every_network_explains_itself() {
    for network in NETWORKS {
        let config = ModelConfig { image_size: 64, ..ModelConfig::new(network, GENRES) };
        let mut model = Model::new(Rc::new(Cpu::new()), config, 5).unwrap();
        with_posters(64, |posters| {
            let found = values(&model.explain(posters, &ALL).unwrap());
            let expected = maps(&model, posters, Pooling::Average);
            let largest = expected.iter().fold(0.0, |largest: f64, &value| largest.max(value));
            assert!(largest > 0.0, "{network}");
            assert_close(network.name, &found, &expected, 1e-4 * largest, 1e-4);
        });
    }
}
