//! The loop: batches in, checkpoints and log rows out.
//!
//! Everything random is a pure function of seed, epoch and poster, so a checkpoint holds two numbers, epoch and step, where
//! others keep the state of generators; a run resumed at any step goes on to the same bits as one left alone.

use super::TrainingError;
use super::checkpoint::{Checkpoint, Metadata, Progress};
use super::config::RunConfig;
use super::evaluation::Answers;
use super::learner::{Keep, Learner};
use super::run_folder::{EpochRow, RunFolder, StepRow, best_checkpoint, last_checkpoint};
use crate::data::Split;
use crate::data::augmentation::Augmentation;
use crate::data::loader::{Batch, Loader, LoaderError};
use crate::data::tensor_file::TensorFile;
use crate::device::Device;
use crate::metrics::Scores;
use crate::model::{Extents, Model, Outcome};
use crate::optim::Warmup;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A run in memory.
pub struct Trainer<D: Device> {
    config: RunConfig,
    file: Arc<TensorFile>,
    train: Arc<[u32]>,
    validation: Arc<[u32]>,
    class_weights: Vec<f32>,
    warmup: Warmup,
    learner: Learner<D>,
    progress: Progress,
    asks_at_once: bool,
}

/// What happens in a run, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step was taken.
    Step {
        /// Its row in `steps.csv`.
        row: &'a StepRow,
        /// The epoch it belongs to, from 0.
        epoch: u32,
        /// Steps done in this epoch.
        done: u64,
        /// Steps in an epoch.
        steps: u64,
    },
    /// Some validation posters were scored.
    Validation {
        /// Posters done.
        done: usize,
        /// Posters in all.
        posters: usize,
    },
    /// An epoch is over.
    Epoch {
        /// Its row in `log.csv`.
        row: &'a EpochRow,
        /// The validation scores, genre by genre.
        scores: &'a Scores,
        /// Whether this is the best epoch so far.
        best: bool,
    },
}

/// Why a run came to rest. In each case `last.safetensors` holds all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// `max_steps` is reached.
    StepLimit,
    /// Somebody asked it to stop.
    Interrupted,
}

impl<D: Device> Trainer<D> {
    /// A run at its beginning.
    ///
    /// # Errors
    /// [`LoaderError::BatchTooLarge`], [`TrainingError::EmptySplit`], [`TrainingError::ImageSize`], or the device's.
    pub fn new(
        device: Rc<D>,
        config: RunConfig,
        extents: Extents,
        file: Arc<TensorFile>,
    ) -> Result<Self, TrainingError> {
        check(&config, &file)?;
        let (train, validation) = (file.indices(Split::Train), file.indices(Split::Validation));
        let counts = file.class_counts(&train);
        let class_weights = config.class_weights.weights(&counts, train.len());
        let learner = Learner::new(device, config.model(extents, file.genres().len()), config.seed)?;
        let warmup_steps = config.warmup_epochs * (train.len() / config.batch) as f64;
        let warmup = Warmup { rate: config.learning_rate, steps: warmup_steps.ceil() as u64 };
        let (train, validation) = (train.into(), validation.into());
        Ok(Trainer {
            config,
            file,
            train,
            validation,
            class_weights,
            warmup,
            learner,
            progress: Progress::default(),
            asks_at_once: false,
        })
    }

    /// A run as `checkpoint` left it. `config` is the checkpoint's, but for what may differ: device, epochs, step limit.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and [`TrainingError::OtherPosters`] or the checkpoint's if the two do not belong together.
    pub fn resume(
        device: Rc<D>,
        config: RunConfig,
        extents: Extents,
        file: Arc<TensorFile>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TrainingError> {
        let metadata = checkpoint.metadata();
        if metadata.data_digest != file.digest() {
            let (posters, checkpoint) = (file.path().into(), checkpoint.path().into());
            return Err(TrainingError::OtherPosters { posters, checkpoint });
        }
        let mut trainer = Trainer::new(device, config, extents, file)?;
        trainer.learner.restore(checkpoint)?;
        trainer.progress = metadata.progress;
        Ok(trainer)
    }

    /// The run's settings.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// How much each genre's errors count.
    pub fn class_weights(&self) -> &[f32] {
        &self.class_weights
    }

    /// The network.
    pub fn model(&self) -> &Model<D> {
        self.learner.model()
    }

    /// The network, to put imported weights into it.
    pub fn model_mut(&mut self) -> &mut Model<D> {
        self.learner.model_mut()
    }

    /// Has each step be told of before the next one is submitted: for who measures steps one by one.
    pub fn ask_at_once(&mut self) {
        self.asks_at_once = true;
    }

    /// How far the run has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Steps in an epoch: posters that fill no batch sit it out, others each time.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.train.len() / self.config.batch) as u64
    }

