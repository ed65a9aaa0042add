//! The batches of a step on several devices: a run is what it is on one, up to the order of a sum, and the same bits every time.

#[path = "support/faulty.rs"]
mod faulty;
#[path = "support/runs.rs"]
mod runs;

use faulty::Faulty;
use onesheet::data::loader;
use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, DeviceError, Memory, Placement};
use onesheet::model::Model;
use onesheet::network::{Place, Trainable, resnet50, vgg16};
use onesheet::training::TrainingError;
use onesheet::training::config::{OnBadNumbers, Pixels, RunConfig};
use onesheet::training::learner::Learner;
use onesheet::training::recipe::Recipe;
use onesheet::training::replicas::Opener;
use onesheet::training::run_folder::{RunFolder, StepRow};
use onesheet::training::trainer::{Ending, Event};
use runs::{config, posters, remains, resumed_on, rows, trainer_on};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The further devices of a run, each made by `make`.
fn others<D: Device>(count: usize, make: fn() -> D) -> Vec<Opener<D>> {
    (0..count).map(|_| Box::new(move || Ok(make())) as Opener<D>).collect()
}

/// Steps of four batches of four posters, on so many devices.
fn shared(posters: &Path, gpus: usize) -> RunConfig {
    let recipe = Recipe { accumulate: 4, clip_norm: Some(0.5), ema: 0.9, ..Recipe::default() };
    RunConfig { batch: 4, gpus, recipe, ..config(posters) }
}

/// A run from its beginning, or from where it was stopped.
fn run<D: Device>(config: &RunConfig, path: &Path, make: fn() -> D) -> Ending {
    let (mut trainer, mut folder) = match path.exists() {
        true => resumed_on(make(), config, path).unwrap(),
        false => (trainer_on(make(), config).unwrap(), RunFolder::create(path, config).unwrap()),
    };
    trainer.share(others(config.gpus - 1, make)).unwrap();
    trainer.run(&mut folder, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

/// In numbers of 64 bits, where a sum in another order is the same to many digits. With frozen layers the running averages have a part in
/// it; four devices have a batch of each step, and two have two.
#[test]
fn a_step_is_the_same_on_several_devices() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    for (network, trainable) in [
        (resnet50::MINIATURE, Trainable::All),
        (resnet50::MINIATURE, Trainable::Last(20)),
        (vgg16::MINIATURE, Trainable::All),
    ] {
        let steps = |gpus: usize, recompute: bool| {
            let config = RunConfig { network, trainable, recompute, max_steps: Some(3), ..shared(&posters, gpus) };
            let path = folder.path().join(format!("{network}-{trainable}-{gpus}"));
            assert_eq!(run(&config, &path, || Reference::EXACT), Ending::StepLimit);
            rows::<StepRow>(&path.join("steps.csv"))
        };
        let expected = steps(1, false);
        for (gpus, recompute) in [(2, false), (4, true)] {
            let found = steps(gpus, recompute);
            assert_eq!((found.len(), expected.len()), (3, 3));
            for (found, expected) in found.iter().zip(&expected) {
                let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-9 * expected.abs();
                let is_same = near(found.loss, expected.loss) && near(found.gradient_norm, expected.gradient_norm);
                assert!(is_same, "{network}, {trainable}, {gpus} devices: {found:?}, {expected:?}");
            }
        }
    }
}

#[test]
fn a_run_on_several_devices_repeats_and_goes_on_bit_for_bit() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = shared(&posters(folder.path()), 2);
    for name in ["one", "other"] {
        assert_eq!(run(&whole, &at(name), Cpu::new), Ending::Finished);
    }
    assert!(remains(&at("one")) == remains(&at("other")));
    let stopped = RunConfig { max_steps: Some(3), ..whole.clone() };
    assert_eq!(run(&stopped, &at("stopped"), Cpu::new), Ending::StepLimit);
    assert_eq!(run(&whole, &at("stopped"), Cpu::new), Ending::Finished);
    assert!(remains(&at("one")) == remains(&at("stopped")));
}

