//! Whether of the genres that were given 70 %, seven in ten are true.

use super::Answered;
use super::chart::{Axis, Chart, Colour, Mark, Series};
use super::document::{Section, Table, details, head, optional};
use crate::metrics::calibration::{BINS, Reliability, cross_entropy, genre_by_genre};
use crate::training::evaluation::divided;
use maud::{Markup, html};

/// The answers before or after they are divided by a temperature.
struct Side {
    reliability: Reliability,
    /// The mean over genres of their calibration errors.
    of_genres: f64,
    loss: f64,
}

impl Side {
    fn new(logits: &[f32], probabilities: &[f32], targets: &[u8], genres: usize) -> Self {
        Side {
            reliability: Reliability::new(probabilities.iter().zip(targets)),
            of_genres: genre_by_genre(probabilities, targets, genres),
            loss: cross_entropy(logits, targets, 1.0),
        }
    }

    fn error(&self) -> f64 {
        self.reliability.expected_calibration_error()
    }

    fn points(&self) -> Vec<(f64, f64)> {
        self.reliability.bins.iter().filter_map(|bin| bin.means()).collect()
    }
}

pub fn section(answered: &Answered<'_>) -> Section {
    let answers = &answered.kept.answers;
    let (genres, temperature) = (answered.genres().len(), answered.tuned.temperature);
    let logits = divided(&answers.logits, temperature);
    let calibrated: Vec<f32> = logits.iter().map(|&z| (1.0 / (1.0 + (-f64::from(z)).exp())) as f32).collect();
    let plain = Side::new(&answers.logits, &answers.probabilities, &answers.targets, genres);
    let after = Side::new(&logits, &calibrated, &answers.targets, genres);
    let series = |name: &str, colour, mark, points| Series { name: name.to_owned(), colour, mark, points };
    let chart = Chart {
        title: "Reliability: what was promised, and what is true",
        told: format!(
            "On the diagonal promises are kept. The expected calibration error is {:.4}, and {:.4} at the temperature {temperature:.4}. The table \
             below has the points.",
            plain.error(),
            after.error()
        ),
        x: Axis::share("mean probability"),
        y: Axis::share("share that is true"),
        size: (390, 340),
        series: vec![
            series("promises kept", Colour::Quiet, Mark::None, vec![(0.0, 0.0), (1.0, 1.0)]),
            series("at the temperature", Colour::Series(1), Mark::Square, after.points()),
            series("as the model answers", Colour::Series(0), Mark::Circle, plain.points()),
        ],
        place: None,
    };
    let body = html! {
        p {
            "A decision for each genre and poster, in ten ranges of the probability. The expected calibration error (ECE) is the mean distance of the \
             points from the diagonal, weighed by decisions. The temperature that divides the logits is the one with the lowest cross-entropy on these \
             very posters."
        }
        div.pair {
            (chart.figure())
            (summary(&plain, &after, temperature))
        }
        (details("The ten ranges", &bins(&plain, &after)))
    };
    Section { id: "calibration".into(), title: "Calibration".into(), body }
}

fn summary(plain: &Side, after: &Side, temperature: f64) -> Markup {
    let row = |name: &str, value: fn(&Side) -> f64| {
        (html! { (name) }, [plain, after].map(|side| html! { (format!("{:.4}", value(side))) }).to_vec())
    };
    let head = ["".to_owned(), "as the model answers".into(), format!("at temperature {temperature:.4}")];
    let rows = vec![
        row("ECE, all genres together", Side::error),
        row("ECE, mean over genres", |side| side.of_genres),
        row("cross-entropy", |side| side.loss),
    ];
    let head = [vec!["measure".to_owned()], head[1..].to_vec()].concat();
    Table { caption: "Calibration on the validation posters", head: &head, rows, totals: 0 }.markup()
}

fn bins(plain: &Side, after: &Side) -> Markup {
    let row = |at: usize| {
        let cells = [plain, after].into_iter().flat_map(|side| {
            let bin = &side.reliability.bins[at];
            let (probability, share) = bin.means().unzip();
            [html! { (bin.decisions) }, optional(probability), optional(share)]
        });
        let name = format!("{:.1}–{:.1}", at as f64 / BINS as f64, (at + 1) as f64 / BINS as f64);
        (html! { (name) }, cells.collect())
    };
    let head = head([
        "probability",
        "decisions",
        "mean",
        "true",
        "decisions, calibrated",
        "mean, calibrated",
        "true, calibrated",
    ]);
    let caption = "Ranges of the probability: decisions in it, their mean probability, and the share that is true";
    Table { caption, head: &head, rows: (0..BINS).map(row).collect(), totals: 0 }.markup()
}
