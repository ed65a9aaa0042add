//! The parts of a recipe: each does something, and a run with it goes on to the same bits.

use crate::runs::{begin, config, go_on, posters, remains, rows};
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, Placement};
use onesheet::model::Model;
use onesheet::network::{ModelConfig, Trainable, resnet50};
use onesheet::ops::loss::Loss;
use onesheet::optim::Curve;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::Learner;
use onesheet::training::recipe::Recipe;
use onesheet::training::run_folder::{EpochRow, StepRow};
use onesheet::training::trainer::Ending;
use std::rc::Rc;
use tempfile::TempDir;

/// Every part by itself.
fn parts() -> Vec<(&'static str, Recipe)> {
    let plain = Recipe::default;
    vec![
        ("cosine", Recipe { schedule: Curve::Cosine, ..plain() }),
        ("weight-decay", Recipe { weight_decay: 0.5, ..plain() }),
        ("clip-norm", Recipe { clip_norm: Some(0.01), ..plain() }),
        ("focal", Recipe { loss: Loss::focal(2.0), ..plain() }),
        ("asymmetric", Recipe { loss: Loss::ASYMMETRIC, ..plain() }),
        ("label-smoothing", Recipe { label_smoothing: 0.2, ..plain() }),
    ]
}

/// In an epoch, at its end, and behind it. The end of a run with a part is not that of one without.
#[test]
fn a_run_with_any_part_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    let plain = folder.path().join("plain");
    begin(&config(&posters), &plain);
    let plain = remains(&plain);
    for (name, recipe) in parts() {
        let whole = RunConfig { recipe, ..config(&posters) };
        let straight = folder.path().join(name);
        assert_eq!(begin(&whole, &straight), Ending::Finished);
        let expected = remains(&straight);
        assert!(expected.0 != plain.0, "{name} changes nothing");
        for stop in [3, 8, 13] {
            let stop = stop * expected.2.len() as u64 / 16;
            let path = folder.path().join(format!("{name}-{stop}"));
            assert_eq!(begin(&RunConfig { max_steps: Some(stop), ..whole.clone() }, &path), Ending::StepLimit);
            assert_eq!(go_on(&whole, &path), Ending::Finished);
            assert!(remains(&path) == expected, "{name}, stopped after step {stop}");
        }
    }
}

#[test]
fn a_cosine_ends_with_the_last_epoch() {
    let folder = TempDir::new().unwrap();
    let recipe = Recipe { schedule: Curve::Cosine, ..Recipe::default() };
    let config = RunConfig { recipe, ..config(&posters(folder.path())) };
    let path = folder.path().join("run");
    begin(&config, &path);
    // It rises over the first epoch of eight steps, and has half of its way down behind it after the fourth of the second.
    let rates: Vec<f64> = rows::<StepRow>(&path.join("steps.csv")).iter().map(|row| row.learning_rate).collect();
    for (step, expected) in [(1, 1e-3 / 8.0), (8, 1e-3), (12, 0.505e-3), (16, 1e-5)] {
        assert!((rates[step - 1] - expected).abs() < 1e-12, "{rates:?}");
    }
    let epochs: Vec<f64> = rows::<EpochRow>(&path.join("log.csv")).iter().map(|row| row.learning_rate).collect();
    assert_eq!(epochs, [rates[7], rates[15]]);
}

/// Beside a step without decay: kernels lose their share on top, everything else has the same bits.
#[test]
fn kernels_decay_and_nothing_else() {
    let config = RunConfig { network: resnet50::MINIATURE, image_size: 16, ..RunConfig::default() };
    let config = ModelConfig { trainable: Trainable::Last(20), ..config.model(2) };
    let device = Rc::new(Cpu::new());
    let fresh = || Model::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let stepped = |weight_decay: f64| {
        let mut learner = Learner::by(&Recipe { weight_decay, ..Recipe::default() }, fresh()).unwrap();
        let pixels = device.upload_pixels(&[7; 2 * 16 * 16 * 3], &[Placement::default(); 2]).unwrap();
        learner.submit(pixels, 2, &Pixels::Unit.format(), &[1, 0, 0, 1], &[1.0; 2], 1e-2).unwrap();
        learner.outcome().unwrap();
        learner
    };
    let (before, plain, decayed) = (fresh(), stepped(0.0), stepped(0.25));
    let mut kernels = 0;
    for tensor in &before.architecture().tensors {
        let [was, plain, decayed] =
            [&before, plain.model(), decayed.model()].map(|model| model.read(tensor).unwrap());
        if tensor.name.ends_with("kernel") && !before.architecture().is_frozen(tensor) {
            kernels += 1;
            for ((was, plain), decayed) in was.into_iter().zip(plain).zip(decayed) {
                assert!((decayed - (plain - 0.0025 * was)).abs() < 1e-7, "{}: {was}, {plain}, {decayed}", tensor.name);
            }
        } else {
            assert!(plain == decayed, "{}", tensor.name);
        }
    }
    assert!(kernels > 3, "{kernels}");
}
