//! Whole runs of the trainer against the same runs done by hand: each setting turned off its default in turn, and every row of the logs,
//! every weight and moment, and everything a checkpoint says of itself compared bit for bit. A setting that the trainer drops or
//! takes for another shows.

mod by_hand;
mod losses;
mod posters;
#[path = "../support/runs.rs"]
mod runs;

use by_hand::{Expected, State};
use onesheet::data::Split;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::device::cpu::Cpu;
use onesheet::network::{KernelInit, Trainable, resnet50};
use onesheet::ops::pool::Pooling;
use onesheet::optim::Curve;
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::{ClassWeights, OnBadNumbers, Pixels, RunConfig};
use onesheet::training::run_folder::{EpochRow, RunFolder, StepRow, best_checkpoint, last_checkpoint};
use onesheet::training::trainer::{Ending, Event, Trainer};
use onesheet::training::tuning::Tuned;
use posters::{GENRES, Posters, SIDE};
use runs::rows;
use std::fmt::Debug;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tempfile::TempDir;

/// Settings that differ from the defaults only where a small run must. 31 training posters are seven steps of four, and three left over;
/// 11 validation posters are two batches and a short one.
fn base(posters: &Posters) -> RunConfig {
    let data = Some(posters.path.clone());
    RunConfig {
        network: resnet50::MINIATURE,
        data,
        batch: 4,
        epochs: 4,
        image_size: SIDE,
        momentum: 0.9,
        seed: 3,
        ..RunConfig::default()
    }
}

