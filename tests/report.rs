//! The page of a run: that it holds what the run's folder holds, that nothing from outside is taken for a part of it, and that `train`
//! and `onesheet report` write it.
#![cfg(unix)]

use assert_cmd::cargo::cargo_bin;
use onesheet::data::Split;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::device::counting::Habits;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Placement, Precision};
use onesheet::metrics::Scores;
use onesheet::model::{HeatMap, Posters};
use onesheet::network::resnet50;
use onesheet::report;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::dry_run;
use onesheet::training::evaluation::Answers;
use onesheet::training::history::Entry;
use onesheet::training::learner;
use onesheet::training::run_folder::{
    About, EpochRow, KeptAnswers, RunFolder, answers_file, best_checkpoint, report_file,
};
use onesheet::training::surest::{Decision, OUTCOMES, Sight};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use tempfile::TempDir;

/// Names that end an element, an attribute and a script where they are not escaped.
const HOSTILE: [&str; 3] = ["<b>&\"'", "</script><script>alert(1)</script>", "A genre whose name is long"];

/// Twelve posters of these genres, six of them for validation.
fn posters(folder: &Path, genres: [&str; 3]) -> TensorFile {
    let path = folder.join("posters.safetensors");
    let description = Description {
        size: 32,
        genres: genres.map(String::from).to_vec(),
        capacity: 12,
        provenance: Default::default(),
    };
    let mut writer = TensorFileWriter::create(&path, description).unwrap();
    for number in 0..12u8 {
        let split = if number % 2 == 0 { Split::Validation } else { Split::Train };
        let labels = [number % 3, number % 5, 1].map(|rest| u8::from(rest == 0));
        let image: Vec<u8> = (0..32 * 32 * 3).map(|at| (at as u8).wrapping_mul(number)).collect();
        writer.push(&format!("{number}<i>"), &image, &labels, split).unwrap();
    }
    writer.finish().unwrap();
    TensorFile::open(&path).unwrap()
}

fn epoch(epoch: u32, loss: f64, map: f64) -> EpochRow {
    EpochRow {
        epoch,
        step: u64::from(epoch),
        train_loss: loss,
        validation_loss: loss + 0.125,
        binary_accuracy: 0.75,
        weighted_f1: 0.5,
        coin_f1: 0.25,
        always_yes_f1: 0.375,
        mean_average_precision: map,
        learning_rate: 1e-3,
        seconds: 30.0,
    }
}

/// What a model may have said of the validation posters of `file`.
fn answers(file: &TensorFile) -> KeptAnswers {
    let posters = file.indices(Split::Validation);
    let targets: Vec<u8> = posters.iter().flat_map(|&place| file.labels(place as usize).to_vec()).collect();
    let logits: Vec<f32> = (0..targets.len()).map(|at| ((at * 7) % 11) as f32 / 3.0 - 2.0).collect();
    let probabilities = logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
    let about = About {
        epoch: 2,
        step: 2,
        loss: 0.5,
        genres: file.genres().to_vec(),
        thresholds: vec![0.3, 0.5, 0.3],
        data_digest: file.digest().into(),
    };
    let answers = Answers { loss: 0.5, logits, probabilities, targets };
    let decisions = OUTCOMES.iter().flat_map(|&outcome| answers.surest(&about.thresholds, outcome));
    let map = HeatMap { height: 1, width: 2, values: vec![1.0, 0.0] };
    let sights = decisions.map(|decision| Sight { decision, map: map.clone() }).collect();
    KeptAnswers { about, posters, answers, sights }
}

/// A run's folder with everything in it that a page shows, made without training.
fn run(folder: &Path, file: &TensorFile) -> std::path::PathBuf {
    let path = folder.join("a <run>");
    let config = RunConfig {
        network: resnet50::MINIATURE,
        data: Some("a & b".into()),
        batch: 2,
        image_size: 32,
        ..RunConfig::default()
    };
    let mut run = RunFolder::create(&path, &config).unwrap();
    run.note(&config, Entry::new(0, "a device <of> \"some\" kind".into(), &config, &config)).unwrap();
    for row in [epoch(1, 0.75, 0.25), epoch(2, 0.5, 0.625), epoch(3, 0.25, 0.5)] {
        run.log_epoch(&row).unwrap();
    }
    answers(file).write(&path).unwrap();
    let costs = dry_run::costs(&config.model(3), Habits::Processor(Precision::F32), 2, &[]).unwrap();
    report::write_plan(&path, &costs).unwrap();
    path
}

