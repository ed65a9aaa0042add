//! The page of a run: one HTML file to look at, made of what is in the run's folder and of the posters.
//!
//! It holds everything that it shows: style, script, drawings, posters, and the answers about the validation posters, so that
//! thresholds can be tried out in it. No network is asked for anything. [`document`] is the frame, [`chart`] draws, and each other part
//! is a section of the page.

mod calibration;
pub mod chart;
mod cost;
mod curves;
mod decisions;
pub mod document;
mod gallery;
mod genres;
mod settings;
mod thresholds;

pub use cost::write_plan;

use crate::data::tensor_file::TensorFile;
use crate::files::{Disk, replace};
use crate::metrics::{Scorer, Scores};
use crate::training::TrainingError;
use crate::training::config::RunConfig;
use crate::training::run_folder::{
    EpochRow, KeptAnswers, RunFolderError, best_checkpoint, epochs_of, report_file, settings_of,
};
use crate::training::tuning::Tuned;
use document::percent;
use maud::{Markup, html};
use std::path::Path;

/// Writes the page of the run in the folder `run`, trained on `posters`.
///
/// # Errors
/// The run folder's, the posters', and [`TrainingError::OtherPosters`] where these are not what the answers are about; what the page was
/// before is then still there.
pub fn write(run: &Path, posters: &TensorFile) -> Result<(), TrainingError> {
    let page = page(run, KeptAnswers::read(run)?.as_ref(), posters)?;
    Ok(replace(&Disk, &report_file(run), page.as_bytes()).map_err(RunFolderError::from)?)
}

/// The page of the run in the folder `run`, trained on `posters`, with the answers of its best model about the validation posters, if
/// somebody has them.
///
/// # Errors
/// As for [`write()`].
pub fn page(run: &Path, kept: Option<&KeptAnswers>, posters: &TensorFile) -> Result<String, TrainingError> {
    let config = settings_of(run)?;
    let epochs = epochs_of(run)?;
    let best = best_of(&epochs);
    if kept.is_some_and(|kept| !is_about(kept, posters)) {
        return Err(TrainingError::OtherPosters { posters: posters.path().into(), checkpoint: best_checkpoint(run) });
    }
    let answered = kept.map(Answered::new);
    let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy();

    let mut sections = Vec::new();
    sections.extend(curves::section(&epochs));
    if let Some(answered) = &answered {
        sections.push(genres::section(answered));
        sections.push(thresholds::section(answered));
        sections.push(decisions::section(answered));
        sections.push(calibration::section(answered));
        sections.push(gallery::section(answered, posters)?);
    }
    sections.extend(cost::section(run)?);
    sections.extend(settings::sections(&config, posters));
    let opening = opening(&name, &config, &epochs, best, answered.as_ref());
    let data = answered.as_ref().map(Answered::data);
    Ok(document::document(&format!("{name} – Onesheet"), &opening, &sections, data.as_ref()))
}

/// The first of the epochs with the highest validation mAP: the one that the best checkpoint is of.
pub fn best_of(epochs: &[EpochRow]) -> Option<&EpochRow> {
    epochs.iter().rev().max_by(|a, b| a.mean_average_precision.total_cmp(&b.mean_average_precision))
}

/// Whether the answers are about these posters.
fn is_about(kept: &KeptAnswers, posters: &TensorFile) -> bool {
    let KeptAnswers { about, posters: places, .. } = kept;
    let are_there = || places.iter().all(|&place| (place as usize) < posters.len());
    about.data_digest == posters.digest() && about.genres == posters.genres() && are_there()
}

/// The answers, and what is computed of them for several sections.
struct Answered<'a> {
    kept: &'a KeptAnswers,
    scorer: Scorer,
    /// At the model's own thresholds.
    scores: Scores,
    tuned: Tuned,
}

