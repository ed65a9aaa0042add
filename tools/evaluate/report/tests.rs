use super::*;
use crate::answering::Rule;
use crate::evaluate::results::{Asked, Results};
use crate::evaluate::{json, rows};
use onesheet::device::cpu::Cpu;
use onesheet::training::checkpoint::{Metadata, Progress};
use onesheet::training::config::RunConfig;
use onesheet::training::evaluation::Answers;
use onesheet::training::tuning::Tuned;
use serde_json::{Value, json};

fn metadata(genres: &[&str], thresholds: &[f64], tuned: Option<Tuned>) -> Metadata {
    Metadata {
        genres: genres.iter().map(|&genre| genre.into()).collect(),
        thresholds: thresholds.to_vec(),
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned,
        progress: Progress::default(),
        config: RunConfig::default(),
    }
}

/// What a model would say whose probabilities these are.
fn answers(probabilities: &[f32], targets: &[u8]) -> Answers {
    let logits = probabilities.iter().map(|p| (p / (1.0 - p)).ln()).collect();
    Answers { loss: 0.0, logits, probabilities: probabilities.to_vec(), targets: targets.to_vec() }
}

/// No flags but these.
fn answering(flags: &[&str]) -> crate::answering::Answering {
    use clap::Parser;
    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        answering: crate::answering::Answering,
    }
    Words::parse_from(["evaluate"].iter().chain(flags)).answering
}

/// The answers of a model at its own thresholds. Its posters are all of one film, so that every resample is the posters as they are, and an
/// interval is the score twice.
fn results<'a>(metadata: &'a Metadata, answers: &Answers, against: Option<Answers>) -> Results<'a> {
    let answering = answering(&[]);
    let rule = answering.rule(metadata, "model".as_ref()).unwrap();
    let asked = Asked { metadata, answering, rule, device: "a device".into(), is_tuned_on: &|_| false };
    let posters = answers.targets.len() / metadata.genres.len();
    let against = against.map(|answers| ("other.safetensors".into(), answers, metadata.thresholds.clone()));
    Results::new(asked, &Cpu::new(), answers, vec![0; posters], against).unwrap()
}

/// Four posters, and scores that can be had with a pencil. No poster is of the third genre.
fn four() -> Answers {
    let probabilities = [0.9, 0.7, 0.4, 0.8, 0.6, 0.3, 0.3, 0.5, 0.2, 0.1, 0.2, 0.1];
    answers(&probabilities, &[1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0])
}

const GENRES: [&str; 3] = ["Drama", "Film noir", "War"];
const THRESHOLDS: [f64; 3] = [0.5, 0.55, 0.35];

/// At 0.25 Drama is named three times, two of them rightly: F1 0.8. At 0.45 Film noir is always right. War is not named at 0.75.
fn tuned(temperature: f64) -> Option<Tuned> {
    Some(Tuned { thresholds: vec![0.25, 0.45, 0.75], temperature, posters: 9, data_digest: String::new() })
}