/// Every element ends where its parent does not yet, what is in attributes is quoted, and no id is given twice. Elements that hold
/// nothing have no end; script and style hold text up to their end.
fn check(page: &str) -> Result<(), String> {
    const EMPTY: [&str; 4] = ["meta", "input", "img", "link"];
    let mut open: Vec<&str> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("it begins otherwise")?;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let is_name = |letter: char| letter.is_ascii_alphanumeric();
        if let Some(after) = rest.strip_prefix('/') {
            let name = &after[..after.find('>').ok_or("an end without an end")?];
            match open.pop() {
                Some(opened) if opened == name => rest = &after[name.len() + 1..],
                opened => return Err(format!("{opened:?} ends as {name}")),
            }
            continue;
        }
        let name = &rest[..rest.find(|letter| !is_name(letter)).ok_or("a tag without an end")?];
        if name.is_empty() {
            return Err(format!("no tag: <{}", &rest[..rest.len().min(40)]));
        }
        rest = &rest[name.len()..];
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix("/>") {
                rest = after;
                break;
            }
            if let Some(after) = rest.strip_prefix('>') {
                rest = after;
                if !EMPTY.contains(&name) {
                    open.push(name);
                }
                break;
            }
            let key = &rest[..rest.find(['=', ' ', '>']).ok_or("an attribute without an end")?];
            if key.is_empty() || !key.chars().all(|letter| is_name(letter) || "-:".contains(letter)) {
                return Err(format!("no attribute: {key:?} in {name}"));
            }
            rest = &rest[key.len()..];
            if let Some(after) = rest.strip_prefix("=\"") {
                let value = &after[..after.find('"').ok_or("a value without an end")?];
                if value.contains('<') {
                    return Err(format!("{key} of {name} is {value}"));
                }
                if key == "id" && !ids.insert(value) {
                    return Err(format!("two are called {value}"));
                }
                rest = &after[value.len() + 1..];
            }
        }
        if ["script", "style"].contains(&name) {
            rest = &rest[rest.find(&format!("</{name}>")).ok_or("a script without an end")?..];
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} do not end")) }
}

#[test]
fn the_check_finds_what_is_wrong() {
    check("<!DOCTYPE html><p id=\"a\">x<img alt=\"\"><input hidden></p>").unwrap();
    for wrong in [
        "<p>",
        "<p></b>",
        "<p id=\"a\"></p><p id=\"a\"></p>",
        "<p title=\"a\"b\"></p>",
        "<p title=\"<b>\"></p>",
        "<p>a < b</p>",
        "<script>a</script></script>",
    ] {
        assert!(check(&format!("<!DOCTYPE html>{wrong}")).is_err(), "{wrong}");
    }
}

fn data(page: &str) -> serde_json::Value {
    let begin = "<script id=\"data\" type=\"application/json\">";
    let text = page.split_once(begin).unwrap().1.split_once("</script>").unwrap().0;
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_page_has_every_section_and_nothing_from_elsewhere() {
    let folder = TempDir::new().unwrap();
    let file = posters(folder.path(), ["War", "Drama", "Crime"]);
    let run = run(folder.path(), &file);
    report::write(&run, &file).unwrap();
    let page = fs::read_to_string(report_file(&run)).unwrap();
    check(&page).unwrap();
    for id in ["curves", "genres", "thresholds", "decisions", "calibration", "posters", "cost", "films", "settings"] {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")) && page.contains(&format!("<a href=\"#{id}\">")), "{id}");
    }
    for told in [
        "best epoch, 2",
        "Validation mAP</dt><dd><strong>0.6250</strong>",
        "<caption><span>Scores of each genre at the model's thresholds</span></caption>",
        "2<span aria-hidden=\"true\"> ★</span>",
        "Crime: no validation poster is of it",
        "3 of 20 epochs in 2 min",
        "onesheet 0.1.0",
        "conv1_pad .. conv1_",
        "role=\"img\"",
    ] {
        assert!(page.contains(told), "{told}");
    }
    // The scores at the model's thresholds stand in the page before any script runs.
    let KeptAnswers { about, answers, .. } = answers(&file);
    let scores = Scores::new(&answers.probabilities, &answers.targets, &[0.3, 0.5, 0.3]);
    for genre in &scores.genres {
        assert!(page.contains(&format!("<td data-score=\"f1\">{:.4}</td>", genre.counts.f1())));
    }
    assert!(page.contains(&format!("<td data-score=\"f1\">{:.4}</td>", scores.weighted.f1)));
    // The answers are there to the last bit.
    let data = data(&page);
    let found = data["probabilities"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32);
    assert_eq!(found.collect::<Vec<f32>>(), answers.probabilities);
    assert_eq!(data["targets"], serde_json::json!(answers.targets));
    assert_eq!(
        (&data["thresholds"], &data["genres"]),
        (&serde_json::json!(about.thresholds), &serde_json::json!(about.genres))
    );
    // Each poster, and below it where the model saw the genre.
    let sights = &self::answers(&file).sights;
    assert!(sights.len() > 5);
    assert_eq!(page.matches("<img alt=\"Poster of ").count(), sights.len());
    for (genre, name) in file.genres().iter().enumerate() {
        let of_genre = sights.iter().filter(|sight| sight.decision.genre == genre).count();
        assert_eq!(page.matches(&format!("<img alt=\"Where on it {name} was seen\"")).count(), of_genre, "{name}");
    }
    // Nothing is fetched.
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("), "an address");
    let sources: Vec<&str> = page.split(" src=\"").skip(1).collect();
    assert!(!sources.is_empty() && sources.iter().all(|source| source.starts_with("data:image/jpeg;base64,")));
    assert!(page.split(" href=\"").skip(1).all(|target| target.starts_with('#')));
}

