//! Before an epoch's model answers: batch norm's running averages, formed anew.

use super::{Ending, Event, Trainer};
use crate::data::augmentation::Augmentation;
use crate::data::distortion::Distortion;
use crate::data::loader::Loader;
use crate::device::Device;
use crate::model::Posters;
use crate::training::TrainingError;
use crate::training::run_folder::RunFolder;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl<D: Device> Trainer<D> {
    /// Forms the averages of the model as it is from training posters as they are, where the recipe says so: this epoch's first, in its
    /// order and full batches. They follow from the weights and the epoch alone, so a run that was stopped meanwhile forms the same.
    pub(super) fn form_averages(
        &mut self,
        folder: &mut RunFolder,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Ending>, TrainingError> {
        let (batch, seed, epoch) = (self.config.batch, self.config.seed, self.progress.epoch);
        let batches = self.config.recipe.precise_bn.div_ceil(batch).min(self.train.len() / batch);
        if batches == 0 || self.model().architecture().averages.is_empty() {
            return Ok(None);
        }
        let (file, train, format) = (Arc::clone(&self.file), Arc::clone(&self.train), self.config.pixels.format());
        let plain = Distortion::default();
        let mut loader = Loader::train(file, train, batch, seed, epoch, 0, Augmentation::None, plain)?;
        for number in 0..batches {
            let Some(posters) = loader.next().transpose()? else { break };
            let seen = Posters { pixels: &posters.pixels, placements: &posters.placements, format: &format };
            self.learner.model_mut().average(seen, number)?;
            loader.recycle(posters);
            watch(Event::Averages { done: (number + 1) * batch, posters: batches * batch });
            if stop.load(Ordering::Relaxed) {
                return Ok(Some(Ending::Interrupted));
            }
            if self.is_save_due(folder) {
                self.save(folder)?;
            }
        }
        Ok(None)
    }
}
