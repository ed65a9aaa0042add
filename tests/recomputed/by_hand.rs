//! A run of the trainer done by hand: the network and the optimiser are the library's, and all that leads from the settings to them
//! is written once more, from what the documentation says of each setting.

use crate::posters::{GENRES, Posters, SIDE};
use onesheet::data::Split;
use onesheet::data::augmentation::Augmentation;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, PixelFormat, Placement};
use onesheet::metrics::calibration::best_temperature;
use onesheet::metrics::{Scores, best_thresholds};
use onesheet::model::{self, Batch, Model};
use onesheet::network::{ModelConfig, Place, resnet50};
use onesheet::optim::{Adam, Curve, StepRates};
use onesheet::random::permutation;
use onesheet::training::checkpoint::Progress;
use onesheet::training::config::{ClassWeights, Pixels, RunConfig};
use onesheet::training::run_folder::{EpochRow, StepRow};
use onesheet::training::tuning::Tuned;
use std::f64::consts::PI;
use std::rc::Rc;

/// What a run must leave; the times in its rows are 0.
pub struct Expected {
    pub steps: Vec<StepRow>,
    pub epochs: Vec<EpochRow>,
    /// None before an epoch is over. With what its validation posters say of thresholds and temperature.
    pub best: Option<(State, Tuned)>,
    pub last: State,
}

/// A network at some moment.
#[derive(Clone)]
pub struct State {
    pub progress: Progress,
    /// Tensors under the names that checkpoints give them, in the order of the network.
    pub tensors: Vec<(String, Vec<f32>)>,
    /// Both of Adam's moments of each tensor that trains.
    pub moments: Vec<(String, Vec<f32>)>,
}

/// What `--pixels` makes of a byte.
pub fn format(pixels: Pixels) -> PixelFormat {
    match pixels {
        Pixels::Raw => PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] },
        Pixels::Imagenet => PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] },
        Pixels::Unit => PixelFormat { order: [0, 1, 2], scale: 1.0 / 255.0, shift: [0.0; 3] },
        Pixels::Symmetric => PixelFormat { order: [0, 1, 2], scale: 2.0 / 255.0, shift: [-1.0; 3] },
    }
}

/// The untrained network of a run.
pub fn network(config: &RunConfig) -> Model<Cpu> {
    let made_from = ModelConfig {
        network: resnet50::MINIATURE,
        image_size: SIDE,
        genres: GENRES.len(),
        pooling: config.pooling,
        trainable: config.trainable,
        momentum: config.momentum,
        zero_init_residual: config.zero_init_residual,
        init: config.recipe.init,
    };
    Model::new(Rc::new(Cpu::new()), made_from, config.seed).unwrap()
}

pub fn class_weights(config: &RunConfig, posters: &Posters) -> Vec<f32> {
    match config.class_weights {
        ClassWeights::Balanced => posters.balanced(&posters.of(Split::Train)),
        ClassWeights::None => vec![1.0; GENRES.len()],
    }
}

/// The posters of a training step, counted from 0 in its epoch, and where each lies.
pub fn batch(config: &RunConfig, posters: &Posters, epoch: u32, step: usize) -> (Vec<usize>, Vec<Placement>) {
    let train = posters.of(Split::Train);
    let order = permutation(config.seed, epoch, train.len() as u32);
    let chosen: Vec<usize> =
        order[step * config.batch..][..config.batch].iter().map(|&at| train[at as usize]).collect();
    let place = |&index: &usize| match config.augment {
        true => Augmentation::FlipShift.place(config.seed, epoch, index as u32, SIDE),
        false => Placement { flip: false, shift_y: 0, shift_x: 0 },
    };
    let places = chosen.iter().map(place).collect();
    (chosen, places)
}

