//! What a run tells while it trains, against what it leaves behind: the same numbers, to the last digit shown.

use crate::runs::rows;
use crate::{in_trained, posters, run as run_tool, train, trained};
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::cpu::Cpu;
use onesheet::training::config::{DeviceChoice, RunConfig};
use onesheet::training::run_folder::{EpochRow, StepRow};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// Numbers as a reader of JSON has them, who drops a last digit here and there.
fn as_json(value: impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap()
}

/// 61.5 as `1:02`.
fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[test]
fn training_tells_its_settings_and_leaves_its_files() {
    let (folder, _, stderr) = trained();
    let run = folder.join("runs/run");
    for file in ["checkpoints/last.safetensors", "checkpoints/best.safetensors"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let config: RunConfig = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    let expected = RunConfig {
        data: Some(folder.join("posters.safetensors")),
        device: DeviceChoice::Cpu,
        batch: 4,
        epochs: 2,
        image_size: 32,
        momentum: 0.5,
        history: config.history.clone(),
        ..RunConfig::default()
    };
    assert_eq!(config, expected);

    let steps: Vec<StepRow> = rows(&run.join("steps.csv"));
    assert_eq!(steps.iter().map(|row| row.step).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    let epochs: Vec<EpochRow> = rows(&run.join("log.csv"));
    assert_eq!(epochs.iter().map(|row| (row.epoch, row.step)).collect::<Vec<_>>(), [(1, 4), (2, 8)]);

    // Weights as scikit-learn balances them: 16 posters, shared by seven genres, over those that are of the genre.
    let file = TensorFile::open(&folder.join("posters.safetensors")).unwrap();
    let genre = |genre: usize| {
        let of = |split| file.indices(split).iter().filter(|&&poster| file.labels(poster as usize)[genre] == 1).count();
        let [train, validation, test] = Split::ALL.map(of);
        let weight = if train == 0 { 1.0 } else { 16.0 / (7.0 * train as f64) };
        format!("  {:<14} {train:>8}  {validation:>10}  {test:>6}  {weight:>12.2}\n", file.genres()[genre])
    };
    let genres: String = (0..7).map(genre).collect();
    // Of equals the first is the best.
    let best =
        epochs.iter().rev().max_by(|a, b| a.mean_average_precision.total_cmp(&b.mean_average_precision)).unwrap();
    let verdict = if best.weighted_f1 > best.coin_f1.max(best.always_yes_f1) { "beats" } else { "does not beat" };
    // What `evaluate` says of the best model on the same posters.
    let words = "evaluate --run run --split validation --device cpu --json -q --thresholds tuned";
    let (_, lines, _) = run_tool(in_trained().args(words.split(' ')));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tuned = lines.iter().find(|line| line["over"] == "weighted").unwrap()["scores"]["f1"].as_f64().unwrap();
    let program = assert_cmd::cargo::cargo_bin("onesheet");
    let [memory, kept] = if Cpu::is_fastest_in_bf16() { [397, 4] } else { [400, 6] };
    let expected = format!(
        "ResNet-50, 25,817,991 parameters, 25,764,871 trainable
  device         {}
  experiment     own settings
  posters        16 to train on, 2 for validation, 2 for the test; 32×32
  weights        random, residual blocks start as the identity
  layers         trainable all, avg pooling, pixels imagenet (BGR minus the mean)
  schedule       2 epochs of 4 steps of 4 posters
  optimiser      Adam, learning rate 0.001, reached over the first epoch; seed 0
  batch norm     momentum 0.5
  genre             train  validation    test  class weight
{genres}  memory         {memory} MiB at most: weights 99 MiB, gradients 99 MiB, Adam 197 MiB, kept for the backward pass {kept} MiB
  run            runs/run
  go on with     {program} train --resume runs/run


trained to epoch 2, 8 steps in all, TIME this time
best epoch {}: weighted F1 {:.4} {verdict} both the coin ({:.4}) and always-yes ({:.4}); mAP {:.4}
its thresholds tuned on validation give a weighted F1 of {tuned:.4} there; they are in the model (--thresholds tuned)

look at  runs/run/report.html in a browser, log.csv and steps.csv
type     {program} evaluate --run runs/run
         {program} infer --model runs/run/checkpoints/best.safetensors poster.jpg
",
        config.history[0].device,
        best.epoch,
        best.weighted_f1,
        best.coin_f1,
        best.always_yes_f1,
        best.mean_average_precision,
        program = onesheet::files::quoted(&program),
    );
    let (before, after) = expected.split_once("TIME").unwrap();
    // On a slow machine progress is told of in between; and how much memory is free differs.
    let is_other = |line: &str| line.starts_with("epoch ") || line.ends_with(" MiB free");
    let told: String = stderr.lines().filter(|line| !is_other(line)).map(|line| format!("{line}\n")).collect();
    let time = told
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after))
        .unwrap_or_else(|| panic!("{told}\n{expected}"));
    assert!(time.split(':').all(|part| part.parse::<u64>().is_ok()), "{time}");
}