#[test]
fn the_table_has_every_score_in_its_place() {
    let metadata = metadata(&GENRES, &THRESHOLDS, tuned(1.0));
    // The other names nothing and ranks all alike.
    let other = answers(&[0.2; 12], &four().targets);
    let expected = "\
genre      support  precision  recall      F1      AP  ROC-AUC  coin F1  yes F1
───────────────────────────────────────────────────────────────────────────────
Drama            2     0.5000  0.5000  0.5000  0.8333   0.7500   0.5000  0.6667
Film noir        3     1.0000  0.6667  0.8000  1.0000   1.0000   0.6000  0.8571
War              0     0.0000  0.0000  0.0000       –        –   0.0000  0.0000
───────────────────────────────────────────────────────────────────────────────
weighted               0.8000  0.6000  0.6800  0.9333   0.9000   0.5600  0.7810
macro                  0.5000  0.3889  0.4333  0.9167   0.8750   0.3667  0.5079

posters          4 of 1 film
threshold        0.5, 0.55, 0.35
loss             0.5003  0.5003–0.5003, all genres weighing alike
mAP              0.9167  0.9167–0.9167; 1 genre has no positives and is left out
hamming loss     0.3333  0.3333–0.3333
exact match      25.00 %  25.00–25.00
binary accuracy  66.67 %  66.67–66.67

weighted F1 0.6800 is not above the better baseline, 0.7810
by -0.1010 (-0.1010 to -0.1010), clear of 0

95 % intervals, from 1000 resamples of 1 film
genre          precision         recall             F1             AP        ROC-AUC
────────────────────────────────────────────────────────────────────────────────────
Drama      0.5000–0.5000  0.5000–0.5000  0.5000–0.5000  0.8333–0.8333  0.7500–0.7500
Film noir  1.0000–1.0000  0.6667–0.6667  0.8000–0.8000  1.0000–1.0000  1.0000–1.0000
War        0.0000–0.0000  0.0000–0.0000  0.0000–0.0000              –              –
────────────────────────────────────────────────────────────────────────────────────
weighted   0.8000–0.8000  0.6000–0.6000  0.6800–0.6800  0.9333–0.9333  0.9000–0.9000
macro      0.5000–0.5000  0.3889–0.3889  0.4333–0.4333  0.9167–0.9167  0.8750–0.8750

decisions
genre      rightly named  wrongly named  missed  rightly not named
──────────────────────────────────────────────────────────────────
Drama                  1              1       1                  1
Film noir              2              0       1                  1
War                    0              1       0                  3

at thresholds tuned on 9 validation posters
genre      threshold  precision  recall      F1  95 % interval  F1 untuned  coin F1  yes F1
───────────────────────────────────────────────────────────────────────────────────────────
Drama           0.25     0.6667  1.0000  0.8000  0.8000–0.8000      0.5000   0.5000  0.6667
Film noir       0.45     1.0000  1.0000  1.0000  1.0000–1.0000      0.8000   0.6000  0.8571
War             0.75     0.0000  0.0000  0.0000  0.0000–0.0000      0.0000   0.0000  0.0000
───────────────────────────────────────────────────────────────────────────────────────────
weighted                 0.8667  1.0000  0.9200  0.9200–0.9200      0.6800   0.5600  0.7810
macro                    0.5556  0.6667  0.6000  0.6000–0.6000      0.4333   0.3667  0.5079

";
    let text = text(&results(&metadata, &four(), Some(other)));
    assert_eq!(&text[..expected.len().min(text.len())], expected, "{text}");

    let expected = "
together: posters of both genres / with both named
genre      Drama  Film noir  War
────────────────────────────────
Drama        2/2        2/2  0/1
Film noir    2/2        3/2  0/1
War          0/1        0/1  0/1

against other.safetensors, on the same resamples
score                         this   other  difference      95 % interval
─────────────────────────────────────────────────────────────────────────────────────
Drama precision             0.5000  0.0000     +0.5000  +0.5000 to +0.5000  clear of 0
";
    let rest = &text[text.find("\ntogether").unwrap()..];
    let expected: Vec<&str> = expected.lines().collect();
    let found: Vec<&str> = rest.lines().collect();
    assert_eq!(found[..9], expected[..9], "{text}");
    let cells = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let row = |name: &str| cells(found.iter().find(|line| line.starts_with(name)).unwrap());
    assert_eq!(cells(found[9]), cells(expected[9]));
    assert_eq!(row("Drama precision"), cells(expected[11]));
    assert_eq!(row("Drama roc auc"), cells("Drama roc auc 0.7500 0.5000 +0.2500 +0.2500 to +0.2500 clear of 0"));
    assert_eq!(row("War roc auc"), cells("War roc auc – – – –"));
    assert_eq!(row("War f1"), cells("War f1 0.0000 0.0000 +0.0000 +0.0000 to +0.0000"));
    assert_eq!(row("all hamming"), cells("all hamming loss 0.3333 0.4167 -0.0833 -0.0833 to -0.0833 clear of 0"));
    assert_eq!(found.iter().filter(|line| line.contains(" to ") || line.contains("  –  ")).count(), 5 * 5 + 5);
}

