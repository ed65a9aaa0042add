//! How a model answers, for the tools that ask it: at which thresholds, calibrated or not, and about mirror images as well.

pub mod answers;
pub mod asking;

use crate::exit::Usage;
use clap::Args as ClapArgs;
use onesheet::files::quoted;
use onesheet::training::checkpoint::Metadata;
use onesheet::training::evaluation::View;
use onesheet::training::tuning::Tuned;
use std::path::Path;
use std::str::FromStr;

/// Options of `infer`, `serve` and `evaluate`.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub struct Answering {
    /// From which probability on a genre is named: a number for all genres, or `tuned` for those that were tuned on validation posters
    /// and lie in the model's file [default: the model's, 0.3 unless it was trained with another]
    #[arg(long, value_name = "P|tuned")]
    thresholds: Option<Thresholds>,
    /// Divide logits by the temperature that was found on validation posters and lies in the model's file
    #[arg(long)]
    pub calibrated: bool,
    /// Ask about each poster's mirror image too, and take the mean of both logits
    #[arg(long)]
    pub mirror: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Thresholds {
    Tuned,
    OfAll(f64),
}

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("tuned", _) => Ok(Thresholds::Tuned),
            (_, Ok(threshold)) if (0.0..=1.0).contains(&threshold) => Ok(Thresholds::OfAll(threshold)),
            _ => Err("neither `tuned` nor a number from 0 to 1, as in 0.3".into()),
        }
    }
}

/// What [`Answering`] comes to for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// One a genre.
    pub thresholds: Vec<f64>,
    /// Whose they are: `model`, `tuned` or `given`.
    pub origin: &'static str,
    /// What logits are divided by; 1 unless the answers are to be calibrated.
    pub temperature: f64,
}

impl Answering {
    /// The rule for the model in the file at `path`.
    ///
    /// # Errors
    /// [`Usage`] if the model was not tuned and has to be.
    pub fn rule(&self, metadata: &Metadata, path: &Path) -> Result<Rule, Usage> {
        let tuned = |what: &str| {
            let untuned = || {
                Usage(format!(
                    "{} has no {what}; find them on validation posters with `onesheet evaluate --run RUN --tune`",
                    quoted(path)
                ))
            };
            metadata.tuned.as_ref().ok_or_else(untuned)
        };
        let temperature = if self.calibrated { tuned("temperature, nor tuned thresholds")?.temperature } else { 1.0 };
        let (thresholds, origin) = match self.thresholds {
            None => (metadata.thresholds.clone(), "model"),
            Some(Thresholds::OfAll(threshold)) => (vec![threshold; metadata.genres.len()], "given"),
            Some(Thresholds::Tuned) => (self.tuned_thresholds(tuned("tuned thresholds")?), "tuned"),
        };
        Ok(Rule { thresholds, origin, temperature })
    }

    /// The tuned thresholds, of calibrated probabilities where these are asked for: in both cases the same genres are named.
    pub fn tuned_thresholds(&self, tuned: &Tuned) -> Vec<f64> {
        if self.calibrated { tuned.calibrated_thresholds() } else { tuned.thresholds.clone() }
    }

    /// How posters are looked at.
    pub fn view(&self) -> View {
        if self.mirror { View::Mirrored } else { View::Plain }
    }
}

impl Rule {
    /// What is done beside the plain answer, for whoever reads it; nothing if nothing is.
    pub fn told(&self, answering: &Answering) -> Option<String> {
        let calibrated =
            answering.calibrated.then(|| format!("calibrated: logits are divided by {:.4}", self.temperature));
        let mirrored = answering
            .mirror
            .then(|| "mirrored: the mean of the logits of each poster and of its mirror image".to_owned());
        let told: Vec<String> = calibrated.into_iter().chain(mirrored).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::training::checkpoint::Progress;
    use onesheet::training::config::RunConfig;

    fn metadata(tuned: Option<Tuned>) -> Metadata {
        Metadata {
            genres: ["War", "Drama"].map(String::from).to_vec(),
            thresholds: vec![0.25, 0.35],
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "drop".into(),
            data_digest: String::new(),
            tuned,
            progress: Progress::default(),
            config: RunConfig::default(),
        }
    }

    #[test]
    fn thresholds_are_the_models_the_tuned_ones_or_the_one_given() {
        let tuned = Tuned { thresholds: vec![0.8, 0.5], temperature: 2.0, posters: 9, data_digest: String::new() };
        let metadata = metadata(Some(tuned));
        let rule = |thresholds: Option<&str>, calibrated| {
            let thresholds = thresholds.map(|text| text.parse().unwrap());
            Answering { thresholds, calibrated, mirror: false }.rule(&metadata, Path::new("m")).unwrap()
        };
        let expected = |thresholds, origin, temperature| Rule { thresholds, origin, temperature };
        assert_eq!(rule(None, false), expected(vec![0.25, 0.35], "model", 1.0));
        assert_eq!(rule(Some("tuned"), false), expected(vec![0.8, 0.5], "tuned", 1.0));
        assert_eq!(rule(Some("0.7"), false), expected(vec![0.7, 0.7], "given", 1.0));
        assert_eq!(rule(Some("0.7"), true), expected(vec![0.7, 0.7], "given", 2.0));
        let calibrated = rule(Some("tuned"), true);
        assert!(
            (calibrated.thresholds[0] - 2.0 / 3.0).abs() <= 1e-12 && calibrated.thresholds[1] == 0.5,
            "{calibrated:?}"
        );
    }

    #[test]
    fn what_an_untuned_model_does_not_have_is_refused_with_what_to_do() {
        for (thresholds, calibrated, lacks) in
            [(Some(Thresholds::Tuned), false, "tuned thresholds"), (None, true, "temperature")]
        {
            let answering = Answering { thresholds, calibrated, mirror: false };
            let Usage(told) = answering.rule(&metadata(None), Path::new("a b.safetensors")).unwrap_err();
            assert!(
                told.starts_with("'a b.safetensors' has no ") && told.contains(lacks) && told.contains("--tune`"),
                "{told}"
            );
        }
        for text in ["", "tune", "-0.1", "1.1", "NaN", "0,3"] {
            assert!(text.parse::<Thresholds>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_done_beside_the_plain_answer_is_told() {
        let rule = Rule { thresholds: vec![], origin: "model", temperature: 1.5 };
        let told = |calibrated, mirror| rule.told(&Answering { thresholds: None, calibrated, mirror });
        assert_eq!(told(false, false), None);
        let (calibrated, mirrored) = (told(true, false).unwrap(), told(false, true).unwrap());
        assert_eq!(calibrated, "calibrated: logits are divided by 1.5000");
        assert_eq!(told(true, true), Some(format!("{calibrated}; {mirrored}")));
    }
}
