//! The flags of a new run that show in its first steps.

use crate::train::steps;
use crate::{Place, SIDE, Told, settings, write_model};
use onesheet::data::synthetic;
use onesheet::network::{Trainable, resnet50_v1_5};
use onesheet::ops::pool::Pooling;
use onesheet::training::config::{ClassWeights, DeviceChoice, Pixels, RunConfig};
use onesheet::training::experiment::Experiment;
use std::fs;
use std::path::PathBuf;

/// A run that ends in its second step: at such a rate the first takes the weights out of all bounds. So nothing is saved, which
/// would take longer than the step.
pub const FIRST_STEP: &str = "train --data posters.safetensors --run run --batch 4 --device cpu --lr 1e38";

/// A flag of a run's first step.
struct Row {
    /// Typed behind [`FIRST_STEP`].
    words: &'static str,
    change: fn(&mut RunConfig),
    /// The first step's learning rate: a run without these words rises to its rate over the four steps of the first epoch.
    rate: f64,
    /// Whether the first step's loss is another than without these words.
    changes_loss: bool,
}

const ROWS: [Row; 16] = [
    Row { words: "--seed 9", change: |config| config.seed = 9, rate: 2.5e37, changes_loss: true },
    Row { words: "--batch 8", change: |config| config.batch = 8, rate: 5e37, changes_loss: true },
    Row { words: "--lr 3e38", change: |config| config.learning_rate = 3e38, rate: 7.5e37, changes_loss: false },
    Row { words: "--warmup-epochs 0.5", change: |config| config.warmup_epochs = 0.5, rate: 5e37, changes_loss: false },
    Row {
        words: "--zero-init-residual false",
        change: |config| config.zero_init_residual = false,
        rate: 2.5e37,
        changes_loss: true,
    },
    Row { words: "--pooling max", change: |config| config.pooling = Pooling::Max, rate: 2.5e37, changes_loss: true },
    Row {
        words: "--trainable last:40",
        change: |config| config.trainable = Trainable::Last(40),
        rate: 2.5e37,
        changes_loss: true,
    },
    Row {
        words: "--class-weights none",
        change: |config| config.class_weights = ClassWeights::None,
        rate: 2.5e37,
        changes_loss: true,
    },
    Row { words: "--pixels raw", change: |config| config.pixels = Pixels::Raw, rate: 2.5e37, changes_loss: true },
    Row { words: "--pixels unit", change: |config| config.pixels = Pixels::Unit, rate: 2.5e37, changes_loss: true },
    Row { words: "--augment", change: |config| config.augment = true, rate: 2.5e37, changes_loss: true },
    Row {
        words: "--data others.safetensors",
        change: |config| config.data = Some(beside(config, "others.safetensors")),
        rate: 2.5e37,
        changes_loss: true,
    },
    Row {
        words: "--weights start.safetensors",
        change: |config| config.weights = Some(beside(config, "start.safetensors")),
        rate: 2.5e37,
        changes_loss: true,
    },
    Row {
        words: "--experiment resnet-r",
        change: |config| {
            config.experiment = Some(Experiment::ResnetR);
            config.pooling = Pooling::Max;
            config.pixels = Pixels::Raw;
            config.warmup_epochs = 0.0;
            config.zero_init_residual = false;
        },
        rate: 1e38,
        changes_loss: true,
    },
    Row {
        words: "--network resnet50-v1.5",
        change: |config| config.network = resnet50_v1_5::NETWORK,
        rate: 2.5e37,
        changes_loss: true,
    },
    Row { words: "--momentum 0.5", change: |config| config.momentum = 0.5, rate: 2.5e37, changes_loss: false },
];

const SKIPPING: &str =
    "train --data posters.safetensors --run run --batch 4 --device cpu --lr 1e38 --on-bad-numbers skip";

/// Every command line of this file.
pub fn lines() -> impl Iterator<Item = &'static str> {
    [FIRST_STEP, SKIPPING].into_iter().chain(ROWS.iter().map(|row| row.words))
}

/// A file in the folder of the run's posters.
fn beside(config: &RunConfig, name: &str) -> PathBuf {
    config.data.as_ref().unwrap().with_file_name(name)
}

/// `config` with what [`FIRST_STEP`] says.
fn first_step(place: &Place) -> RunConfig {
    RunConfig {
        data: Some(place.at("posters.safetensors")),
        device: DeviceChoice::Cpu,
        batch: 4,
        learning_rate: 1e38,
        image_size: SIDE,
        ..RunConfig::default()
    }
}

#[test]
fn the_first_step_follows_each_setting() {
    let place = Place::with_posters();
    synthetic::write(&place.at("others.safetensors"), 20, SIDE, 2).unwrap();
    write_model(&place.at("start.safetensors"), 77, RunConfig { image_size: SIDE, ..RunConfig::default() });
    let run = place.at("runs/run");
    let base = Row { words: "", change: |_| {}, rate: 2.5e37, changes_loss: true };
    let mut without = f64::NAN;
    for Row { words, change, rate, changes_loss } in [base].iter().chain(&ROWS) {
        let mut config = first_step(&place);
        change(&mut config);
        place.run_to(6, &format!("{FIRST_STEP} {words}"));
        assert_eq!(settings(&run).0, config, "{words}");
        let steps = steps(&run);
        assert_eq!((steps.len(), steps[0].learning_rate), (1, *rate), "{words}");
        assert_eq!(steps[0].loss != without, *changes_loss, "{words}: {steps:?}, and {without} without");
        if words.is_empty() {
            without = steps[0].loss;
        }
        fs::remove_dir_all(&run).unwrap();
    }
}

/// Without either flag the run ends with the bad number, which is that of step 2.
#[test]
fn bad_numbers_are_skipped_and_their_layer_named_when_asked_for() {
    let place = Place::with_posters();
    let rows = |told: &Told, words: &str| {
        let steps = steps(&place.at("runs/run"));
        let finite = steps.iter().map(|row| row.loss.is_finite()).collect::<Vec<_>>();
        fs::remove_dir_all(place.at("runs/run")).unwrap();
        let notes = told.stderr.lines().filter(|line| line.ends_with("the step is left out")).count();
        let layers = told.stderr.lines().filter(|line| line.contains("(layer ")).count();
        assert!(told.stderr.contains("error: "), "{words}: {}", told.stderr);
        (finite, notes, layers)
    };
    for (words, expected) in [
        (format!("{FIRST_STEP} --check-numerics"), (vec![true], 0, 1)),
        // The error that ends it is the validation's, of which no layer is named.
        (SKIPPING.to_owned(), (vec![true, false, false, false], 3, 0)),
    ] {
        let told = place.run_to(6, &words);
        assert_eq!(rows(&told, &words), expected, "{words}: {}", told.stderr);
    }
}
