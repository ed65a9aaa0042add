//! `onesheet evaluate`: the scores of the checkpoint that was asked for, on the posters that were asked for.

use crate::models::{Asked, Bench, GENRES, Loaded, ask, bench};
use crate::{device, objects, run};
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::metrics::{Averages, Scores};
use onesheet::training::config::Pixels;
use serde_json::{Value, json};
use std::path::Path;

/// What a model says of the posters of a file. Intervals and what else stands below the scores have tests of their own.
struct Expected {
    scores: Scores,
    loss: f64,
    thresholds: Vec<f64>,
}

impl Expected {
    fn new(asked: &Asked, thresholds: &[f64]) -> Expected {
        let narrow: Vec<f32> = thresholds.iter().map(|&threshold| threshold as f32).collect();
        let scores = Scores::new(&asked.probabilities, &asked.targets, &narrow);
        Expected { scores, loss: asked.loss, thresholds: thresholds.to_vec() }
    }

    fn of(loaded: &Loaded, file: &Path, split: Option<Split>, batch: usize) -> Expected {
        let asked = ask(&loaded.model, &open(file), &indices(file, split), batch, loaded.metadata.config.pixels);
        Expected::new(&asked, &loaded.metadata.thresholds)
    }

    /// The lines of `--json`, but for the loss.
    fn lines(&self) -> Vec<Value> {
        let genre = |number: usize| {
            let genre = self.scores.genres[number];
            let counts = genre.counts;
            json!({
                "schema": 1, "kind": "genre", "genre": GENRES[number], "threshold": self.thresholds[number],
                "support": counts.support(),
                "counts": {
                    "true_negatives": counts.true_negatives, "false_positives": counts.false_positives,
                    "false_negatives": counts.false_negatives, "true_positives": counts.true_positives,
                },
                "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
                "average_precision": genre.average_precision, "roc_auc": genre.roc_auc,
                "coin_f1": counts.coin_f1(), "always_yes_f1": counts.always_yes_f1(),
            })
        };
        let average = |over: &str, averages: &Averages| {
            let Averages { precision, recall, f1, average_precision, roc_auc, coin_f1, always_yes_f1 } = averages;
            json!({
                "schema": 1, "kind": "average", "over": over,
                "scores": {
                    "precision": precision, "recall": recall, "f1": f1, "average_precision": average_precision,
                    "roc_auc": roc_auc, "coin_f1": coin_f1, "always_yes_f1": always_yes_f1,
                },
            })
        };
        let scores = &self.scores;
        let all = json!({
            "schema": 1, "kind": "all", "device": device(), "posters": scores.posters,
            "map": scores.unweighted.average_precision, "genres_without_positives": scores.genres_without_positives(),
            "hamming_loss": scores.hamming_loss, "exact_match": scores.exact_match,
            "binary_accuracy": scores.binary_accuracy(),
        });
        let averages = [average("weighted", &scores.weighted), average("macro", &scores.unweighted)];
        (0..GENRES.len()).map(genre).chain(averages).chain([all]).collect()
    }

    /// Asserts that these lines are printed, with this loss.
    #[track_caller]
    fn check_lines(&self, stdout: &str) {
        let mut found = objects(stdout);
        found.retain(|line| ["genre", "average", "all"].contains(&line["kind"].as_str().unwrap()));
        for line in &mut found {
            let line = line.as_object_mut().unwrap();
            assert!(!line.remove("intervals").unwrap().as_object().unwrap().is_empty());
            for key in ["films", "resamples", "thresholds", "calibrated", "temperature", "mirror", "margin"] {
                assert_eq!(line.remove(key).is_some(), line["kind"] == "all", "{key}");
            }
        }
        let loss = found.last_mut().unwrap().as_object_mut().unwrap().remove("loss").unwrap().as_f64().unwrap();
        assert!((loss - self.loss).abs() <= 1e-5 * self.loss, "the loss is {loss}, not {}", self.loss);
        // Through the same reader, which drops a last digit here and there.
        let expected: String = self.lines().iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(found, objects(&expected));
    }

