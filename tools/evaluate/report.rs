//! What `evaluate` prints: the table, and the same as JSON.

use onesheet::metrics::{Averages, Scores};
use onesheet::training::checkpoint::Metadata;
use serde_json::json;

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// One row per genre, then the averages, then what concerns all decisions together.
pub fn table(metadata: &Metadata, scores: &Scores, loss: f64) -> String {
    let wide = metadata.genres.iter().map(|genre| genre.chars().count()).max().unwrap_or(0).max("weighted".len());
    let head = format!(
        "{:wide$}  {:>7}  {:>9}  {:>6}  {:>6}  {:>6}  {:>7}  {:>7}  {:>6}\n",
        "genre", "support", "precision", "recall", "F1", "AP", "ROC-AUC", "coin F1", "yes F1"
    );
    let rule = "─".repeat(head.chars().count() - 1) + "\n";
    let mut text = head + &rule;
    let number = |value: f64| format!("{value:.4}");
    let ranking = |value: Option<f64>| value.map_or("–".into(), number);
    let row = |name: &str, support: String, [precision, recall, f1, ap, auc, coin, yes]: [String; 7]| {
        format!(
            "{name:wide$}  {support:>7}  {precision:>9}  {recall:>6}  {f1:>6}  {ap:>6}  {auc:>7}  {coin:>7}  {yes:>6}\n"
        )
    };
    for (name, genre) in metadata.genres.iter().zip(&scores.genres) {
        let counts = genre.counts;
        let [ap, auc] = [genre.average_precision, genre.roc_auc].map(ranking);
        let [precision, recall, f1] = [counts.precision(), counts.recall(), counts.f1()].map(number);
        let [coin, yes] = [counts.coin_f1(), counts.always_yes_f1()].map(number);
        text += &row(name, counts.support().to_string(), [precision, recall, f1, ap, auc, coin, yes]);
    }
    text += &rule;
    for (name, averages) in [("weighted", &scores.weighted), ("macro", &scores.unweighted)] {
        let Averages { precision, recall, f1, average_precision, roc_auc, coin_f1, always_yes_f1 } = *averages;
        let [precision, recall, f1, coin, yes] = [precision, recall, f1, coin_f1, always_yes_f1].map(number);
        let [ap, auc] = [average_precision, roc_auc].map(ranking);
        text += &row(name, String::new(), [precision, recall, f1, ap, auc, coin, yes]);
    }
    let percent = |value: f64| 100.0 * value;
    text += &format!("\nposters          {}\n", scores.posters);
    text += &format!("threshold        {}\n", thresholds(&metadata.thresholds));
    text += &format!("loss             {loss:.4}, all genres weighing alike\n");
    text += &format!("mAP              {}\n", left_out(scores, ranking(scores.unweighted.average_precision)));
    text += &format!("hamming loss     {:.4}\n", scores.hamming_loss);
    text += &format!("exact match      {:.2} %\n", percent(scores.exact_match));
    text += &format!("binary accuracy  {:.2} %\n", percent(scores.binary_accuracy()));
    let baseline = scores.weighted.baseline_f1();
    let verdict = if scores.weighted.f1 > baseline { "above" } else { "not above" };
    text += &format!("\nweighted F1 {:.4} is {verdict} the better baseline, {baseline:.4}\n", scores.weighted.f1);
    text
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
    thresholds.iter().take(of_its_own).map(f64::to_string).collect::<Vec<_>>().join(", ")
}

