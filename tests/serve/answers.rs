//! What is said of posters, against what `infer` says of the same files.

use crate::{POSTERS, folder, kind, poster, serve};
use assert_cmd::Command;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{GenericImageView, RgbImage};
use serde_json::Value;
use std::fs;
use std::thread;

/// What `infer` says of the posters with these words.
fn inferred(words: &str) -> Vec<Value> {
    let mut command = Command::cargo_bin("onesheet").unwrap();
    let command = command.current_dir(folder()).args(["infer", "--model", "model.safetensors", "--device", "cpu"]);
    let output = command.args("--precision f32 --json".split(' ')).args(words.split_whitespace()).args(POSTERS);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn without_name(mut said: Value) -> Value {
    said.as_object_mut().unwrap().remove("poster");
    said
}

#[test]
fn each_poster_is_answered_as_infer_answers() {
    for words in ["", "--mirror", "--thresholds 0.25"] {
        let expected = inferred(words);
        let served = serve(words);
        for (name, expected) in POSTERS.iter().zip(&expected) {
            let answered = served.post("/answers", kind(name), &poster(name));
            assert_eq!((answered.status, answered.headers["content-type"].as_str()), (200, "application/json"));
            let json = answered.json();
            let said = json["answers"].as_array().unwrap();
            assert_eq!(said, &[without_name(expected.clone())], "{words} {name}");
        }

        // Many in a form have their names, and the order in which they came.
        let bytes = POSTERS.map(poster);
        let posters: Vec<_> = POSTERS.into_iter().zip(bytes.iter().map(Vec::as_slice)).collect();
        let json = served.post_form("/answers", &posters).json();
        assert_eq!(json["answers"].as_array().unwrap(), &expected);
        // Whatever the body is called, the content counts.
        let json = served.post("/answers", "image/png", &bytes[1]).json();
        assert_eq!(json["answers"][0], without_name(expected[1].clone()));
    }
    let expected = inferred("--top 2");
    let served = serve("");
    let json = served.post("/answers?top=2", "image/jpeg", &poster("1.jpg")).json();
    assert_eq!(json["answers"][0], without_name(expected[1].clone()));
    assert_eq!(json["answers"][0]["genres"].as_array().unwrap().len(), 2);
}

#[test]
fn whoever_asks_at_the_same_time_has_the_answer_of_his_own_poster() {
    let expected: Vec<Value> = inferred("").into_iter().map(without_name).collect();
    let served = serve("--max-waiting 40");
    thread::scope(|scope| {
        let ask = |number: usize| {
            let (served, expected) = (&served, &expected);
            scope.spawn(move || {
                let name = POSTERS[number % 6];
                // Some ask for heat maps as well.
                let query = if number.is_multiple_of(5) { "?explain=true" } else { "" };
                let mut json = served.post(&format!("/answers{query}"), kind(name), &poster(name)).json();
                for genre in json["answers"][0]["genres"].as_array_mut().unwrap() {
                    genre.as_object_mut().unwrap().remove("picture");
                }
                assert_eq!(json["answers"][0], expected[number % 6], "{name}");
            })
        };
        let asking: Vec<_> = (0..36).map(ask).collect();
        asking.into_iter().for_each(|asking| asking.join().unwrap());
    });
}

/// The picture in a data: address.
fn picture(address: &Value) -> RgbImage {
    let png = address.as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    image::load_from_memory(&BASE64_STANDARD.decode(png).unwrap()).unwrap().into_rgb8()
}

#[test]
fn heat_maps_are_those_that_infer_draws() {
    let drawn = folder().join("drawn");
    let drawn = drawn.to_str().unwrap();
    let served = serve("");
    for (words, query) in [("", "?explain=true"), ("--top 3", "?explain=true&top=3")] {
        let _ = fs::remove_dir_all(drawn);
        let expected = inferred(&format!("{words} --explain {drawn}"));
        let mut pictures = 0;
        for (name, expected) in POSTERS.iter().zip(expected) {
            let json = served.post(&format!("/answers{query}"), kind(name), &poster(name)).json();
            let said = json["answers"][0]["genres"].as_array().unwrap();
            assert_eq!(said.len(), expected["genres"].as_array().unwrap().len());
            for (said, expected) in said.iter().zip(expected["genres"].as_array().unwrap()) {
                let is_drawn = expected.get("picture").is_some();
                assert_eq!(said.get("picture").is_some(), is_drawn, "{name} {said}");
                if is_drawn {
                    // There it is the right half, above a line of text.
                    let found = picture(&said["picture"]);
                    let whole = image::open(expected["picture"].as_str().unwrap()).unwrap().into_rgb8();
                    let left = whole.width() - found.width();
                    let right = whole.view(left, 0, found.width(), found.height()).to_image();
                    assert!(right == found, "{name} {}", said["genre"]);
                    pictures += 1;
                }
            }
        }
        assert!(pictures >= 6, "{pictures}");
    }
    // Several with a name each, and none where nobody asks.
    let bytes = [poster("1.jpg"), poster("2.webp")];
    let form = [("one", bytes[0].as_slice()), ("other", &bytes[1])];
    let json = served.post_form("/answers?explain=true&top=1", &form).json();
    for (number, name) in ["one", "other"].into_iter().enumerate() {
        let said = &json["answers"][number];
        assert_eq!(said["poster"], name);
        let alone = served.post("/answers?explain=true&top=1", "image/png", &bytes[number]).json();
        assert!(picture(&said["genres"][0]["picture"]) == picture(&alone["answers"][0]["genres"][0]["picture"]));
    }
    let json = served.post("/answers?explain=false", "image/jpeg", &bytes[0]).json();
    assert!(json["answers"][0]["genres"].as_array().unwrap().iter().all(|genre| genre.get("picture").is_none()));
}
