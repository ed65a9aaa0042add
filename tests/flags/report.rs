//! The flags of `report`. What the page holds is looked at in `tests/report.rs`.

use crate::{Place, assert_all_are_typed};
use onesheet::training::run_folder::{KeptAnswers, answers_file};
use std::fs;

const TRAIN: &str = "train --data posters.safetensors --network shallow --run run --batch 2 --epochs 1 --device cpu --precision f32 --quiet";
const HERE: &str = "report --run run --device cpu --precision f32 --batch 2 --quiet";
const ELSEWHERE: &str = "report --run run --data moved.safetensors --out page.html -q";

#[test]
fn every_flag_of_report_reaches_the_page() {
    let place = Place::with_posters();
    place.run_to(0, TRAIN);
    let run = place.at("runs/run");
    let kept = KeptAnswers::read(&run).unwrap().unwrap();
    fs::remove_file(answers_file(&run)).unwrap();
    let told = place.run_to(0, HERE);
    assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("runs/run/report.html\n", ""));
    assert_eq!(KeptAnswers::read(&run).unwrap().unwrap(), kept);
    fs::remove_file(answers_file(&run)).unwrap();
    let told = place.run_to(0, &HERE.replace("--quiet", "")).stderr;
    assert!(told.contains("f32); --device cpu"), "{told}");

    fs::rename(place.at("posters.safetensors"), place.at("moved.safetensors")).unwrap();
    let told = place.run_to(1, HERE).stderr;
    assert!(told.contains("not where they were; add --data FILE"), "{told}");
    let told = place.run_to(0, ELSEWHERE);
    assert_eq!(told.stdout, "page.html\n");
    assert!(fs::read_to_string(place.at("page.html")).unwrap().contains("moved.safetensors"));
    assert_all_are_typed("report", [HERE, ELSEWHERE]);
}
