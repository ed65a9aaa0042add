//! Runs that meet a number that is none: what `--on-bad-numbers` and `--check-numerics` make of it.

#[path = "support/faulty.rs"]
mod faulty;
#[path = "support/runs.rs"]
mod runs;

use faulty::Faulty;
use onesheet::data::Split;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::device::cpu::Cpu;
use onesheet::model::Model;
use onesheet::network::resnet50;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{OnBadNumbers, Pixels, RunConfig};
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::recipe::Recipe;
use onesheet::training::run_folder::{EpochRow, RunFolder, StepRow, last_checkpoint};
use onesheet::training::trainer::{Ending, Event, Trainer};
use runs::{config, posters, remains, rows};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// A device that leaves a NaN in the gradients of step `bad`, once.
fn spoilt(bad: Option<usize>, late: bool) -> Rc<Faulty> {
    let layers = resnet50::MINIATURE.head.len() + 1;
    let spoilt = bad.map(|step| ("dense_backward_weights", (step - 1) * layers));
    Rc::new(Faulty { late, spoilt: Cell::new(spoilt), ..Faulty::default() })
}

/// What `watch` was told: steps left out, and rollbacks with the step and the rate from there on.
#[derive(Debug, Default, PartialEq)]
struct Told {
    left_out: u32,
    rolled_back: Vec<(u64, f64)>,
}

/// A run of `config` in `path`, its model changed by `change` first.
fn run(
    device: &Rc<Faulty>,
    config: &RunConfig,
    path: &Path,
    change: impl FnOnce(&mut Trainer<Faulty>),
    mut on_rollback: impl FnMut(),
) -> (Result<Ending, TrainingError>, Told, Option<u64>) {
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let mut trainer = Trainer::new(Rc::clone(device), config.clone(), file).unwrap();
    change(&mut trainer);
    let (mut folder, mut told) = (RunFolder::create(path, config).unwrap(), Told::default());
    let ending = trainer.run(&mut folder, &AtomicBool::new(false), &mut |event| match event {
        Event::LeftOut { why } => {
            assert!(why.starts_with("the gradient norm of step "), "{why}");
            told.left_out += 1;
        }
        Event::RolledBack { why, step, learning_rate } => {
            assert!(why.contains("the gradient norm of step 5"), "{why}");
            told.rolled_back.push((step, learning_rate));
            on_rollback();
        }
        _ => {}
    });
    (ending, told, folder.saved_step())
}

/// Puts a NaN into a tensor of the network.
fn poison(trainer: &mut Trainer<Faulty>, name: &str) {
    let tensors = &trainer.model().architecture().tensors;
    let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap().clone();
    let mut values = trainer.model().read(&tensor).unwrap();
    values[1] = f32::NAN;
    trainer.model_mut().write(&tensor, &values).unwrap();
}

#[test]
fn a_bad_step_ends_the_run_or_is_skipped() {
    let folder = TempDir::new().unwrap();
    let stop = config(&posters(folder.path()));
    let (ending, _, saved) = run(&spoilt(Some(3), false), &stop, &folder.path().join("stop"), |_| {}, || {});
    let error = ending.unwrap_err().to_string();
    assert!(error.contains("the gradient norm of step 3 is NaN"), "{error}");
    assert_eq!(saved, None);

    let skip = RunConfig { on_bad_numbers: OnBadNumbers::Skip, ..stop };
    let at = |name: &str| folder.path().join(name);
    for late in [false, true] {
        let path = at(&format!("late-{late}"));
        let (ending, told, _) = run(&spoilt(Some(3), late), &skip, &path, |_| {}, || {});
        assert_eq!((ending.unwrap(), told), (Ending::Finished, Told { left_out: 1, ..Told::default() }));
    }
    let files = |name: &str| {
        let (last, best, steps, epochs) = remains(&at(name));
        // As bits, since a NaN is not equal to itself.
        let steps: Vec<_> = steps.iter().map(|row| [row.loss, row.gradient_norm].map(f64::to_bits)).collect();
        (last, best, steps, epochs)
    };
    assert!(files("late-false") == files("late-true"), "late outcomes change nothing");
    let steps: Vec<StepRow> = rows(&at("late-false").join("steps.csv"));
    assert!(steps[2].loss.is_nan() && steps.iter().filter(|row| row.loss.is_finite()).count() == 15, "{steps:?}");
    let epochs: Vec<EpochRow> = rows(&at("late-false").join("log.csv"));
    let mean = steps[..8].iter().map(|row| row.loss).filter(|loss| loss.is_finite()).sum::<f64>() / 7.0;
    assert!((epochs[0].train_loss - mean).abs() <= 1e-12, "the mean of the steps that count");

    // Stopped behind the bad step and taken up again, it still knows of it.
    let limited = RunConfig { max_steps: Some(5), ..skip.clone() };
    run(&spoilt(Some(3), false), &limited, &at("limited"), |_| {}, || {}).0.unwrap();
    assert_eq!(Checkpoint::open(&last_checkpoint(&at("limited"))).unwrap().metadata().progress.left_out, 1);
    assert_eq!(runs::go_on(&skip, &at("limited")), Ending::Finished);
    let resumed: Vec<EpochRow> = rows(&at("limited").join("log.csv"));
    assert!((resumed[0].train_loss - mean).abs() <= 1e-6, "{resumed:?}");
}

