//! `onesheet study`: lists of runs from beginning to end, stopped and gone on with, and the tables made of them.
#![cfg(unix)]

use assert_cmd::cargo::cargo_bin;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::device::cpu::Cpu;
use onesheet::network::mobilenet;
use onesheet::training::checkpoint::{Metadata, Progress};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, Learner};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Two runs that can be trained, and two that cannot.
const LIST: &str = r#"
name = "small"
[[run]]
label = "one"
network = "shallow"
experiment = "random"
[[run]]
label = "two"
network = "shallow"
learning_rate = 0.01
augment = true
schedule = "cosine"
[[run]]
label = "weights"
network = "mobilenet"
experiment = "imagenet"
[[run]]
label = "years"
network = "shallow"
films = "by-decade"
"#;

/// 20 posters of 32×32 pixels, 16 of them to train on: four steps of 4 an epoch.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    synthetic::write(&folder.path().join("posters.safetensors"), 20, 32, 1).unwrap();
    fs::write(folder.path().join("list.toml"), LIST).unwrap();
    folder
}

fn onesheet(folder: &TempDir, words: &str) -> Command {
    let mut command = Command::new(cargo_bin("onesheet"));
    command.current_dir(folder.path()).args(words.split_whitespace());
    command
}

/// Runs it to its end, which is to be with this exit code; what it printed on stdout and stderr.
#[track_caller]
fn run_to(code: i32, folder: &TempDir, words: &str) -> (String, String) {
    let output = onesheet(folder, words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

const STUDY: &str = "study --data posters.safetensors --epochs 2 --batch 4 --device cpu --precision f32";

/// The tables that are in a folder and their page, by the names of their files.
fn tables(out: &Path) -> BTreeMap<String, String> {
    let names =
        ["tables.md", "index.html", "table1.csv", "table2.csv", "table3.csv", "table4.csv", "table5.csv", "runs.csv"];
    let there = names.into_iter().filter(|name| out.join(name).exists());
    there.map(|name| (name.to_owned(), fs::read_to_string(out.join(name)).unwrap())).collect()
}

/// The rows of a table in CSV, each by the names of its columns.
fn rows(table: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(table.as_bytes()).deserialize().map(Result::unwrap).collect()
}

#[test]
fn a_study_that_is_stopped_again_and_again_ends_in_the_same_tables() {
    let folder = folder();
    run_to(0, &folder, &format!("{STUDY} --runs list.toml --out whole --quiet"));
    let whole = tables(&folder.path().join("whole"));

    let words = format!("{STUDY} --runs list.toml --out cut");
    let (one, two) = (folder.path().join("cut/one"), folder.path().join("cut/two"));
    let holds = |path: &Path, text: &str| fs::read_to_string(path).is_ok_and(|found| found.contains(text));
    // In the first epoch; in the second, once the scores of the first are there; and in another run.
    type Ready<'a> = &'a dyn Fn() -> bool;
    let moments: [(&str, Ready<'_>); 3] = [
        ("INT", &|| holds(&one.join("steps.csv"), "\n1,")),
        ("KILL", &|| holds(&one.join("study.toml"), "[middle")),
        ("TERM", &|| holds(&two.join("steps.csv"), "\n2,")),
    ];
    for (signal, is_ready) in moments {
        let mut child = onesheet(&folder, &words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while !is_ready() {
            assert!(began.elapsed() < Duration::from_secs(120), "{signal}: nothing in two minutes");
            thread::sleep(Duration::from_millis(1));
        }
        let pid = child.id().to_string();
        assert!(child.try_wait().unwrap().is_none(), "{signal}: it has ended");
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        match signal {
            "KILL" => assert_eq!(output.status.signal(), Some(9)),
            _ => {
                assert_eq!(output.status.code(), Some(if signal == "INT" { 130 } else { 143 }), "{stderr}");
                assert!(stderr.contains("what was done is saved; go on with") && stderr.contains(&words), "{stderr}");
                assert!(!stderr.contains("train --resume"), "{stderr}");
            }
        }
    }
    let (stdout, _) = run_to(0, &folder, &words);
    let cut = tables(&folder.path().join("cut"));
    assert_eq!(cut, whole);
    assert!(stdout.ends_with(&cut["tables.md"]), "{stdout}");

    // For programs: what the CSV files have, an object a row.
    let (stdout, _) = run_to(0, &folder, &format!("{words} --json"));
    let mut objects = stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    for name in ["table1", "table2", "table3", "table4", "table5", "runs"] {
        for row in rows(&cut[&format!("{name}.csv")]) {
            let object = objects.next().unwrap();
            assert_eq!((&object["kind"], &object["schema"]), (&name.into(), &1.into()));
            for (column, cell) in row {
                match &object[&column] {
                    serde_json::Value::String(text) => assert_eq!(*text, cell),
                    serde_json::Value::Null => assert_eq!(cell, ""),
                    number => {
                        let (told, cell) = (number.as_f64().unwrap(), cell.parse::<f64>().unwrap());
                        assert!((told - cell).abs() <= 1e-12 * cell.abs(), "{name}, {column}: {told} {cell}");
                    }
                }
            }
        }
    }
    assert_eq!(objects.next(), None);

    // What is done stays as it is.
    let written = || fs::metadata(one.join("config.toml")).unwrap().modified().unwrap();
    let before = written();
    let (_, stderr) = run_to(0, &folder, &words);
    assert!(stderr.contains("run 1 of 4, one: done, epoch 2"), "{stderr}");
    assert_eq!((written(), tables(&folder.path().join("cut"))), (before, whole));
    let (_, stderr) = run_to(2, &folder, &words.replace("--epochs 2", "--epochs 3"));
    assert!(stderr.contains("trained with other settings (epochs: 2 -> 3)"), "{stderr}");

    let states: Vec<_> = rows(&cut["runs.csv"]).into_iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states[..2], ["done, epoch 2", "done, epoch 2"]);
    assert!(states[2].starts_with("cannot start: it starts from ImageNet weights: add --weights-dir"), "{states:?}");
    assert!(states[2].contains("mobilenet_1_0_224_tf_no_top.h5"), "{states:?}");
    assert!(states[3].starts_with("cannot start: ") && states[3].contains("from which year"), "{states:?}");
}

/// The numbers are those of `train` and `evaluate`, by hand.
#[test]
fn the_tables_say_what_evaluate_says() {
    let folder = folder();
    run_to(0, &folder, &format!("{STUDY} --runs list.toml --out study"));
    let tables = tables(&folder.path().join("study"));
    let flags = "--data posters.safetensors --batch 4 --device cpu --precision f32 --epochs 2 --network shallow";
    for (label, settings) in [("one", "--experiment random"), ("two", "--lr 0.01 --augment --schedule cosine")] {
        for (epoch, limit) in [("1", "--max-steps 4"), ("2", "")] {
            let run = format!("{label}-{epoch}");
            run_to(0, &folder, &format!("train {flags} {settings} {limit} --run {run}"));
            for (table, split) in [("table2.csv", "train"), ("table3.csv", "validation"), ("table4.csv", "test")] {
                let words = "--checkpoint last --batch 4 --device cpu --precision f32 --json --quiet";
                let (told, _) = run_to(0, &folder, &format!("evaluate --run {run} --split {split} {words}"));
                let lines = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                let lines: Vec<_> = lines.collect();
                let genres: Vec<_> = lines.iter().filter(|line| line["kind"] == "genre").collect();
                assert_eq!(genres.len(), 7);
                let ranked = rows(&tables["table5.csv"]).into_iter().find(|row| {
                    (&*row["run"], &*row["place"], &*row["split"]) == (label, &*format!("epoch {epoch}"), split)
                });
                assert_eq!(ranked.is_some(), split != "train");
                if let Some(ranked) = ranked {
                    let number = |name: &str| -> f64 { ranked[name].parse().unwrap() };
                    let average = |over: &str, score: &str| {
                        let line = lines.iter().find(|line| line["kind"] == "average" && line["over"] == over);
                        line.unwrap()["scores"][score].as_f64().unwrap()
                    };
                    let told = [number("mean_average_precision"), number("roc_auc"), number("weighted_f1")];
                    let expected =
                        [average("macro", "average_precision"), average("macro", "roc_auc"), average("weighted", "f1")];
                    let differ = told.iter().zip(expected).any(|(told, it)| (told - it).abs() > 1e-12);
                    assert!(!differ, "{split}: {told:?} {expected:?}");
                    // Where they were tuned, no genre is worse off than at 0.3, or if it were always named.
                    let least = number("weighted_f1").max(average("weighted", "always_yes_f1"));
                    assert!(split == "test" || number("weighted_f1_tuned") >= least, "{ranked:?} {least}");
                }
                let rows = rows(&tables[table]);
                for genre in genres {
                    let row = rows.iter().find(|row| {
                        (&*row["run"], &*row["epoch"]) == (label, epoch)
                            && row["genre"] == genre["genre"].as_str().unwrap()
                    });
                    let row = row.unwrap_or_else(|| panic!("{label}, epoch {epoch}, {genre}"));
                    let f1: f64 = row["f1"].parse().unwrap();
                    assert!((f1 - genre["f1"].as_f64().unwrap()).abs() <= 1e-12, "{split}: {row:?} {genre}");
                }
            }
        }
    }
    let markdown = &tables["tables.md"];
    for told in ["| genre | one, epoch 1 | one, epoch 2 | two, epoch 1 | two, epoch 2 | fair coin | always yes |", "**"]
    {
        assert!(markdown.contains(told), "{markdown}");
    }
    let page = &tables["index.html"];
    for told in [
        "<a href=\"one/report.html\">one</a>",
        "Validation mAP by epoch",
        "<th scope=\"col\">two, epoch 2</th>",
        "<span class=\"best\">",
        "cannot start: ",
    ] {
        assert!(page.contains(told), "{told}");
    }
    assert!(
        !page.contains("**") && !page.contains("weights/report.html"),
        "of a run that never began there is no page"
    );
    assert!(folder.path().join("study/one/report.html").exists());
    let file = TensorFile::open(&folder.path().join("posters.safetensors")).unwrap();
    let all: Vec<u32> = (0..20).collect();
    let counts: Vec<String> = file.class_counts(&all).iter().map(u32::to_string).collect();
    let listed: Vec<String> = rows(&tables["table1.csv"]).into_iter().map(|row| row["all"].clone()).collect();
    assert_eq!(listed[..7], counts);
    assert_eq!(listed[7], "20");
}

/// The lists that come with the program, with the smallest network in place of theirs.
#[test]
fn each_list_is_trained_from_beginning_to_end() {
    let folder = folder();
    // Every tenth film comes twice.
    let path = folder.path().join("posters.safetensors");
    let genres = synthetic::GENRES.map(String::from).to_vec();
    let file = TensorFile::open(&path).unwrap();
    let description = Description { size: 32, genres, capacity: 22, provenance: file.provenance().clone() };
    let mut writer = TensorFileWriter::create(&folder.path().join("repeated.safetensors"), description).unwrap();
    for poster in (0..20).chain([0, 10]) {
        let image = file.image_checked(poster).unwrap();
        writer.push(&file.ids()[poster], &image, file.labels(poster), file.split(poster)).unwrap();
    }
    writer.finish().unwrap();

    for (name, list, done) in [
        ("paper", include_str!("../tools/study/paper.toml"), 1),
        ("networks", include_str!("../tools/study/networks.toml"), 5),
        ("discussion", include_str!("../tools/study/discussion.toml"), 3),
        ("recipe", include_str!("../tools/study/recipe.toml"), 21),
    ] {
        let lines = list.lines().filter(|line| !line.starts_with("network = "));
        let small = lines.map(|line| {
            line.replace("experiment = ", "network = \"shallow\"\nexperiment = ").replace("batch = 128", "batch = 5")
        });
        let small: Vec<String> = small.collect();
        fs::write(folder.path().join("small.toml"), small.join("\n")).unwrap();
        let words = STUDY.replace("posters.", "repeated.");
        run_to(0, &folder, &format!("{words} --runs small.toml --quiet"));
        let tables = tables(&folder.path().join("runs").join(format!("study-{name}")));
        let runs = rows(&tables["runs.csv"]);
        assert_eq!(runs.len(), list.matches("[[run]]").count(), "{name}");
        let (ended, others): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run["state"] == "done, epoch 2");
        assert_eq!(ended.len(), done, "{runs:?}");
        assert!(others.iter().all(|run| run["state"].starts_with("cannot start: ")), "{runs:?}");
        assert_eq!(rows(&tables["table3.csv"]).len(), done * 2 * 8, "{name}");
        // The paper's own network is beside them on the test posters.
        let papers = |table: &str| rows(table).into_iter().filter(|row| row["run"].contains("the paper's")).count();
        assert_eq!(tables.get("table4.csv").map(|table| papers(table)), (name != "recipe").then_some(8));
    }
    let once = TensorFile::open(&folder.path().join("runs/study-discussion/films-once.safetensors")).unwrap();
    assert_eq!(once.ids(), file.ids());
}

#[test]
fn a_run_takes_the_weights_and_the_posters_that_fit_it() {
    let folder = folder();
    synthetic::write(&folder.path().join("large.safetensors"), 20, 48, 1).unwrap();
    let config = RunConfig { network: mobilenet::NETWORK, image_size: 32, ..RunConfig::default() };
    let metadata = Metadata {
        genres: synthetic::GENRES.map(String::from).to_vec(),
        thresholds: vec![0.3; 7],
        resize: "area".into(),
        exif: "ignore".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config,
    };
    fs::create_dir(folder.path().join("weights")).unwrap();
    let path = folder.path().join("weights/mobilenet_start.safetensors");
    let model = metadata.config.model(7);
    Learner::new(Rc::new(Cpu::new()), model, 5).unwrap().save(&path, &metadata, Keep::Weights).unwrap();
    let list = "[[run]]\nlabel = \"large\"\nnetwork = \"shallow\"\nimage_size = 48\n\
                [[run]]\nlabel = \"larger\"\nnetwork = \"shallow\"\nimage_size = 64\n";
    fs::write(folder.path().join("list.toml"), LIST.to_owned() + list).unwrap();
    let words = format!("{STUDY} --data large.safetensors --max-steps 1 --runs list.toml --out out");
    run_to(0, &folder, &format!("{words} --weights-dir weights"));
    let settings = |run: &str| -> RunConfig {
        toml::from_str(&fs::read_to_string(folder.path().join("out").join(run).join("config.toml")).unwrap()).unwrap()
    };
    let ends_in = |path: Option<std::path::PathBuf>, name: &str| path.unwrap().ends_with(name);
    assert!(ends_in(settings("weights").weights, "weights/mobilenet_start.safetensors"));
    assert!(ends_in(settings("weights").data, "posters.safetensors"));
    assert!(ends_in(settings("large").data, "large.safetensors"));
    let tables = tables(&folder.path().join("out"));
    let states: Vec<_> = rows(&tables["runs.csv"]).into_iter().map(|row| row["state"].clone()).collect();
    assert_eq!([&states[2], &states[4]], ["done, step 1"; 2]);
    assert!(states[5].contains("no --data has posters of 64×64 pixels"), "{states:?}");
    // The weights of a run that has begun are in its checkpoint.
    run_to(0, &folder, &words);
    assert_eq!(self::tables(&folder.path().join("out")), tables);
}

/// A list that looks for something keeps the test posters for the end.
#[test]
fn what_a_list_does_not_score_is_not_looked_at() {
    let folder = folder();
    let list = "name = \"search\"\nscored = [\"validation\"]\n[[run]]\nlabel = \"one\"\n";
    fs::write(folder.path().join("list.toml"), list).unwrap();
    run_to(0, &folder, &format!("{STUDY} --runs list.toml --network shallow --max-steps 1 --out out"));
    let out = folder.path().join("out");
    let [table2, table3, table4] = [2, 3, 4].map(|number| out.join(format!("table{number}.csv")).exists());
    assert_eq!([table2, table3, table4], [false, true, false]);
    for name in ["tables.md", "table5.csv", "one/study.toml"] {
        let text = fs::read_to_string(out.join(name)).unwrap();
        assert!(text.contains("validation"), "{name}: {text}");
        assert!(!text.contains("scores on test") && !text.contains("test posters\n\n|"), "{name}: {text}");
        assert!(!text.contains("scores.test") && !text.contains(",test,"), "{name}: {text}");
    }
    let settings = fs::read_to_string(out.join("one/config.toml")).unwrap();
    assert!(settings.contains("network = \"shallow\""), "{settings}");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let folder = folder();
    for (list, told) in [
        (
            LIST.replace("learning_rate", "learning_rat"),
            "there is no setting `learning_rat`; the nearest one is `learning_rate`",
        ),
        (LIST.replace("label = \"two\"", "label = \"one\""), "another run has that label"),
        (LIST.replace("network = \"shallow\"", "image_size = 64"), "none of the runs can start"),
    ] {
        fs::write(folder.path().join("bad.toml"), list).unwrap();
        let (_, stderr) = run_to(2, &folder, &format!("{STUDY} --runs bad.toml --out out"));
        assert!(stderr.contains(told), "{stderr}");
    }
    let (_, stderr) = run_to(2, &folder, &format!("{STUDY} --runs papers --out out"));
    assert!(stderr.contains("--runs is one of paper, networks, discussion, recipe"), "{stderr}");
    run_to(
        0,
        &folder,
        "train --data posters.safetensors --network shallow --batch 4 --epochs 1 --max-steps 1 --run out/one",
    );
    let (_, stderr) = run_to(2, &folder, &format!("{STUDY} --runs list.toml --out out"));
    assert!(stderr.contains("holds a run that no study began"), "{stderr}");
}
