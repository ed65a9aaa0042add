//! What a model was tuned to, who may tune it, and the flags of `evaluate` and `infer` that use it.

use crate::answers::{model, place_with_models};
use crate::{Place, SIDE};
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::data::{Split, synthetic};
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::files::Disk;
use onesheet::metrics::Scores;
use onesheet::metrics::calibration::cross_entropy;
use onesheet::model::{Model, Posters};
use onesheet::training::checkpoint::{self, Checkpoint, Metadata};
use onesheet::training::config::Pixels;
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::run_folder::{RunFolder, best_checkpoint};
use onesheet::training::tuning::{self, Tuned};
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

pub const EVALUATE: [&str; 4] = [
    "evaluate --run run --data others.safetensors --tune --device cpu --precision f32 --json --quiet",
    "evaluate --run run --split all --thresholds tuned --calibrated --device cpu --precision f32 --json --quiet",
    "evaluate --run run --split all --against other --device cpu --precision f32 --csv --quiet",
    "evaluate --run run --split all --mirror --thresholds 0.45 --device cpu --precision f32 --json --quiet",
];

pub const INFER: [&str; 2] = [
    "infer --device cpu --precision f32 --thresholds tuned --calibrated --csv --model",
    "infer --device cpu --precision f32 --thresholds 0.45 --mirror --json --model",
];

/// What the best model says of posters of a file.
fn ask(place: &Place, file: &str, posters: &[u32]) -> Answers {
    let file = Arc::new(TensorFile::open(&place.at(file)).unwrap());
    let (model, format) = (model(&best_checkpoint(&place.at("runs/run"))), Pixels::Unit.format());
    let goes_on = |_| ControlFlow::Continue(());
    Answers::collect(&model, &file, posters.into(), 32, &format, &[1.0; 7], View::Plain, goes_on).unwrap().unwrap()
}

