//! What is said of a poster: its genres, the most probable first, and which of them are listed and drawn.

use super::{Answering, Rule};
use crate::console::put_path;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The version of what is said of a poster in JSON.
const SCHEMA: u32 = 1;

/// What is said of a genre.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered<'a> {
    /// Its place among the model's genres.
    pub place: usize,
    pub genre: &'a str,
    pub probability: f32,
    threshold: f64,
    /// Where it is drawn on what the model sees it, if it is.
    pub picture: Option<PathBuf>,
}

impl Answered<'_> {
    /// Whether the genre's probability is its threshold or more.
    pub fn is_named(&self) -> bool {
        self.probability >= self.threshold as f32
    }
}

/// The genres of a poster, the most probable first.
pub fn ranked<'a>(genres: &'a [String], thresholds: &[f64], row: &[f32]) -> Vec<Answered<'a>> {
    let answers = genres.iter().zip(row).zip(thresholds).enumerate();
    let mut ranked: Vec<Answered<'a>> = answers
        .map(|(place, ((genre, &probability), &threshold))| Answered {
            place,
            genre,
            probability,
            threshold,
            picture: None,
        })
        .collect();
    ranked.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    ranked
}

/// Which genres of a poster are told: the `top` most probable ones, or all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    pub top: Option<usize>,
}

impl Listed {
    /// Those of `ranked` that are told.
    pub fn of<'a, 'b>(self, ranked: &'b [Answered<'a>]) -> &'b [Answered<'a>] {
        &ranked[..self.top.unwrap_or(ranked.len()).min(ranked.len())]
    }

    /// Whether what the model sees of a genre is drawn, where drawings are asked for: of so many most probable ones each that is listed,
    /// else each that is named.
    pub fn is_drawn(self, rank: usize, answered: &Answered<'_>) -> bool {
        self.top.map_or_else(|| answered.is_named(), |top| rank < top)
    }
}

/// A probability with as many digits as an f32 has.
pub fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 1e7).round() / 1e7
}

/// What is said of a poster, without its name, as a JSON object.
pub fn object(genres: &[Answered<'_>], device: &str, answering: &Answering, rule: &Rule) -> Value {
    let genres: Vec<_> = genres
        .iter()
        .map(|answered| {
            let mut genre = json!({
                "genre": answered.genre, "probability": rounded(answered.probability), "threshold": answered.threshold,
                "named": answered.is_named(),
            });
            if let Some(picture) = &answered.picture {
                put_path(&mut genre, "picture", picture);
            }
            genre
        })
        .collect();
    json!({
        "schema": SCHEMA, "kind": "poster", "device": device, "thresholds": rule.origin, "calibrated": answering.calibrated,
        "temperature": rule.temperature, "mirror": answering.mirror, "genres": genres,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second genre has its threshold exactly, and is named; the third is just below its own. Of equals, the first in the
    /// model's order comes first.
    #[test]
    fn genres_are_ranked_and_named_from_their_thresholds_on() {
        let names = ["Western", "Drama", "Film noir", "War"].map(String::from);
        let thresholds = [0.5, f64::from(0.3f32), f64::from(0.3f32.next_up()), 0.9];
        let ranked = ranked(&names, &thresholds, &[0.125, 0.3, 0.3, 0.95]);
        let found: Vec<_> =
            ranked.iter().map(|answered| (answered.genre, answered.probability, answered.is_named())).collect();
        assert_eq!(
            found,
            [("War", 0.95, true), ("Drama", 0.3, true), ("Film noir", 0.3, false), ("Western", 0.125, false)]
        );
    }

    #[test]
    fn so_many_are_listed_and_drawn_as_are_asked_for_and_else_the_named_ones_are_drawn() {
        let names = ["Western", "Drama", "War"].map(String::from);
        let ranked = ranked(&names, &[0.5, 0.3, 0.9], &[0.1, 0.4, 0.8]);
        let found = |top| {
            let listed = Listed { top };
            let drawn = ranked.iter().enumerate().filter(|(rank, answered)| listed.is_drawn(*rank, answered));
            (listed.of(&ranked).len(), drawn.map(|(_, answered)| answered.genre).collect::<Vec<_>>())
        };
        assert_eq!(found(None), (3, vec!["Drama"]));
        assert_eq!(found(Some(1)), (1, vec!["War"]));
        assert_eq!(found(Some(9)), (3, vec!["War", "Drama", "Western"]));
    }
}