#[test]
fn names_from_outside_are_text_wherever_they_stand() {
    let folder = TempDir::new().unwrap();
    let file = posters(folder.path(), HOSTILE);
    let run = run(folder.path(), &file);
    report::write(&run, &file).unwrap();
    let page = fs::read_to_string(report_file(&run)).unwrap();
    check(&page).unwrap();
    for raw in ["<b>", "<i>", "<run>", "<of>", "<script>alert"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("<h1>a &lt;run&gt;</h1>") && page.contains("a device &lt;of&gt; &quot;some&quot; kind"));
    assert_eq!(data(&page)["genres"], serde_json::json!(HOSTILE));
    assert!(page.contains("A genre whos…"), "a long name is cut in a drawing");
}

#[test]
fn a_run_without_answers_and_one_without_anything_have_pages() {
    let folder = TempDir::new().unwrap();
    let file = posters(folder.path(), ["War", "Drama", "Crime"]);
    let run = run(folder.path(), &file);
    fs::remove_file(answers_file(&run)).unwrap();
    fs::remove_file(run.join("plan.csv")).unwrap();
    report::write(&run, &file).unwrap();
    let page = fs::read_to_string(report_file(&run)).unwrap();
    check(&page).unwrap();
    assert!(page.contains("onesheet report --run") && page.contains("id=\"curves\""));
    assert!(!page.contains("id=\"thresholds\"") && !page.contains("<script") && !page.contains("id=\"cost\""));

    let empty = folder.path().join("empty");
    drop(RunFolder::create(&empty, &RunConfig::default()).unwrap());
    report::write(&empty, &file).unwrap();
    let page = fs::read_to_string(report_file(&empty)).unwrap();
    check(&page).unwrap();
    assert!(page.contains("No epoch is done yet.") && !page.contains("id=\"curves\""));

    let elsewhere = TempDir::new().unwrap();
    let others = posters(elsewhere.path(), ["War", "Drama", "Horror"]);
    let run = self::run(elsewhere.path(), &others);
    let refused = report::write(&run, &file).unwrap_err();
    assert!(matches!(refused, TrainingError::OtherPosters { .. }), "{refused}");
    assert!(!report_file(&run).exists());
}

