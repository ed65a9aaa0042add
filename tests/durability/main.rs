//! What a power cut finds on the real disk. Each file that the programs leave behind was written beside its place, synced, renamed,
//! and its folder synced, in this order: seen by a library that stands between the programs and libc, and has calls fail.
//!
//! `tests/power_cut.rs` shows on a made-up disk what this order is good for; here it is that of the system's own calls.
#![cfg(target_os = "linux")]

mod failures;
mod order;
#[path = "../support/runs.rs"]
mod runs;
#[cfg(feature = "fetch")]
#[path = "../support/server.rs"]
mod server;

use assert_cmd::cargo::cargo_bin;
use onesheet::data::synthetic;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::last_checkpoint;
use onesheet::training::trainer::Ending;
use order::{Call, calls, faults, files};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::{env, fs, process};
use tempfile::TempDir;

/// The witness, compiled once.
fn library() -> &'static Path {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = MADE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let (source, library) = (folder.path().join("witness.rs"), folder.path().join("libwitness.so"));
        fs::write(&source, include_str!("witness.rs")).unwrap();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let made = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "cdylib", "--cap-lints", "allow", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (folder, library)
    });
    library
}

/// What a program did below a folder.
struct Testimony {
    output: Output,
    calls: Vec<Call>,
    /// The files it left there, and those of before that it touched.
    left: Vec<PathBuf>,
}

impl Testimony {
    /// Runs `command` with the witness, which watches `folder`. `failing` names the calls that fail, if any.
    fn of(command: &mut Command, folder: &Path, failing: Option<&str>) -> Testimony {
        // As the system names it.
        let folder = &folder.canonicalize().unwrap();
        let (kept, before) = (TempDir::new().unwrap(), files(folder));
        let log = kept.path().join("log");
        fs::write(&log, "").unwrap();
        command.env("LD_PRELOAD", library()).env("WITNESS_FOLDER", folder).env("WITNESS_LOG", &log);
        let output = command.envs(failing.map(|failing| ("WITNESS_FAIL", failing))).output().unwrap();
        let calls = calls(&fs::read_to_string(log).unwrap());
        let touched = |path: &PathBuf| calls.iter().any(|call| [&call.path, &call.to].contains(&path));
        let left = files(folder).into_iter().filter(|path| touched(path) || !before.contains(path)).collect();
        Testimony { output, calls, left }
    }

    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// The program did what it was to do, and no power cut could have taken anything of it. The files it left are `expected`, by
    /// their paths in `folder`.
    #[track_caller]
    fn is_sound(&self, folder: &Path, expected: &[&str]) {
        assert!(self.output.status.success(), "{}", self.said());
        assert_eq!(faults(&self.calls, &self.left), [""; 0]);
        let folder = folder.canonicalize().unwrap();
        let left: BTreeSet<PathBuf> = self.left.iter().map(|path| path.strip_prefix(&folder).unwrap().into()).collect();
        assert_eq!(left, expected.iter().map(PathBuf::from).collect());
    }
}

fn onesheet(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(cargo_bin("onesheet"));
    command.current_dir(folder).args(words.split_whitespace());
    command
}

/// Tells the process that is watched which folder has its posters and its run.
const FOLDER: &str = "ONESHEET_WATCHED_RUN";
/// Its exit code for an error that it reports.
const REPORTED: i32 = 9;

/// This very program again, as a run of a miniature network in `folder` that begins, or goes on for an epoch if it has begun.
fn miniature(folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_run_to_be_watched", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command
}

/// 16 posters to train on and 4 steps an epoch, each of them saved.
fn settings(folder: &Path) -> RunConfig {
    RunConfig { batch: 4, save_every: 0.0, ..runs::config(&folder.join("posters.safetensors")) }
}

fn run_in(folder: &Path) -> PathBuf {
    folder.join("runs/a/run")
}

