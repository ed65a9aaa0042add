//! What `evaluate` says as CSV: one number a row, named by what it is and what it is of.

use super::results::{Results, over};
use onesheet::metrics::bootstrap::{Estimate, Interval};
use onesheet::metrics::{Averages, ConfusionCounts, Over, Scores};

/// The columns. `value` is the number; `low` and `high` bound its interval. Of a difference, `value` is this model's minus the `other`'s.
const HEAD: [&str; 8] = ["kind", "over", "genre", "score", "value", "low", "high", "other"];

struct Rows<'a> {
    genres: &'a [String],
    rows: Vec<[String; 8]>,
}

impl Rows<'_> {
    fn add(&mut self, kind: &str, of: Over, score: &str, value: Option<f64>) {
        self.add_with(kind, of, score, value, None, None);
    }

    fn add_with(
        &mut self,
        kind: &str,
        of: Over,
        score: &str,
        value: Option<f64>,
        interval: Option<Interval>,
        other: Option<f64>,
    ) {
        let (over, genre) = over(of, self.genres);
        let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let [low, high] = [interval.map(|interval| interval.low), interval.map(|interval| interval.high)].map(number);
        let genre = genre.unwrap_or_default();
        let [kind, over, genre, score] = [kind, over, genre, score].map(String::from);
        self.rows.push([kind, over, genre, score, number(value), low, high, number(other)]);
    }

    /// Scores with their intervals, thresholds, counts and baselines; `kind` is in front of the kinds of these rows.
    fn scores(&mut self, kind: &str, thresholds: &[f64], scores: &Scores, estimates: &[Estimate]) {
        for Estimate { figure, interval } in estimates {
            self.add_with(&format!("{kind}score"), figure.over, figure.name, figure.value, *interval, None);
        }
        for (number, genre) in scores.genres.iter().enumerate() {
            let of = Over::Genre(number);
            self.add(&format!("{kind}threshold"), of, "threshold", Some(thresholds[number]));
            let ConfusionCounts { true_negatives, false_positives, false_negatives, true_positives } = genre.counts;
            for (name, count) in [
                ("support", genre.counts.support()),
                ("true_negatives", true_negatives),
                ("false_positives", false_positives),
                ("false_negatives", false_negatives),
                ("true_positives", true_positives),
            ] {
                self.add(&format!("{kind}count"), of, name, Some(count as f64));
            }
            self.baselines(kind, of, genre.counts.coin_f1(), genre.counts.always_yes_f1());
        }
        for (of, averages) in [(Over::Weighted, &scores.weighted), (Over::Macro, &scores.unweighted)] {
            let Averages { coin_f1, always_yes_f1, .. } = *averages;
            self.baselines(kind, of, coin_f1, always_yes_f1);
        }
    }

    fn baselines(&mut self, kind: &str, of: Over, coin: f64, always_yes: f64) {
        for (name, f1) in [("coin_f1", coin), ("always_yes_f1", always_yes)] {
            self.add(&format!("{kind}baseline"), of, name, Some(f1));
        }
    }
}

/// Every number.
///
/// # Errors
/// Those of the CSV writer, which has none to give.
pub fn csv(results: &Results<'_>) -> anyhow::Result<String> {
    let mut rows = Rows { genres: results.genres(), rows: Vec::new() };
    let is = |holds: bool| Some(f64::from(u8::from(holds)));
    for (name, value) in [
        ("posters", Some(results.scores.posters as f64)),
        ("films", Some(results.films.into())),
        ("temperature", Some(results.asked.rule.temperature)),
        ("calibrated", is(results.asked.answering.calibrated)),
        ("mirror", is(results.asked.answering.mirror)),
    ] {
        rows.add("run", Over::All, name, value);
    }
    rows.scores("", &results.asked.rule.thresholds, &results.scores, &results.estimates);
    if let Some(tuned) = &results.tuned {
        rows.scores("tuned_", &tuned.thresholds, &tuned.scores, &tuned.estimates);
        rows.add("tuned_run", Over::All, "posters", Some(tuned.tuned.posters as f64));
    }
    for (kind, calibration) in ["plain", "calibrated"].into_iter().zip(&results.calibration) {
        rows.add(kind, Over::All, "temperature", Some(calibration.temperature));
        for (name, value, over) in [
            ("expected_calibration_error", calibration.error(), Over::All),
            ("mean_of_genres", calibration.genre_by_genre, Over::Macro),
        ] {
            rows.add_with(kind, Over::All, name, Some(value), calibration.interval(over), None);
        }
        let mut add = |name: &str, value| rows.add(kind, Over::All, name, value);
        add("loss", Some(calibration.loss));
        for (at, bin) in calibration.reliability.bins.iter().enumerate() {
            let (probability, share) = bin.means().unzip();
            add(&format!("decisions_from_0.{at}"), Some(bin.decisions as f64));
            add(&format!("mean_probability_from_0.{at}"), probability);
            add(&format!("share_true_from_0.{at}"), share);
        }
    }
    if let Some(table) = &results.co_occurrence {
        for number in 0..results.genres().len() {
            for (kind, counts) in [("true_with", table.true_with(number)), ("named_with", table.named_with(number))] {
                for (genre, &count) in results.genres().iter().zip(counts) {
                    rows.add(kind, Over::Genre(number), genre, Some(count as f64));
                }
            }
        }
    }
    for difference in results.against.iter().flat_map(|against| &against.differences) {
        let figure = difference.figure;
        let (value, interval, other) = (difference.value, difference.interval, difference.other);
        rows.add_with("difference", figure.over, figure.name, value, interval, other);
    }
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(HEAD)?;
    for row in &rows.rows {
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