    /// The cells of the table, row by row, a genre's support among them and a missing one left out; then all that stands below
    /// it, but for the loss.
    fn table(&self) -> (Vec<Vec<String>>, Vec<String>) {
        let number = |value: f64| format!("{value:.4}");
        let ranking = |value: Option<f64>| value.map_or("–".to_owned(), number);
        let head = "genre support precision recall F1 AP ROC-AUC coin F1 yes F1";
        let mut rows = vec![head.split(' ').map(String::from).collect::<Vec<_>>()];
        for (name, genre) in GENRES.iter().zip(&self.scores.genres) {
            let c = genre.counts;
            rows.push(vec![
                name.to_string(),
                c.support().to_string(),
                number(c.precision()),
                number(c.recall()),
                number(c.f1()),
                ranking(genre.average_precision),
                ranking(genre.roc_auc),
                number(c.coin_f1()),
                number(c.always_yes_f1()),
            ]);
        }
        for (name, a) in [("weighted", &self.scores.weighted), ("macro", &self.scores.unweighted)] {
            rows.push(vec![
                name.to_owned(),
                number(a.precision),
                number(a.recall),
                number(a.f1),
                ranking(a.average_precision),
                ranking(a.roc_auc),
                number(a.coin_f1),
                number(a.always_yes_f1),
            ]);
        }
        let s = &self.scores;
        let map = ranking(s.unweighted.average_precision);
        let map = match s.genres_without_positives() {
            0 => map,
            _ => map + "; 1 genre has no positives and is left out",
        };
        let short = |threshold: &f64| format!("{threshold:.4}").trim_end_matches('0').to_owned();
        let thresholds: Vec<String> = self.thresholds.iter().map(short).collect();
        let baseline = s.weighted.coin_f1.max(s.weighted.always_yes_f1);
        let verdict = if s.weighted.f1 > baseline { "above" } else { "not above" };
        let below = vec![
            format!("posters          {}", s.posters),
            format!("threshold        {}", thresholds.join(", ")),
            format!("mAP              {map}"),
            format!("hamming loss     {:.4}", s.hamming_loss),
            format!("exact match      {:.2} %", 100.0 * s.exact_match),
            format!("binary accuracy  {:.2} %", 100.0 * s.binary_accuracy()),
            format!("weighted F1 {:.4} is {verdict} the better baseline, {baseline:.4}", s.weighted.f1),
        ];
        (rows, below)
    }

    /// Asserts that this table is printed, with this loss.
    #[track_caller]
    fn check_table(&self, stdout: &str) {
        let is_rule = |line: &&str| !line.is_empty() && line.chars().all(|letter| letter == '─');
        let (table, below) = stdout.split_once("\n\n").unwrap();
        let (below, _) = below.split_once("\nby ").unwrap();
        let cells = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = table.lines().filter(|line| !is_rule(line)).map(cells).collect();
        let below: Vec<String> = below.lines().filter(|line| !line.is_empty()).map(without_interval).collect();
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let (loss, below): (Vec<&str>, Vec<&str>) = below.into_iter().partition(|line| line.starts_with("loss "));
        let (expected_rows, expected_below) = self.table();
        assert_eq!(rows, expected_rows);
        assert_eq!(below, expected_below);
        let [loss] = loss[..] else { panic!("one line says the loss: {stdout}") };
        let loss = loss.strip_prefix("loss             ").unwrap();
        let loss: f64 = loss.strip_suffix(", all genres weighing alike").unwrap().parse().unwrap();
        assert!((loss - self.loss).abs() <= 0.51e-4, "the loss is {loss}, not {}", self.loss);
    }
}

/// A line without its interval: `mAP  0.5  0.4–0.6; …` as `mAP  0.5; …`.
fn without_interval(line: &str) -> String {
    let Some((score, rest)) = line.rsplit_once("  ").filter(|(_, rest)| rest.contains('–')) else {
        return line.into();
    };
    let end = rest.find([';', ',']).unwrap_or(rest.len());
    let bounds: Vec<f64> = rest[..end].split('–').map(|bound| bound.parse().unwrap()).collect();
    assert!(bounds.len() == 2 && bounds[0] <= bounds[1], "{line}");
    score.to_owned() + &rest[end..]
}

fn open(file: &Path) -> TensorFile {
    TensorFile::open(file).unwrap()
}

fn indices(file: &Path, split: Option<Split>) -> Vec<u32> {
    let file = open(file);
    let is_meant = |&poster: &u32| split.is_none_or(|split| file.split(poster as usize) == split);
    (0..file.len() as u32).filter(is_meant).collect()
}

fn evaluate(bench: &Bench, more: &str) -> (i32, String, String) {
    let args = format!("evaluate --run two --device cpu {more}");
    run(&bench.folder, args.split_whitespace())
}