#[test]
fn the_table_of_epochs_is_the_log() {
    let (folder, stdout, _) = trained();
    let epochs: Vec<EpochRow> = rows(&folder.join("runs/run/log.csv"));
    let mut table = "epoch  train loss  val. loss  accuracy  weighted F1  baseline     mAP    time\n".to_owned();
    let mut best = -1.0;
    for row in &epochs {
        let star = if row.mean_average_precision > best { " ★" } else { "" };
        best = row.mean_average_precision.max(best);
        let (loss, validation, accuracy) = (row.train_loss, row.validation_loss, 100.0 * row.binary_accuracy);
        let (f1, baseline, map) = (row.weighted_f1, row.coin_f1.max(row.always_yes_f1), row.mean_average_precision);
        table += &format!("  {}/2  {loss:>10.4}  {validation:>9.4}  {accuracy:>6.2} %  ", row.epoch);
        table += &format!("{f1:>11.4}  {baseline:>8.4}  {map:>6.4}  {:>6}{star}\n", minutes(row.seconds));
    }
    assert_eq!(*stdout, table);
}

#[test]
fn training_prints_an_object_an_epoch_with_json() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let (code, lines, stderr) = run_tool(train(folder.path(), &data).args(["--epochs", "1", "--json", "--quiet"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let run = folder.path().join("runs/run");
    let [row] = rows::<EpochRow>(&run.join("log.csv"))[..] else { panic!("one epoch") };
    let config: RunConfig = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    let expected =
        json!({ "schema": 1, "kind": "epoch", "best": true, "device": config.history[0].device, "row": row });
    assert_eq!(serde_json::from_str::<Value>(lines.trim()).unwrap(), as_json(expected));
    assert_eq!((row.epoch, row.step), (1, 4));
}

/// What training logged of its validation posters is what `evaluate` finds in them afterwards, of the best epoch and of the last.
#[test]
fn evaluate_finds_the_scores_that_training_logged() {
    let epochs: Vec<EpochRow> = rows(&trained().0.join("runs/run/log.csv"));
    // Of equals the first is the best.
    let best =
        epochs.iter().rev().max_by(|a, b| a.mean_average_precision.total_cmp(&b.mean_average_precision)).unwrap();
    for (which, row) in [("best", best), ("last", &epochs[1])] {
        let words = "evaluate --run run --split validation --device cpu --json -q --checkpoint";
        let (code, lines, stderr) = run_tool(in_trained().args(words.split(' ')).arg(which));
        assert_eq!((code, stderr.as_str()), (0, ""));
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let all = &lines[lines.len() - 1];
        assert_eq!((&lines[7]["over"], &all["posters"]), (&"weighted".into(), &2.into()));
        let weighted = &lines[7]["scores"];
        // Training has tuned the best of its models on these posters, and no other.
        let tuned: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "tuned_all").collect();
        let told: Vec<_> =
            tuned.iter().map(|line| (line["tuned_on"].as_u64(), line["is_on_these"].as_bool())).collect();
        assert_eq!(told, if which == "best" { vec![(Some(2), Some(true))] } else { vec![] });
        let found =
            [&weighted["f1"], &weighted["coin_f1"], &weighted["always_yes_f1"], &all["binary_accuracy"], &all["map"]];
        let logged = [row.weighted_f1, row.coin_f1, row.always_yes_f1, row.binary_accuracy, row.mean_average_precision];
        for (found, logged) in found.into_iter().zip(logged) {
            assert!((found.as_f64().unwrap() - logged).abs() <= 1e-12, "{which}: {row:?} {weighted} {all}");
        }
    }
}