impl<'a> Answered<'a> {
    fn new(kept: &'a KeptAnswers) -> Self {
        let KeptAnswers { about, answers, .. } = kept;
        let scorer = answers.scorer(&about.thresholds);
        let scores = scorer.scores(&vec![1; scorer.posters()]);
        Answered { kept, scorer, scores, tuned: Tuned::new(answers, &about.thresholds, &about.data_digest) }
    }

    fn genres(&self) -> &'a [String] {
        &self.kept.about.genres
    }

    /// What was said of a genre of each poster, and whether it is true.
    fn of_genre(&self, genre: usize) -> impl Iterator<Item = (f32, bool)> + Clone + use<'a> {
        let (answers, genres) = (&self.kept.answers, self.genres().len());
        let both = answers.probabilities.iter().zip(&answers.targets).skip(genre).step_by(genres);
        both.map(|(&probability, &target)| (probability, target != 0))
    }

    /// What the page's script has of it.
    fn data(&self) -> Data<'_> {
        Data {
            genres: self.genres(),
            thresholds: &self.kept.about.thresholds,
            tuned: &self.tuned.thresholds,
            probabilities: &self.kept.answers.probabilities,
            targets: &self.kept.answers.targets,
        }
    }
}

/// The answers as the page's script has them, N posters in rows of C genres.
#[derive(serde::Serialize)]
struct Data<'a> {
    genres: &'a [String],
    thresholds: &'a [f64],
    tuned: &'a [f64],
    probabilities: &'a [f32],
    targets: &'a [u8],
}

/// What the page begins with: what the run is, how far it has come and how good its best epoch is.
fn opening(
    name: &str,
    config: &RunConfig,
    epochs: &[EpochRow],
    best: Option<&EpochRow>,
    answered: Option<&Answered<'_>>,
) -> Markup {
    let seconds: f64 = epochs.iter().map(|row| row.seconds).sum();
    let minutes = (seconds / 60.0).round() as u64;
    let time = match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds:.0} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    };
    let figure = |value: String, what: &str, beside: String| {
        html! { div { dt { (what) } dd { strong { (value) } span { (beside) } } } }
    };
    html! {
        h1 { (name) }
        p.lede {
            (config.network.title)
            @if let Some(experiment) = config.experiment { ", " (experiment.name()) }
            ", " (epochs.len()) " of " (config.epochs) " epochs in " (time) ". "
            @match best {
                None => { "No epoch is done yet." }
                Some(best) => { (verdict(best)) }
            }
        }
        @if let Some(best) = best {
            dl.figures {
                (figure(best.epoch.to_string(), "Best epoch", format!("of {} so far", epochs.len())))
                (figure(format!("{:.4}", best.mean_average_precision), "Validation mAP", "mean over genres".into()))
                (figure(
                    format!("{:.4}", best.weighted_f1),
                    "Weighted F1",
                    format!("coin {:.4}, always yes {:.4}", best.coin_f1, best.always_yes_f1),
                ))
                (figure(
                    format!("{:.4}", best.validation_loss),
                    "Validation loss",
                    format!("training loss {:.4}", best.train_loss),
                ))
                @if let Some(answered) = answered {
                    (figure(
                        percent(answered.scores.exact_match),
                        "Exact match",
                        format!("of {} validation posters", answered.scores.posters),
                    ))
                }
            }
        }
        @if best.is_some() && answered.is_none() {
            p.note {
                "This folder has no answers of the best model, so its genres are not looked at here. "
                code { "onesheet report --run" } " asks the best checkpoint and writes them."
            }
        }
    }
}

/// The best epoch beside the two answers that have learned nothing.
fn verdict(best: &EpochRow) -> &'static str {
    match best.weighted_f1 > best.coin_f1.max(best.always_yes_f1) {
        true => "The best epoch beats both the fair coin and always-yes.",
        false => {
            "The best epoch does not beat both the fair coin and always-yes: so far the network has learned nothing to use."
        }
    }
}
