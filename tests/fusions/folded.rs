//! A network that only answers, its batch norms folded into its convolutions, against the same network in inference mode: on the
//! processor and, to twelve digits, on the reference device.

use super::networks::SUMS;
use onesheet::autograd::Tape;
use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, ImageShape, Memory, PixelFormat, Placement, Precision, Storage};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{MINIATURES, ModelConfig, Network, mobilenet};
use onesheet::ops::pool::Pooling;
use onesheet::optim::Adam;
use onesheet::plan::{self, Statistics};
use onesheet::tensor::Tensor;
use onesheet::value::Value;
use std::rc::Rc;

const SIZE: usize = 33;
const GENRES: usize = 4;
const FORMAT: PixelFormat = PixelFormat { order: [2, 1, 0], scale: 1.0 / 127.5, shift: [-1.0; 3] };

/// A model as if it had been trained: no scale is 1, no shift, mean or bias 0.
fn trained<D: Device>(device: D, network: Network, pooling: Pooling) -> Model<D> {
    let config = ModelConfig { image_size: SIZE, pooling, ..ModelConfig::new(network, GENRES) };
    let mut model = Model::new(Rc::new(device), config, 7).unwrap();
    for tensor in model.architecture().tensors.clone() {
        let is_kernel = tensor.name.ends_with("kernel");
        if !is_kernel {
            let positive = tensor.name.ends_with("gamma") || tensor.name.ends_with("variance");
            let value = |at: usize| (at * 7919 % 101) as f32 / 101.0 - 0.4 + if positive { 0.8 } else { 0.0 };
            let len = tensor.shape.iter().product();
            model.write(&tensor, &(0..len).map(value).collect::<Vec<f32>>()).unwrap();
        }
    }
    model
}

fn pixels(images: usize) -> Vec<u8> {
    (0..images * SIZE * SIZE * 3).map(|i| (i * 7919 % 251) as u8).collect()
}

fn folded<D: Device>(model: &Model<D>, images: usize) -> Vec<f64> {
    let (pixels, placements) = (pixels(images), vec![Placement::default(); images]);
    let logits = model.logits(Posters { pixels: &pixels, placements: &placements, format: &FORMAT }).unwrap();
    logits.to_host(model.device()).unwrap().into_iter().map(Into::into).collect()
}

/// The same by the steps that training computes.
fn unfolded<D: Device>(model: &Model<D>, images: usize) -> Vec<f64> {
    let device = model.device();
    let pixels = device.upload_pixels(&pixels(images), &vec![Placement::default(); images]).unwrap();
    let mut x = Tensor::new(&**device, [images, SIZE, SIZE, 3], Storage::Activation).unwrap();
    device.image_forward(x.view_mut(), &pixels, &FORMAT, &ImageShape { n: images, size: SIZE }).unwrap();
    let mut tape = Tape::inference(Rc::clone(device));
    let mut statistics = Statistics::Running(model.parameters());
    let logits = plan::forward(&mut tape, &mut statistics, model.plan(), Value::ready(x, None)).unwrap();
    logits.values(&**device).unwrap().to_host(device).unwrap().into_iter().map(Into::into).collect()
}

/// How far the two are apart, against the largest logit.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    assert_eq!(found.len(), expected.len());
    // A NaN is as far as can be.
    apart.fold(0.0, |most, d| {
        if d <= most {
            most
        } else if d.is_nan() {
            f64::INFINITY
        } else {
            d
        }
    }) / largest
}

fn check<D: Device>(device: impl Fn() -> D, most: f64) {
    for network in MINIATURES.into_iter().chain([SUMS]) {
        for (pooling, images) in [(Pooling::Average, 1), (Pooling::Max, 11)] {
            let model = trained(device(), network, pooling);
            assert!(model.device().folds());
            let distance = distance(&folded(&model, images), &unfolded(&model, images));
            assert!(distance <= most, "{network} of {images} images: {distance:e}");
        }
    }
}

#[test]
fn on_the_processor() {
    check(|| Cpu::new().poisoned(), 1e-5);
}

/// Both round everything they store to 8 bits, and not at the same places.
#[test]
fn on_the_processor_in_bf16() {
    check(|| Cpu::storing(Precision::Bf16).poisoned(), 0.05);
}

#[test]
fn on_the_reference_device() {
    check(|| Reference::EXACT, 1e-12);
}

#[test]
fn what_was_folded_is_forgotten_when_a_parameter_changes() {
    let mut model = trained(Cpu::new(), mobilenet::MINIATURE, Pooling::Average);
    let before = folded(&model, 2);
    assert_eq!(before, folded(&model, 2));
    // The last bias, and the means.
    for tensor in model.architecture().tensors.clone() {
        if tensor.name == "genres/bias" || tensor.name.ends_with("moving_mean") {
            let values: Vec<f32> = model.read(&tensor).unwrap().iter().map(|value| value + 0.5).collect();
            model.write(&tensor, &values).unwrap();
        }
    }
    let after = folded(&model, 2);
    assert!(distance(&after, &before) > 1e-3);
    assert!(distance(&after, &unfolded(&model, 2)) <= 1e-5);
}

/// A model with the same tensors that has never answered.
fn loaded(model: &Model<Cpu>) -> Model<Cpu> {
    let mut fresh = Model::zeros(Rc::new(Cpu::new()), model.config().clone()).unwrap();
    for tensor in &model.architecture().tensors {
        fresh.write(tensor, &model.read(tensor).unwrap()).unwrap();
    }
    fresh
}

/// A step changes parameters twice: the passes move the running averages, and then the optimiser moves the weights.
#[test]
fn what_was_folded_is_forgotten_when_a_step_trains() {
    let mut model = trained(Cpu::new(), mobilenet::MINIATURE, Pooling::Average);
    let device = Rc::clone(model.device());
    let mut adam = Adam::new(&*device, model.architecture().weights).unwrap();
    let untrained = folded(&model, 2);

    let uploaded = device.upload_pixels(&pixels(2), &[Placement::default(); 2]).unwrap();
    let labels = [1, 0, 0, 1, 0, 1, 1, 0];
    let mut batch = Batch::new(&*device, uploaded, 2, &FORMAT, &labels, &[1.0; GENRES]).unwrap();
    model.gradients(&mut batch).unwrap();
    let averaged = folded(&model, 2);
    assert!(distance(&averaged, &untrained) > 1e-3);
    assert_eq!(averaged, folded(&loaded(&model), 2));

    batch.set_rates(&device, adam.begin_step(1e-2)).unwrap();
    adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates()).unwrap();
    let stepped = folded(&model, 2);
    assert!(distance(&stepped, &averaged) > 1e-3);
    assert_eq!(stepped, folded(&loaded(&model), 2));
}

fn in_both_precisions() -> impl Iterator<Item = (Network, Precision)> {
    MINIATURES.into_iter().flat_map(|network| [Precision::F32, Precision::Bf16].map(|precision| (network, precision)))
}

#[test]
fn a_poster_is_answered_alike_whatever_is_asked_beside_it() {
    for (network, precision) in in_both_precisions() {
        let [alone, among] =
            [1, 19].map(|images| folded(&trained(Cpu::storing(precision), network, Pooling::Average), images));
        assert_eq!(alone, among[..GENRES], "{network} in {precision:?}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for (network, precision) in in_both_precisions() {
        let answers = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| folded(&trained(Cpu::storing(precision), network, Pooling::Average), 3))
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{network} in {precision:?}");
    }
}
