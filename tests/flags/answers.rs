//! The flags of the tools that answer: `evaluate`, `infer` and `doctor`. What a model should answer is asked of the library, with
//! settings that are typed here.

use crate::{Place, SIDE, assert_all_are_typed, write_model};
use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Placement, cuda};
use onesheet::model::{Model, Posters};
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::learner;
use onesheet::training::run_folder::{best_checkpoint, last_checkpoint};
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A run with two checkpoints of different weights, for pixels that are no default; and another run, whose best is the first's
/// last.
pub fn place_with_models() -> Place {
    let place = Place::with_posters();
    synthetic::write(&place.at("others.safetensors"), 20, SIDE, 2).unwrap();
    for run in ["runs/run", "runs/other"] {
        fs::create_dir_all(place.at(run).join("checkpoints")).unwrap();
    }
    let run = place.at("runs/run");
    for (path, seed) in [(best_checkpoint(&run), 1), (last_checkpoint(&run), 2)] {
        let data = Some(place.at("posters.safetensors"));
        write_model(&path, seed, RunConfig { image_size: SIDE, data, pixels: Pixels::Unit, ..RunConfig::default() });
    }
    fs::hard_link(last_checkpoint(&run), best_checkpoint(&place.at("runs/other"))).unwrap();
    place
}

pub fn model(path: &Path) -> Model<Cpu> {
    learner::load(Rc::new(Cpu::new()), &Checkpoint::open(path).unwrap()).unwrap()
}

const EVALUATE: &str = "evaluate --run run --device cpu --precision f32 --json --quiet";
const TABLE: &str = "evaluate --run run --checkpoint best --split test --device cpu --precision f32 -q";
const OTHER: &str = "evaluate --run other --device cpu --precision f32 --json --quiet";

/// What `evaluate` is asked, and what it then answers on.
struct Question {
    words: &'static str,
    last: bool,
    data: &'static str,
    posters: &'static [u32],
    batch: usize,
}

