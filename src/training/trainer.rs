//! The loop: batches in, checkpoints and log rows out.
//!
//! Everything random is a pure function of seed, epoch and poster, so a checkpoint holds two numbers, epoch and step, where
//! others keep the state of generators; a run resumed at any step goes on to the same bits as one left alone.

mod averages;
mod bad_numbers;
mod epoch;
pub mod find_rate;
mod tensorboard;
mod validation;

use super::TrainingError;
use super::checkpoint::{Checkpoint, Metadata, Progress};
use super::config::RunConfig;
use super::dry_run;
use super::learner::{Keep, Learner};
use super::replicas::Opener;
use super::run_folder::{EpochRow, RunFolder, StepRow};
use super::tensorboard::TensorBoard;
use super::tuning::Tuned;
use crate::data::Split;
use crate::data::loader::LoaderError;
use crate::data::squaring::{Alpha, Exif, Resize};
use crate::data::tensor_file::TensorFile;
use crate::device::Device;
use crate::metrics::Scores;
use crate::model::Model;
use crate::optim::Schedule;
use crate::plan::cost::Costs;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A run in memory.
pub struct Trainer<D: Device> {
    config: RunConfig,
    file: Arc<TensorFile>,
    train: Arc<[u32]>,
    validation: Arc<[u32]>,
    class_weights: Vec<f32>,
    learner: Learner<D>,
    progress: Progress,
    asks_at_once: bool,
    /// Learning rates of the steps that the device is at.
    under_way: VecDeque<f64>,
    /// When the step before was done.
    clock: Instant,
    /// When this process began with the run.
    began: Instant,
    /// Steps with a bad number, one after the other.
    bad_in_a_row: u32,
    /// How often the run went back because of a bad number.
    rollbacks: u32,
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
    /// A step was left out: it had a bad number.
    LeftOut {
        /// What was no number.
        why: &'a str,
    },
    /// The run went back to a checkpoint: it met a bad number.
    RolledBack {
        /// What was no number.
        why: &'a str,
        /// Steps done at the checkpoint.
        step: u64,
        /// The learning rate from there on.
        learning_rate: f64,
    },
    /// Some posters have gone into batch norm's running averages, which are formed anew before the model answers.
    Averages {
        /// Posters done.
        done: usize,
        /// Posters in all.
        posters: usize,
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
        /// Of the best: the weighted F1 at the thresholds that were found on these posters and are kept with the model.
        tuned_f1: Option<f64>,
    },
}

/// Why a run came to rest. In each case `last.safetensors` holds all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// The validation mAP was no better for as many epochs as the run has patience.
    NoBetter,
    /// `max_steps` is reached.
    StepLimit,
    /// `time_limit` is over.
    TimeLimit,
    /// Somebody asked it to stop.
    Interrupted,
}

impl<D: Device> Trainer<D> {
    /// A run at its beginning.
    ///
    /// # Errors
    /// [`LoaderError::BatchTooLarge`], [`TrainingError::EmptySplit`], [`TrainingError::ImageSize`], or the device's.
    pub fn new(device: Rc<D>, config: RunConfig, file: Arc<TensorFile>) -> Result<Self, TrainingError> {
        check(&config, &file)?;
        let (train, validation) = (file.indices(Split::Train), file.indices(Split::Validation));
        let counts = file.class_counts(&train);
        let class_weights = config.class_weights.weights(&counts, train.len());
        let model = Model::new(device, config.model(file.genres().len()), config.seed)?;
        let mut learner = Learner::by(&config.recipe, model)?;
        if config.recompute {
            let plan = learner.model().plan().clone().recomputing();
            learner.model_mut().set_plan(plan);
        }
        let (train, validation) = (train.into(), validation.into());
        Ok(Trainer {
            config,
            file,
            train,
            validation,
            class_weights,
            learner,
            progress: Progress::default(),
            asks_at_once: false,
            under_way: VecDeque::new(),
            clock: Instant::now(),
            began: Instant::now(),
            bad_in_a_row: 0,
            rollbacks: 0,
        })
    }

    /// A run as `checkpoint` left it. `config` is the checkpoint's, but for what changes nothing that was: device, data file, epochs,
    /// learning rate and so on.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and [`TrainingError::OtherPosters`] or the checkpoint's if the two do not belong together.
    pub fn resume(
        device: Rc<D>,
        config: RunConfig,
        file: Arc<TensorFile>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TrainingError> {
        let metadata = checkpoint.metadata();
        if metadata.data_digest != file.digest() {
            let (posters, checkpoint) = (file.path().into(), checkpoint.path().into());
            return Err(TrainingError::OtherPosters { posters, checkpoint });
        }
        checkpoint.check_network(config.network)?;
        let mut trainer = Trainer::new(device, config, file)?;
        trainer.learner.restore(checkpoint)?;
        trainer.progress = metadata.progress;
        Ok(trainer)
    }

    /// Has the batches of each step shared with further devices, as many as the settings say, which these open.
    ///
    /// # Errors
    /// Those of opening them.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn share(&mut self, openers: Vec<Opener<D>>) -> Result<(), TrainingError> {
        assert_eq!(openers.len() + 1, self.config.gpus, "the first device, and the others");
        if openers.is_empty() { Ok(()) } else { self.learner.share(openers, self.config.recompute) }
    }

