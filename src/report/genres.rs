//! How well each genre is found: its F1 and average precision beside what two rules score, and its precision–recall curve.

use super::Answered;
use super::chart::{Axis, Chart, Colour, Mark, Series, axes, bar, figure, line, mark, name, svg};
use super::document::{Section, Table, head, optional, percent};
use crate::metrics::{Averages, GenreScores, precision_recall};
use maud::{Markup, html};
use std::iter::zip;

/// Points of a curve. More of them lie between neighbouring pixels.
const POINTS: usize = 200;

pub fn section(answered: &Answered<'_>) -> Section {
    let curves = answered.genres().iter().enumerate().map(|(genre, name)| curve(answered, genre, name));
    let body = html! {
        p {
            "Validation posters, epoch " (answered.kept.about.epoch) ". The fair coin names a genre of every second poster, always-yes of every one; \
             neither looks at a poster. What a genre's bars reach beyond their marks was learned."
        }
        div.pair {
            (bars(answered))
            (numbers(answered))
        }
        h3 { "Precision and recall at every threshold" }
        p {
            "The area under a curve is the genre's average precision (AP). The line across is the share of posters that are of the genre: the \
             precision of naming posters at random. ● is where the model decides, at its own threshold."
        }
        div.many { @for curve in curves { (curve) } }
    };
    Section { id: "genres".into(), title: "Genre by genre".into(), body }
}

/// F1 and average precision of each genre.
fn bars(answered: &Answered<'_>) -> Markup {
    let rows: Vec<(&String, &GenreScores)> = zip(answered.genres(), &answered.scores.genres).collect();
    let told: Vec<String> = rows
        .iter()
        .map(|(name, GenreScores { counts, average_precision, .. })| {
            let ap = average_precision.map_or("none".into(), |ap| format!("{ap:.2}"));
            let [f1, coin, yes] = [counts.f1(), counts.coin_f1(), counts.always_yes_f1()];
            format!("{name}: F1 {f1:.2}, coin {coin:.2}, always yes {yes:.2}, AP {ap}.")
        })
        .collect();
    let title = "F1 and average precision by genre";
    let high = rows.len() as f64;
    let size = (400, 38 * rows.len() as u32 + 56);
    let drawing = svg(title, &told.join(" "), size, |root| {
        let x = Axis::share("score");
        let mut chart = axes(root, &x, &Axis { name: "", range: 0.0..high, ticks: Vec::new() }, 104);
        for (at, &(genre, GenreScores { counts, average_precision, .. })) in rows.iter().rev().enumerate() {
            let middle = at as f64 + 0.5;
            name(root, &chart, (0.0, middle), genre);
            bar(&mut chart, (0.0, middle + 0.02), (counts.f1(), middle + 0.38), Colour::Series(0));
            bar(
                &mut chart,
                (0.0, middle - 0.38),
                (average_precision.unwrap_or_default(), middle - 0.02),
                Colour::Series(1),
            );
            for (score, kind) in [(counts.coin_f1(), Mark::Circle), (counts.always_yes_f1(), Mark::Cross)] {
                mark(&mut chart, (score, middle + 0.2), Colour::Ink, kind);
            }
            let share = counts.share();
            line(&mut chart, vec![(share, middle - 0.42), (share, middle)], Colour::Ink.stroke());
        }
    });
    let legend = [
        (Colour::Series(0), Mark::Square, "F1"),
        (Colour::Ink, Mark::Circle, "the fair coin's F1"),
        (Colour::Ink, Mark::Cross, "always-yes's F1"),
        (Colour::Series(1), Mark::Square, "average precision (AP)"),
        (Colour::Ink, Mark::None, "AP of any order of the posters: the share that is of the genre"),
    ];
    figure(title, &drawing, &legend)
}

/// The same in numbers.
fn numbers(answered: &Answered<'_>) -> Markup {
    let row = |(name, genre): (&String, &GenreScores)| {
        let GenreScores { counts, average_precision, roc_auc } = *genre;
        let baselines = [counts.f1(), counts.coin_f1(), counts.always_yes_f1()].map(Some);
        let scores = baselines.into_iter().chain([average_precision, Some(counts.share()), roc_auc]);
        (html! { (name) }, scores.map(optional).collect::<Vec<_>>())
    };
    let mean = |name: &str, mean: &Averages| {
        let f1 = [mean.f1, mean.coin_f1, mean.always_yes_f1].map(Some);
        let scores = f1.into_iter().chain([mean.average_precision, None, mean.roc_auc]);
        (html! { (name) }, scores.map(optional).collect())
    };
    let mut rows: Vec<_> = zip(answered.genres(), &answered.scores.genres).map(row).collect();
    rows.push(mean("weighted mean", &answered.scores.weighted));
    rows.push(mean("plain mean", &answered.scores.unweighted));
    let head = head(["genre", "F1", "coin F1", "yes F1", "AP", "share", "ROC-AUC"]);
    Table { caption: "Scores of each genre at the model's thresholds", head: &head, rows, totals: 2 }.markup()
}

/// The curve of one genre.
fn curve(answered: &Answered<'_>, genre: usize, name: &str) -> Markup {
    let GenreScores { counts, average_precision, .. } = answered.scores.genres[genre];
    let title = match average_precision {
        Some(ap) => format!("{name}: AP {ap:.3}"),
        None => format!("{name}: no validation poster is of it"),
    };
    let points = thinned(precision_recall(answered.of_genre(genre)));
    let share = counts.share();
    let here = (counts.recall(), counts.precision());
    let told = format!(
        "{} of the posters are of the genre. At the model's threshold the precision is {:.2} and the recall {:.2}.",
        percent(share),
        here.1,
        here.0
    );
    let series = |colour, mark, points| Series { name: String::new(), colour, mark, points };
    let mut curves = vec![
        series(Colour::Quiet, Mark::None, vec![(0.0, share), (1.0, share)]),
        series(Colour::Series(0), Mark::Line, points),
    ];
    if counts.support() > 0 {
        curves.push(series(Colour::Series(1), Mark::Circle, vec![here]));
    }
    let axis = |name| Axis { name, range: 0.0..1.0, ticks: vec![0.0, 0.5, 1.0] };
    let (x, y) = (axis("recall"), axis("precision"));
    let chart = Chart { title: &title, told, x, y, size: (260, 220), series: curves, place: None };
    html! { figure { figcaption { (title) } (chart.drawing()) } }
}

/// At most so many of the points, the first and the last among them.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.last().copied();
    let mut kept: Vec<_> = points.into_iter().step_by(every).collect();
    kept.extend(last);
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends() {
        for count in [0, 1, 2, 199, 200, 201, 1000, 1001] {
            let points: Vec<_> = (0..count).map(|at| (f64::from(at), 0.5)).collect();
            let kept = thinned(points.clone());
            assert!(kept.len() <= POINTS + 1 && kept.len() >= points.len().min(POINTS / 2), "{count}: {}", kept.len());
            assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        }
    }
}
