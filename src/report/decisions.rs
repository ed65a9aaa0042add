//! Which decisions are right, genre by genre, and which genres come together.

use super::Answered;
use super::document::{Section, Table, head};
use crate::metrics::{CoOccurrence, ConfusionCounts};
use maud::{Markup, html};
use std::iter::zip;

/// The widest table of genres that come together.
const MOST_TOGETHER: usize = 40;

pub fn section(answered: &Answered<'_>) -> Section {
    let genres = answered.genres();
    let counts = zip(genres, &answered.scores.genres).map(|(name, genre)| (html! { (name) }, cells(&genre.counts)));
    let confusion = Table {
        caption: "Decisions at the model's thresholds, and the share of each kind among the posters",
        head: &head(["genre", "rightly named", "wrongly named", "missed", "rightly not named"]),
        rows: counts.collect(),
        totals: 0,
    };
    let body = html! {
        (confusion.markup())
        @if genres.len() <= MOST_TOGETHER { (together(genres, &answered.scorer.co_occurrence())) }
    };
    Section { id: "decisions".into(), title: "Decisions".into(), body }
}

fn cells(counts: &ConfusionCounts) -> Vec<Markup> {
    let ConfusionCounts { true_negatives, false_positives, false_negatives, true_positives } = *counts;
    let posters = counts.posters().max(1) as f64;
    [(true_positives, "right"), (false_positives, "wrong"), (false_negatives, "wrong"), (true_negatives, "right")]
        .map(|(count, kind)| tinted(&html! { (count) }, count as f64 / posters, kind))
        .to_vec()
}

/// A cell with a bar behind its content, as long as the share.
fn tinted(content: &Markup, share: f64, kind: &str) -> Markup {
    html! { span.tint data-kind=(kind) style=(format!("--share:{share:.3}")) { (content) } }
}

fn together(genres: &[String], table: &CoOccurrence) -> Markup {
    let row = |(number, name): (usize, &String)| {
        let (is_true, named) = (table.true_with(number), table.named_with(number));
        let own = is_true[number].max(1) as f64;
        let cell = |(at, (&is_true, &named)): (usize, (&u64, &u64))| {
            let share = if at == number { 0.0 } else { is_true as f64 / own };
            tinted(&html! { (is_true) " / " (named) }, share.min(1.0), "right")
        };
        (html! { (name) }, zip(is_true, named).enumerate().map(cell).collect())
    };
    let head: Vec<String> = ["genre".to_owned()].into_iter().chain(genres.iter().cloned()).collect();
    let table = Table {
        caption: "Posters that are of both genres / posters for which both are named",
        head: &head,
        rows: genres.iter().enumerate().map(row).collect(),
        totals: 0,
    };
    html! {
        h3 { "Genres that come together" }
        p {
            "A model that learned which genres go together names two together about as often as they are. Each genre with itself holds its posters; \
             the bars are shares of these."
        }
        (table.markup())
    }
}
