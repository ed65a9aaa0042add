//! `--log-format json`: what is said on stderr, as objects.

use crate::{onesheet, posters, run, train, trained};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// The objects on stderr, each a line with a schema number.
fn objects(stderr: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let objects: Vec<Value> = stderr.lines().map(read).collect();
    assert!(objects.iter().all(|object| object["schema"] == 1 && object["text"].is_string()), "{objects:?}");
    objects
}

#[test]
fn a_run_is_told_in_objects_and_its_results_are_what_they_were() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let (code, stdout, stderr) = run(train(folder.path(), &data).args(["--device", "cpu", "--log-format", "json"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("epoch  train loss") && stdout.lines().count() == 2, "{stdout}");
    let told = objects(&stderr);
    let text = |object: &Value| object["text"].as_str().unwrap().to_owned();
    assert!(text(&told[0]).starts_with("ResNet-50, 25,817,991 parameters"), "{told:?}");
    let last = text(told.last().unwrap());
    assert!(last.starts_with("trained to epoch 1") && last.contains("\nlook at "), "{last}");
    assert!(told.iter().all(|object| ["note", "step"].contains(&object["kind"].as_str().unwrap())), "{told:?}");

    // In front of the tool's name as well.
    let diverging = ["--log-format", "json", "train", "--resume", "runs/run", "--epochs", "2", "--lr", "1e38"];
    let (code, _, stderr) = run(onesheet().current_dir(&folder).args(diverging));
    let told = objects(&stderr);
    let error = told.last().unwrap();
    assert_eq!((code, &error["kind"], &error["exit_code"]), (6, &"error".into(), &6.into()));
    assert!(text(error).starts_with("error: the loss of step "), "{error}");
}

#[test]
fn every_tool_that_narrates_does_so_in_objects() {
    let folder = &trained().0;
    let model = "runs/run/checkpoints/best.safetensors";
    for (words, code) in [
        ("evaluate --run run --device cpu".to_owned(), 0),
        (format!("infer --model {model} --device cpu absent.png"), 3),
        ("prepare --labels absent.csv --posters .".to_owned(), 1),
        ("study --data absent.safetensors".to_owned(), 1),
    ] {
        let (found, _, stderr) =
            run(onesheet().current_dir(folder).args(words.split(' ')).args(["--log-format", "json"]));
        assert_eq!(found, code, "{words}: {stderr}");
        let told = objects(&stderr);
        let errors = told.iter().filter(|object| object["kind"] == "error").count();
        assert_eq!(errors > 0, code != 0, "{words}: {stderr}");
    }
    // A name from outside is in it as it is.
    let odd = "a\u{1b}\"b.png";
    let (_, _, stderr) =
        run(onesheet().current_dir(folder).args(["infer", "--log-format", "json", "--model", model, odd]));
    let told = objects(&stderr);
    assert!(told.iter().any(|object| object["file"] == odd) && !stderr.contains('\u{1b}'), "{stderr}");
    assert!(Path::new(model).is_relative());
}