/// What `evaluate` might mix up, one at a time: each has other scores than `right`, where it is something else at all.
fn check_that_confusions_show(right: &Expected, right_file: &Path, split: Split, loaded: &Loaded, other: &Loaded) {
    let bench = bench();
    let metadata = &loaded.metadata;
    let pixels = metadata.config.pixels;
    let file = open(right_file);
    let posters = indices(right_file, Some(split));
    let expected = ask(&loaded.model, &file, &posters, 32, pixels);
    let differ = |what: &str, found: Expected| assert!(found.lines() != right.lines(), "{what} changes no score");
    let splits = [Some(Split::Train), Some(Split::Validation), Some(Split::Test), None];
    let sizes = splits.map(|split| indices(right_file, split).len());
    assert!((0..4).all(|a| (0..a).all(|b| sizes[a] != sizes[b])), "{sizes:?}");
    for path in [bench.named(), bench.own(), bench.other()].iter().filter(|path| *path != right_file) {
        differ("another file", Expected::of(loaded, path, Some(split), 32));
    }
    for convention in [Pixels::Raw, Pixels::Imagenet, Pixels::Unit].into_iter().filter(|&other| other != pixels) {
        let asked = ask(&loaded.model, &file, &posters, 32, convention);
        differ(convention.name(), Expected::new(&asked, &metadata.thresholds));
    }
    let asked = ask(&other.model, &file, &posters, 32, pixels);
    differ("the other model", Expected::new(&asked, &metadata.thresholds));
    let same = metadata.thresholds.clone();
    let counts = |thresholds: &[f64]| {
        let genres = Expected::new(&expected, thresholds).scores.genres;
        genres.into_iter().map(|genre| genre.counts).collect::<Vec<_>>()
    };
    for (what, thresholds) in [
        ("the other thresholds", other.metadata.thresholds.clone()),
        ("thresholds in another order", same.iter().rev().copied().collect()),
        ("one threshold for all", vec![same[0]; 5]),
        ("the settings' threshold", vec![metadata.config.threshold; 5]),
    ] {
        assert!(counts(&thresholds) != counts(&same), "{what}: no decision is another");
    }
}

#[test]
fn the_best_checkpoint_is_scored_on_the_test_posters_that_it_names() {
    let (bench, best) = (bench(), bench().best());
    let right = Expected::of(&best, &bench.named(), Some(Split::Test), 32);
    check_that_confusions_show(&right, &bench.named(), Split::Test, &best, &bench.last());
    assert_eq!(right.scores.posters, 35, "more than the 32 that are asked about at a time");
    assert!(right.scores.weighted.f1 > right.scores.weighted.baseline_f1());

    // One genre's threshold is a poster's probability and names it; another's is just above one and does not.
    let asked = ask(&best.model, &open(&bench.named()), &indices(&bench.named(), Some(Split::Test)), 32, Pixels::Unit);
    for (genre, change) in [(2, f32::next_up as fn(f32) -> f32), (3, f32::next_down)] {
        let mut thresholds = best.metadata.thresholds.clone();
        thresholds[genre] = f64::from(change(thresholds[genre] as f32));
        let moved = Expected::new(&asked, &thresholds);
        assert!(moved.scores.genres[genre].counts != right.scores.genres[genre].counts, "{}", GENRES[genre]);
    }

    let (code, stdout, stderr) = evaluate(bench, "");
    assert_eq!(code, 0, "{stderr}");
    right.check_table(&stdout);
    let named = bench.named();
    let told = format!(
        "{}\nruns/two/checkpoints/best.safetensors after epoch 3: 35 posters (test) of {}\n\n",
        device(),
        named.display()
    );
    assert_eq!(stderr, told);
    let (code, stdout, stderr) = evaluate(bench, "--json --quiet --batch 9");
    assert_eq!((code, stderr.as_str()), (0, ""));
    Expected::of(&best, &named, Some(Split::Test), 9).check_lines(&stdout);
}

#[test]
fn the_last_checkpoint_is_scored_on_the_posters_of_its_run_or_on_those_it_is_given() {
    let (bench, last) = (bench(), bench().last());
    let right = Expected::of(&last, &bench.own(), Some(Split::Test), 32);
    check_that_confusions_show(&right, &bench.own(), Split::Test, &last, &bench.best());
    let (code, stdout, stderr) = evaluate(bench, "--checkpoint last --json --quiet");
    assert_eq!((code, stderr.as_str()), (0, ""));
    right.check_lines(&stdout);

    // Nobody in the validation has the third genre.
    let right = Expected::of(&last, &bench.own(), Some(Split::Validation), 4);
    assert!(right.scores.weighted.f1 <= right.scores.weighted.baseline_f1());
    assert_eq!(right.scores.genres_without_positives(), 1);
    let (code, stdout, stderr) = evaluate(bench, "--checkpoint last --split validation --batch 4");
    assert_eq!(code, 0, "{stderr}");
    right.check_table(&stdout);
    let told = format!(
        "{}\nruns/two/checkpoints/last.safetensors after epoch 8: 6 posters (validation) of runs/two/posters.safetensors\n\n",
        device()
    );
    assert_eq!(stderr, told);

    for (split, part) in [("all", None), ("train", Some(Split::Train))] {
        let words = format!("--checkpoint last --data other.safetensors --split {split} --json");
        let (code, stdout, stderr) = evaluate(bench, &words);
        assert_eq!(code, 0, "{stderr}");
        let note = "note: other.safetensors was prepared with --resize nearest --alpha white, the posters that the model was \
            trained on with --resize area --alpha drop\n";
        assert!(stderr.starts_with(note), "{stderr}");
        Expected::of(&last, &bench.other(), part, 32).check_lines(&stdout);
    }
}
