//! The end of an epoch: scores, log row, checkpoints.

use super::{Ending, Event, Trainer};
use crate::device::Device;
use crate::training::TrainingError;
use crate::training::checkpoint::Progress;
use crate::training::evaluation::{Answers, View};
use crate::training::run_folder::{About, EpochRow, KeptAnswers, RunFolder, best_checkpoint, epoch_checkpoint};
use crate::training::tensorboard::Event as TensorBoardEvent;
use crate::training::tuning::Tuned;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

impl<D: Device> Trainer<D> {
    /// Has the model that answers see the validation posters, scores it and ends the epoch.
    pub(super) fn validate(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
        began: Instant,
    ) -> Result<Option<Ending>, TrainingError> {
        let posters = self.validation.len();
        let mut unsaved = None;
        self.learner.exchange_average();
        let formed = self.form_averages(folder, stop, watch);
        if !matches!(formed, Ok(None)) {
            self.learner.exchange_average();
            return formed;
        }
        let answers = Answers::collect(
            self.learner.model(),
            &self.file,
            Arc::clone(&self.validation),
            self.config.batch,
            &self.config.pixels.format(),
            &self.class_weights,
            View::Plain,
            |done| {
                watch(Event::Validation { done, posters });
                // On a slow device a validation is longer than what a kill may cost.
                if self.is_save_due(folder) {
                    unsaved = self.save(folder).err();
                }
                let goes_on = !stop.load(Ordering::Relaxed) && unsaved.is_none();
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        self.learner.exchange_average();
        let answers = answers?;
        if let Some(error) = unsaved {
            return Err(error);
        }
        let Some(answers) = answers else { return Ok(Some(Ending::Interrupted)) };
        let scores = answers.scores(&self.thresholds());
        let score = scores.mean_average_precision();
        let best = self.progress.best.is_none_or(|best| score > best);
        let Progress { epoch, total_steps, loss_sum, left_out, stale, .. } = self.progress;
        let row = EpochRow {
            epoch: epoch + 1,
            step: total_steps,
            train_loss: loss_sum / (self.steps_per_epoch() - left_out) as f64,
            validation_loss: answers.loss,
            binary_accuracy: scores.binary_accuracy(),
            weighted_f1: scores.weighted.f1,
            coin_f1: scores.weighted.coin_f1,
            always_yes_f1: scores.weighted.always_yes_f1,
            mean_average_precision: score,
            learning_rate: self.rate_at(total_steps),
            seconds: began.elapsed().as_secs_f64(),
        };
        // Before anything is saved that says the epoch is over: where the row cannot be written, the run goes on from here and does
        // so again.
        folder.log_epoch(&row)?;
        let more = self.more_for_tensorboard(&row)?;
        folder.log_event(|| TensorBoardEvent::of_epoch(&row, &scores, self.file.genres(), more))?;

        let best_score = if best { Some(score) } else { self.progress.best };
        let stale = if best { 0 } else { stale + 1 };
        let done =
            Progress { epoch: epoch + 1, step: 0, loss_sum: 0.0, left_out: 0, best: best_score, stale, total_steps };
        let before = std::mem::replace(&mut self.progress, done);
        // The models first: killed between them and the checkpoint, the run goes on from before this epoch's end and writes them again. So
        // it does where one cannot be written, or what is saved as the run ends would name a best one that is not there.
        let best_epochs = folder.best_epochs(self.config.keep_best)?;
        let tuned_f1 = match self.save_models(folder, answers, best, &best_epochs) {
            Ok(tuned_f1) => tuned_f1,
            Err(error) => {
                self.progress = before;
                return Err(error);
            }
        };
        self.save(folder)?;
        folder.prune_epochs(if self.config.keep_best > 1 { &best_epochs } else { &[] });
        watch(Event::Epoch { row: &row, scores: &scores, best, tuned_f1 });
        Ok(None)
    }

    /// Saves the model that has just answered where it is the best so far, or among the `best_epochs` if there is more than one to keep. Of
    /// the best, the weighted F1 at its tuned thresholds.
    fn save_models(
        &mut self,
        folder: &RunFolder,
        answers: Answers,
        best: bool,
        best_epochs: &[u32],
    ) -> Result<Option<f64>, TrainingError> {
        let epoch = self.progress.epoch;
        let is_kept = self.config.keep_best > 1 && best_epochs.contains(&epoch);
        if !best && !is_kept {
            return Ok(None);
        }
        let tuned = Tuned::new(&answers, &self.thresholds(), self.file.digest());
        let tuned_f1 = answers.scores(&tuned.thresholds).weighted.f1;
        if is_kept {
            self.save_model(&epoch_checkpoint(folder.path(), epoch), tuned.clone())?;
        }
        if !best {
            return Ok(None);
        }
        self.keep(folder, answers)?;
        self.save_model(&best_checkpoint(folder.path()), tuned)?;
        Ok(Some(tuned_f1))
    }

    /// Keeps what the best model so far, that of the epoch just done, said of the validation posters, and where it sees what it is surest of.
    fn keep(&mut self, folder: &RunFolder, answers: Answers) -> Result<(), TrainingError> {
        let (thresholds, format) = (self.thresholds(), self.config.pixels.format());
        self.learner.exchange_average();
        let model = self.learner.model_mut();
        let sights = answers.sights(model, &self.file, &self.validation, self.config.batch, &format, &thresholds);
        self.learner.exchange_average();
        let Progress { epoch, total_steps, .. } = self.progress;
        let about = About {
            epoch,
            step: total_steps,
            loss: answers.loss,
            genres: self.file.genres().to_vec(),
            thresholds,
            data_digest: self.file.digest().into(),
        };
        Ok(KeptAnswers { about, posters: self.validation.to_vec(), answers, sights: sights? }.write(folder.path())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::data::tensor_file::TensorFile;
    use crate::device::cpu::Cpu;
    use crate::network::resnet50;
    use crate::training::checkpoint::{Checkpoint, CheckpointError};
    use crate::training::config::RunConfig;
    use crate::training::run_folder::last_checkpoint;
    use std::fs;
    use std::rc::Rc;
    use std::time::Duration;

    /// And where that fails, it is no interruption.
    #[test]
    fn the_steps_of_an_epoch_are_saved_while_it_is_validated_if_that_takes_long() {
        let folder = tempfile::tempdir().unwrap();
        let posters = folder.path().join("posters.safetensors");
        // Eight to validate, in two batches.
        synthetic::write(&posters, 80, 32, 7).unwrap();
        let config = RunConfig { network: resnet50::MINIATURE, batch: 4, image_size: 32, ..RunConfig::default() };
        let file = Arc::new(TensorFile::open(&posters).unwrap());
        let mut trainer = Trainer::new(Rc::new(Cpu::new()), config.clone(), file).unwrap();
        let run = |name: &str| RunFolder::create(&folder.path().join(name), &config).unwrap();
        let stop = AtomicBool::new(false);
        // As far as the validation of its first epoch.
        let mut at_its_end = |event: Event<'_>| {
            if let Event::Step { done: 16, .. } = event {
                stop.store(true, Ordering::Relaxed);
            }
        };
        assert_eq!(trainer.run(&mut run("steps"), &stop, &mut at_its_end).unwrap(), Ending::Interrupted);
        stop.store(false, Ordering::Relaxed);

        let mut lost = run("lost");
        lost.age(Duration::from_secs(11 * 60));
        let mut told = 0;
        let ending = trainer.validate(
            &mut lost,
            &stop,
            &mut |_| {
                told += 1;
                fs::remove_dir_all(folder.path().join("lost/checkpoints")).unwrap();
            },
            Instant::now(),
        );
        assert!(matches!(ending, Err(TrainingError::Checkpoint(CheckpointError::Save(_)))), "{ending:?}");
        assert_eq!(told, 1);

        let mut slow = run("slow");
        slow.age(Duration::from_secs(11 * 60));
        let last = last_checkpoint(slow.path());
        let mut saved = Vec::new();
        let mut watch = |event: Event<'_>| {
            if let Event::Validation { .. } = event {
                saved.push(Checkpoint::open(&last).ok().map(|last| last.metadata().progress.step));
            }
        };
        assert_eq!(trainer.validate(&mut slow, &stop, &mut watch, Instant::now()).unwrap(), None);
        assert_eq!(saved, [None, Some(16)]);
    }
}