/// The posters of such a run, drawn unless they are there.
fn draw(folder: &Path) {
    let path = folder.join("posters.safetensors");
    if !path.exists() {
        synthetic::write(&path, 20, 32, 1).unwrap();
    }
}

#[test]
#[ignore = "the process that the other tests watch; alone, it does a run of its own"]
fn a_run_to_be_watched() {
    let own = TempDir::new().unwrap();
    let folder = env::var_os(FOLDER).map_or_else(|| own.path().to_path_buf(), PathBuf::from);
    draw(&folder);
    let (config, path) = (settings(&folder), run_in(&folder));
    if !path.exists() {
        assert_eq!(runs::begin(&RunConfig { epochs: 1, ..config }, &path), Ending::Finished);
        return;
    }
    let resumed = runs::resumed(&config, &path);
    let ended = resumed.and_then(|(mut trainer, mut run)| trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}));
    if let Err(error) = ended {
        eprintln!("error: {error}");
        process::exit(REPORTED);
    }
}

/// From the first folder to the last checkpoint, and once more from there.
#[test]
fn all_that_a_run_leaves_behind_outlasts_a_power_cut() {
    let folder = TempDir::new().unwrap();
    let run = [
        "runs/a/run/config.toml",
        "runs/a/run/steps.csv",
        "runs/a/run/log.csv",
        "runs/a/run/events.out.tfevents.000001.onesheet",
        "runs/a/run/lock",
        "runs/a/run/checkpoints/last.safetensors",
        "runs/a/run/checkpoints/best.safetensors",
        "runs/a/run/answers.safetensors",
    ];
    let older = |steps: [u64; 2]| steps.map(|step| format!("runs/a/run/checkpoints/step-{step:08}.safetensors"));
    let begun = Testimony::of(&mut miniature(folder.path()), folder.path(), None);
    let [second, third] = &older([2, 3]);
    begun.is_sound(folder.path(), &[&run[..], &["posters.safetensors", second, third]].concat());
    let count = |verb: &str, name: &str| {
        begun.calls.iter().filter(|call| call.verb == verb && call.to.to_string_lossy().ends_with(name)).count()
    };
    // A checkpoint a step, and the epoch's end.
    assert_eq!(count("rename", "/last.safetensors"), 5);
    assert_eq!(count("link", ".safetensors"), 3, "the end of the epoch is no new step");
    assert!(count("rename", "/best.safetensors") == 1 && count("rename", "/posters.safetensors") == 1);

    // The folder is there by now, and so is its configuration.
    let went_on = Testimony::of(&mut miniature(folder.path()), folder.path(), None);
    let [second, third] = &older([6, 7]);
    let best = went_on.left.iter().any(|path| path.ends_with("best.safetensors"));
    let mut run = if best { run[1..].to_vec() } else { run[1..6].to_vec() };
    // A file of its own for each start.
    run[2] = "runs/a/run/events.out.tfevents.000002.onesheet";
    went_on.is_sound(folder.path(), &[&run[..], &[second, third]].concat());
}

#[test]
fn a_prepared_file_and_its_list_outlast_a_power_cut() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("posters")).unwrap();
    fs::write(path.join("labels.csv"), "imdbId,Genre\n1,Drama\n2,War\n3,Drama\n").unwrap();
    for id in 1..3 {
        image::RgbImage::new(9, 9).save(path.join(format!("posters/tt000000{id}.png"))).unwrap();
    }
    let words = "prepare --labels labels.csv --posters posters --image-size 8 --genres Drama";
    // Once where there is nothing, and once over what that has left.
    for _ in 0..2 {
        let prepared = Testimony::of(&mut onesheet(path, words), path, None);
        prepared.is_sound(path, &["posters.safetensors", "posters.skipped.csv"]);
    }
}

