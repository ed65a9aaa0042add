//! A model's answers on a set of posters, in inference mode.

use super::TrainingError;
use crate::data::loader::Loader;
use crate::data::tensor_file::TensorFile;
use crate::device::{Device, PixelFormat};
use crate::metrics::Scores;
use crate::model::{Model, Posters};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a model says about N posters, and what is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// Mean loss over posters and genres.
    pub loss: f64,
    /// `[N, C]`.
    pub probabilities: Vec<f32>,
    /// `[N, C]`, 0 or 1.
    pub targets: Vec<u8>,
}

impl Answers {
    /// Asks `model` about the posters `indices` of `file`, `batch` at a time, telling `between` after each batch how many
    /// posters are done. `None` if `between` broke it off.
    ///
    /// # Errors
    /// The loader's and the device's, and [`TrainingError::Diverged`] if the loss is no number.
    pub fn collect<D: Device>(
        model: &Model<D>,
        file: &Arc<TensorFile>,
        indices: Arc<[u32]>,
        batch: usize,
        format: &PixelFormat,
        class_weights: &[f32],
        mut between: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Answers>, TrainingError> {
        let posters = indices.len();
        let mut answers = Answers { loss: 0.0, probabilities: Vec::new(), targets: Vec::new() };
        let (mut done, mut sum) = (0, 0.0);
        let mut loader = Loader::in_order(Arc::clone(file), indices, batch)?;
        while let Some(batch) = loader.next().transpose()? {
            let posters = Posters { pixels: &batch.pixels, placements: &batch.placements, format };
            let (loss, probabilities) = model.score(posters, &batch.labels, class_weights)?;
            sum += loss * batch.indices.len() as f64;
            answers.probabilities.extend(probabilities);
            answers.targets.extend(&batch.labels);
            done += batch.indices.len();
            loader.recycle(batch);
            if between(done).is_break() {
                return Ok(None);
            }
        }
        answers.loss = sum / posters as f64;
        if !answers.loss.is_finite() {
            return Err(TrainingError::Diverged {
                what: "the loss on held-out posters".into(),
                value: answers.loss,
                place: None,
            });
        }
        Ok(Some(answers))
    }

    /// The scores at one threshold a genre.
    pub fn scores(&self, thresholds: &[f64]) -> Scores {
        let thresholds: Vec<f32> = thresholds.iter().map(|&threshold| threshold as f32).collect();
        Scores::new(&self.probabilities, &self.targets, &thresholds)
    }
}