/// The same as JSON, one object a line.
pub fn lines(metadata: &Metadata, scores: &Scores, loss: f64, device: &str) -> String {
    let mut lines = Vec::new();
    for ((name, genre), threshold) in metadata.genres.iter().zip(&scores.genres).zip(&metadata.thresholds) {
        let counts = genre.counts;
        lines.push(json!({
            "schema": SCHEMA, "kind": "genre", "genre": name, "threshold": threshold, "support": counts.support(),
            "counts": counts, "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
            "average_precision": genre.average_precision, "roc_auc": genre.roc_auc,
            "coin_f1": counts.coin_f1(), "always_yes_f1": counts.always_yes_f1(),
        }));
    }
    lines.push(json!({ "schema": SCHEMA, "kind": "average", "over": "weighted", "scores": scores.weighted }));
    lines.push(json!({ "schema": SCHEMA, "kind": "average", "over": "macro", "scores": scores.unweighted }));
    lines.push(json!({
        "schema": SCHEMA, "kind": "all", "device": device, "posters": scores.posters, "loss": loss,
        "map": scores.unweighted.average_precision, "genres_without_positives": scores.genres_without_positives(),
        "hamming_loss": scores.hamming_loss,
        "exact_match": scores.exact_match, "binary_accuracy": scores.binary_accuracy(),
    }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::training::checkpoint::Progress;
    use onesheet::training::config::RunConfig;
    use serde_json::Value;

    fn metadata(genres: &[&str], thresholds: &[f64]) -> Metadata {
        Metadata {
            genres: genres.iter().map(|&genre| genre.into()).collect(),
            thresholds: thresholds.to_vec(),
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "drop".into(),
            data_digest: String::new(),
            progress: Progress::default(),
            config: RunConfig::default(),
        }
    }

    /// Four posters, and scores that can be had with a pencil. No poster is of the third genre.
    fn scores(thresholds: &[f32]) -> Scores {
        let probabilities = [0.9, 0.7, 0.4, 0.8, 0.6, 0.3, 0.3, 0.5, 0.2, 0.1, 0.2, 0.1];
        Scores::new(&probabilities, &[1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0], thresholds)
    }

    #[test]
    fn the_table_has_every_score_in_its_place() {
        let metadata = metadata(&["Drama", "Film noir", "War"], &[0.5, 0.55, 0.35]);
        let expected = "\
genre      support  precision  recall      F1      AP  ROC-AUC  coin F1  yes F1
───────────────────────────────────────────────────────────────────────────────
Drama            2     0.5000  0.5000  0.5000  0.8333   0.7500   0.5000  0.6667
Film noir        3     1.0000  0.6667  0.8000  1.0000   1.0000   0.6000  0.8571
War              0     0.0000  0.0000  0.0000       –        –   0.0000  0.0000
───────────────────────────────────────────────────────────────────────────────
weighted               0.8000  0.6000  0.6800  0.9333   0.9000   0.5600  0.7810
macro                  0.5000  0.3889  0.4333  0.9167   0.8750   0.3667  0.5079

posters          4
threshold        0.5, 0.55, 0.35
loss             0.4322, all genres weighing alike
mAP              0.9167; 1 genre has no positives and is left out
hamming loss     0.3333
exact match      25.00 %
binary accuracy  66.67 %

weighted F1 0.6800 is not above the better baseline, 0.7810
";
        assert_eq!(table(&metadata, &scores(&[0.5, 0.55, 0.35]), 0.43219), expected);
    }

    #[test]
    fn the_lines_have_every_score_under_its_name() {
        let metadata = metadata(&["Drama", "Film noir", "War"], &[0.5, 0.55, 0.35]);
        let lines = lines(&metadata, &scores(&[0.5, 0.55, 0.35]), 0.43219, "a device");
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [
            json!({
                "schema": 1, "kind": "genre", "genre": "Drama", "threshold": 0.5, "support": 2,
                "counts": { "true_negatives": 1, "false_positives": 1, "false_negatives": 1, "true_positives": 1 },
                "precision": 0.5, "recall": 0.5, "f1": 0.5, "average_precision": 5.0 / 6.0, "roc_auc": 0.75,
                "coin_f1": 0.5, "always_yes_f1": 2.0 / 3.0,
            }),
            json!({
                "schema": 1, "kind": "genre", "genre": "Film noir", "threshold": 0.55, "support": 3,
                "counts": { "true_negatives": 1, "false_positives": 0, "false_negatives": 1, "true_positives": 2 },
                "precision": 1.0, "recall": 2.0 / 3.0, "f1": 0.8, "average_precision": 1.0, "roc_auc": 1.0,
                "coin_f1": 0.6, "always_yes_f1": 1.5 / 1.75,
            }),
            json!({
                "schema": 1, "kind": "genre", "genre": "War", "threshold": 0.35, "support": 0,
                "counts": { "true_negatives": 3, "false_positives": 1, "false_negatives": 0, "true_positives": 0 },
                "precision": 0.0, "recall": 0.0, "f1": 0.0, "average_precision": null, "roc_auc": null,
                "coin_f1": 0.0, "always_yes_f1": 0.0,
            }),
            json!({
                "schema": 1, "kind": "average", "over": "weighted",
                "scores": {
                    "precision": 0.8, "recall": 0.6, "f1": 0.68, "average_precision": 14.0 / 15.0, "roc_auc": 0.9,
                    "coin_f1": 0.56, "always_yes_f1": (4.0 / 3.0 + 4.5 / 1.75) / 5.0,
                },
            }),
            json!({
                "schema": 1, "kind": "average", "over": "macro",
                "scores": {
                    "precision": 0.5, "recall": 7.0 / 18.0, "f1": 1.3 / 3.0, "average_precision": 11.0 / 12.0,
                    "roc_auc": 0.875, "coin_f1": 1.1 / 3.0, "always_yes_f1": (2.0 / 3.0 + 1.5 / 1.75) / 3.0,
                },
            }),
            json!({
                "schema": 1, "kind": "all", "device": "a device", "posters": 4, "loss": 0.43219, "map": 11.0 / 12.0,
                "genres_without_positives": 1, "hamming_loss": 1.0 / 3.0, "exact_match": 0.25,
                "binary_accuracy": 2.0 / 3.0,
            }),
        ];
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(&expected) {
            assert_eq!(rounded(line), rounded(expected));
        }
    }

    /// The same with twelve digits behind the point: the last bits of a mean depend on the order of its terms.
    fn rounded(value: &Value) -> Value {
        match value {
            Value::Number(number) => ((number.as_f64().unwrap() * 1e12).round() / 1e12).into(),
            Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), rounded(value))).collect(),
            other => other.clone(),
        }
    }

    #[test]
    fn the_verdict_is_above_only_where_the_better_baseline_is_beaten() {
        let metadata = metadata(&["Drama"], &[0.5]);
        let last = |probabilities: [f32; 4]| {
            let scores = Scores::new(&probabilities, &[1, 1, 0, 0], &[0.5]);
            table(&metadata, &scores, 0.5).lines().last().unwrap().to_owned()
        };
        assert_eq!(last([0.9, 0.8, 0.1, 0.1]), "weighted F1 1.0000 is above the better baseline, 0.6667");
        assert_eq!(last([0.9, 0.8, 0.7, 0.6]), "weighted F1 0.6667 is not above the better baseline, 0.6667");
        assert_eq!(last([0.1, 0.2, 0.3, 0.4]), "weighted F1 0.0000 is not above the better baseline, 0.6667");
    }

    #[test]
    fn genres_without_positives_are_counted() {
        let genres = |targets: [u8; 3]| left_out(&Scores::new(&[0.5; 3], &targets, &[0.5; 3]), "0.5000".into());
        assert_eq!(genres([1, 1, 1]), "0.5000");
        assert_eq!(genres([1, 0, 1]), "0.5000; 1 genre has no positives and is left out");
        assert_eq!(genres([0, 1, 0]), "0.5000; 2 genres have no positives and are left out");
    }

    #[test]
    fn a_threshold_for_all_is_said_once_and_others_genre_by_genre() {
        assert_eq!(thresholds(&[0.3, 0.3, 0.3]), "0.3");
        assert_eq!(thresholds(&[0.3, 0.3, 0.5]), "0.3, 0.3, 0.5");
        assert_eq!(thresholds(&[0.5, 0.3, 0.3]), "0.5, 0.3, 0.3");
    }

    #[test]
    fn a_short_genre_leaves_room_for_the_averages() {
        let table = table(&metadata(&["War"], &[0.5]), &Scores::new(&[0.5], &[1], &[0.5]), 0.0);
        let rows: Vec<&str> = table.lines().take(6).collect();
        let widths: Vec<usize> = rows.iter().map(|row| row.chars().count()).collect();
        assert_eq!(widths, [78; 6], "{table}");
        assert!(rows[2].starts_with("War             1     1.0000"), "{table}");
    }
}
