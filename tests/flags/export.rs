//! The flags of `export`. What the files hold is `tests/export/`'s to say; here it is whose model they are, where they go, and how they
//! answer.

use crate::{Place, SIDE, assert_all_are_typed, write_model};
use onesheet::data::synthetic;
use onesheet::network::{shallow, vgg16};
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::export::{self, Input};
use onesheet::training::tuning::{self, Tuned};
use serde_json::json;
use std::fs;
use std::path::Path;

const RUN: &str = "export --model run --to onnx";
const FILE: &str = "export --model model.safetensors --to keras --json";
const OUT: &str = "export --model runs/run --to safetensors --out alone.safetensors --quiet";
const NUMBERS: &str = "export --model model.safetensors --to onnx --input numbers -q";
const CALIBRATED: &str = "export --model model.safetensors --to onnx --input bytes --calibrated --out calibrated.onnx";

#[test]
fn every_flag_is_typed() {
    assert_all_are_typed("export", [RUN, FILE, OUT, NUMBERS, CALIBRATED]);
}

/// A folder with a run's best checkpoint, and another model of Keras's.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir_all(place.at("runs/run/checkpoints")).unwrap();
    let settings = |network| RunConfig { network, image_size: SIDE, ..RunConfig::default() };
    write_model(&place.at("runs/run/checkpoints/best.safetensors"), 1, settings(shallow::NETWORK));
    write_model(&place.at("model.safetensors"), 2, settings(vgg16::MINIATURE));
    place
}

fn poster(place: &Place) {
    let (pixels, _) = synthetic::draw(1, 0, 40);
    image::RgbImage::from_raw(40, 40, pixels).unwrap().save(place.at("poster.png")).unwrap();
}

/// Whether the file is what the library writes of this model.
fn assert_written(place: &Place, found: &str, model: &str, write: impl FnOnce(&Checkpoint, &Path)) {
    let (expected, model) = (place.at("expected"), Checkpoint::open(&place.at(model)).unwrap());
    write(&model, &expected);
    assert!(fs::read(place.at(found)).unwrap() == fs::read(&expected).unwrap(), "{found}");
}

#[test]
fn each_form_goes_where_it_is_said_or_is_named_after_the_model() {
    let place = place();
    let best = "runs/run/checkpoints/best.safetensors";
    let told = place.run_to(0, RUN);
    assert!(told.stdout.is_empty() && told.stderr.starts_with("run.onnx: ShallowNet, 7 genres, "), "{told:?}");
    assert_written(&place, "run.onnx", best, |model, out| export::onnx(model, out, Input::Bytes, false).unwrap());

    let told = place.run_to(0, FILE);
    let expected = json!({
        "schema": 1, "kind": "export", "to": "keras", "bytes": fs::metadata(place.at("model.h5")).unwrap().len(),
        "network": "vgg16-miniature", "genres": synthetic::GENRES, "image_size": SIDE,
        "model": "model.safetensors", "out": "model.h5",
    });
    assert_eq!((told.objects(), told.stderr.as_str()), (vec![expected], ""));
    assert_written(&place, "model.h5", "model.safetensors", |model, out| export::keras(model, out).unwrap());

    let told = place.run_to(0, NUMBERS);
    assert!(told.stdout.is_empty() && told.stderr.is_empty(), "{told:?}");
    assert_written(&place, "model.onnx", "model.safetensors", |model, out| {
        export::onnx(model, out, Input::Numbers, false).unwrap();
    });
}

