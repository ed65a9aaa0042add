//! All that `evaluate` says, computed once for its three forms.

use crate::answering::{Answering, Rule};
use onesheet::device::{Device, DeviceError};
use onesheet::metrics::bootstrap::{Difference, Estimate, Interval, Resamples, interval};
use onesheet::metrics::calibration::{self, Reliability, cross_entropy, genre_by_genre};
use onesheet::metrics::{CoOccurrence, Over, Scores};
use onesheet::training::checkpoint::Metadata;
use onesheet::training::evaluation::Answers;
use onesheet::training::tuning::Tuned;
use std::path::PathBuf;

/// The resamples are the same whenever they are drawn.
const SEED: u64 = 0;

/// Genres up to which a table is kept of which come together.
const MOST_TOGETHER: usize = 100;

/// What was asked, and of whom.
pub struct Asked<'a> {
    pub metadata: &'a Metadata,
    pub answering: Answering,
    pub rule: Rule,
    /// What computed.
    pub device: String,
    /// Whether the posters are those that something was tuned on.
    pub is_tuned_on: &'a dyn Fn(&Tuned) -> bool,
}

/// The answers and everything that is said of them.
pub struct Results<'a> {
    pub asked: Asked<'a>,
    pub scores: Scores,
    /// Of every figure.
    pub estimates: Vec<Estimate>,
    pub films: u32,
    /// At the tuned thresholds, if the model has any.
    pub tuned: Option<AtTuned<'a>>,
    /// As the model answers; and, if it has a temperature, calibrated.
    pub calibration: Vec<Calibration>,
    /// `None` of too many genres.
    pub co_occurrence: Option<CoOccurrence>,
    pub against: Option<Against>,
}

/// The scores at the tuned thresholds.
pub struct AtTuned<'a> {
    pub tuned: &'a Tuned,
    /// On the scale of the probabilities that are decided.
    pub thresholds: Vec<f64>,
    pub scores: Scores,
    pub estimates: Vec<Estimate>,
    /// At the model's own thresholds, to compare with.
    pub untuned: Scores,
    /// Whether the posters are those that they were found on.
    pub is_on_these: bool,
}

/// How far probabilities at a temperature are from what is true.
pub struct Calibration {
    pub temperature: f64,
    pub reliability: Reliability,
    /// The mean over genres of their expected calibration errors.
    pub genre_by_genre: f64,
    /// Mean binary cross-entropy.
    pub loss: f64,
    /// Of both errors.
    estimates: Vec<Estimate>,
}

/// The comparison with another model.
pub struct Against {
    pub path: PathBuf,
    pub differences: Vec<Difference>,
}

impl<'a> Results<'a> {
    /// Of the `plain` answers of a model, whose posters are of these `films`, and of another's as they are decided, with its thresholds.
    ///
    /// # Errors
    /// The device's.
    pub fn new<D: Device>(
        asked: Asked<'a>,
        device: &D,
        plain: &Answers,
        films: Vec<u32>,
        against: Option<(PathBuf, Answers, Vec<f64>)>,
    ) -> Result<Self, DeviceError> {
        let Asked { metadata, answering, ref rule, is_tuned_on, .. } = asked;
        let answers = plain.at_temperature(device, rule.temperature)?;
        let resamples = Resamples::new(films, SEED);
        let at_tuned = |tuned: &'a Tuned| {
            let thresholds = answering.tuned_thresholds(tuned);
            AtTuned {
                scores: answers.scores(&thresholds),
                estimates: resamples.estimates(answers.figures(&thresholds)),
                untuned: answers.scores(&metadata.thresholds),
                is_on_these: is_tuned_on(tuned),
                thresholds,
                tuned,
            }
        };
        let genres = metadata.genres.len();
        let mut calibration = vec![Calibration::new(plain, genres, 1.0, &resamples)];
        if let Some(tuned) = &metadata.tuned {
            let calibrated = plain.at_temperature(device, tuned.temperature)?;
            calibration.push(Calibration::new(&calibrated, genres, tuned.temperature, &resamples));
        }
        let figures = answers.figures(&rule.thresholds);
        let against = against.map(|(path, others, thresholds)| Against {
            path,
            differences: resamples.differences(&figures, others.figures(&thresholds)),
        });
        Ok(Results {
            scores: answers.scores(&rule.thresholds),
            estimates: resamples.estimates(&figures),
            films: resamples.films(),
            tuned: metadata.tuned.as_ref().map(at_tuned),
            calibration,
            co_occurrence: (genres <= MOST_TOGETHER).then(|| answers.scorer(&rule.thresholds).co_occurrence()),
            against,
            asked,
        })
    }

    /// The names of the genres.
    pub fn genres(&self) -> &'a [String] {
        &self.asked.metadata.genres
    }

    /// The mean cross-entropy of the answers as they are decided.
    pub fn loss(&self) -> f64 {
        let loss = self.estimates.iter().find(|estimate| estimate.figure.name == "loss");
        loss.and_then(|estimate| estimate.figure.value).unwrap_or_default()
    }
}

impl Calibration {
    fn new(answers: &Answers, genres: usize, temperature: f64, resamples: &Resamples) -> Self {
        let Answers { logits, probabilities, targets, .. } = answers;
        Calibration {
            temperature,
            reliability: Reliability::new(probabilities.iter().zip(targets)),
            genre_by_genre: genre_by_genre(probabilities, targets, genres),
            loss: cross_entropy(logits, targets, 1.0),
            estimates: resamples.estimates(calibration::errors(probabilities, targets, genres)),
        }
    }

    /// All genres in one table.
    pub fn error(&self) -> f64 {
        self.reliability.expected_calibration_error()
    }

    /// Of the error of all genres together; over [`Over::Macro`], of the mean over genres.
    pub fn interval(&self, over: Over) -> Option<Interval> {
        interval(&self.estimates, over, calibration::ERROR)
    }
}

/// What a figure is of, in one word, and the genre if it is one.
pub fn over(over: Over, genres: &[String]) -> (&'static str, Option<&str>) {
    match over {
        Over::Genre(number) => ("genre", Some(&genres[number])),
        Over::Weighted => ("weighted", None),
        Over::Macro => ("macro", None),
        Over::All => ("all", None),
    }
}