#[test]
fn the_reliability_is_that_of_both_temperatures() {
    // At half the temperature the logits of 0.85 and 0.15 are those of 0.9698 and 0.0302.
    let answers = answers(&[0.85, 0.85, 0.15, 0.15], &[1, 0, 0, 0]);
    let metadata = metadata(&["Drama"], &[0.5], tuned(0.5).map(|tuned| Tuned { thresholds: vec![0.5], ..tuned }));
    let text = calibration(&results(&metadata, &answers, None));
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(text.lines().next().unwrap(), "reliability, and at the temperature 0.5000");
    assert_eq!(line("0.0–0.1"), ["0.0–0.1", "0", "–", "–", "2", "0.0302", "0.0000"]);
    assert_eq!(line("0.1–0.2"), ["0.1–0.2", "2", "0.1500", "0.0000", "0", "–", "–"]);
    assert_eq!(line("0.8–0.9"), ["0.8–0.9", "2", "0.8500", "0.5000", "0", "–", "–"]);
    assert_eq!(line("0.9–1.0"), ["0.9–1.0", "0", "–", "–", "2", "0.9698", "0.5000"]);
    // (2·0.35 + 2·0.15) / 4 and (2·0.4698 + 2·0.0302) / 4.
    let error = "calibration error 0.2500 (0.2500–0.2500) → 0.2500 (0.2500–0.2500), all genres together";
    assert_eq!(line("calibration error"), error.split(' ').collect::<Vec<_>>());
    // (3·0.16252 + 1.89712) / 4 and (3·0.03067 + 3.49987) / 4.
    assert_eq!(line("loss"), ["loss", "0.5962", "→", "0.8980"]);

    let untuned = metadata_of_one();
    let text = calibration(&results(&untuned, &answers, None));
    assert!(text.starts_with("reliability; the model has no temperature\n") && !text.contains('→'), "{text}");
}

fn metadata_of_one() -> Metadata {
    metadata(&["Drama"], &[0.5], None)
}

