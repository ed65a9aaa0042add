//! The flags of `study`. What its runs come to is looked at in `tests/study.rs`.

use crate::{Place, SIDE, assert_all_are_typed, settings};
use onesheet::data::synthetic;
use onesheet::network::shallow;
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use std::fs;

const STUDY: &str = "study --data posters.safetensors --data large.safetensors --runs list.toml --weights-dir weights --epochs 3 --out out \
                     --device cpu --precision f32 --batch 4 --image-size 40 --max-steps 1 --network shallow --quiet";

#[test]
fn every_flag_of_study_reaches_the_runs() {
    let place = Place::with_posters();
    synthetic::write(&place.at("large.safetensors"), 20, 40, 1).unwrap();
    let run = |label: &str, more: &str| format!("[[run]]\nlabel = \"{label}\"\n{more}\n");
    let own = format!("image_size = {SIDE}\nbatch = 5");
    let needs_weights = "[[run]]\nlabel = \"c\"\nnetwork = \"vgg16\"\nexperiment = \"imagenet\"\n";
    let list = ["name = \"some\"\n", &run("a", ""), &run("b", &own), needs_weights].concat();
    fs::write(place.at("list.toml"), list).unwrap();
    let told = place.run_to(0, STUDY);
    assert_eq!(told.stderr, "");
    assert!(told.stdout.contains("cannot read --weights-dir weights"), "{}", told.stdout);
    for (label, side, batch, data) in [("a", 40, 4, "large.safetensors"), ("b", SIDE, 5, "posters.safetensors")] {
        let (config, _) = settings(&place.at("out").join(label));
        assert_eq!((config.device, config.precision), (DeviceChoice::Cpu, PrecisionChoice::F32));
        assert_eq!((config.network, config.epochs, config.max_steps), (shallow::NETWORK, 3, Some(1)));
        assert_eq!((config.image_size, config.batch, config.data), (side, batch, Some(place.at(data))));
    }
    let told = place.run_to(0, &format!("{STUDY} --json"));
    assert!(told.stdout.contains("\"kind\":\"table1\""), "{}", told.stdout);
    assert_all_are_typed("study", [STUDY, "-q --json"]);
}