/// What the run of `config` on `posters` must leave, if nothing but its settings ends it.
pub fn run(config: &RunConfig, posters: &Posters) -> Expected {
    let mut model = network(config);
    let device = Rc::clone(model.device());
    let mut adam = Adam::new(&*device, model.architecture().weights).unwrap();
    let (format, class_weights) = (format(config.pixels), class_weights(config, posters));
    let steps_per_epoch = posters.of(Split::Train).len() / config.batch;
    let rise = (config.warmup_epochs * steps_per_epoch as f64).ceil();
    let (mut steps, mut epochs, mut best) = (Vec::<StepRow>::new(), Vec::new(), None);
    let mut progress = Progress::default();
    for epoch in 0..config.epochs {
        for step in 0..steps_per_epoch {
            if config.max_steps == Some(progress.total_steps) {
                break;
            }
            let (chosen, places) = batch(config, posters, epoch, step);
            let pixels = device.upload_pixels(&posters.pixels(&chosen), &places).unwrap();
            let labels = posters.labels(&chosen);
            let mut batch = Batch::new(&*device, pixels, config.batch, &format, &labels, &class_weights).unwrap();
            let t = progress.total_steps as f64 + 1.0;
            let full = config.learning_rate;
            let rate = match config.recipe.schedule {
                _ if t < rise => full * t / rise,
                Curve::Constant => full,
                Curve::Cosine => {
                    let steps = (f64::from(config.epochs) * steps_per_epoch as f64).max(rise + 1.0);
                    full * (0.01 + 0.99 * 0.5 * (1.0 + (PI * ((t - rise) / (steps - rise)).min(1.0)).cos()))
                }
            };
            let corrected = rate * (1.0 - 0.999f64.powf(t)).sqrt() / (1.0 - 0.9f64.powf(t));
            let rates = [corrected, 0.0];
            batch.set_rates(&device, StepRates { head: rates, base: rates }).unwrap();
            model.gradients(&mut batch).unwrap();
            adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates()).unwrap();
            let outcome = batch.outcome(&device).unwrap();
            progress.step += 1;
            progress.total_steps += 1;
            progress.loss_sum += outcome.loss;
            let (step, loss, gradient_norm) = (progress.total_steps, outcome.loss, outcome.gradient_norm);
            steps.push(StepRow { step, loss, learning_rate: rate, images_per_second: 0.0, gradient_norm });
        }
        // A limit within an epoch ends the run there; one at an epoch's end waits for its scores.
        if progress.step < steps_per_epoch as u64 {
            break;
        }
        let train_loss = progress.loss_sum / steps_per_epoch as f64;
        let (scores, tuned) = validated(&model, config, posters);
        let learning_rate = steps[steps.len() - 1].learning_rate;
        let row = EpochRow { epoch: epoch + 1, step: progress.total_steps, train_loss, learning_rate, ..scores };
        let better = progress.best.is_none_or(|best| row.mean_average_precision > best);
        if better {
            progress.best = Some(row.mean_average_precision);
        }
        progress = Progress {
            epoch: epoch + 1,
            total_steps: progress.total_steps,
            best: progress.best,
            stale: if better { 0 } else { progress.stale + 1 },
            ..Progress::default()
        };
        if better {
            best = Some((state(&model, &adam, progress), tuned));
        }
        epochs.push(row);
    }
    Expected { steps, epochs, best, last: state(&model, &adam, progress) }
}

/// The scores of a row of `log.csv`, and what is tuned on them.
fn validated(model: &Model<Cpu>, config: &RunConfig, posters: &Posters) -> (EpochRow, Tuned) {
    let (format, class_weights) = (format(config.pixels), class_weights(config, posters));
    let held_out = posters.of(Split::Validation);
    let (mut sum, mut probabilities, mut logits) = (0.0, Vec::new(), Vec::new());
    for some in held_out.chunks(config.batch) {
        let places = vec![Placement { flip: false, shift_y: 0, shift_x: 0 }; some.len()];
        let asked = model::Posters { pixels: &posters.pixels(some), placements: &places, format: &format };
        let answers = model.score(asked, &posters.labels(some), &class_weights).unwrap();
        sum += answers.loss * some.len() as f64;
        probabilities.extend(model.predict(asked).unwrap());
        logits.extend(model.logits(asked).unwrap().to_host(&**model.device()).unwrap());
    }
    let labels = posters.labels(&held_out);
    let scores = Scores::new(&probabilities, &labels, &[config.threshold as f32; GENRES.len()]);
    let tuned = Tuned {
        thresholds: best_thresholds(&probabilities, &labels, &[config.threshold; GENRES.len()]),
        temperature: best_temperature(&logits, &labels),
        posters: held_out.len() as u64,
        data_digest: posters.digest.clone(),
    };
    let row = EpochRow {
        epoch: 0,
        step: 0,
        train_loss: 0.0,
        validation_loss: sum / held_out.len() as f64,
        binary_accuracy: scores.binary_accuracy(),
        weighted_f1: scores.weighted.f1,
        coin_f1: scores.weighted.coin_f1,
        always_yes_f1: scores.weighted.always_yes_f1,
        mean_average_precision: scores.mean_average_precision(),
        learning_rate: 0.0,
        seconds: 0.0,
    };
    (row, tuned)
}

fn state(model: &Model<Cpu>, adam: &Adam<Cpu>, progress: Progress) -> State {
    let architecture = model.architecture();
    let (mut tensors, mut moments) = (Vec::new(), Vec::new());
    for tensor in &architecture.tensors {
        tensors.push((tensor.name.clone(), model.read(tensor).unwrap()));
        if let Place::Weights(span) = tensor.place
            && span.range().start >= architecture.trainable_from
        {
            for (name, arena) in [("m", &adam.m), ("v", &adam.v)] {
                moments
                    .push((format!("adam.{name}/{}", tensor.name), model.device().download(arena.view(span)).unwrap()));
            }
        }
    }
    State { progress, tensors, moments }
}