/// A number that is none on any device spoils the sum, and the step is left out.
#[test]
fn a_bad_number_on_a_further_device_leaves_the_step_out() {
    let folder = TempDir::new().unwrap();
    let skip = RunConfig { on_bad_numbers: OnBadNumbers::Skip, ..shared(&posters(folder.path()), 2) };
    let mut run = RunFolder::create(&folder.path().join("run"), &skip).unwrap();
    let mut trainer = trainer_on(Faulty::default(), &skip).unwrap();
    let spoilt = || {
        let device = Faulty::default();
        // Two dense layers a batch and two batches a step: in the fourth step.
        device.spoilt.set(Some(("dense_backward_weights", 13)));
        Ok(device)
    };
    trainer.share(vec![Box::new(spoilt)]).unwrap();
    let (mut left_out, mut losses) = (0, Vec::new());
    let ending = trainer.run(&mut run, &AtomicBool::new(false), &mut |event| match event {
        Event::LeftOut { .. } => left_out += 1,
        Event::Step { row, .. } => losses.push(row.loss),
        _ => {}
    });
    assert_eq!((ending.unwrap(), left_out), (Ending::Finished, 1));
    let bad: Vec<usize> = (0..losses.len()).filter(|&step| losses[step].is_nan()).collect();
    assert_eq!((losses.len(), bad), (8, vec![3]), "{losses:?}");
}

#[test]
fn a_further_device_that_cannot_be_opened_ends_the_run_before_it_begins() {
    let folder = TempDir::new().unwrap();
    let mut trainer = trainer_on(Cpu::new(), &shared(&posters(folder.path()), 4)).unwrap();
    let refuse: Opener<Cpu> = Box::new(|| Err(DeviceError::Unavailable("no such GPU".into())));
    let mut openers = others(2, Cpu::new);
    openers.insert(1, refuse);
    let error = trainer.share(openers).unwrap_err();
    assert!(matches!(error, TrainingError::Device(DeviceError::Unavailable(_))), "{error}");
    assert_eq!(error.to_string(), "no such GPU");
}

/// A learner whose steps are four batches of two posters, two on each of two devices.
fn learner() -> Learner<Cpu> {
    let config = RunConfig { network: resnet50::MINIATURE, image_size: 16, ..RunConfig::default() }.model(2);
    let recipe = Recipe { accumulate: 4, ..Recipe::default() };
    let mut learner = Learner::by(&recipe, Model::new(Rc::new(Cpu::new()), config, 5).unwrap()).unwrap();
    learner.share(others(1, Cpu::new), false).unwrap();
    learner
}

/// Two posters that are others for each `seed`, with so many labels.
fn batch(seed: usize, labels: usize) -> loader::Batch {
    loader::Batch {
        indices: vec![0, 1],
        pixels: (0..2 * 16 * 16 * 3).map(|at| ((at * (at + seed)) % 253) as u8).collect(),
        labels: (0..labels).map(|at| u8::from((at + seed).is_multiple_of(3))).collect(),
        placements: vec![Placement::default(); 2],
    }
}

/// A batch on each device.
fn submit(learner: &mut Learner<Cpu>, seed: usize, labels: usize) -> Result<bool, TrainingError> {
    let own = batch(seed, 4);
    let pixels = learner.model().device().upload_pixels(&own.pixels, &own.placements).unwrap();
    let others = vec![batch(seed + 100, labels)];
    learner.submit_beside(others, pixels, 2, &Pixels::Unit.format(), &own.labels, &[1.0; 2], 1e-2)
}

/// The weights and running averages after whole steps.
fn trained(learner: &mut Learner<Cpu>) -> Vec<Vec<f32>> {
    for step in 0..2 {
        assert!(!submit(learner, 2 * step, 4).unwrap());
        assert!(submit(learner, 2 * step + 1, 4).unwrap());
        learner.outcome().unwrap();
    }
    learner.model().architecture().tensors.iter().map(|tensor| learner.model().read(tensor).unwrap()).collect()
}

#[test]
fn a_step_that_is_left_leaves_nothing_on_any_device() {
    let expected = trained(&mut learner());
    let mut left = learner();
    assert!(!submit(&mut left, 7, 4).unwrap());
    left.leave_step().unwrap();
    assert!(trained(&mut left) == expected);
}

#[test]
fn what_fails_on_a_further_device_is_told_at_the_end_of_the_step_and_is_over_with_it() {
    let mut failing = learner();
    let before: Vec<Vec<f32>> = weights(&failing);
    assert!(!submit(&mut failing, 7, 3).unwrap());
    let error = submit(&mut failing, 8, 4).unwrap_err();
    assert!(error.to_string().contains("operand labels has 3 elements, its shape asks for 4"), "{error}");
    assert!(weights(&failing) == before, "no weight has moved");
    // The step counts for Adam, as one that proved bad does.
    assert!(!submit(&mut failing, 1, 4).unwrap());
    assert!(submit(&mut failing, 2, 4).unwrap());
    failing.outcome().unwrap();
    assert!(weights(&failing) != before);
}

fn weights(learner: &Learner<Cpu>) -> Vec<Vec<f32>> {
    let tensors = learner.model().architecture().tensors.iter();
    let weights = tensors.filter(|tensor| matches!(tensor.place, Place::Weights(_)));
    weights.map(|tensor| learner.model().read(tensor).unwrap()).collect()
}