const ALL: [u32; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// The counts of the lines of this kind, and their thresholds.
fn told(lines: &[Value], kind: &str) -> (Vec<[u64; 4]>, Vec<f64>) {
    let names = ["true_negatives", "false_positives", "false_negatives", "true_positives"];
    let counts = |line: &Value| names.map(|name| line["counts"][name].as_u64().unwrap());
    let lines = lines.iter().filter(|line| line["kind"] == kind);
    lines.map(|line| (counts(line), line["threshold"].as_f64().unwrap())).unzip()
}

fn counts(scores: &Scores) -> Vec<[u64; 4]> {
    let counts = scores.genres.iter().map(|genre| genre.counts);
    counts.map(|c| [c.true_negatives, c.false_positives, c.false_negatives, c.true_positives]).collect()
}

#[test]
fn evaluate_tunes_on_validation_posters_and_then_decides_so() {
    let place = place_with_models();
    let [tune, tuned, ..] = EVALUATE;
    let path = best_checkpoint(&place.at("runs/run"));
    let refused = place.run_to(2, tuned);
    assert!(refused.stderr.contains("has no temperature") && refused.stderr.contains("--tune`"), "{}", refused.stderr);
    for more in ["--split test", "--against other", "--mirror"] {
        let refused = place.run_to(2, &format!("{tune} {more}"));
        assert!(refused.stderr.contains("cannot be used with"), "{}", refused.stderr);
    }

    let before = Checkpoint::open(&path).unwrap();
    let validation = ask(&place, "others.safetensors", &[8, 18]);
    let digest = TensorFile::open(&place.at("others.safetensors")).unwrap().digest().to_owned();
    let expected = Tuned::new(&validation, &[0.3; 7], &digest);
    let lines = place.run_to(0, tune).objects();
    let after = Checkpoint::open(&path).unwrap();
    assert_eq!(after.metadata(), &Metadata { tuned: Some(expected.clone()), ..before.metadata().clone() });
    assert_eq!(after.tensors(), before.tensors());
    for (name, _) in before.tensors() {
        assert!(after.values(name).unwrap() == before.values(name).unwrap(), "{name}");
    }
    // The scores are those of the posters that it was tuned on, and say so.
    assert_eq!(told(&lines, "genre").0, counts(&validation.scores(&[0.3; 7])));
    assert_eq!(told(&lines, "tuned_genre").0, counts(&validation.scores(&expected.thresholds)));
    let of_all = lines.iter().find(|line| line["kind"] == "tuned_all").unwrap();
    assert_eq!((&of_all["tuned_on"], &of_all["is_on_these"]), (&2.into(), &true.into()));
    let at = |lines: &[Value], number: usize, name: &str| {
        lines.iter().filter(|line| line["kind"] == "calibration").nth(number).unwrap()[name].as_f64().unwrap()
    };
    assert!(at(&lines, 1, "loss") <= at(&lines, 0, "loss"));

    // On other posters.
    let all = ask(&place, "posters.safetensors", &ALL);
    let lines = place.run_to(0, tuned).objects();
    let (found, thresholds) = told(&lines, "genre");
    assert_eq!(found, counts(&all.scores(&expected.thresholds)), "calibrated or not, the same are named");
    let calibrated = expected.calibrated_thresholds();
    assert!(thresholds.iter().zip(&calibrated).all(|(found, expected)| (found - expected).abs() <= 1e-12));
    let last = &lines[lines.len() - 1];
    let loss = cross_entropy(&all.logits, &all.targets, expected.temperature);
    assert!((last["loss"].as_f64().unwrap() - loss).abs() <= 1e-6 * loss, "{last} {loss}");
    assert_eq!((&last["thresholds"], &last["calibrated"]), (&"tuned".into(), &true.into()));
    assert_eq!(lines.iter().find(|line| line["kind"] == "tuned_all").unwrap()["is_on_these"], false);
    let plain = cross_entropy(&all.logits, &all.targets, 1.0);
    assert!((at(&lines, 0, "loss") - plain).abs() <= 1e-6 * plain);
    assert!((at(&lines, 1, "loss") - loss).abs() <= 1e-6 * loss);
}

#[test]
fn nobody_tunes_a_model_without_validation_posters_or_while_it_is_trained() {
    let place = place_with_models();
    let genres = synthetic::GENRES.map(String::from).to_vec();
    let description = Description { size: SIDE, genres, capacity: 2, provenance: Default::default() };
    let mut writer = TensorFileWriter::create(&place.at("tests.safetensors"), description).unwrap();
    for number in 0..2 {
        let (pixels, labels) = synthetic::draw(1, number, SIDE);
        writer.push(&number.to_string(), &pixels, &labels, Split::Test).unwrap();
    }
    writer.finish().unwrap();
    let told = place.run_to(3, "evaluate --run run --data tests.safetensors --tune --device cpu --precision f32 -q");
    assert!(told.stderr.contains("tests.safetensors has no validation posters"), "{}", told.stderr);

    let held = RunFolder::hold(&place.at("runs/run")).unwrap();
    let told = place.run_to(1, EVALUATE[0]);
    assert!(told.stderr.contains(&format!("in use by process {}", std::process::id())), "{}", told.stderr);
    drop(held);
    assert_eq!(std::fs::read_to_string(place.at("runs/run/lock")).unwrap(), "");
    let told = place.run_to(4, "evaluate --run absent --tune --device cpu --precision f32 -q");
    assert!(told.stderr.contains("holds no trained run") && !place.at("runs/absent").exists(), "{}", told.stderr);
}

#[test]
fn evaluate_compares_models_and_looks_at_mirror_images() {
    let place = place_with_models();
    let [.., against, mirror] = EVALUATE;
    let best = "runs/run/checkpoints/best.safetensors";
    let differences = |stdout: &str| -> Vec<csv::StringRecord> {
        let rows = csv::Reader::from_reader(stdout.as_bytes()).records().collect::<Result<Vec<_>, _>>().unwrap();
        rows.into_iter().filter(|row| &row[0] == "difference").collect()
    };
    let found = differences(&place.run_to(0, against).stdout);
    assert_eq!(found.len(), 5 * (7 + 2) + 5);
    let loss = found.iter().find(|row| &row[3] == "loss").unwrap();
    let number = |cell: usize| loss[cell].parse::<f64>().unwrap();
    let [this, other] = ["run", "other"].map(|run| {
        let words = format!("evaluate --run {run} --split all --device cpu --precision f32 --json --quiet");
        place.run_to(0, &words).objects().pop().unwrap()["loss"].as_f64().unwrap()
    });
    assert!(
        (number(4) - (this - other)).abs() <= 1e-12 && (number(7) - other).abs() <= 1e-12,
        "{loss:?} {this} {other}"
    );
    assert!(number(5) <= number(4) && number(4) <= number(6), "{loss:?}");
    // Beside itself, by its file, a model is no better and no worse.
    let found = differences(&place.run_to(0, &against.replace("other", best)).stdout);
    assert!(found.iter().all(|row| row[4].is_empty() || [&row[4], &row[5], &row[6]] == ["0", "0", "0"]), "{found:?}");

    let checkpoint = Checkpoint::open(&place.at(best)).unwrap();
    let genres = checkpoint.metadata().genres.iter().map(|genre| genre.to_uppercase()).collect();
    let metadata = Metadata { genres, ..checkpoint.metadata().clone() };
    let renamed = place.at("renamed.safetensors");
    let values = |name: &str| checkpoint.values(name);
    checkpoint::write(&Disk, &renamed, &metadata, checkpoint.tensors(), values).unwrap();
    let told = place.run_to(3, &against.replace("other", "renamed.safetensors"));
    assert!(told.stderr.contains("the genres") && told.stderr.contains("renamed.safetensors"), "{}", told.stderr);
    place.run_to(4, &against.replace("other", "absent"));

    let file = TensorFile::open(&place.at("posters.safetensors")).unwrap();
    let pixels: Vec<u8> =
        ALL.iter().flat_map(|&poster| file.image_checked(poster as usize).unwrap().into_owned()).collect();
    let targets: Vec<u8> = ALL.iter().flat_map(|&poster| file.labels(poster as usize).to_vec()).collect();
    let logits = mirrored(&model(&place.at(best)), &pixels);
    let lines = place.run_to(0, mirror).objects();
    let (last, loss) = (&lines[lines.len() - 1], cross_entropy(&logits, &targets, 1.0));
    assert!((last["loss"].as_f64().unwrap() - loss).abs() <= 1e-6 * loss, "{last} {loss}");
    assert!((this - loss).abs() >= 1e-5 * loss, "mirror images have other answers: {this} {loss}");
    assert_eq!((&last["mirror"], &last["thresholds"]), (&true.into(), &"given".into()));
    let probabilities: Vec<f32> = logits.iter().map(|&z| 1.0 / (1.0 + (-z).exp())).collect();
    assert_eq!(told_counts(&lines), counts(&Scores::new(&probabilities, &targets, &[0.45; 7])));
}

fn told_counts(lines: &[Value]) -> Vec<[u64; 4]> {
    told(lines, "genre").0
}

/// The mean of the logits of posters and of their mirror images, whose pixels are turned round here.
fn mirrored(model: &Model<Cpu>, pixels: &[u8]) -> Vec<f32> {
    let turned: Vec<u8> =
        pixels.chunks(3 * SIDE).flat_map(|row| row.chunks(3).rev().flatten().copied().collect::<Vec<_>>()).collect();
    let placements = vec![Placement::default(); pixels.len() / (3 * SIDE * SIDE)];
    let logits = |pixels: &[u8]| {
        let posters = Posters { pixels, placements: &placements, format: &Pixels::Unit.format() };
        model.logits(posters).unwrap().to_host(&**model.device()).unwrap()
    };
    logits(pixels).into_iter().zip(logits(&turned)).map(|(a, b)| (a + b) / 2.0).collect()
}

#[test]
fn infer_decides_as_its_flags_ask() {
    let place = place_with_models();
    let best = best_checkpoint(&place.at("runs/run"));
    let drawn = [4, 5].map(|poster| synthetic::draw(1, poster, SIDE).0);
    for (name, pixels) in ["a.png", "b.png"].iter().zip(&drawn) {
        image::RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels.clone()).unwrap().save(place.at(name)).unwrap();
    }
    let [tuned, mirror] = INFER.map(|words| format!("{words} {} a.png b.png", best.display()));
    let refused = place.run_to(2, &tuned);
    assert!(refused.stderr.contains("has no temperature, nor tuned thresholds"), "{}", refused.stderr);

    let model = model(&best);
    let placements = [Placement::default(); 2];
    let pixels = drawn.concat();
    let posters = Posters { pixels: &pixels, placements: &placements, format: &Pixels::Unit.format() };
    let logits = model.logits(posters).unwrap().to_host(&**model.device()).unwrap();
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    // Of the first poster just the first three genres are named.
    let between = |genre: usize| sigmoid(f64::from(logits[genre]) + if genre < 3 { -1e-3 } else { 1e-3 });
    let thresholds: Vec<f64> = (0..7).map(between).collect();
    let found = Tuned { thresholds: thresholds.clone(), temperature: 2.5, posters: 9, data_digest: String::new() };
    tuning::store(&Checkpoint::open(&best).unwrap(), found).unwrap();
    let stdout = place.run_to(0, &tuned).stdout;
    let mut reader = csv::Reader::from_reader(stdout.as_bytes());
    let head: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(head, [&["poster".to_owned(), "genres".to_owned()][..], &synthetic::GENRES.map(String::from)].concat());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.iter().map(|row| &row[0]).collect::<Vec<_>>(), ["a.png", "b.png"]);
    for (row, logits) in rows.iter().zip(logits.chunks(7)) {
        let named: Vec<&str> = row[1].split('|').filter(|genre| !genre.is_empty()).collect();
        for (genre, &z) in logits.iter().enumerate() {
            let (z, probability) = (f64::from(z), row[2 + genre].parse::<f64>().unwrap());
            assert!((probability - sigmoid(z / 2.5)).abs() <= 1e-6, "{row:?}");
            assert_eq!(named.contains(&synthetic::GENRES[genre]), sigmoid(z) >= thresholds[genre], "{row:?}");
        }
    }
    assert_eq!(rows[0][1].split('|').count(), 3, "{rows:?}");

    let logits = mirrored(&model, &pixels);
    for (line, logits) in place.run_to(0, &mirror).objects().iter().zip(logits.chunks(7)) {
        assert_eq!((&line["mirror"], &line["thresholds"]), (&true.into(), &"given".into()));
        for genre in line["genres"].as_array().unwrap() {
            let at = synthetic::GENRES.iter().position(|name| genre["genre"] == *name).unwrap();
            let expected = sigmoid(logits[at].into());
            assert!((genre["probability"].as_f64().unwrap() - expected).abs() <= 1e-6, "{line}");
            assert_eq!((&genre["named"], &genre["threshold"]), (&(expected >= 0.45).into(), &0.45.into()), "{line}");
        }
    }
    let told = place.run_to(0, &tuned.replace(" --csv", ""));
    assert!(told.stderr.contains("calibrated: logits are divided by 2.5000\n"), "{}", told.stderr);
    assert!(told.stderr.ends_with("✓ marks the genres at or above their tuned thresholds\n"), "{}", told.stderr);
}