#[test]
fn the_lines_have_every_score_under_its_name() {
    let metadata = metadata(&GENRES, &THRESHOLDS, tuned(1.0));
    let other = answers(&[0.2; 12], &four().targets);
    let lines = json::lines(&results(&metadata, &four(), Some(other)));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let twice = |value: f64| json!([value, value]);
    let five = |[precision, recall, f1, ap, auc]: [Option<f64>; 5]| {
        let twice = |value: Option<f64>| value.map_or(Value::Null, twice);
        json!({
            "precision": twice(precision), "recall": twice(recall), "f1": twice(f1), "average_precision": twice(ap), "roc_auc": twice(auc),
        })
    };
    let expected = [
        json!({
            "schema": 1, "kind": "genre", "genre": "Drama", "threshold": 0.5, "support": 2,
            "counts": { "true_negatives": 1, "false_positives": 1, "false_negatives": 1, "true_positives": 1 },
            "precision": 0.5, "recall": 0.5, "f1": 0.5, "average_precision": 5.0 / 6.0, "roc_auc": 0.75,
            "coin_f1": 0.5, "always_yes_f1": 2.0 / 3.0,
            "intervals": five([Some(0.5), Some(0.5), Some(0.5), Some(5.0 / 6.0), Some(0.75)]),
        }),
        json!({
            "schema": 1, "kind": "genre", "genre": "Film noir", "threshold": 0.55, "support": 3,
            "counts": { "true_negatives": 1, "false_positives": 0, "false_negatives": 1, "true_positives": 2 },
            "precision": 1.0, "recall": 2.0 / 3.0, "f1": 0.8, "average_precision": 1.0, "roc_auc": 1.0,
            "coin_f1": 0.6, "always_yes_f1": 1.5 / 1.75,
            "intervals": five([Some(1.0), Some(2.0 / 3.0), Some(0.8), Some(1.0), Some(1.0)]),
        }),
        json!({
            "schema": 1, "kind": "genre", "genre": "War", "threshold": 0.35, "support": 0,
            "counts": { "true_negatives": 3, "false_positives": 1, "false_negatives": 0, "true_positives": 0 },
            "precision": 0.0, "recall": 0.0, "f1": 0.0, "average_precision": null, "roc_auc": null,
            "coin_f1": 0.0, "always_yes_f1": 0.0, "intervals": five([Some(0.0), Some(0.0), Some(0.0), None, None]),
        }),
        json!({
            "schema": 1, "kind": "average", "over": "weighted",
            "scores": {
                "precision": 0.8, "recall": 0.6, "f1": 0.68, "average_precision": 14.0 / 15.0, "roc_auc": 0.9,
                "coin_f1": 0.56, "always_yes_f1": (4.0 / 3.0 + 4.5 / 1.75) / 5.0,
            },
            "intervals": five([0.8, 0.6, 0.68, 14.0 / 15.0, 0.9].map(Some)),
        }),
    ];
    for (line, expected) in zip(&lines, &expected) {
        assert_eq!(rounded(line), rounded(expected));
    }
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    let mut expected = vec!["genre"; 3];
    expected.extend(["average"; 2]);
    expected.extend(["tuned_genre"; 3]);
    expected.extend(["tuned_average"; 2]);
    expected.push("tuned_all");
    expected.extend(["calibration"; 2]);
    expected.extend(["co_occurrence"; 3]);
    expected.extend(["difference"; 30]);
    expected.push("all");
    assert_eq!(kinds, expected);
    let margin = 0.68 - (4.0 / 3.0 + 4.5 / 1.75) / 5.0;
    let all = rounded(&lines[lines.len() - 1]);
    let expected = json!({
        "schema": 1, "kind": "all", "device": "a device", "posters": 4, "films": 1, "resamples": 1000, "thresholds": "model",
        "calibrated": false, "temperature": 1.0, "mirror": false, "map": 11.0 / 12.0, "genres_without_positives": 1,
        "hamming_loss": 1.0 / 3.0, "exact_match": 0.25, "binary_accuracy": 2.0 / 3.0, "margin": margin,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(all[key], rounded(value), "{key}");
    }
    assert_eq!(all["intervals"]["margin"], rounded(&twice(margin)));
    assert_eq!(lines[5]["f1"], 0.8, "Drama at its tuned threshold");
    assert_eq!((&lines[13]["true_with"]["Film noir"], &lines[13]["named_with"]["War"]), (&json!(2), &json!(1)));
    let auc = lines.iter().find(|line| line["kind"] == "difference" && line["score"] == "roc_auc").unwrap();
    let expected = json!({
        "schema": 1, "kind": "difference", "against": "other.safetensors", "over": "genre", "genre": "Drama", "score": "roc_auc",
        "value": 0.75, "other": 0.5, "difference": 0.25, "interval": [0.25, 0.25], "clear_of_zero": true,
    });
    assert_eq!(auc, &expected);
}

/// Twelve digits behind the point: the last bits of a mean depend on the order of its terms.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) => ((number.as_f64().unwrap() * 1e12).round() / 1e12).into(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), rounded(value))).collect(),
        Value::Array(values) => values.iter().map(rounded).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_rows_have_one_number_each() {
    let metadata = metadata(&GENRES, &THRESHOLDS, tuned(1.0));
    let other = answers(&[0.2; 12], &four().targets);
    let rows = rows::csv(&results(&metadata, &four(), Some(other))).unwrap();
    let lines: Vec<&str> = rows.lines().collect();
    assert_eq!(lines[0], "kind,over,genre,score,value,low,high,other");
    for line in [
        "run,all,,posters,4,,,",
        "run,all,,films,1,,,",
        "score,genre,Film noir,f1,0.8,0.8,0.8,",
        "score,genre,War,roc_auc,,,,",
        "score,weighted,,roc_auc,0.9,0.9,0.9,",
        "threshold,genre,Film noir,threshold,0.55,,,",
        "count,genre,War,false_positives,1,,,",
        "baseline,genre,Drama,coin_f1,0.5,,,",
        "tuned_threshold,genre,Drama,threshold,0.25,,,",
        "tuned_score,genre,Drama,f1,0.8,0.8,0.8,",
        "tuned_run,all,,posters,9,,,",
        "calibrated,all,,temperature,1,,,",
        "true_with,genre,Film noir,Drama,2,,,",
        "named_with,genre,Film noir,War,1,,,",
        "difference,genre,Drama,roc_auc,0.25,0.25,0.25,0.5",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{rows}");
    }
    let in_bins = |line: &&str| line.starts_with("plain,all,,decisions_from_0.");
    let decisions: u32 =
        lines.iter().copied().filter(in_bins).map(|line| line.split(',').nth(4).unwrap().parse::<u32>().unwrap()).sum();
    assert_eq!(decisions, 12);
}

#[test]
fn the_verdict_is_above_only_where_the_better_baseline_is_beaten() {
    let metadata = metadata_of_one();
    let last = |probabilities: [f32; 4]| {
        let text = of_all(&results(&metadata, &answers(&probabilities, &[1, 1, 0, 0]), None));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len() - 2..].join("\n")
    };
    assert_eq!(
        last([0.9, 0.8, 0.1, 0.1]),
        "weighted F1 1.0000 is above the better baseline, 0.6667\nby +0.3333 (+0.3333 to +0.3333), clear of 0"
    );
    assert_eq!(
        last([0.9, 0.8, 0.7, 0.6]),
        "weighted F1 0.6667 is not above the better baseline, 0.6667\n\
         by +0.0000 (+0.0000 to +0.0000), not clear of 0: other films might turn it round"
    );
    assert!(last([0.1, 0.2, 0.3, 0.4]).starts_with("weighted F1 0.0000 is not above the better baseline, 0.6667\n"));
}

