//! The two losses of a run by their formula, from probabilities.

use crate::by_hand::{self, batch, class_weights, format};
use crate::{base, posters::Posters, rows};
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::{self, Model};
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::learner::load;
use onesheet::training::run_folder::{EpochRow, RunFolder, StepRow, best_checkpoint, last_checkpoint};
use onesheet::training::trainer::Trainer;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The mean over posters and genres of w · (−ln p for a genre that is right, −ln(1 − p) for one that is not).
fn cross_entropy(probabilities: &[f32], labels: &[u8], class_weights: &[f32]) -> f64 {
    let terms = probabilities.iter().zip(labels).enumerate().map(|(at, (&p, &label))| {
        let right = if label == 1 { f64::from(p) } else { 1.0 - f64::from(p) };
        -f64::from(class_weights[at % class_weights.len()]) * right.ln()
    });
    terms.sum::<f64>() / labels.len() as f64
}

fn run(config: &RunConfig, path: &Path) {
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let mut folder = RunFolder::create(path, config).unwrap();
    let mut trainer = Trainer::new(Rc::new(Cpu::new()), config.clone(), file).unwrap();
    trainer.run(&mut folder, &AtomicBool::new(false), &mut |_| {}).unwrap();
}

fn predict(
    model: &Model<Cpu>,
    config: &RunConfig,
    posters: &Posters,
    some: &[usize],
    places: &[Placement],
) -> Vec<f32> {
    let format = format(config.pixels);
    model.predict(model::Posters { pixels: &posters.pixels(some), placements: places, format: &format }).unwrap()
}

/// Without momentum the running averages are the first batch's own, and with them inference sees what the first step saw.
#[test]
fn a_steps_loss_is_the_weighted_cross_entropy_of_its_posters_where_they_were_placed() {
    let folder = TempDir::new().unwrap();
    let posters = Posters::write(folder.path());
    let config = RunConfig { augment: true, momentum: 0.0, max_steps: Some(1), ..base(&posters) };
    run(&config, &folder.path().join("run"));
    let found = rows::<StepRow>(&folder.path().join("run/steps.csv"))[0].loss;

    let mut model = by_hand::network(&config);
    let saved = Checkpoint::open(&last_checkpoint(&folder.path().join("run"))).unwrap();
    for tensor in model.architecture().tensors.clone() {
        if tensor.name.contains("/moving_") {
            model.write(&tensor, &saved.values(&tensor.name).unwrap()).unwrap();
        }
    }
    let (chosen, places) = batch(&config, &posters, 0, 0);
    let (labels, weights) = (posters.labels(&chosen), class_weights(&config, &posters));
    let loss = |places: &[Placement], weights: &[f32]| {
        cross_entropy(&predict(&model, &config, &posters, &chosen, places), &labels, weights)
    };
    let expected = loss(&places, &weights);
    let is_it = |other: f64| (found - other).abs() <= 1e-6 * found;
    assert!(is_it(expected), "{found} for {expected}");
    // And each of them tells: the weights, whose posters they were counted on, and the places.
    assert!(!is_it(loss(&places, &[1.0; 7])));
    assert!(!is_it(loss(&places, &posters.balanced(&(0..posters.split.len()).collect::<Vec<_>>()))));
    assert!(!is_it(loss(&[Placement::default(); 4], &weights)));
}

#[test]
fn the_scores_of_an_epoch_are_those_of_the_saved_weights_on_the_validation_posters() {
    let folder = TempDir::new().unwrap();
    let posters = Posters::write(folder.path());
    let config = RunConfig { augment: true, learning_rate: 4e-3, ..base(&posters) };
    let path = folder.path().join("run");
    run(&config, &path);
    let epochs: Vec<EpochRow> = rows(&path.join("log.csv"));
    let weights = class_weights(&config, &posters);
    let mut told_apart = 0;
    for checkpoint in [best_checkpoint(&path), last_checkpoint(&path)] {
        let saved = Checkpoint::open(&checkpoint).unwrap();
        let model = load(Rc::new(Cpu::new()), &saved).unwrap();
        let row = &epochs[saved.metadata().progress.epoch as usize - 1];
        let loss = |split: Split, weights: &[f32]| {
            let some = posters.of(split);
            let answers = predict(&model, &config, &posters, &some, &vec![Placement::default(); some.len()]);
            cross_entropy(&answers, &posters.labels(&some), weights)
        };
        let is_it = |other: f64| (row.validation_loss - other).abs() <= 1e-6 * row.validation_loss;
        let expected = loss(Split::Validation, &weights);
        assert!(is_it(expected), "{row:?} for {expected}");
        assert!(!is_it(loss(Split::Test, &weights)) && !is_it(loss(Split::Train, &weights)));
        assert!(!is_it(loss(Split::Validation, &[1.0; 7])));
        told_apart += usize::from(row.epoch != config.epochs);
    }
    assert_eq!(told_apart, 1, "the best epoch is not the last: {epochs:?}");
}