#[test]
fn the_weights_alone_answer_as_the_model_does_and_begin_a_run() {
    let place = place();
    poster(&place);
    let told = place.run_to(0, OUT);
    assert!(told.stdout.is_empty() && told.stderr.is_empty(), "{told:?}");
    let asked = |model: &str| place.run_to(0, &format!("infer --device cpu --json poster.png --model {model}")).stdout;
    let answer = asked("alone.safetensors");
    assert!(answer.contains("probability"), "{answer}");
    assert_eq!(answer, asked("runs/run/checkpoints/best.safetensors"));
    synthetic::write(&place.at("posters.safetensors"), 20, SIDE, 1).unwrap();
    let begin = "train --data posters.safetensors --network shallow --device cpu --batch 4 --max-steps 0 --run new";
    place.run_to(0, &format!("{begin} --weights alone.safetensors"));
    let begun = Checkpoint::open(&place.at("runs/new/checkpoints/last.safetensors")).unwrap();
    let alone = Checkpoint::open(&place.at("alone.safetensors")).unwrap();
    for (name, _) in alone.tensors() {
        assert_eq!(begun.values(name).unwrap(), alone.values(name).unwrap(), "{name}");
    }
}

#[test]
fn calibrated_answers_take_a_temperature() {
    let place = place();
    let told = place.run_to(2, CALIBRATED);
    assert!(
        told.stderr.contains("model.safetensors has no temperature; ") && told.stderr.contains("--tune`"),
        "{told:?}"
    );
    assert!(!place.at("calibrated.onnx").exists());
    let tuned = Tuned { thresholds: vec![0.5; 7], temperature: 2.0, posters: 1, data_digest: String::new() };
    tuning::store(&Checkpoint::open(&place.at("model.safetensors")).unwrap(), tuned).unwrap();
    place.run_to(0, CALIBRATED);
    assert_written(&place, "calibrated.onnx", "model.safetensors", |model, out| {
        export::onnx(model, out, Input::Bytes, true).unwrap();
    });
}

#[test]
fn nothing_is_written_where_it_would_be_lost_or_cannot_be() {
    let place = place();
    fs::create_dir(place.at("folder")).unwrap();
    fs::create_dir_all(place.at("runs/begun/checkpoints")).unwrap();
    fs::copy(place.at("model.safetensors"), place.at("runs/begun/checkpoints/last.safetensors")).unwrap();
    fs::write(place.at("notes.onnx"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", place.at("link.onnx")).unwrap();
    for (code, words, why) in [
        (2, "--model model.safetensors --to safetensors", "will not write model.safetensors: there is a file already"),
        (2, "--model run --to onnx --out notes.onnx", "will not write notes.onnx: there is a file already; remove it"),
        (2, "--model run --to onnx --out link.onnx", "will not write link.onnx: there is a file already"),
        (2, "--model run --to onnx --out folder", "will not write folder: it is a folder; name a file in it"),
        (2, "--model run --to onnx --out none/a.onnx", "will not write none/a.onnx: its folder is not there"),
        (
            2,
            "--model run --to onnx --out notes.onnx/a.onnx",
            "will not write notes.onnx/a.onnx: its folder is not there",
        ),
        (1, "--model run --to onnx --out /proc/a.onnx", "cannot save /proc/a.onnx: creating it failed"),
        (2, "--model run --to safetensors --calibrated", "--calibrated goes with --to onnx"),
        (2, "--model run --to keras --input numbers", "--input goes with --to onnx"),
        (2, "--model run --to keras", "ShallowNet is none of Keras Applications"),
        (2, "--model run --to pickle", "invalid value 'pickle'"),
        (4, "--model nobody --to onnx", "runs/nobody holds no trained run"),
        (
            4,
            "--model begun --to onnx",
            "runs/begun has not ended an epoch; go on with it, or give its latest model, runs/begun/",
        ),
        (4, "--model notes.onnx --to keras", "notes.onnx is no checkpoint"),
    ] {
        let told = place.run_to(code, &format!("export {words}"));
        assert!(told.stderr.contains(why) && told.stdout.is_empty(), "{words}: {told:?}");
    }
    assert_eq!(fs::read(place.at("notes.onnx")).unwrap(), b"mine");
    let names = fs::read_dir(&place.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["folder", "link.onnx", "model.safetensors", "notes.onnx", "runs"]);
}
