//! The flags of `serve`. What it answers, and refuses, is in `tests/serve/`.

use crate::answers::place_with_models;
use crate::assert_all_are_typed;
use crate::served::{Answered, Served, connect};
use std::io::Write;
use std::net::TcpListener;

const ALL: &str = "--model runs/run --address 127.0.0.2 --port 0 --device cpu --precision f32 --thresholds 0.25 --mirror \
                   --max-bytes 4000 --max-pixels 900 --max-waiting 5 --max-seconds 7";
const QUIET: &str = "--model runs/run/checkpoints/last.safetensors --device cpu --quiet";
/// The model is not tuned.
const CALIBRATED: &str = "serve --model runs/run --port 0 --device cpu -q --calibrated";

#[test]
fn serve_listens_where_its_flags_say_and_answers_as_they_say() {
    assert_all_are_typed("serve", [ALL, QUIET, CALIBRATED]);
    let place = place_with_models();
    let served = Served::start(&place.path, ALL);
    assert!(served.address.ip().to_string() == "127.0.0.2" && served.address.port() > 0);
    let model = served.get("/model").json();
    assert!(model["device"].as_str().unwrap().ends_with(", f32); --device cpu"), "{model}");
    assert_eq!((&model["thresholds"], &model["mirror"]), (&"given".into(), &true.into()));
    assert!(model["genres"].as_array().unwrap().iter().all(|genre| genre["threshold"] == 0.25));
    let limits = serde_json::json!({ "bytes": 4000, "pixels": 900, "waiting": 5, "seconds": 7, "posters": 64 });
    assert_eq!(model["limits"], limits);

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let words = format!("serve {QUIET} --port {}", free.port());
    let mut child = place.onesheet(&words).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stream = connect(free);
    write!(stream, "GET /model HTTP/1.1\r\nHost: {free}\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Answered::read(stream).json()["thresholds"], "model");
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap().stderr;
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));

    let told = place.run_to(2, CALIBRATED);
    assert!(told.stderr.contains("has no temperature"), "{}", told.stderr);
}