const TRAIN: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17];
const ALL: [u32; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// Of drawn posters the ninth and the tenth of ten are validation and test.
const ASKED: Question = Question { words: "", last: false, data: "posters.safetensors", posters: &[9, 19], batch: 32 };

const QUESTIONS: [Question; 7] = [
    ASKED,
    Question { words: "--checkpoint last", last: true, ..ASKED },
    Question { words: "--split validation", posters: &[8, 18], ..ASKED },
    Question { words: "--split train", posters: &TRAIN, ..ASKED },
    Question { words: "--split all", posters: &ALL, ..ASKED },
    Question { words: "--split all --batch 3", posters: &ALL, batch: 3, ..ASKED },
    Question { words: "--data others.safetensors", data: "others.safetensors", ..ASKED },
];

#[test]
fn evaluate_answers_what_its_flags_ask() {
    let words = QUESTIONS.iter().map(|question| question.words);
    assert_all_are_typed("evaluate", words.chain([EVALUATE, TABLE]).chain(crate::tuned::EVALUATE));
    let place = place_with_models();
    let run = place.at("runs/run");
    let models = [best_checkpoint(&run), last_checkpoint(&run)].map(|path| model(&path));
    let (mut losses, mut of_last) = (BTreeSet::new(), String::new());
    for Question { words, last, data, posters, batch } in &QUESTIONS {
        let file = Arc::new(TensorFile::open(&place.at(data)).unwrap());
        let (model, format) = (&models[usize::from(*last)], Pixels::Unit.format());
        let goes_on = |_| ControlFlow::Continue(());
        let indices = (*posters).into();
        let answers = Answers::collect(model, &file, indices, *batch, &format, &[1.0; 7], View::Plain, goes_on);
        let answers = answers.unwrap().unwrap();
        let figures = answers.figures(&[0.3; 7])(&vec![1; posters.len()]);
        let found = figures.iter().find(|figure| figure.name == "loss").unwrap().value.unwrap();
        assert!((found - answers.loss).abs() <= 1e-6 * found, "{words}: {found} is not the device's {}", answers.loss);
        let scores = answers.scores(&[0.3; 7]);

        let told = place.run_to(0, &format!("{EVALUATE} {words}"));
        assert_eq!(told.stderr, "", "{words}");
        let lines = told.objects();
        let all = lines.last().unwrap();
        assert_eq!(all["posters"], posters.len(), "{words}");
        // As text, since it is read back to fifteen digits or so.
        let loss = format!("\"loss\":{},", serde_json::to_string(&found).unwrap());
        assert!(told.stdout.contains(&loss), "{words}: {loss} is not in {}", told.stdout);
        assert!((all["hamming_loss"].as_f64().unwrap() - scores.hamming_loss).abs() <= 1e-12, "{words}: {all}");
        let supports: Vec<usize> = lines[..7].iter().map(|line| line["support"].as_u64().unwrap() as usize).collect();
        let positives = |genre| posters.iter().filter(|&&poster| file.labels(poster as usize)[genre] == 1).count();
        assert_eq!(supports, (0..7).map(positives).collect::<Vec<_>>(), "{words}");
        losses.insert(answers.loss.to_bits());
        if *last {
            of_last = told.stdout;
        }
    }
    assert_eq!(losses.len(), QUESTIONS.len(), "each question has an answer of its own, if only in the last digits");
    // The other run's best is this one's last.
    assert_eq!(place.run_to(0, OTHER).stdout, of_last);

    // Without --json it is a table; without --quiet it is told what computed, and on what.
    let table = place.run_to(0, TABLE);
    assert_eq!(
        (table.stderr.as_str(), table.stdout.lines().next().unwrap().split_whitespace().next()),
        ("", Some("genre"))
    );
    let told = place.run_to(0, "evaluate --run run --device cpu --precision f32");
    assert_eq!(told.stdout, table.stdout);
    let lines: Vec<&str> = told.stderr.lines().collect();
    assert!(lines[0].starts_with("CPU") && lines[0].ends_with("; --device cpu"), "{lines:?}");
    let summary = format!("2 posters (test) of {}", place.at("posters.safetensors").display());
    assert!(
        lines[1].starts_with("runs/run/checkpoints/best.safetensors after epoch 0: ") && lines[1].ends_with(&summary),
        "{lines:?}"
    );

    let told = place.run_to(2, "evaluate --run run --device cpu --json --quiet --precision tf32");
    assert_eq!(
        told.stderr,
        "error: --device cpu; tf32 is a format of GPUs: on the processor --precision is f32 or bf16\n"
    );
    let told = place.run_to(2, &format!("{EVALUATE} --batch 0"));
    assert!(told.stderr.contains("--batch"), "{}", told.stderr);
    // One poster, since the simulator takes its time.
    synthetic::write(&place.at("few.safetensors"), 10, SIDE, 3).unwrap();
    let told = place.run_to(0, "evaluate --run run --data few.safetensors --device sim --precision tf32 --json -q");
    let all = told.objects().pop().unwrap();
    let device = all["device"].as_str().unwrap();
    assert!(device.starts_with("gpusim ") && device.ends_with(", tf32)") && all["posters"] == 1, "{all}");
}

const INFER: &str = "infer --device cpu --json --quiet --precision f32";
const EXPLAIN: &str = "infer --device cpu --json --quiet --precision f32 --top 2 --explain seen --model run";

#[test]
fn infer_answers_what_its_flags_ask() {
    assert_all_are_typed("infer", [INFER, EXPLAIN, "--model -q"].into_iter().chain(crate::tuned::INFER));
    let place = place_with_models();
    let drawn = [4, 5].map(|poster| synthetic::draw(1, poster, SIDE).0);
    for (name, pixels) in ["a.png", "b.png"].iter().zip(&drawn) {
        image::RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels.clone()).unwrap().save(place.at(name)).unwrap();
    }
    let [best, last] = ["best", "last"].map(|name| format!("runs/run/checkpoints/{name}.safetensors"));
    let expected = |path: &str, posters: &[usize]| -> Vec<Vec<(String, f64)>> {
        let model = model(&place.at(path));
        let pixels: Vec<u8> = posters.iter().flat_map(|&poster| drawn[poster].clone()).collect();
        let placements = vec![Placement::default(); posters.len()];
        let format = Pixels::Unit.format();
        let answers = model.predict(Posters { pixels: &pixels, placements: &placements, format: &format }).unwrap();
        let ranked = |row: &[f32]| {
            let digits = row.iter().map(|&p| (f64::from(p) * 1e7).round() / 1e7);
            let mut genres: Vec<_> = synthetic::GENRES.map(String::from).into_iter().zip(digits).collect();
            genres.sort_by(|a, b| b.1.total_cmp(&a.1));
            genres
        };
        answers.chunks(7).map(ranked).collect()
    };
    let mut first = Vec::new();
    for (model, names, posters) in [(&best, "a.png", &[0][..]), (&last, "a.png b.png", &[0, 1])] {
        let told = place.run_to(0, &format!("{INFER} --model {model} {names}"));
        assert_eq!(told.stderr, "");
        let lines = told.objects();
        let ranked = |line: &serde_json::Value| -> Vec<(String, f64)> {
            let genres = line["genres"].as_array().unwrap().iter();
            genres.map(|one| (one["genre"].as_str().unwrap().into(), one["probability"].as_f64().unwrap())).collect()
        };
        assert_eq!(lines.iter().map(ranked).collect::<Vec<_>>(), expected(model, posters), "{model} {names}");
        let poster: Vec<_> = lines.iter().map(|line| line["poster"].as_str().unwrap()).collect();
        assert_eq!(poster.join(" "), names);
        assert!(lines.iter().all(|line| line["device"].as_str().unwrap().ends_with("; --device cpu")), "{lines:?}");
        first.push(ranked(&lines[0]));
    }
    assert_ne!(first[0], first[1], "two models");

    let told = place.run_to(0, &format!("{EXPLAIN} a.png"));
    let lines = told.objects();
    let listed = lines[0]["genres"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().map(|genre| genre["genre"].as_str().unwrap()).collect();
    assert_eq!(names, [&first[0][0].0, &first[0][1].0]);
    for (name, genre) in names.iter().zip(listed) {
        assert_eq!(genre["picture"], format!("seen/a.{name}.png"));
        assert!(place.at(genre["picture"].as_str().unwrap()).is_file());
    }

    let told = place.run_to(0, &format!("infer --device cpu --precision f32 --model {best} a.png"));
    let quiet = place.run_to(0, &format!("infer --device cpu --precision f32 --model {best} a.png -q"));
    assert_eq!((quiet.stderr.as_str(), &quiet.stdout), ("", &told.stdout));
    assert!(told.stdout.starts_with("a.png\n  ✓ "), "{}", told.stdout);
    let lines: Vec<&str> = told.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("; --device cpu") && lines[1].starts_with("✓ marks"), "{lines:?}");

    let told = place.run_to(2, &format!("infer --device cpu --precision tf32 --model {best} a.png"));
    assert_eq!(
        told.stderr,
        "error: --device cpu; tf32 is a format of GPUs: on the processor --precision is f32 or bf16\n"
    );
    // The device is told of before the first poster, and the simulator would take its time for one.
    let told = place.run_to(3, &format!("infer --device sim --precision f32 --model {best} absent.png"));
    let is_told = |line: &str| line.starts_with("gpusim ") && line.ends_with(", f32)");
    assert!(told.stderr.lines().any(is_told), "{}", told.stderr);
}