#[test]
fn scores_of_the_posters_that_were_tuned_on_are_said_to_be_too_good() {
    let metadata = metadata(&GENRES, &THRESHOLDS, tuned(1.0));
    let answering = answering(&["--calibrated", "--thresholds", "tuned"]);
    let rule = answering.rule(&metadata, "model".as_ref()).unwrap();
    let Rule { origin, temperature, thresholds } = &rule;
    assert!((*origin, *temperature) == ("tuned", 1.0) && (thresholds[1] - 0.45).abs() <= 1e-12, "{rule:?}");
    let asked =
        Asked { metadata: &metadata, answering, rule, device: String::new(), is_tuned_on: &|tuned| tuned.posters == 9 };
    let results = Results::new(asked, &Cpu::new(), &four(), vec![0, 1, 2, 2], None).unwrap();
    assert!(
        text(&results)
            .contains("tuned on 9 validation posters; these are among the posters here, so the scores are too good\n")
    );
    assert!(text(&results).contains("posters          4 of 3 films\n"));
    // What decides is what was tuned, and both are compared with the model's own.
    assert_eq!(results.scores, results.tuned.as_ref().unwrap().scores);
    assert_eq!(results.tuned.as_ref().unwrap().untuned, four().scores(&THRESHOLDS));
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
    assert_eq!(thresholds(&[0.5, 0.3, 1.0 / 3.0]), "0.5, 0.3, 0.3333");
    assert_eq!(thresholds(&[1.0]), "1");
}

#[test]
fn a_short_genre_leaves_room_for_the_averages() {
    let table = table(&["War".into()], &Scores::new(&[0.5], &[1], &[0.5]));
    let rows: Vec<&str> = table.lines().take(6).collect();
    let widths: Vec<usize> = rows.iter().map(|row| row.chars().count()).collect();
    assert_eq!(widths, [78; 6], "{table}");
    assert!(rows[2].starts_with("War             1     1.0000"), "{table}");
}