    /// The run's settings.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// What a step costs on this device, and the memory that it takes.
    ///
    /// # Errors
    /// None that a trainer's own step would not have had.
    pub fn costs(&self) -> Result<Costs, TrainingError> {
        let (model, RunConfig { batch, recipe, .. }) = (self.learner.model(), &self.config);
        dry_run::costs_of(model.config(), model.device().habits(), *batch, model.plan().clone(), recipe)
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

    /// Steps in an epoch: posters that fill none sit it out, others each time.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.train.len() / self.config.posters_a_step()) as u64
    }

    /// Trains until the last epoch, the step limit, or `stop`, which is looked at after each batch. Writes logs and
    /// checkpoints into `folder` and tells `watch` what happens.
    ///
    /// # Errors
    /// [`TrainingError`]. Unless it is that of a bad number or a device that is lost, everything up to it is saved first.
    pub fn run(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Ending, TrainingError> {
        self.began = Instant::now();
        folder.tell_tensorboard(self.config.tensorboard != TensorBoard::Off);
        folder.check_space(self.config.keep_best, |keep| self.learner.saved_bytes(keep))?;
        self.save_what_to_go_back_to(folder)?;
        while self.progress.epoch < self.config.epochs {
            if self.config.patience.is_some_and(|patience| self.progress.stale >= patience) {
                return Ok(Ending::NoBetter);
            }
            let began = Instant::now();
            let result = match self.epoch(folder, stop, watch) {
                Ok(None) => self.validate(folder, stop, watch, began),
                ended => ended,
            };
            match result {
                Ok(None) => {}
                Ok(Some(ending)) => {
                    self.save(folder)?;
                    return Ok(ending);
                }
                Err(error) if is_bad_number(&error) => self.go_back(error, folder, watch)?,
                Err(error) => {
                    // On a device that is lost or a disk that is full this fails as well, and the first error is the one to hear of.
                    let left = self.learner.leave_step();
                    let _ = left.and_then(|()| self.settle(folder, watch)).and_then(|()| self.save(folder));
                    return Err(error);
                }
            }
        }
        Ok(Ending::Finished)
    }

    /// The learning rate of a step, counted from 1 over the whole run.
    fn rate_at(&self, step: u64) -> f64 {
        let RunConfig { learning_rate, warmup_epochs, epochs, ref recipe, .. } = self.config;
        let warmup = warmup_epochs * self.steps_per_epoch() as f64;
        let schedule = Schedule {
            rate: learning_rate,
            warmup: warmup.ceil() as u64,
            curve: recipe.schedule,
            steps: u64::from(epochs) * self.steps_per_epoch(),
        };
        schedule.rate_at(step)
    }

    /// Whether this start has had its time.
    fn is_time_over(&self) -> bool {
        self.config.time_limit.is_some_and(|minutes| self.began.elapsed().as_secs_f64() >= 60.0 * minutes)
    }

    /// Saves everything.
    fn save(&self, folder: &mut RunFolder) -> Result<(), TrainingError> {
        let write = |path: &Path| self.learner.save(path, &self.metadata(), Keep::Everything);
        folder.save(&self.progress, write)
    }

    /// Whether it is time for a checkpoint within an epoch.
    fn is_save_due(&self, folder: &RunFolder) -> bool {
        folder.since_save() >= Duration::try_from_secs_f64(60.0 * self.config.save_every).unwrap_or(Duration::MAX)
    }

    /// Saves a model to use. No run goes on from it, so it does not say where this one was to stop: stopped there and gone on with, the
    /// run ends in the same file as one that was left alone.
    ///
    /// What the validation posters say of thresholds and temperature goes with it: the weights are those that `tuned` was found with.
    fn save_model(&self, path: &Path, tuned: Tuned) -> Result<(), TrainingError> {
        let mut metadata = Metadata { tuned: Some(tuned), ..self.metadata() };
        (metadata.config.max_steps, metadata.config.time_limit) = (None, None);
        self.learner.save(path, &metadata, Keep::Weights)
    }

    fn thresholds(&self) -> Vec<f64> {
        vec![self.config.threshold; self.file.genres().len()]
    }

    fn metadata(&self) -> Metadata {
        let made = |key: &str, before: &str| self.file.provenance().get(key).map_or(before, String::as_str).to_owned();
        Metadata {
            genres: self.file.genres().to_vec(),
            thresholds: self.thresholds(),
            resize: made("resize", Resize::Area.name()),
            exif: made("exif", Exif::Ignore.name()),
            alpha: made("alpha", Alpha::Drop.name()),
            data_digest: self.file.digest().into(),
            tuned: None,
            progress: self.progress,
            config: self.config.clone(),
        }
    }
}

/// Whether the run met a number that is none, rather than a device, a disk or a file that failed.
pub fn is_bad_number(error: &TrainingError) -> bool {
    use super::checkpoint::CheckpointError::NotFinite;
    matches!(error, TrainingError::Diverged { .. } | TrainingError::Checkpoint(NotFinite { .. }))
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
    match config.posters_a_step() {
        0 => Err(LoaderError::EmptyBatch.into()),
        batch if batch > images => Err(LoaderError::BatchTooLarge { batch, images }.into()),
        _ => Ok(config.check()?),
    }
}