    /// Trains until the last epoch, the step limit, or `stop`, which is looked at after each batch. Writes logs and
    /// checkpoints into `folder` and tells `watch` what happens.
    ///
    /// # Errors
    /// [`TrainingError`]; `last.safetensors`, if an epoch has come to its end, is then a state to go on from.
    pub fn run(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Ending, TrainingError> {
        while self.progress.epoch < self.config.epochs {
            let began = Instant::now();
            let ending = match self.epoch(folder, stop, watch)? {
                Some(ending) => Some(ending),
                None => self.validate(folder, stop, watch, began)?,
            };
            if let Some(ending) = ending {
                self.save_last(folder)?;
                return Ok(ending);
            }
        }
        Ok(Ending::Finished)
    }

    /// The training steps left in this epoch.
    fn epoch(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Ending>, TrainingError> {
        let RunConfig { seed, batch, .. } = self.config;
        let Progress { epoch, step: first, .. } = self.progress;
        let augmentation = if self.config.augment { Augmentation::FlipShift } else { Augmentation::None };
        let (file, train) = (Arc::clone(&self.file), Arc::clone(&self.train));
        let mut batches = Loader::train(file, train, batch, seed, epoch, first as usize, augmentation)?;
        let format = self.config.pixels.format();
        let mut clock = Instant::now();
        let mut staged = self.stage(&mut batches)?;
        // Learning rates of the steps that the device is at.
        let mut under_way = VecDeque::new();
        loop {
            let submitted = self.progress.total_steps + under_way.len() as u64;
            let ending = if self.config.max_steps.is_some_and(|limit| submitted >= limit) {
                Some(Ending::StepLimit)
            } else if stop.load(Ordering::Relaxed) {
                Some(Ending::Interrupted)
            } else {
                None
            };
            let next = if ending.is_none() { staged.take() } else { None };
            let is_last = next.is_none();
            if let Some((loaded, pixels)) = next {
                let learning_rate = self.warmup.rate_at(submitted + 1);
                self.learner.submit(pixels, batch, &format, &loaded.labels, &self.class_weights, learning_rate)?;
                under_way.push_back(learning_rate);
                batches.recycle(loaded);
                // The next batch travels while the device works on this one.
                staged = self.stage(&mut batches)?;
            }
            // An outcome is read while the next step runs, so that the device never waits for the host; unless it is here already, no
            // step follows, or somebody asks.
            let at_once = is_last || self.asks_at_once;
            while !under_way.is_empty() && (at_once || under_way.len() > 1 || self.learner.has_outcome()) {
                let Outcome { loss, gradient_norm, .. } = self.learner.outcome()?;
                let learning_rate = under_way.pop_front().unwrap_or_default();
                self.progress.step += 1;
                self.progress.total_steps += 1;
                self.progress.loss_sum += loss;
                let images_per_second = batch as f64 / clock.elapsed().as_secs_f64();
                clock = Instant::now();
                let step = self.progress.total_steps;
                let row = StepRow { step, loss, learning_rate, gradient_norm, images_per_second };
                folder.log_step(&row)?;
                watch(Event::Step { row: &row, epoch, done: self.progress.step, steps: self.steps_per_epoch() });
            }
            if is_last {
                return Ok(ending);
            }
        }
    }

    /// The next batch, its pixels on their way to the device.
    fn stage(&self, batches: &mut Loader) -> Result<Option<(Batch, D::Pixels)>, TrainingError> {
        let Some(batch) = batches.next().transpose()? else { return Ok(None) };
        let pixels = self.model().device().upload_pixels(&batch.pixels, &batch.placements)?;
        Ok(Some((batch, pixels)))
    }

    /// The end of an epoch: scores, log row, checkpoints.
    fn validate(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
        began: Instant,
    ) -> Result<Option<Ending>, TrainingError> {
        let posters = self.validation.len();
        let answers = Answers::collect(
            self.learner.model(),
            &self.file,
            Arc::clone(&self.validation),
            self.config.batch,
            &self.config.pixels.format(),
            &self.class_weights,
            |done| {
                watch(Event::Validation { done, posters });
                if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        if let Err(TrainingError::Device(_) | TrainingError::Loader(_)) = &answers {
            // The epoch's steps are kept: with --resume the processor can validate them, or a device with more room. On
            // a device that is lost this fails as well, and the first error is the one to hear of.
            let _ = self.save_last(folder);
        }
        let Some(answers) = answers? else { return Ok(Some(Ending::Interrupted)) };
        let scores = answers.scores(&self.thresholds());
        let score = scores.mean_average_precision();
        let best = self.progress.best.is_none_or(|best| score > best);
        let Progress { epoch, total_steps, loss_sum, .. } = self.progress;
        let row = EpochRow {
            epoch: epoch + 1,
            step: total_steps,
            train_loss: loss_sum / self.steps_per_epoch() as f64,
            validation_loss: answers.loss,
            binary_accuracy: scores.binary_accuracy(),
            weighted_f1: scores.weighted.f1,
            coin_f1: scores.weighted.coin_f1,
            always_yes_f1: scores.weighted.always_yes_f1,
            mean_average_precision: score,
            learning_rate: self.warmup.rate_at(total_steps),
            seconds: began.elapsed().as_secs_f64(),
        };
        folder.log_epoch(&row)?;

        let best_score = if best { Some(score) } else { self.progress.best };
        self.progress = Progress { epoch: epoch + 1, step: 0, total_steps, loss_sum: 0.0, best: best_score };
        // The best one first: killed between the two, the run goes on from before this epoch's end and writes it again.
        if best {
            self.learner.save(&best_checkpoint(folder.path()), &self.metadata(), Keep::Weights)?;
        }
        self.save_last(folder)?;
        watch(Event::Epoch { row: &row, scores: &scores, best });
        Ok(None)
    }

    fn save_last(&self, folder: &RunFolder) -> Result<(), TrainingError> {
        self.learner.save(&last_checkpoint(folder.path()), &self.metadata(), Keep::Everything)
    }

    fn thresholds(&self) -> Vec<f64> {
        vec![self.config.threshold; self.file.genres().len()]
    }

    fn metadata(&self) -> Metadata {
        let resize = self.file.provenance().get("resize").map_or("area", String::as_str);
        Metadata {
            genres: self.file.genres().to_vec(),
            thresholds: self.thresholds(),
            resize: resize.into(),
            data_digest: self.file.digest().into(),
            progress: self.progress,
            config: self.config.clone(),
        }
    }
}

/// Refuses settings that the posters cannot serve, before anything is allocated.
///
/// # Errors
/// As for [`Trainer::new`], the device's aside.
pub fn check(config: &RunConfig, file: &TensorFile) -> Result<(), TrainingError> {
    if file.size() != config.image_size {
        let (path, found) = (file.path().into(), file.size());
        return Err(TrainingError::ImageSize { path, found, asked: config.image_size });
    }
    for split in [Split::Train, Split::Validation] {
        if file.indices(split).is_empty() {
            return Err(TrainingError::EmptySplit { path: file.path().into(), split });
        }
    }
    let images = file.indices(Split::Train).len();
    match config.batch {
        0 => Err(LoaderError::EmptyBatch.into()),
        batch if batch > images => Err(LoaderError::BatchTooLarge { batch, images }.into()),
        _ => Ok(()),
    }
}
