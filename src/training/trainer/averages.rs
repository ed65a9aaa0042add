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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::data::tensor_file::TensorFile;
    use crate::device::cpu::Cpu;
    use crate::network::resnet50;
    use crate::training::checkpoint::Checkpoint;
    use crate::training::config::RunConfig;
    use crate::training::recipe::Recipe;
    use crate::training::run_folder::last_checkpoint;
    use std::rc::Rc;
    use std::time::Duration;

    /// On a slow device they take longer than what a kill may cost.
    #[test]
    fn the_steps_of_an_epoch_are_saved_while_averages_are_formed_if_that_takes_long() {
        let folder = tempfile::tempdir().unwrap();
        let posters = folder.path().join("posters.safetensors");
        synthetic::write(&posters, 20, 32, 7).unwrap();
        let recipe = Recipe { precise_bn: 8, ..Recipe::default() };
        let network = resnet50::MINIATURE;
        let config = RunConfig { network, batch: 4, image_size: 32, recipe, ..RunConfig::default() };
        let mut run = RunFolder::create(&folder.path().join("run"), &config).unwrap();
        let file = Arc::new(TensorFile::open(&posters).unwrap());
        let mut trainer = Trainer::new(Rc::new(Cpu::new()), config, file).unwrap();
        (trainer.progress.step, trainer.progress.total_steps) = (3, 3);
        run.age(Duration::from_secs(11 * 60));
        let last = last_checkpoint(run.path());
        let mut saved = Vec::new();
        let mut watch =
            |_: Event<'_>| saved.push(Checkpoint::open(&last).ok().map(|last| last.metadata().progress.step));
        assert_eq!(trainer.form_averages(&mut run, &AtomicBool::new(false), &mut watch).unwrap(), None);
        assert_eq!(saved, [None, Some(3)]);
    }
}
