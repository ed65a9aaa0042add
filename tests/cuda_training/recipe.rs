//! The parts of a recipe that a step on the device has a share in, in steps that are captured and replayed.

use super::{Data, FORMAT, GENRES, config, cuda, small};
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::{Cuda, Precision};
use onesheet::device::{Device, Memory};
use onesheet::model::Model;
use onesheet::network::Place;
use onesheet::training::learner::Learner;
use onesheet::training::recipe::Recipe;
use std::rc::Rc;

/// The losses and gradient norms of four steps of two batches, with every part at once.
fn outcomes<D: Device>(device: Rc<D>) -> Vec<[f64; 2]> {
    let recipe = Recipe {
        accumulate: 2,
        weight_decay: 0.25,
        base_rate: 0.5,
        clip_norm: Some(0.5),
        ema: 0.75,
        ..Recipe::default()
    };
    let model = Model::new(Rc::clone(&device), config(small(), 33), 5).unwrap();
    let mut learner = Learner::by(&recipe, model).unwrap();
    let mut outcomes = Vec::new();
    for batch in 0..8 {
        let data = Data::draw(batch, 3, 33);
        let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
        if learner.submit(pixels, 3, &FORMAT, &data.labels, &[1.0; GENRES], 1e-4).unwrap() {
            let outcome = learner.outcome().unwrap();
            outcomes.push([outcome.loss, outcome.gradient_norm]);
        }
    }
    outcomes
}

#[test]
fn every_part_at_once_is_the_processors() {
    let found = outcomes(Rc::new(cuda::device(Precision::F32)));
    let expected = outcomes(Rc::new(Cpu::new()));
    assert_eq!((found.len(), expected.len()), (4, 4));
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{found}, {expected}");
    }
}

/// Two batches' averages, from posters alone.
#[test]
fn averages_formed_anew_are_the_processors() {
    fn formed<D: Device>(device: Rc<D>) -> Vec<f32> {
        let mut model = Model::new(device, config(small(), 33), 5).unwrap();
        for number in 0..2 {
            model.average(Data::draw(number as u64, 3, 33).posters(), number).unwrap();
        }
        let averages = model.architecture().tensors.iter().filter(|tensor| matches!(tensor.place, Place::Averages(_)));
        averages.flat_map(|tensor| model.read(tensor).unwrap()).collect()
    }
    let (found, expected) = (formed(Rc::new(cuda::device(Precision::F32))), formed(Rc::new(Cpu::new())));
    assert!(found.len() == expected.len() && found.len() > 50, "{}", found.len());
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{found}, {expected}");
    }
}

/// What answers is the average and its narrow copy; what learns goes on from where it was, be it replayed.
#[test]
fn an_average_answers_and_disturbs_no_step() {
    let config = config(small(), 33);
    let device = Rc::new(cuda::device(Precision::Bf16));
    let learner = || {
        let model = Model::new(Rc::clone(&device), config.clone(), 5).unwrap();
        Learner::by(&Recipe { ema: 0.75, ..Recipe::default() }, model).unwrap()
    };
    let step = |learner: &mut Learner<Cuda>, number: u64| {
        let data = Data::draw(number, 3, 33);
        let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
        learner.submit(pixels, 3, &FORMAT, &data.labels, &[1.0; GENRES], 1e-3).unwrap();
        learner.outcome().unwrap().loss.to_bits()
    };
    let (mut straight, mut asked) = (learner(), learner());
    let other = Data::draw(50, 2, 33);
    for number in 0..5 {
        assert_eq!(step(&mut asked, number), step(&mut straight, number), "step {number}");
        let learns = asked.model().predict(other.posters()).unwrap();
        asked.exchange_average();
        let answers = asked.model().predict(other.posters()).unwrap();
        let mut written = Model::zeros(Rc::clone(&device), config.clone()).unwrap();
        for tensor in asked.model().architecture().tensors.clone() {
            written.write(&tensor, &asked.model().read(&tensor).unwrap()).unwrap();
        }
        asked.exchange_average();
        assert_eq!(answers, written.predict(other.posters()).unwrap(), "step {number}");
        assert_ne!(answers, learns, "step {number}");
        assert_eq!(asked.model().predict(other.posters()).unwrap(), learns, "step {number}");
    }
}