const PROCESSOR: &str = "doctor --device cpu";
const FINDINGS: &str = "doctor --device cpu --json";
const SIMULATOR: &str = "doctor --device sim --kernels kernels.csv --quiet";

#[test]
fn doctor_examines_what_its_flags_name() {
    assert_all_are_typed("doctor", [PROCESSOR, FINDINGS, SIMULATOR, "-q"]);
    let place = Place::new();
    let names = |stdout: &str| -> Vec<String> {
        stdout.lines().map(|line| line.split("  ").next().unwrap().trim_end().to_owned()).collect()
    };
    let told = place.run_to(0, PROCESSOR);
    // Where the processor has no instructions for bfloat16, that is a row, and there is one check less.
    let here: BTreeSet<String> = names(&told.stdout).into_iter().collect();
    let always = ["onesheet", "processor", "machine", "memory", "disk", "check"].map(String::from);
    assert!(always.iter().all(|name| here.contains(name)) && told.stderr.is_empty(), "{told:?}");
    assert!(!told.stdout.contains("WRONG") && !told.stdout.contains("GPU"), "{told:?}");

    let found = place.run_to(0, FINDINGS).objects();
    assert!(found.iter().all(|line| line["schema"] == 1 && line["kind"] == "finding"), "{found:?}");
    let found: Vec<&serde_json::Value> = found.iter().map(|line| &line["finding"]).collect();
    let told: BTreeSet<String> = found.iter().map(|finding| finding["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, here.into_iter().filter(|name| !name.is_empty()).collect());
    for finding in found {
        let state = finding["state"].as_str().unwrap();
        assert_eq!(state == "fine", finding["advice"].is_null(), "{finding}");
        assert!(["fine", "note"].contains(&state) && finding["value"].is_string(), "{finding}");
    }

    let told = place.run_to(0, SIMULATOR);
    let rows = names(&told.stdout);
    let gpu = rows.iter().position(|row| row == "GPU").unwrap();
    let expected = ["GPU", "driver", "JIT cache", "bf16", "tf32", "f32", "spills", "check", "check", "check"];
    assert_eq!(rows[gpu..], expected.map(String::from), "{rows:?}");
    assert!(!told.stderr.contains("compil"), "{}", told.stderr);
    let mut table = csv::Reader::from_path(place.at("kernels.csv")).unwrap();
    let columns = "file,file_compiled_s,kernel,threads,registers,local_bytes,shared_bytes,resident_blocks";
    assert_eq!(table.headers().unwrap().iter().collect::<Vec<_>>().join(","), columns);
    let kernels: Vec<csv::StringRecord> = table.records().collect::<Result<_, _>>().unwrap();
    // Each kernel of each file once; a precision tells of how many it has, and shares files with the others.
    let each: BTreeSet<(String, String)> = kernels.iter().map(|row| (row[0].into(), row[2].into())).collect();
    assert_eq!(each.len(), kernels.len());
    for precision in cuda::Precision::ALL {
        let row = told.stdout.lines().find(|line| line.starts_with(&format!("{} ", precision.name()))).unwrap();
        let told: usize = row.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(told > 20 && told < kernels.len(), "{row}, and {} in the table", kernels.len());
    }

    let loud = place.run_to(0, "doctor --device sim");
    assert!(loud.stderr.contains("compiling the kernels for "), "{}", loud.stderr);
    assert_eq!(fs::read_dir(&place.path).unwrap().count(), 1, "only the table that was asked for");
}
