//! What `evaluate` prints for people: the scores, and below them a table each for what else is known of them.

use super::results::{Against, AtTuned, Calibration, Results, over};
use onesheet::metrics::bootstrap::{Interval, RESAMPLES, interval};
use onesheet::metrics::calibration::BINS;
use onesheet::metrics::{Averages, CoOccurrence, Over, Scores};
use std::iter::zip;

/// The widest table of genres that come together.
const MOST_TOGETHER: usize = 16;

/// All of it.
pub fn text(results: &Results<'_>) -> String {
    let genres = results.genres();
    let sections = [
        Some(table(genres, &results.scores) + "\n" + &of_all(results)),
        Some(intervals(results)),
        Some(decisions(genres, &results.scores)),
        results.tuned.as_ref().map(|tuned| at_tuned(genres, tuned)),
        Some(calibration(results)),
        results.co_occurrence.as_ref().filter(|_| genres.len() <= MOST_TOGETHER).map(|table| together(genres, table)),
        results.against.as_ref().map(|against| differences(genres, against)),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

/// A number that may not exist.
fn optional(value: Option<f64>) -> String {
    value.map_or("–".into(), number)
}

fn range(interval: Option<Interval>) -> String {
    interval.map_or("–".into(), |Interval { low, high }| format!("{low:.4}–{high:.4}"))
}

/// The bounds of a difference, either of which may be below zero.
fn signed_range(interval: Option<Interval>) -> String {
    interval.map_or("–".into(), |Interval { low, high }| format!("{low:+.4} to {high:+.4}"))
}

/// A table under `title`: names to the left, numbers to the right, a rule below the head and another above the last `means` rows.
fn columns(title: &str, head: &[&str], rows: &[(String, Vec<String>)], means: usize) -> String {
    let wide = |text: &str| text.chars().count();
    let names = rows.iter().map(|(name, _)| wide(name)).max().unwrap_or(0).max(wide(head[0]));
    let width = |column: usize| {
        rows.iter().map(|(_, cells)| wide(&cells[column])).max().unwrap_or(0).max(wide(head[column + 1]))
    };
    let widths: Vec<usize> = (0..head.len() - 1).map(width).collect();
    let line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = zip(cells, &widths).map(|(cell, &width)| format!("  {cell:>width$}"));
        format!("{name:names$}{}", cells.collect::<String>()).trim_end().to_owned() + "\n"
    };
    let rule = "─".repeat(names + widths.iter().map(|width| width + 2).sum::<usize>()) + "\n";
    let mut text = if title.is_empty() { String::new() } else { format!("{title}\n") };
    text += &line(head[0], &mut head[1..].iter().copied());
    text += &rule;
    for (at, (name, cells)) in rows.iter().enumerate() {
        if means > 0 && at + means == rows.len() {
            text += &rule;
        }
        text += &line(name, &mut cells.iter().map(String::as_str));
    }
    text
}

/// One row per genre, then the averages.
fn table(genres: &[String], scores: &Scores) -> String {
    let head = ["genre", "support", "precision", "recall", "F1", "AP", "ROC-AUC", "coin F1", "yes F1"];
    let mut rows = Vec::new();
    for (name, genre) in zip(genres, &scores.genres) {
        let counts = genre.counts;
        let [ap, auc] = [genre.average_precision, genre.roc_auc].map(optional);
        let [precision, recall, f1] = [counts.precision(), counts.recall(), counts.f1()].map(number);
        let [coin, yes] = [counts.coin_f1(), counts.always_yes_f1()].map(number);
        rows.push((name.clone(), vec![counts.support().to_string(), precision, recall, f1, ap, auc, coin, yes]));
    }
    for (name, averages) in [("weighted", &scores.weighted), ("macro", &scores.unweighted)] {
        let Averages { precision, recall, f1, average_precision, roc_auc, coin_f1, always_yes_f1 } = *averages;
        let [precision, recall, f1, coin, yes] = [precision, recall, f1, coin_f1, always_yes_f1].map(number);
        let [ap, auc] = [average_precision, roc_auc].map(optional);
        rows.push((name.into(), vec![String::new(), precision, recall, f1, ap, auc, coin, yes]));
    }
    columns("", &head, &rows, 2)
}

/// What concerns all decisions together.
fn of_all(results: &Results<'_>) -> String {
    let Results { asked, scores, estimates, films, .. } = results;
    let of_all = |name| interval(estimates, Over::All, name);
    let percent = |name| {
        let percent = |value: f64| format!("{:.2}", 100.0 * value);
        of_all(name).map_or(String::new(), |Interval { low, high }| format!("  {}–{}", percent(low), percent(high)))
    };
    let beside = |interval: Option<Interval>| interval.map_or(String::new(), |_| format!("  {}", range(interval)));
    let mut text = match u64::from(*films) == scores.posters {
        true => format!("posters          {}\n", scores.posters),
        false => format!("posters          {} of {}\n", scores.posters, counted(*films)),
    };
    text += &format!("threshold        {}\n", thresholds(&asked.rule.thresholds));
    let loss = results.loss();
    text += &format!("loss             {loss:.4}{}, all genres weighing alike\n", beside(of_all("loss")));
    let map =
        optional(scores.unweighted.average_precision) + &beside(interval(estimates, Over::Macro, "average_precision"));
    text += &format!("mAP              {}\n", left_out(scores, map));
    text += &format!("hamming loss     {:.4}{}\n", scores.hamming_loss, beside(of_all("hamming_loss")));
    text += &format!("exact match      {:.2} %{}\n", 100.0 * scores.exact_match, percent("exact_match"));
    text += &format!("binary accuracy  {:.2} %{}\n", 100.0 * scores.binary_accuracy(), percent("binary_accuracy"));
    let (f1, baseline) = (scores.weighted.f1, scores.weighted.baseline_f1());
    let verdict = if f1 > baseline { "above" } else { "not above" };
    text += &format!("\nweighted F1 {f1:.4} is {verdict} the better baseline, {baseline:.4}\n");
    let margin = of_all("margin");
    let doubt = match margin.is_some_and(|margin| margin.is_clear_of_zero()) {
        true => "clear of 0",
        false => "not clear of 0: other films might turn it round",
    };
    text + &format!("by {:+.4} ({}), {doubt}\n", f1 - baseline, signed_range(margin))
}

fn counted(films: u32) -> String {
    if films == 1 { "1 film".into() } else { format!("{films} films") }
}

/// The mAP, and how many genres it says nothing of.
fn left_out(scores: &Scores, map: String) -> String {
    match scores.genres_without_positives() {
        0 => map,
        1 => format!("{map}; 1 genre has no positives and is left out"),
        absent => format!("{map}; {absent} genres have no positives and are left out"),
    }
}

/// One number where all genres share it, else one per genre.
fn thresholds(thresholds: &[f64]) -> String {
    let of_its_own = if thresholds.iter().all(|threshold| *threshold == thresholds[0]) { 1 } else { thresholds.len() };
    thresholds.iter().take(of_its_own).map(threshold).collect::<Vec<_>>().join(", ")
}

/// A threshold with no more digits than it takes.
fn threshold(threshold: &f64) -> String {
    let short = format!("{threshold:.4}");
    short.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn intervals(results: &Results<'_>) -> String {
    let genres = results.genres();
    let names = ["precision", "recall", "f1", "average_precision", "roc_auc"];
    let row = |of: Over, name: &str| {
        (name.to_owned(), names.map(|score| range(interval(&results.estimates, of, score))).to_vec())
    };
    let of_genres = genres.iter().enumerate().map(|(number, genre)| row(Over::Genre(number), genre));
    let of_means = [row(Over::Weighted, "weighted"), row(Over::Macro, "macro")];
    let rows: Vec<_> = of_genres.chain(of_means).collect();
    let title = format!("95 % intervals, from {RESAMPLES} resamples of {}", counted(results.films));
    columns(&title, &["genre", "precision", "recall", "F1", "AP", "ROC-AUC"], &rows, 2)
}

fn decisions(genres: &[String], scores: &Scores) -> String {
    let row = |(genre, scores): (&String, &onesheet::metrics::GenreScores)| {
        let counts = scores.counts;
        let cells = [counts.true_positives, counts.false_positives, counts.false_negatives, counts.true_negatives];
        (genre.clone(), cells.map(|count| count.to_string()).to_vec())
    };
    let rows: Vec<_> = zip(genres, &scores.genres).map(row).collect();
    columns("decisions", &["genre", "rightly named", "wrongly named", "missed", "rightly not named"], &rows, 0)
}

fn at_tuned(genres: &[String], at: &AtTuned<'_>) -> String {
    let head = ["genre", "threshold", "precision", "recall", "F1", "95 % interval", "F1 untuned", "coin F1", "yes F1"];
    let mut rows = Vec::new();
    for (number, ((name, genre), untuned)) in zip(zip(genres, &at.scores.genres), &at.untuned.genres).enumerate() {
        let counts = genre.counts;
        let [precision, recall, f1, untuned, coin, yes] = [
            counts.precision(),
            counts.recall(),
            counts.f1(),
            untuned.counts.f1(),
            counts.coin_f1(),
            counts.always_yes_f1(),
        ]
        .map(self::number);
        let range = range(interval(&at.estimates, Over::Genre(number), "f1"));
        rows.push((
            name.clone(),
            vec![threshold(&at.thresholds[number]), precision, recall, f1, range, untuned, coin, yes],
        ));
    }
    for (name, of, averages, untuned) in [
        ("weighted", Over::Weighted, &at.scores.weighted, &at.untuned.weighted),
        ("macro", Over::Macro, &at.scores.unweighted, &at.untuned.unweighted),
    ] {
        let [precision, recall, f1, untuned, coin, yes] =
            [averages.precision, averages.recall, averages.f1, untuned.f1, averages.coin_f1, averages.always_yes_f1]
                .map(self::number);
        let range = range(interval(&at.estimates, of, "f1"));
        rows.push((name.into(), vec![String::new(), precision, recall, f1, range, untuned, coin, yes]));
    }
    let those = if at.is_on_these { "; these are among the posters here, so the scores are too good" } else { "" };
    columns(&format!("at thresholds tuned on {} validation posters{those}", at.tuned.posters), &head, &rows, 2)
}

/// The reliability of the answers as they are and, if the model has a temperature, of the calibrated ones.
fn calibration(results: &Results<'_>) -> String {
    let cells = |at: usize| {
        results.calibration.iter().flat_map(move |calibration| {
            let bin = &calibration.reliability.bins[at];
            let (probability, share) = bin.means().unzip();
            [bin.decisions.to_string(), optional(probability), optional(share)]
        })
    };
    let name = |at: usize| format!("{:.1}–{:.1}", at as f64 / BINS as f64, (at + 1) as f64 / BINS as f64);
    let rows: Vec<_> = (0..BINS).map(|at| (name(at), cells(at).collect())).collect();
    let head = ["probability", "decisions", "mean", "true", "calibrated", "mean", "true"];
    let title = match &results.calibration[..] {
        [_, calibrated] => format!("reliability, and at the temperature {:.4}", calibrated.temperature),
        _ => "reliability; the model has no temperature".into(),
    };
    let mut text = columns(&title, &head[..1 + 3 * results.calibration.len()], &rows, 0);
    let before_and_after =
        |told: &dyn Fn(&Calibration) -> String| results.calibration.iter().map(told).collect::<Vec<_>>().join(" → ");
    let with_interval =
        |value: f64, of: &Calibration, over| format!("{} ({})", number(value), range(of.interval(over)));
    text += &format!(
        "calibration error  {}, all genres together\n",
        before_and_after(&|of| with_interval(of.error(), of, Over::All))
    );
    text += &format!(
        "                   {}, mean over genres\n",
        before_and_after(&|of| with_interval(of.genre_by_genre, of, Over::Macro))
    );
    text + &format!("loss               {}\n", before_and_after(&|of| number(of.loss)))
}

fn together(genres: &[String], table: &CoOccurrence) -> String {
    let cell = |(is_true, named): (&u64, &u64)| format!("{is_true}/{named}");
    let row = |(number, genre): (usize, &String)| {
        (genre.clone(), zip(table.true_with(number), table.named_with(number)).map(cell).collect())
    };
    let rows: Vec<_> = genres.iter().enumerate().map(row).collect();
    let head: Vec<&str> = ["genre"].into_iter().chain(genres.iter().map(String::as_str)).collect();
    columns("together: posters of both genres / with both named", &head, &rows, 0)
}

fn differences(genres: &[String], against: &Against) -> String {
    let row = |difference: &onesheet::metrics::bootstrap::Difference| {
        let (over, genre) = over(difference.figure.over, genres);
        let name = format!("{} {}", genre.unwrap_or(over), difference.figure.name.replace('_', " "));
        let clear = match difference.interval {
            Some(interval) if interval.is_clear_of_zero() => "clear of 0",
            _ => "",
        };
        let value = difference.value.map_or("–".into(), |value| format!("{value:+.4}"));
        let cells = [
            optional(difference.figure.value),
            optional(difference.other),
            value,
            signed_range(difference.interval),
            clear.into(),
        ];
        (name, cells.to_vec())
    };
    let rows: Vec<_> = against.differences.iter().map(row).collect();
    let title = format!("against {}, on the same resamples", against.path.display());
    columns(&title, &["score", "this", "other", "difference", "95 % interval", ""], &rows, 0)
}

#[cfg(test)]
mod tests;