/// Ten in a row end a run, and not ten in all.
#[test]
fn every_second_step_may_be_bad_and_counts_in_no_mean() {
    let folder = TempDir::new().unwrap();
    let few = RunConfig { batch: 4, on_bad_numbers: OnBadNumbers::Skip, ..config(&posters(folder.path())) };
    let (device, path) = (spoilt(None, false), folder.path().join("run"));
    let file = Arc::new(TensorFile::open(few.data.as_deref().unwrap()).unwrap());
    let mut trainer = Trainer::new(Rc::clone(&device), few.clone(), file).unwrap();
    let mut run = RunFolder::create(&path, &few).unwrap();
    let ending = trainer.run(&mut run, &AtomicBool::new(false), &mut |event| {
        if let Event::Step { row, .. } = event {
            device.spoilt.set(row.loss.is_finite().then_some(("dense_backward_weights", 0)));
        }
    });
    assert_eq!(ending.unwrap(), Ending::Finished);
    let steps: Vec<StepRow> = rows(&path.join("steps.csv"));
    assert_eq!(steps.len(), 32);
    assert!(steps.iter().all(|row| row.loss.is_nan() == row.step.is_multiple_of(2)), "{steps:?}");
    let epochs: Vec<EpochRow> = rows(&path.join("log.csv"));
    for (row, steps) in epochs.iter().zip(steps.chunks(16)) {
        let mean = steps.iter().map(|row| row.loss).filter(|loss| loss.is_finite()).sum::<f64>() / 8.0;
        assert_eq!(row.train_loss, mean, "{row:?}");
    }
    assert_eq!(epochs.len(), 2);
}

/// Weights that are all numbers may still answer with something else.
#[test]
fn answers_that_are_no_numbers_have_no_scores() {
    let folder = TempDir::new().unwrap();
    let config = config(&posters(folder.path()));
    let mut trainer = runs::trainer(&config).unwrap();
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let ask = |model: &Model<Cpu>, goes_on: bool| {
        let (posters, mut told) = (file.indices(Split::Validation).into(), Vec::new());
        let format = config.pixels.format();
        let answers = Answers::collect(model, &file, posters, 3, &format, &[1.0; 7], View::Plain, |done| {
            told.push(done);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (answers, told)
    };
    let (answers, told) = ask(trainer.model(), true);
    assert!(answers.unwrap().unwrap().probabilities.len() == 8 * 7 && told == [3, 6, 8], "{told:?}");
    let (answers, told) = ask(trainer.model(), false);
    assert!(answers.unwrap().is_none() && told == [3], "broken off at {told:?}");

    let tensors = trainer.model().architecture().tensors.clone();
    let [kernel, bias] = &tensors[tensors.len() - 2..] else { panic!("the last layer has two") };
    trainer.model_mut().write(kernel, &[f32::MAX; 6 * 7]).unwrap();
    trainer.model_mut().write(bias, &[f32::MAX; 7]).unwrap();
    let error = ask(trainer.model(), true).0.unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
    assert!(error.to_string().starts_with("the loss on held-out posters is "), "{error}");
}

#[test]
fn steps_that_are_all_bad_end_the_run_however_it_is_set() {
    let folder = TempDir::new().unwrap();
    // Sixteen steps an epoch, so that no validation comes before the tenth.
    let few = RunConfig { batch: 4, ..config(&posters(folder.path())) };
    let skip = RunConfig { on_bad_numbers: OnBadNumbers::Skip, check_numerics: true, ..few };
    let path = folder.path().join("run");
    let file = Arc::new(TensorFile::open(skip.data.as_deref().unwrap()).unwrap());
    let mut trainer = Trainer::new(spoilt(None, false), skip.clone(), file).unwrap();
    poison(&mut trainer, "conv2_block1_1_conv/kernel");
    let mut run = RunFolder::create(&path, &skip).unwrap();
    let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, TrainingError::Diverged { .. }) && message.contains("step 10"), "{message}");
    // The layer where it begins, and not the last that it reached.
    let words = ["layer conv2_block1_1_conv, before the step", "1 of", "its kernel", "NaN at index 1"];
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
    assert_eq!(run.saved_step(), None, "nothing of it is saved");
}