/// Runs the tool to its end, which is to be with this exit code; what it printed on stdout and stderr.
#[track_caller]
fn onesheet(code: i32, folder: &Path, words: &str) -> (String, String) {
    let output =
        Command::new(cargo_bin("onesheet")).current_dir(folder).args(words.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

#[test]
fn train_writes_the_page_after_each_epoch_and_report_writes_the_same_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    synthetic::write(&path.join("posters.safetensors"), 20, 32, 1).unwrap();
    let train = "train --data posters.safetensors --network shallow --device cpu --precision f32 --batch 2 --epochs 2 --ema 0.9 --run run";
    let run = path.join("runs/run");
    onesheet(0, path, &format!("{train} --max-steps 7"));
    assert!(!report_file(&run).exists(), "no epoch is done");
    let (told, _) = onesheet(0, path, "report --run run --quiet");
    assert_eq!(told, "runs/run/report.html\n");
    assert!(fs::read_to_string(report_file(&run)).unwrap().contains("No epoch is done yet."));

    onesheet(0, path, "train --resume run --max-steps 9 --quiet");
    let first = fs::read_to_string(report_file(&run)).unwrap();
    assert!(first.contains(", 1 of 2 epochs in "), "of the first epoch");
    let (_, stderr) = onesheet(0, path, "train --resume run --max-steps none");
    assert!(stderr.contains("look at  runs/run/report.html in a browser, log.csv and steps.csv"), "{stderr}");
    let page = fs::read_to_string(report_file(&run)).unwrap();
    check(&page).unwrap();
    assert!(page.contains(", 2 of 2 epochs in "));

    // From what is kept, and from what the model is asked again.
    let kept = fs::read(answers_file(&run)).unwrap();
    fs::remove_file(report_file(&run)).unwrap();
    let (_, stderr) = onesheet(0, path, "report --run run");
    assert!(!stderr.contains("asking"), "{stderr}");
    assert!(fs::read_to_string(report_file(&run)).unwrap() == page);
    fs::write(answers_file(&run), "nothing").unwrap();
    let (_, stderr) = onesheet(0, path, "report --run run --device cpu --precision f32 --batch 2");
    assert!(
        stderr.contains("holds no answers of a model") && stderr.contains("about 2 validation posters"),
        "{stderr}"
    );
    assert!(stderr.contains(", f32); --device cpu"), "{stderr}");
    assert!(fs::read_to_string(report_file(&run)).unwrap() == page);
    assert!(fs::read(answers_file(&run)).unwrap() == kept, "the same answers and the same loss");

    // Each heat map is the model's own, of that poster and that genre.
    let seen = KeptAnswers::read(&run).unwrap().unwrap();
    let file = TensorFile::open(&path.join("posters.safetensors")).unwrap();
    let best = Checkpoint::open_model(&best_checkpoint(&run)).unwrap();
    let mut model = learner::load(Rc::new(Cpu::new()), &best).unwrap();
    let format = best.metadata().config.pixels.format();
    let genres: HashSet<usize> = seen.sights.iter().map(|sight| sight.decision.genre).collect();
    assert!(genres.len() > 2, "{genres:?}");
    for Sight { decision: Decision { row, genre }, map } in &seen.sights {
        let pixels = file.image_checked(seen.posters[*row] as usize).unwrap();
        let posters = Posters { pixels: &pixels, placements: &[Placement::default()], format: &format };
        let expected = &model.explain(posters, &[*genre]).unwrap()[0][0];
        assert_eq!((map.height, map.width), (expected.height, expected.width));
        let most = expected.values.iter().fold(1e-6, |most: f32, value| most.max(*value));
        let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-3 * most;
        assert!(map.values.iter().zip(&expected.values).all(near), "{row}, {genre}: {map:?}, {expected:?}");
    }

    // Answers of an earlier version, which do not say where the model saw the genres.
    let mut earlier = KeptAnswers::read(&run).unwrap().unwrap();
    assert!(earlier.sights.iter().any(|sight| sight.map.values.iter().any(|&value| value > 0.0)));
    earlier.sights.clear();
    earlier.write(&run).unwrap();
    onesheet(0, path, "report --run run --device cpu --precision f32 --batch 2");
    assert!(fs::read(answers_file(&run)).unwrap() == kept, "they are asked for");

    // Elsewhere, and nothing in the run's folder changes.
    fs::remove_file(answers_file(&run)).unwrap();
    let (told, _) = onesheet(0, path, "report --run run --out page.html --device cpu --precision f32 --batch 1 -q");
    assert_eq!(told, "page.html\n");
    check(&fs::read_to_string(path.join("page.html")).unwrap()).unwrap();
    assert!(!answers_file(&run).exists());
    // While it is being trained that is the only way.
    let held = RunFolder::hold(&run).unwrap();
    let (_, stderr) = onesheet(1, path, "report --run run --device cpu");
    assert!(stderr.contains("the run is being trained; --out FILE writes its page elsewhere meanwhile"), "{stderr}");
    drop(held);

    let (_, stderr) = onesheet(1, path, "report --run absent");
    assert!(stderr.contains("runs/absent holds no run"), "{stderr}");
    synthetic::write(&path.join("others.safetensors"), 20, 32, 2).unwrap();
    let (_, stderr) = onesheet(3, path, "report --run run --data others.safetensors --device cpu");
    assert!(stderr.contains("was trained on other posters"), "{stderr}");
}
