//! What a run does about a loss or a gradient that is no number.
//!
//! The device leaves the step out in any case, so the weights stay as they were before it. What is left is to decide what comes
//! next: [`OnBadNumbers`].

use super::{Event, Trainer};
use crate::checks::NonFinite;
use crate::device::Device;
use crate::training::TrainingError;
use crate::training::config::{OnBadNumbers, RunConfig};
use crate::training::history::Entry;
use crate::training::run_folder::RunFolder;

/// Bad steps one after the other that end a run which skips them: what they have in common is the weights.
const MOST_IN_A_ROW: u32 = 10;

/// How often a run goes back: by then its learning rate is an eighth.
const MOST_ROLLBACKS: u32 = 3;

impl<D: Device> Trainer<D> {
    /// Counts a step that ended in `error` as left out, where the run skips bad numbers and this is one.
    ///
    /// # Errors
    /// `error` itself otherwise.
    pub(super) fn leave_out(
        &mut self,
        mut error: TrainingError,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainingError> {
        if let TrainingError::Diverged { place, .. } = &mut error
            && self.config.check_numerics
        {
            // No step was submitted behind it: see `at_once` in the loop.
            *place = self.first_non_finite()?.map(Box::new);
        }
        self.bad_in_a_row += 1;
        let skips = self.config.on_bad_numbers == OnBadNumbers::Skip && self.bad_in_a_row < MOST_IN_A_ROW;
        if !(skips && matches!(error, TrainingError::Diverged { .. })) {
            return Err(error);
        }
        self.progress.left_out += 1;
        watch(Event::LeftOut { why: &error.to_string() });
        Ok(())
    }

    /// The first number that is none in the batches of the step that has just gone wrong. They are read from the file once more: where
    /// several make a step, the device holds only the last.
    fn first_non_finite(&mut self) -> Result<Option<NonFinite>, TrainingError> {
        let RunConfig { batch, pixels: ref format, ref recipe, .. } = self.config;
        let format = format.format();
        for own in self.batches(self.progress.step)?.take(recipe.accumulate) {
            let own = own?;
            let pixels = self.model().device().upload_pixels(&own.pixels, &own.placements)?;
            let found = self.learner.first_non_finite_in(pixels, batch, &format, &own.labels, &self.class_weights)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A run that goes back needs a place to go back to from its first step on.
    pub(super) fn save_what_to_go_back_to(&self, folder: &mut RunFolder) -> Result<(), TrainingError> {
        let has_none = folder.saved_step().is_none();
        if self.config.on_bad_numbers == OnBadNumbers::Rollback && has_none { self.save(folder) } else { Ok(()) }
    }

    /// Takes the run back to its newest checkpoint and halves its learning rate, where it is to do so after a bad number.
    ///
    /// # Errors
    /// `error`, the bad number, otherwise; and those of the checkpoint.
    pub(super) fn go_back(
        &mut self,
        error: TrainingError,
        folder: &mut RunFolder,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainingError> {
        if self.config.on_bad_numbers != OnBadNumbers::Rollback || self.rollbacks == MOST_ROLLBACKS {
            return Err(error);
        }
        let checkpoint = folder.newest()?;
        self.learner.forget_submitted();
        self.under_way.clear();
        self.learner.restore(&checkpoint)?;
        self.progress = checkpoint.metadata().progress;
        self.rollbacks += 1;
        let before = self.config.clone();
        self.config = RunConfig { learning_rate: before.learning_rate / 2.0, ..before.clone() };
        let step = self.progress.total_steps;
        folder.cut_back(&self.progress)?;
        let entry = Entry::new(step, self.model().device().name(), &before, &self.config);
        folder.note(&self.config, entry)?;
        // So that the lower rate is not forgotten with a kill before the next checkpoint.
        folder.save_again();
        self.save(folder)?;
        watch(Event::RolledBack { why: &error.to_string(), step, learning_rate: self.config.learning_rate });
        Ok(())
    }
}