#[cfg(feature = "fetch")]
#[test]
fn downloaded_posters_outlast_a_power_cut() {
    let folder = TempDir::new().unwrap();
    failures::table_to_fetch(folder.path());
    let words = "prepare --labels labels.csv --download new/posters --image-size 8 --genres Drama";
    let fetched = Testimony::of(&mut onesheet(folder.path(), words), folder.path(), None);
    let posters = ["new/posters/tt0000001.png", "new/posters/tt0000002.png"];
    fetched.is_sound(folder.path(), &[&posters[..], &["posters.safetensors", "posters.skipped.csv"]].concat());
}

/// The tool itself, with the full network: its first checkpoint fails, and it begins anew.
#[test]
fn train_keeps_its_files_and_says_what_it_could_not_save() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let words = "train --run run --image-size 32 --batch 4 --max-steps 1 --device cpu";
    // Before anything is computed.
    let settings = Testimony::of(&mut onesheet(path, words), path, Some("sync config.toml.partial 5 0 99"));
    assert_eq!(settings.output.status.code(), Some(1), "{}", settings.said());
    assert!(settings.said().contains("config.toml: syncing it failed: Input/output error"), "{}", settings.said());
    let failed = Testimony::of(&mut onesheet(path, words), path, Some("write last.safetensors.partial 28 1 99"));
    assert_eq!(failed.output.status.code(), Some(1), "{}", failed.said());
    assert!(failed.said().contains("last.safetensors: writing it failed: No space left"), "{}", failed.said());
    assert!(!path.join("runs/run/checkpoints/last.safetensors").exists());
    assert!(!path.join("runs/run/checkpoints/last.safetensors.partial").exists());

    let words = "train --resume runs/run";
    let saved = Testimony::of(&mut onesheet(path, words), path, None);
    let left = [
        "config.toml",
        "steps.csv",
        "log.csv",
        "plan.csv",
        "events.out.tfevents.000001.onesheet",
        "events.out.tfevents.000002.onesheet",
        "lock",
        "posters.safetensors",
        "checkpoints/last.safetensors",
    ];
    saved.is_sound(path, &left.map(|name| format!("runs/run/{name}")).each_ref().map(String::as_str));
}

/// The page of a run is one of its files: it outlasts a power cut, and a run that cannot write it ends with all of the epoch saved.
#[test]
fn train_keeps_its_page_or_says_that_it_could_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    draw(path);
    let words = "train --data posters.safetensors --network shallow --run run --batch 4 --epochs 2 --device cpu";
    let failed = Testimony::of(&mut onesheet(path, words), path, Some("write report.html.partial 28 0 1"));
    assert_eq!(failed.output.status.code(), Some(1), "{}", failed.said());
    assert!(failed.said().contains("report.html: writing it failed: No space left"), "{}", failed.said());
    assert!(failed.said().contains("everything up to step 4 is saved; the run goes on"), "{}", failed.said());
    let last = Checkpoint::open(&last_checkpoint(&path.join("runs/run"))).unwrap();
    assert_eq!((last.metadata().progress.epoch, last.metadata().progress.total_steps), (1, 4));
    assert!(!path.join("runs/run/report.html").exists() && !path.join("runs/run/report.html.partial").exists());

    let saved = Testimony::of(&mut onesheet(path, "train --resume runs/run"), path, None);
    let all = [
        "config.toml",
        "steps.csv",
        "log.csv",
        "events.out.tfevents.000002.onesheet",
        "lock",
        "plan.csv",
        "report.html",
        "checkpoints/last.safetensors",
    ];
    let best = ["answers.safetensors", "checkpoints/best.safetensors"];
    let best = best.iter().filter(|name| saved.left.iter().any(|path| path.ends_with(name)));
    let older = "checkpoints/step-00000004.safetensors";
    let left: Vec<String> = all.iter().chain(best).chain([&older]).map(|name| format!("runs/run/{name}")).collect();
    saved.is_sound(path, &left.iter().map(String::as_str).collect::<Vec<_>>());
}
