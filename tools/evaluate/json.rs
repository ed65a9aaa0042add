//! What `evaluate` says as JSON, one object a line.

use super::results::{AtTuned, Calibration, Results, over};
use onesheet::metrics::bootstrap::{Difference, Estimate, Interval, RESAMPLES};
use onesheet::metrics::calibration::BINS;
use onesheet::metrics::{GenreScores, Over, Scores};
use serde_json::{Map, Value, json};

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// Every number. First a line a genre, last what concerns all decisions together.
pub fn lines(results: &Results<'_>) -> String {
    let (rule, estimates) = (&results.asked.rule, &results.estimates);
    let mut lines = scores("", results.genres(), &rule.thresholds, &results.scores, estimates);
    if let Some(tuned) = &results.tuned {
        let AtTuned { thresholds, scores: at_tuned, estimates, .. } = tuned;
        lines.extend(scores("tuned_", results.genres(), thresholds, at_tuned, estimates));
        lines.push(json!({
            "schema": SCHEMA, "kind": "tuned_all", "tuned_on": tuned.tuned.posters, "is_on_these": tuned.is_on_these,
            "hamming_loss": at_tuned.hamming_loss, "exact_match": at_tuned.exact_match,
            "binary_accuracy": at_tuned.binary_accuracy(), "margin": margin(at_tuned), "intervals": intervals(estimates, Over::All),
        }));
    }
    lines.extend(results.calibration.iter().map(calibration));
    if let Some(table) = &results.co_occurrence {
        let named = |counts: &[u64]| -> Map<String, Value> {
            results.genres().iter().zip(counts).map(|(genre, &count)| (genre.clone(), count.into())).collect()
        };
        lines.extend(results.genres().iter().enumerate().map(|(number, genre)| {
            json!({
                "schema": SCHEMA, "kind": "co_occurrence", "genre": genre, "true_with": named(table.true_with(number)),
                "named_with": named(table.named_with(number)),
            })
        }));
    }
    if let Some(against) = &results.against {
        let path = against.path.to_string_lossy();
        lines.extend(against.differences.iter().map(|difference| difference_of(results.genres(), &path, difference)));
    }
    lines.push(all(results));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn scores(kind: &str, genres: &[String], thresholds: &[f64], scores: &Scores, estimates: &[Estimate]) -> Vec<Value> {
    let genre = |(number, genre): (usize, &GenreScores)| {
        let counts = genre.counts;
        json!({
            "schema": SCHEMA, "kind": format!("{kind}genre"), "genre": genres[number], "threshold": thresholds[number],
            "support": counts.support(), "counts": counts, "precision": counts.precision(), "recall": counts.recall(),
            "f1": counts.f1(), "average_precision": genre.average_precision, "roc_auc": genre.roc_auc,
            "coin_f1": counts.coin_f1(), "always_yes_f1": counts.always_yes_f1(),
            "intervals": intervals(estimates, Over::Genre(number)),
        })
    };
    let average = |(name, over, averages)| {
        json!({
            "schema": SCHEMA, "kind": format!("{kind}average"), "over": name, "scores": averages,
            "intervals": intervals(estimates, over),
        })
    };
    let averages =
        [("weighted", Over::Weighted, &scores.weighted), ("macro", Over::Macro, &scores.unweighted)].into_iter();
    scores.genres.iter().enumerate().map(genre).chain(averages.map(average)).collect()
}

fn bounds(interval: Option<Interval>) -> Value {
    interval.map_or(Value::Null, |interval| json!([interval.low, interval.high]))
}

/// The intervals of what is of one thing, by name.
fn intervals(estimates: &[Estimate], over: Over) -> Map<String, Value> {
    let of_it = estimates.iter().filter(|estimate| estimate.figure.over == over);
    of_it.map(|estimate| (estimate.figure.name.to_owned(), bounds(estimate.interval))).collect()
}

fn margin(scores: &Scores) -> f64 {
    scores.weighted.f1 - scores.weighted.baseline_f1()
}

fn calibration(calibration: &Calibration) -> Value {
    let bins = calibration.reliability.bins.iter().enumerate().map(|(at, bin)| {
        let (probability, share) = bin.means().unzip();
        json!({
            "from": at as f64 / BINS as f64, "to": (at + 1) as f64 / BINS as f64, "decisions": bin.decisions,
            "mean_probability": probability, "share_true": share,
        })
    });
    json!({
        "schema": SCHEMA, "kind": "calibration", "temperature": calibration.temperature,
        "expected_calibration_error": calibration.error(), "mean_of_genres": calibration.genre_by_genre,
        "intervals": {
            "expected_calibration_error": bounds(calibration.interval(Over::All)),
            "mean_of_genres": bounds(calibration.interval(Over::Macro)),
        },
        "loss": calibration.loss, "bins": bins.collect::<Vec<_>>(),
    })
}

fn difference_of(genres: &[String], path: &str, difference: &Difference) -> Value {
    let (over, genre) = over(difference.figure.over, genres);
    json!({
        "schema": SCHEMA, "kind": "difference", "against": path, "over": over, "genre": genre, "score": difference.figure.name,
        "value": difference.figure.value, "other": difference.other, "difference": difference.value,
        "interval": bounds(difference.interval),
        "clear_of_zero": difference.interval.is_some_and(|interval| interval.is_clear_of_zero()),
    })
}

fn all(results: &Results<'_>) -> Value {
    let Results { asked, scores, estimates, films, .. } = results;
    json!({
        "schema": SCHEMA, "kind": "all", "device": asked.device, "posters": scores.posters, "films": films,
        "resamples": RESAMPLES, "thresholds": asked.rule.origin, "calibrated": asked.answering.calibrated,
        "temperature": asked.rule.temperature, "mirror": asked.answering.mirror, "loss": results.loss(),
        "map": scores.unweighted.average_precision, "genres_without_positives": scores.genres_without_positives(),
        "hamming_loss": scores.hamming_loss, "exact_match": scores.exact_match, "binary_accuracy": scores.binary_accuracy(),
        "margin": margin(scores), "intervals": intervals(estimates, Over::All),
    })
}
