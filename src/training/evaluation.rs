//! A model's answers on a set of posters, in inference mode.

use super::TrainingError;
use crate::data::films::FilmId;
use crate::data::loader::Loader;
use crate::data::tensor_file::TensorFile;
use crate::device::{Device, DeviceError, PixelFormat};
use crate::metrics::calibration::cross_entropies;
use crate::metrics::{Figure, Over, Scorer, Scores};
use crate::model::{Model, Posters, Scored, mirrored_mean, on_host, probabilities};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a model is asked about a poster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As it is.
    Plain,
    /// And once more mirrored left to right: the answer is the mean of both logits.
    Mirrored,
}

/// What a model says about N posters, and what is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// Mean loss over posters and genres, as the device has it, of the posters as they are.
    pub loss: f64,
    /// `[N, C]`.
    pub logits: Vec<f32>,
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
        view: View,
        mut between: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Answers>, TrainingError> {
        let posters = indices.len();
        let (logits, probabilities, targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut answers = Answers { loss: 0.0, logits, probabilities, targets };
        let (mut done, mut sum) = (0, 0.0);
        let mut loader = Loader::in_order(Arc::clone(file), indices, batch)?;
        while let Some(batch) = loader.next().transpose()? {
            let posters = Posters { pixels: &batch.pixels, placements: &batch.placements, format };
            let scored = model.score(posters, &batch.labels, class_weights)?;
            sum += scored.loss * batch.indices.len() as f64;
            let (logits, probabilities) = seen(model, posters, view, scored)?;
            answers.logits.extend(logits);
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
        let scorer = self.scorer(thresholds);
        scorer.scores(&vec![1; scorer.posters()])
    }

    /// The same for any resample of the posters.
    pub fn scorer(&self, thresholds: &[f64]) -> Scorer {
        let thresholds: Vec<f32> = thresholds.iter().map(|&threshold| threshold as f32).collect();
        Scorer::new(&self.probabilities, &self.targets, &thresholds)
    }

    /// Every figure at one threshold a genre for any resample of the posters: those of [`Scores::figures`], and `loss`, the mean
    /// cross-entropy, all genres weighing alike.
    pub fn figures(&self, thresholds: &[f64]) -> impl Fn(&[u32]) -> Vec<Figure> + Sync + use<> {
        let scorer = self.scorer(thresholds);
        let losses = cross_entropies(&self.logits, &self.targets, thresholds.len());
        move |times| {
            let mut figures = scorer.scores(times).figures();
            let sum: f64 = losses.iter().zip(times).map(|(loss, &times)| loss * f64::from(times)).sum();
            let posters: u32 = times.iter().sum();
            figures.push(Figure {
                over: Over::All,
                name: "loss",
                value: (posters > 0).then(|| sum / f64::from(posters)),
            });
            figures
        }
    }

    /// The answers of the same model at this temperature: its logits divided by it. The loss stays the device's.
    ///
    /// # Errors
    /// The device's.
    pub fn at_temperature<D: Device>(&self, device: &D, temperature: f64) -> Result<Answers, DeviceError> {
        let logits = divided(&self.logits, temperature);
        Ok(Answers { probabilities: probabilities(device, &logits)?, logits, ..self.clone() })
    }
}

/// `logits` divided by `temperature`.
pub fn divided(logits: &[f32], temperature: f64) -> Vec<f32> {
    logits.iter().map(|&logit| (f64::from(logit) / temperature) as f32).collect()
}

/// The logits and probabilities of posters whose plain answers are `scored`.
fn seen<D: Device>(
    model: &Model<D>,
    posters: Posters<'_>,
    view: View,
    scored: Scored,
) -> Result<(Vec<f32>, Vec<f32>), DeviceError> {
    match view {
        View::Plain => Ok((scored.logits, scored.probabilities)),
        View::Mirrored => {
            let device = model.device();
            let logits = mirrored_mean(posters, |posters| on_host(&**device, &model.logits(posters)?))?;
            let probabilities = probabilities(&**device, &logits)?;
            Ok((logits, probabilities))
        }
    }
}

/// The film of each of these posters, numbered from 0 as they come: posters whose ids are spellings of one id are of one film.
pub fn films(file: &TensorFile, indices: &[u32]) -> Vec<u32> {
    let mut numbers = HashMap::new();
    let film = |&index: &u32| {
        let id = &file.ids()[index as usize];
        let id = FilmId::parse(id).map_or_else(|| id.clone(), |id| id.as_str().to_owned());
        let next = numbers.len() as u32;
        *numbers.entry(id).or_insert(next)
    };
    indices.iter().map(film).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::data::tensor_file::{Description, TensorFileWriter};

    #[test]
    fn posters_are_of_one_film_whatever_the_spelling_of_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("posters.safetensors");
        let description =
            Description { size: 8, genres: vec!["War".into()], capacity: 6, provenance: Default::default() };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for id in ["114709", "a film", "tt0114709", "b", "114709.0", "a film"] {
            writer.push(id, &[0; 192], &[1], Split::Test).unwrap();
        }
        writer.finish().unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(films(&file, &[0, 1, 2, 3, 4, 5]), [0, 1, 0, 2, 0, 1]);
        assert_eq!(films(&file, &[3, 4, 0]), [0, 1, 1]);
    }

    #[test]
    fn the_loss_of_a_resample_is_that_of_its_posters() {
        let answers = Answers {
            loss: 0.0,
            logits: vec![0.0, 0.0, 3.0, -3.0],
            probabilities: vec![0.5, 0.5, 0.95, 0.05],
            targets: vec![1, 0, 1, 0],
        };
        let loss = |times: &[u32]| {
            let figures = answers.figures(&[0.3, 0.3])(times);
            figures.into_iter().find(|figure| figure.name == "loss").unwrap().value
        };
        let (first, second) = (2f64.ln(), f64::exp(-3.0).ln_1p());
        assert!((loss(&[1, 1]).unwrap() - (first + second) / 2.0).abs() <= 1e-12);
        assert!((loss(&[2, 1]).unwrap() - (2.0 * first + second) / 3.0).abs() <= 1e-12);
        assert_eq!(loss(&[0, 0]), None);
    }
}
