//! What TensorBoard is shown of an epoch beside its scores, for runs that ask for it.

use super::Trainer;
use crate::device::{Device, DeviceError};
use crate::network::Place;
use crate::training::TrainingError;
use crate::training::run_folder::EpochRow;
use crate::training::tensorboard::{Shown, TensorBoard, Value};

/// The training posters that are shown.
const POSTERS: usize = 8;

impl<D: Device> Trainer<D> {
    /// Histograms of each weight and of its gradient in the step before, and with the first epoch some posters.
    ///
    /// # Errors
    /// The device's and the tensor file's.
    pub(super) fn more_for_tensorboard(&self, row: &EpochRow) -> Result<Vec<Value>, TrainingError> {
        let mut more = Vec::new();
        if self.config.tensorboard != TensorBoard::Histograms {
            return Ok(more);
        }
        if row.epoch == 1 {
            more.extend(self.posters()?);
        }
        more.extend(self.histograms()?);
        Ok(more)
    }

    /// The first training posters as they are stored, each under its id and its genres.
    fn posters(&self) -> Result<Vec<Value>, TrainingError> {
        let mut shown = Vec::new();
        for &index in self.train.iter().take(POSTERS) {
            let index = index as usize;
            let named = self.file.genres().iter().zip(self.file.labels(index)).filter(|(_, label)| **label == 1);
            let genres: Vec<&str> = named.map(|(genre, _)| genre.as_str()).collect();
            let tag = format!("posters/{}: {}", self.file.ids()[index], genres.join(", "));
            // A poster that its own file describes is one that can be written.
            shown.extend(Value::poster(tag, &self.file.image_checked(index)?, self.file.size()));
        }
        Ok(shown)
    }

    fn histograms(&self) -> Result<Vec<Value>, DeviceError> {
        let (model, mut weights, mut gradients) = (self.learner.model(), Vec::new(), Vec::new());
        let parameters = model.parameters();
        for tensor in &model.architecture().tensors {
            let Place::Weights(span) = tensor.place else { continue };
            weights.extend(Value::histogram(format!("weights/{}", tensor.name), &model.read(tensor)?));
            if parameters.is_trainable(span) {
                let values = model.device().download(parameters.gradients.view(span))?;
                let values: Vec<f32> = values.into_iter().map(|value| value.into() as f32).collect();
                gradients.extend(Value::histogram(format!("gradients/{}", tensor.name), &values));
            }
        }
        // A run that went on behind its epoch's last step has taken none yet.
        let is_zero = |value: &Value| matches!(&value.shown, Shown::Histogram(histogram) if histogram.is_zero());
        if !gradients.iter().all(is_zero) {
            weights.extend(gradients);
        }
        Ok(weights)
    }
}