/// 24 black posters to train on, one of them but for a white corner.
fn one_is_not_black(path: &Path) {
    let genres = vec!["Drama".into(), "Other".into()];
    let description = Description { size: 32, genres, capacity: 26, provenance: BTreeMap::new() };
    let mut writer = TensorFileWriter::create(path, description).unwrap();
    for number in 0..26 {
        let mut image = vec![0; 32 * 32 * 3];
        if number == 5 {
            image[..3].fill(255);
        }
        let split = if number < 24 { Split::Train } else { Split::Validation };
        writer.push(&format!("tt{number}"), &image, &[1, 0], split).unwrap();
    }
    writer.finish().unwrap();
}

/// Where several batches make a step, the one that has it is looked into, which need not be the last.
#[test]
fn each_batch_of_a_bad_step_is_looked_into() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    one_is_not_black(&data);
    let recipe = Recipe { accumulate: 3, ..Recipe::default() };
    let config =
        RunConfig { check_numerics: true, pixels: Pixels::Raw, batch: 8, recipe, augment: false, ..config(&data) };
    for seed in 0..6 {
        let config = RunConfig { seed, ..config.clone() };
        let mut trainer = runs::trainer(&config).unwrap();
        let tensors = &trainer.model().architecture().tensors;
        let kernel = tensors.iter().find(|tensor| tensor.name == "conv1_conv/kernel").unwrap().clone();
        let values = vec![f32::MAX / 100.0; trainer.model().read(&kernel).unwrap().len()];
        trainer.model_mut().write(&kernel, &values).unwrap();
        let mut run = RunFolder::create(&folder.path().join(format!("run-{seed}")), &config).unwrap();
        let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("layer conv1_conv, forward"), "seed {seed}: {error}");
    }
}

#[test]
fn a_rollback_goes_on_at_half_the_rate_and_three_are_the_most() {
    let folder = TempDir::new().unwrap();
    let whole = RunConfig { on_bad_numbers: OnBadNumbers::Rollback, ..config(&posters(folder.path())) };
    let at = |name: &str| folder.path().join(name);
    // Back to step 0, since nothing else was saved by then: from there on it is a run at half the rate.
    let halved = RunConfig { learning_rate: whole.learning_rate / 2.0, ..whole.clone() };
    run(&spoilt(None, false), &halved, &at("halved"), |_| {}, || {}).0.unwrap();
    for late in [false, true] {
        let path = at(&format!("late-{late}"));
        // Saved at once, so that a kill does not bring the higher rate back.
        let saved_rate = || Checkpoint::open(&last_checkpoint(&path)).unwrap().metadata().config.learning_rate;
        let on_rollback = || assert_eq!(saved_rate(), 5e-4);
        let (ending, told, _) = run(&spoilt(Some(5), late), &whole, &path, |_| {}, on_rollback);
        assert_eq!(ending.unwrap(), Ending::Finished);
        assert_eq!(told, Told { left_out: 0, rolled_back: vec![(0, 5e-4)] });
        assert!(remains(&path) == remains(&at("halved")));
        let config: RunConfig = toml::from_str(&fs::read_to_string(path.join("config.toml")).unwrap()).unwrap();
        assert_eq!(config.history.last().unwrap().changed, ["learning_rate: 0.001 -> 0.0005"]);
    }

    // Back to the newest checkpoint where there is one a step.
    let often = RunConfig { save_every: 0.0, ..whole.clone() };
    let (ending, told, _) = run(&spoilt(Some(5), false), &often, &at("often"), |_| {}, || {});
    assert_eq!((ending.unwrap(), told.rolled_back), (Ending::Finished, vec![(4, 5e-4)]));

    let stubborn = spoilt(Some(5), false);
    let again = || stubborn.spoilt.set(spoilt(Some(5), false).spoilt.get());
    let (ending, told, saved) = run(&stubborn, &whole, &at("stubborn"), |_| {}, again);
    assert!(matches!(ending, Err(TrainingError::Diverged { .. })), "{ending:?}");
    assert_eq!(told.rolled_back, [(0, 5e-4), (0, 2.5e-4), (0, 1.25e-4)]);
    assert_eq!(saved, Some(0));
}
