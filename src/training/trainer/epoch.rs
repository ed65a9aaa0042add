//! The training steps of an epoch.

use super::{Ending, Event, Trainer};
use crate::data::augmentation::Augmentation;
use crate::data::loader::{Batch, Loader};
use crate::device::Device;
use crate::model::Outcome;
use crate::training::TrainingError;
use crate::training::checkpoint::Progress;
use crate::training::config::RunConfig;
use crate::training::run_folder::{RunFolder, StepRow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches that are computed at the same time.
pub(super) struct Staged<D: Device> {
    /// Those of further devices.
    pub(super) others: Vec<Batch>,
    /// That of the first.
    pub(super) own: Batch,
    /// Its pixels.
    pub(super) pixels: D::Pixels,
}

impl<D: Device> Trainer<D> {
    /// The training steps left in this epoch.
    pub(super) fn epoch(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Ending>, TrainingError> {
        let RunConfig { batch, .. } = self.config;
        let mut batches = self.batches(self.progress.step)?;
        let format = self.config.pixels.format();
        self.clock = Instant::now();
        let mut staged = self.stage(&mut batches)?;
        loop {
            let under_way = self.under_way.len() as u64;
            let submitted = self.progress.total_steps + under_way;
            // Batches that are too few for a step are left.
            let is_over = self.progress.step + under_way == self.steps_per_epoch();
            let ending = if !self.learner.is_between_steps() {
                None
            } else if stop.load(Ordering::Relaxed) {
                Some(Ending::Interrupted)
            } else if is_over {
                // A limit waits until it is validated: what is left there is an epoch's model.
                None
            } else if self.config.max_steps.is_some_and(|limit| submitted >= limit) {
                Some(Ending::StepLimit)
            } else if self.is_time_over() {
                Some(Ending::TimeLimit)
            } else {
                None
            };
            let next = if ending.is_none() && !is_over { staged.take() } else { None };
            let is_last = next.is_none();
            if let Some(Staged { others, own, pixels }) = next {
                let learning_rate = self.rate_at(submitted + 1);
                let (labels, weights) = (&own.labels, &self.class_weights);
                let is_step =
                    self.learner.submit_beside(others, pixels, batch, &format, labels, weights, learning_rate)?;
                if is_step {
                    self.under_way.push_back(learning_rate);
                }
                batches.recycle(own);
                // The next batch travels while the device works on this one.
                staged = self.stage(&mut batches)?;
                if !is_step {
                    continue;
                }
            }
            // An outcome is read while the next step runs, so that the device never waits for the host; unless it is here already, no
            // step follows, a checkpoint is due, a bad one would be looked into, or somebody asks.
            let is_due = !is_last && self.is_save_due(folder);
            let at_once = is_last || is_due || self.config.check_numerics || self.asks_at_once;
            while !self.under_way.is_empty() && (at_once || self.under_way.len() > 1 || self.learner.has_outcome()) {
                self.finish_step(folder, watch)?;
            }
            if is_last {
                return Ok(ending);
            }
            if is_due {
                self.save(folder)?;
                self.clock = Instant::now();
            }
        }
    }

    /// The training batches of this epoch from `step` on.
    pub(super) fn batches(&self, step: u64) -> Result<Loader, TrainingError> {
        let RunConfig { seed, batch, augment, ref recipe, .. } = self.config;
        let done = step as usize * recipe.accumulate;
        let augmentation = if augment { Augmentation::FlipShift } else { Augmentation::None };
        let (file, train) = (Arc::clone(&self.file), Arc::clone(&self.train));
        let distortion = recipe.distortion();
        Ok(Loader::train(file, train, batch, seed, self.progress.epoch, done, augmentation, distortion)?)
    }

    /// The next batch of each device, its own one's pixels on their way there; none if there is not one for each.
    pub(super) fn stage(&self, batches: &mut Loader) -> Result<Option<Staged<D>>, TrainingError> {
        let mut others = batches.take(self.learner.at_a_time()).collect::<Result<Vec<_>, _>>()?;
        if others.len() < self.learner.at_a_time() {
            return Ok(None);
        }
        let Some(own) = others.pop() else { return Ok(None) };
        let pixels = self.model().device().upload_pixels(&own.pixels, &own.placements)?;
        Ok(Some(Staged { others, own, pixels }))
    }

    /// Waits for the oldest step under way, counts it and writes its row: the loss of one that was left out is not a number.
    fn finish_step(&mut self, folder: &mut RunFolder, watch: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainingError> {
        let outcome = self.learner.outcome();
        let learning_rate = self.under_way.pop_front().unwrap_or_default();
        let (loss, gradient_norm) = match outcome {
            Ok(Outcome { loss, gradient_norm, .. }) => {
                self.bad_in_a_row = 0;
                self.progress.loss_sum += loss;
                (loss, gradient_norm)
            }
            Err(error) => {
                self.leave_out(error, watch)?;
                (f64::NAN, f64::NAN)
            }
        };
        self.progress.step += 1;
        self.progress.total_steps += 1;
        let images_per_second = self.config.posters_a_step() as f64 / self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let Progress { epoch, step: done, total_steps: step, .. } = self.progress;
        let row = StepRow { step, loss, learning_rate, images_per_second, gradient_norm };
        folder.log_step(&row)?;
        watch(Event::Step { row: &row, epoch, done, steps: self.steps_per_epoch() });
        Ok(())
    }

    /// Waits for all steps under way, so that what the device holds is what [`Progress`] says.
    ///
    /// # Errors
    /// Those of a step. A log that cannot be written is none here: better a gap in it than steps that are lost.
    pub(super) fn settle(
        &mut self,
        folder: &mut RunFolder,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainingError> {
        while !self.under_way.is_empty() {
            match self.finish_step(folder, watch) {
                Ok(()) | Err(TrainingError::RunFolder(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::data::tensor_file::TensorFile;
    use crate::device::cpu::Cpu;
    use crate::network::resnet50;
    use crate::training::checkpoint::Checkpoint;
    use crate::training::run_folder::{RunFolderError, last_checkpoint};
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn a_checkpoint_is_due_after_so_many_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let posters = folder.path().join("posters.safetensors");
        synthetic::write(&posters, 20, 32, 7).unwrap();
        let config = RunConfig {
            network: resnet50::MINIATURE,
            batch: 4,
            image_size: 32,
            save_every: 20.0,
            ..RunConfig::default()
        };
        let mut run = RunFolder::create(&folder.path().join("run"), &config).unwrap();
        let file = Arc::new(TensorFile::open(&posters).unwrap());
        let trainer = Trainer::new(Rc::new(Cpu::new()), config, file).unwrap();
        run.age(Duration::from_secs(15 * 60));
        assert!(!trainer.is_save_due(&run));
        run.age(Duration::from_secs(5 * 60));
        assert!(trainer.is_save_due(&run));
        trainer.save(&mut run).unwrap();
        assert!(!trainer.is_save_due(&run), "it was just saved");
    }

    #[test]
    fn a_step_under_way_is_not_lost_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let posters = folder.path().join("posters.safetensors");
        synthetic::write(&posters, 20, 32, 7).unwrap();
        let config = RunConfig { network: resnet50::MINIATURE, batch: 4, image_size: 32, ..RunConfig::default() };
        let mut run = RunFolder::create(&folder.path().join("run"), &config).unwrap();
        let file = Arc::new(TensorFile::open(&posters).unwrap());
        let mut trainer = Trainer::new(Rc::new(Cpu::new()), config, file).unwrap();
        let mut batches = trainer.batches(0).unwrap();
        let Staged { own, pixels, .. } = trainer.stage(&mut batches).unwrap().unwrap();
        let format = trainer.config.pixels.format();
        trainer.learner.submit(pixels, 4, &format, &own.labels, &trainer.class_weights, 1e-3).unwrap();
        trainer.under_way.push_back(1e-3);
        run.fill_disk_for("steps.csv", 1);
        trainer.settle(&mut run, &mut |_| {}).unwrap();
        assert_eq!((trainer.progress.total_steps, trainer.under_way.len()), (1, 0));
    }

    /// A full disk, met by a log: what was done up to it is saved first.
    #[test]
    fn a_log_that_cannot_be_written_ends_the_run_saved() {
        let folder = tempfile::tempdir().unwrap();
        let posters = folder.path().join("posters.safetensors");
        synthetic::write(&posters, 20, 32, 7).unwrap();
        let config =
            RunConfig { network: resnet50::MINIATURE, batch: 4, epochs: 2, image_size: 32, ..RunConfig::default() };
        for (log, steps) in [("steps.csv", 3), ("log.csv", 4)] {
            let path = folder.path().join(log);
            let mut run = RunFolder::create(&path, &config).unwrap();
            let file = Arc::new(TensorFile::open(&posters).unwrap());
            let mut trainer = Trainer::new(Rc::new(Cpu::new()), config.clone(), file).unwrap();
            run.fill_disk_for(log, steps);
            let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
            assert!(matches!(error, TrainingError::RunFolder(RunFolderError::Unwritable { .. })), "{error}");
            assert!(error.to_string().contains(log), "{error}");
            assert_eq!(run.saved_step(), Some(steps), "{log}");
            let saved = Checkpoint::open(&last_checkpoint(&path)).unwrap().metadata().progress;
            assert_eq!((saved.total_steps, saved.epoch), (steps, 0), "{log}");
        }
    }
}