/// A change to the settings, and whether a run's numbers must show it.
type Case = (&'static str, fn(&mut RunConfig), bool);

const CASES: [Case; 32] = [
    ("another seed", |config| config.seed = 4, true),
    ("a third seed", |config| config.seed = 7, true),
    ("larger batches", |config| config.batch = 5, true),
    ("one batch of all", |config| config.batch = 31, true),
    ("fewer epochs", |config| config.epochs = 2, true),
    ("a step limit within an epoch", |config| config.max_steps = Some(10), true),
    ("a step limit at an epoch's end", |config| config.max_steps = Some(7), true),
    ("another learning rate", |config| config.learning_rate = 4e-3, true),
    ("no warm-up", |config| config.warmup_epochs = 0.0, true),
    ("half an epoch of warm-up", |config| config.warmup_epochs = 0.5, true),
    ("two and a half epochs of warm-up", |config| config.warmup_epochs = 2.5, true),
    ("more warm-up than epochs", |config| config.warmup_epochs = 9.0, true),
    ("a learning rate that falls along a cosine", |config| config.recipe.schedule = Curve::Cosine, true),
    ("kernels that start from He's normal", |config| config.recipe.init = KernelInit::He, true),
    ("residual blocks that start as Keras's", |config| config.zero_init_residual = false, true),
    ("max pooling", |config| config.pooling = Pooling::Max, true),
    ("the last ten layers", |config| config.trainable = Trainable::Last(10), true),
    ("the head alone", |config| config.trainable = Trainable::Last(0), true),
    ("no class weights", |config| config.class_weights = ClassWeights::None, true),
    ("raw pixels", |config| config.pixels = Pixels::Raw, true),
    ("pixels from 0 to 1", |config| config.pixels = Pixels::Unit, true),
    ("pixels from -1 to 1", |config| config.pixels = Pixels::Symmetric, true),
    ("another momentum", |config| config.momentum = 0.5, true),
    ("no momentum", |config| config.momentum = 0.0, true),
    ("augmentation", |config| config.augment = true, true),
    ("another threshold", |config| config.threshold = 0.6, true),
    ("a checkpoint a step", |config| config.save_every = 0.0, false),
    ("bad numbers skipped", |config| config.on_bad_numbers = OnBadNumbers::Skip, false),
    ("bad numbers rolled back", |config| config.on_bad_numbers = OnBadNumbers::Rollback, false),
    ("bad numbers looked into", |config| config.check_numerics = true, false),
    ("values computed again in the backward pass", |config| config.recompute = true, false),
    ("posters read and not mapped", |config| config.io = Access::Read, false),
];

#[test]
fn every_setting_means_in_a_run_what_its_documentation_says() {
    let folder = TempDir::new().unwrap();
    let posters = Posters::write(folder.path());
    let base = base(&posters);
    let plain = check("the base", &base, &posters, folder.path());
    // The best epoch, and how many there are.
    let mut best_epochs = Vec::new();
    for (name, change, shows) in CASES {
        let mut config = base.clone();
        change(&mut config);
        assert_ne!(config, base, "{name}");
        let expected = check(name, &config, &posters, folder.path());
        let differs = (&expected.steps, &expected.epochs) != (&plain.steps, &plain.epochs);
        assert_eq!(differs, shows, "whether {name} changes the numbers");
        best_epochs.extend(expected.best.map(|(best, _)| (best.progress.epoch, config.epochs)));
    }
    // So that neither the first, nor the last, nor any epoch passes for the best.
    assert!(best_epochs.iter().any(|&(best, _)| best == 1), "{best_epochs:?}");
    assert!(best_epochs.iter().any(|&(best, epochs)| best > 1 && best < epochs), "{best_epochs:?}");
    assert!(best_epochs.iter().any(|&(best, epochs)| best > 1 && best == epochs), "{best_epochs:?}");
}

/// Compares the first element that differs, for a message that can be read.
#[track_caller]
fn assert_same<T: PartialEq + Debug>(what: &str, found: &[T], expected: &[T]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{what}, [{at}]");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Has the trainer do a run, and compares all that it leaves and tells with the run done by hand.
fn check(name: &str, config: &RunConfig, posters: &Posters, folder: &Path) -> Expected {
    let expected = by_hand::run(config, posters);
    let path = folder.join(name);
    let file = Arc::new(TensorFile::open_for(&posters.path, config.io).unwrap());
    let mut run = RunFolder::create(&path, config).unwrap();
    let mut trainer = Trainer::new(Rc::new(Cpu::new()), config.clone(), file).unwrap();
    assert_eq!(trainer.class_weights(), by_hand::class_weights(config, posters), "{name}");
    let (mut steps, mut epochs, mut improved, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    let ending = trainer.run(&mut run, &AtomicBool::new(false), &mut |event| match event {
        Event::Step { row, epoch, done, steps: length } => {
            told.push(format!("step {done} of {length} in epoch {epoch}"));
            steps.push(*row);
        }
        Event::Validation { done, posters } => told.push(format!("{done} of {posters} posters")),
        Event::Epoch { row, best, .. } => {
            told.push(format!("the end of epoch {}", row.epoch));
            epochs.push(*row);
            improved.extend(best.then_some(row.epoch));
        }
        Event::Averages { .. } | Event::LeftOut { .. } | Event::RolledBack { .. } => {
            panic!("{name}: nobody asked for it")
        }
    });
    let took = began.elapsed().as_secs_f64();
    let ends = if config.max_steps.is_some() { Ending::StepLimit } else { Ending::Finished };
    assert_eq!(ending.unwrap(), ends, "{name}");
    assert_same(&format!("{name}: what is told"), &told, &events(config, posters, &expected));
    drop(run);

    // The logs have what was told; the times in them add up to no more than the run took.
    assert_same(&format!("{name}: steps.csv"), &rows::<StepRow>(&path.join("steps.csv")), &steps);
    assert_same(&format!("{name}: log.csv"), &rows::<EpochRow>(&path.join("log.csv")), &epochs);
    let in_steps: f64 = steps.iter().map(|row| config.batch as f64 / row.images_per_second).sum();
    let in_epochs: f64 = epochs.iter().map(|row| row.seconds).sum();
    assert!(in_steps > 0.0 && in_steps <= took, "{name}: {in_steps} s in steps of {took} s");
    assert!(epochs.is_empty() || in_epochs > 0.0 && in_epochs <= took, "{name}: {in_epochs} s in epochs of {took} s");

    steps.iter_mut().for_each(|row| row.images_per_second = 0.0);
    epochs.iter_mut().for_each(|row| row.seconds = 0.0);
    assert_same(&format!("{name}: steps"), &steps, &expected.steps);
    assert_same(&format!("{name}: epochs"), &epochs, &expected.epochs);
    if let Some((best, tuned)) = &expected.best {
        assert_eq!(improved.last(), Some(&best.progress.epoch), "{name}");
        // Without the moments, and without a word of where this run was to stop.
        let settings = RunConfig { max_steps: None, ..config.clone() };
        compare(&format!("{name}: best"), &best_checkpoint(&path), best, &[], settings, Some(tuned), posters);
    }
    assert_eq!(best_checkpoint(&path).exists(), expected.best.is_some(), "{name}");
    let last = &expected.last;
    compare(&format!("{name}: last"), &last_checkpoint(&path), last, &last.moments, config.clone(), None, posters);
    expected
}

/// What a run tells from its beginning to its end.
fn events(config: &RunConfig, posters: &Posters, expected: &Expected) -> Vec<String> {
    let length = posters.of(Split::Train).len() / config.batch;
    let held_out = posters.of(Split::Validation).len();
    let mut told = Vec::new();
    for row in &expected.steps {
        let (epoch, step) = ((row.step as usize - 1) / length, (row.step as usize - 1) % length);
        told.push(format!("step {} of {length} in epoch {epoch}", step + 1));
        if step + 1 == length && epoch < expected.epochs.len() {
            let ends = (0..held_out).step_by(config.batch).map(|first| (first + config.batch).min(held_out));
            told.extend(ends.map(|done| format!("{done} of {held_out} posters")));
            told.push(format!("the end of epoch {}", epoch + 1));
        }
    }
    told
}

/// Compares a checkpoint with a state: every tensor, and everything it says.
fn compare(
    what: &str,
    path: &Path,
    state: &State,
    moments: &[(String, Vec<f32>)],
    config: RunConfig,
    tuned: Option<&Tuned>,
    posters: &Posters,
) {
    let checkpoint = Checkpoint::open(path).unwrap();
    let expected: Vec<_> = state.tensors.iter().chain(moments).collect();
    let names: Vec<_> = checkpoint.tensors().iter().map(|(name, _)| name).collect();
    assert_same(what, &names, &expected.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, values) in expected {
        assert_same(&format!("{what}: {name}"), &bits(&checkpoint.values(name).unwrap()), &bits(values));
    }
    let said = Metadata {
        genres: GENRES.map(String::from).to_vec(),
        thresholds: vec![config.threshold; GENRES.len()],
        resize: "nearest".into(),
        exif: "apply".into(),
        alpha: "white".into(),
        data_digest: posters.digest.clone(),
        tuned: tuned.cloned(),
        progress: state.progress,
        config,
    };
    assert_eq!(checkpoint.metadata(), &said, "{what}");
}
