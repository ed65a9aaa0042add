//! Steps whose numbers are not finite: the model stays as it was, and the layer where they began is named.

use super::{Data, FORMAT, GENRES, config, cuda, small};
use onesheet::device::cuda::{Cuda, Precision};
use onesheet::device::{Memory, Pass};
use onesheet::model::{Batch, Model};
use onesheet::training::TrainingError;
use onesheet::training::learner::Learner;
use std::rc::Rc;

/// The device itself leaves the model alone in a bad step, be it replayed: the next loss is the one that there would have been
/// without that step. What was wrong is found by doing it again, which disturbs no later replay.
#[test]
fn a_bad_step_leaves_the_model_as_it_was() {
    let config = config(small(), 33);
    for precision in [Precision::F32, Precision::Bf16] {
        let device = Rc::new(cuda::device(precision));
        let step = |learner: &mut Learner<Cuda>, number: u64, class_weights: f32| {
            let data = Data::draw(number, 3, config.image_size);
            let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
            learner.submit(pixels, 3, &FORMAT, &data.labels, &[class_weights; GENRES], 1e-5).unwrap();
            learner.outcome().map(|outcome| [outcome.loss, outcome.gradient_norm].map(f64::to_bits))
        };
        let mut straight = Learner::new(Rc::clone(&device), config.clone(), 5).unwrap();
        let expected: Vec<_> = (0..4).map(|number| step(&mut straight, number, 1.0).unwrap()).collect();

        // The two bad steps are done as they are and captured, or both replayed.
        for sound in [0, 3] {
            let mut learner = Learner::new(Rc::clone(&device), config.clone(), 5).unwrap();
            for number in 0..sound {
                assert_eq!(step(&mut learner, number, 1.0).unwrap(), expected[number as usize]);
            }
            let tensors = learner.model().architecture().tensors.clone();
            let read = |learner: &Learner<Cuda>| {
                tensors.iter().map(|tensor| learner.model().read(tensor).unwrap()).collect::<Vec<_>>()
            };
            let before = read(&learner);
            for (class_weights, layer) in [(f32::NAN, Some("loss")), (1e25, None)] {
                let refused = step(&mut learner, sound, class_weights).unwrap_err();
                assert!(matches!(refused, TrainingError::Diverged { .. }), "{refused}");
                assert!(read(&learner) == before, "{class_weights} on {}", device.name());
                let found = learner.first_non_finite().unwrap();
                assert_eq!(found.map(|found| found.layer).as_deref(), layer, "{class_weights} on {}", device.name());
                assert!(read(&learner) == before, "looking for {class_weights} on {}", device.name());
            }
            assert_eq!(step(&mut learner, sound, 1.0).unwrap(), expected[sound as usize], "on {}", device.name());
        }
    }
}

/// A weight that is no number, in each layer: the device's own kernels carry it to a result of that layer.
#[test]
fn the_first_layer_with_a_bad_result_is_named() {
    let config = config(small(), 33);
    let device = Rc::new(cuda::device(Precision::Bf16));
    let mut model = Model::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let data = Data::draw(0, 2, config.image_size);
    let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
    let mut batch = Batch::new(&*device, pixels, 2, &FORMAT, &data.labels, &[1.0; GENRES]).unwrap();
    assert_eq!(model.first_non_finite(&mut batch).unwrap(), None);
    for tensor in model.architecture().tensors.clone() {
        let (layer, part) = tensor.name.rsplit_once('/').unwrap();
        if !["kernel", "gamma"].contains(&part) {
            continue;
        }
        let sound = model.read(&tensor).unwrap();
        let mut values = sound.clone();
        values[sound.len() / 2] = f32::NAN;
        model.write(&tensor, &values).unwrap();
        let found = model.first_non_finite(&mut batch).unwrap().expect("a weight is no number");
        assert_eq!((&*found.layer, found.pass), (layer, Some(Pass::Forward)));
        model.write(&tensor, &sound).unwrap();
    }
}
