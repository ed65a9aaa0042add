//! What a user meets when a run is cut off: what is printed, what is left on the disk, and how it goes on.
#![cfg(unix)]

use assert_cmd::cargo::cargo_bin;
use onesheet::data::Split;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFileWriter};
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{best_checkpoint, last_checkpoint};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with 20 posters of 32×32 pixels in it, 16 of them to train on: four steps of 4 an epoch.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    synthetic::write(&folder.path().join("posters.safetensors"), 20, 32, 1).unwrap();
    folder
}

fn run_in(folder: &TempDir) -> PathBuf {
    folder.path().join("runs/run")
}

fn onesheet(folder: &TempDir, words: &str) -> Command {
    let mut command = Command::new(cargo_bin("onesheet"));
    command.current_dir(folder.path()).args(words.split_whitespace());
    command
}

/// `train` with `more` flags, for as long as it takes.
fn train(folder: &TempDir, more: &str) -> Command {
    onesheet(folder, &format!("train --data posters.safetensors --run run --batch 4 --device cpu {more}"))
}

/// The exit code and what was printed on stdout and stderr. A panic is none of them, wherever it is.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, stdout, stderr) = (output.status.code(), text(output.stdout), text(output.stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (code.expect("it ends by itself"), stdout, stderr)
}

fn saved_steps(folder: &TempDir) -> u64 {
    Checkpoint::open(&last_checkpoint(&run_in(folder))).unwrap().metadata().progress.total_steps
}

fn settings(folder: &TempDir) -> RunConfig {
    toml::from_str(&fs::read_to_string(run_in(folder).join("config.toml")).unwrap()).unwrap()
}

fn send(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
}

/// Waits for `ready`, while the child runs.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < Duration::from_secs(120), "nothing in two minutes");
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        thread::sleep(Duration::from_millis(2));
    }
}

fn has_rows(folder: &TempDir, rows: usize) -> bool {
    fs::read_to_string(run_in(folder).join("steps.csv")).is_ok_and(|text| text.lines().count() > rows)
}

#[test]
fn output_that_nobody_can_read_ends_no_run() {
    // As `train | head -1`, and as `train | tee log` when Ctrl-C ends tee first.
    let cut_off = folder();
    let mut child = train(&cut_off, "--epochs 2").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("val. loss"), "{first}");
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(saved_steps(&cut_off), 8);

    // As `train >/dev/full 2>/dev/full`.
    let full = folder();
    let device = || File::options().write(true).open("/dev/full").unwrap();
    let status = train(&full, "--epochs 2 --profile=2").stdout(device()).stderr(device()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(saved_steps(&full), 5);
    assert!(run_in(&full).join("profile.csv").exists() && best_checkpoint(&run_in(&full)).exists());

    // A tool that only answers ends there: quietly where nobody reads on, with a sentence where the disk is full.
    let poster = full.path().join("poster.png");
    image::RgbImage::new(40, 60).save(&poster).unwrap();
    for words in [
        "train --summary",
        "doctor --device cpu",
        "evaluate --run run --device cpu",
        "evaluate --run run --device cpu --json",
        "evaluate --run run --device cpu --csv",
        "infer --model runs/run/checkpoints/best.safetensors --device cpu poster.png poster.png",
    ] {
        let mut child = onesheet(&full, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{words}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{words}: {stderr}");

        let (code, _, stderr) = outcome(onesheet(&full, words).stdout(device()).stderr(Stdio::piped()));
        assert_eq!(code, 1, "{words}: {stderr}");
        assert!(stderr.contains("cannot write to standard output"), "{words}: {stderr}");
        assert_eq!(
            onesheet(&full, words).stdout(device()).stderr(device()).status().unwrap().code(),
            Some(1),
            "{words}"
        );
    }
}

#[test]
fn a_terminal_that_is_closed_saves_the_run_and_nohup_keeps_it_running() {
    let closed = folder();
    // Whoever runs this test may have been started by nohup, and hands that on.
    let mut heard = Command::new("env");
    heard.arg("--default-signal=HUP").arg(cargo_bin("onesheet")).args(train(&closed, "--epochs 1000").get_args());
    heard.current_dir(closed.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = heard.spawn().unwrap();
    wait_until(&mut child, || has_rows(&closed, 1));
    // Shell and system may both send one; a terminal that is gone takes no output either.
    drop(child.stderr.take());
    send(&child, "HUP");
    send(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(129));
    let rows = fs::read_to_string(run_in(&closed).join("steps.csv")).unwrap().lines().count() as u64 - 1;
    assert_eq!(saved_steps(&closed), rows);

    let kept = folder();
    let mut nohup = Command::new("nohup");
    nohup.arg(cargo_bin("onesheet")).args(train(&kept, "--epochs 2").get_args()).current_dir(kept.path());
    let mut child = nohup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(&mut child, || has_rows(&kept, 1));
    send(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(saved_steps(&kept), 8);
}

/// Whether process `pid` has a handler for TERM, signal 15.
fn catches_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & (1 << 14) != 0)
}

#[test]
fn a_signal_before_the_first_step_is_heard() {
    let mut at_once = 0;
    for pause in [0, 10, 40, 100, 200, 400] {
        let folder = folder();
        let mut child = train(&folder, "--epochs 1000").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        wait_until(&mut child, || catches_term(pid));
        thread::sleep(Duration::from_millis(pause));
        send(&child, "TERM");
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(143), "after {pause} ms: {:?} {stderr}", output.status.signal());
        let saved = saved_steps(&folder);
        at_once += u32::from(saved == 0);
        let (code, _, stderr) =
            outcome(&mut onesheet(&folder, &format!("train --resume run --max-steps {}", saved + 1)));
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(saved_steps(&folder), saved + 1);
    }
    assert!(at_once > 0, "no signal came before the first step");
}

/// Without waiting for the step or the save that the first one asked for.
#[test]
fn a_second_signal_ends_the_run_at_once() {
    let folder = TempDir::new().unwrap();
    // Large steps, of a second or more.
    synthetic::write(&folder.path().join("posters.safetensors"), 40, 64, 1).unwrap();
    let mut child = train(&folder, "--batch 32").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(&mut child, || has_rows(&folder, 1));
    send(&child, "TERM");
    thread::sleep(Duration::from_millis(50));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!last_checkpoint(&run_in(&folder)).exists());
}

/// Killed, diverged or out of space before its first checkpoint, a run is no dead end.
#[test]
fn a_run_that_saved_nothing_begins_anew_and_says_so() {
    let folder = folder();
    let (code, _, stderr) = outcome(&mut train(&folder, "--epochs 1 --lr 1e38"));
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains("nothing was saved yet") && stderr.contains("train --resume runs/run --lr"), "{stderr}");
    assert!(!last_checkpoint(&run_in(&folder)).exists());
    for words in ["train --resume run --lr 0.001 --max-steps 1", "train --resume run --max-steps 3"] {
        let (code, _, stderr) = outcome(&mut onesheet(&folder, words));
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stderr.contains("it begins anew"), words.contains("--lr"), "{stderr}");
    }
    let config = settings(&folder);
    assert_eq!(config.learning_rate, 1e-3);
    assert_eq!(
        config.history[1].changed,
        ["learning_rate: 100000000000000000000000000000000000000.0 -> 0.001", "max_steps: none -> 1"]
    );
    assert_eq!(fs::read_to_string(run_in(&folder).join("steps.csv")).unwrap().lines().count(), 4);

    // With --run it does so too; once there is a checkpoint it is refused.
    fs::remove_dir_all(run_in(&folder).join("checkpoints")).unwrap();
    let (code, _, stderr) = outcome(&mut train(&folder, "--epochs 1"));
    assert!(code == 0 && stderr.contains("it begins anew"), "{stderr}");
    let (code, _, stderr) = outcome(&mut train(&folder, "--epochs 1"));
    assert!(code == 1 && stderr.contains("already holds a run") && stderr.contains("--resume runs/run"), "{stderr}");
}

#[test]
fn what_does_not_change_the_past_may_change_on_resume() {
    let folder = folder();
    let (code, _, stderr) = outcome(&mut train(&folder, "--epochs 1 --max-steps 1"));
    assert_eq!(code, 0, "{stderr}");
    fs::rename(folder.path().join("posters.safetensors"), folder.path().join("moved.safetensors")).unwrap();
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run"));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("posters.safetensors") && stderr.contains("add --data FILE"), "{stderr}");
    synthetic::write(&folder.path().join("others.safetensors"), 20, 32, 2).unwrap();
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run --data others.safetensors"));
    assert!(code == 3 && stderr.contains("was trained on other posters"), "{stderr}");

    let words =
        "train --resume run --data moved.safetensors --lr 0.0001 --epochs 3 --max-steps 6 --save-every 0 --io read";
    let (code, _, stderr) = outcome(&mut onesheet(&folder, words));
    assert_eq!(code, 0, "{stderr}");
    let config = settings(&folder);
    assert_eq!((config.learning_rate, config.epochs, config.max_steps, config.save_every), (1e-4, 3, Some(6), 0.0));
    let changed = config.history.last().unwrap().changed.join("\n");
    for words in ["learning_rate: 0.001 -> 0.0001", "epochs: 1 -> 3", "max_steps: 1 -> 6", "moved.safetensors", "io"] {
        assert!(changed.contains(words) && stderr.contains(words), "`{words}` is missing: {changed}\n{stderr}");
    }
    let steps = fs::read_to_string(run_in(&folder).join("steps.csv")).unwrap();
    let rates: Vec<&str> = steps.lines().skip(1).map(|row| row.split(',').nth(2).unwrap()).collect();
    // The first was on its way up to the first rate; the rate rises over the first epoch, of four steps.
    assert_eq!(rates, ["0.00025", "0.00005", "0.00007500000000000001", "0.0001", "0.0001", "0.0001"]);
    assert_eq!(saved_steps(&folder), 6);

    // What was tried and not saved is in the history too, and that it was taken back.
    let (code, _, stderr) =
        outcome(&mut onesheet(&folder, "train --resume run --lr 1e38 --max-steps 9 --save-every 10"));
    assert!(code == 6 && stderr.contains("everything up to step 6 is saved"), "{stderr}");
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run --max-steps 7"));
    assert_eq!((code, saved_steps(&folder)), (0, 7), "{stderr}");
    let changed = settings(&folder).history.last().unwrap().changed.join("\n");
    assert!(changed.contains("learning_rate: 100000000000000000000000000000000000000.0 -> 0.0001"), "{changed}");

    // A limit that is not reached yet stays, and `none` takes it away.
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run --max-steps 8"));
    assert_eq!((code, saved_steps(&folder)), (0, 8), "{stderr}");
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run --max-steps none"));
    assert_eq!((code, saved_steps(&folder)), (0, 12), "{stderr}");
    let entries = settings(&folder).history;
    assert_eq!(entries.iter().map(|entry| entry.step).collect::<Vec<_>>(), [0, 1, 6, 6, 7, 8]);
    assert!(entries.iter().all(|entry| entry.device.contains("--device cpu")), "{entries:?}");
}

#[test]
fn a_step_limit_outlives_a_kill() {
    let folder = folder();
    let mut child = train(&folder, "--epochs 1000 --max-steps 7 --save-every 0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let last = last_checkpoint(&run_in(&folder));
    wait_until(&mut child, || last.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --resume run"));
    assert_eq!((code, saved_steps(&folder)), (0, 7), "{stderr}");
}

#[test]
fn the_device_and_why_it_is_are_on_record() {
    let folder = folder();
    let mut command = train(&folder, "--epochs 1 --json --quiet --device auto");
    let (code, lines, stderr) = outcome(command.env("LD_LIBRARY_PATH", folder.path()).env("CUDA_VISIBLE_DEVICES", ""));
    assert_eq!(code, 0, "{stderr}");
    let line: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
    let history = settings(&folder).history;
    assert_eq!(line["device"], history[0].device.as_str());
    // Where there is no GPU, why not is part of it.
    assert!(!history[0].device.starts_with("CPU") || history[0].device.contains("; "), "{history:?}");
    assert_eq!(history[0].version, format!("onesheet {}", env!("CARGO_PKG_VERSION")));
}

/// Such as `prepare` writes it under the same name.
#[test]
fn drawn_posters_replace_no_others() {
    let folder = folder();
    let mine = folder.path().join("posters.safetensors");
    let (genres, provenance) = (vec!["Drama".to_string()], Default::default());
    let description = Description { size: 32, genres, capacity: 1, provenance };
    let mut writer = TensorFileWriter::create(&mine, description).unwrap();
    writer.push("tt0000001", &[7; 32 * 32 * 3], &[1], Split::Train).unwrap();
    writer.finish().unwrap();
    let before = fs::read(&mine).unwrap();
    let (code, _, stderr) = outcome(&mut onesheet(&folder, "train --run . --batch 4 --max-steps 1 --device cpu"));
    assert!(code == 2 && stderr.contains("is no file of drawn posters"), "{stderr}");
    assert!(fs::read(&mine).unwrap() == before && !folder.path().join("config.toml").exists());
}

/// The only thread of a machine with one core both computes and waits for batches.
#[test]
fn one_thread_trains_as_several_do() {
    let folder = folder();
    let trained = |threads: &str| {
        let mut command = train(&folder, "--network shallow --epochs 1 --augment --crop 0.2 --rotate 5 --quiet");
        let mut child = command.env("RAYON_NUM_THREADS", threads).stdout(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("with {threads} threads nothing comes to an end");
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(child.wait().unwrap().success());
        let checkpoint = fs::read(last_checkpoint(&run_in(&folder))).unwrap();
        fs::remove_dir_all(run_in(&folder)).unwrap();
        checkpoint
    };
    assert!(trained("1") == trained("3"), "other bits with one thread");
}

#[test]
fn no_epochs_are_no_run() {
    let folder = folder();
    let (code, _, stderr) = outcome(&mut train(&folder, "--epochs 0"));
    assert!(code == 2 && stderr.contains("--epochs"), "{stderr}");
    assert!(!run_in(&folder).exists());
}

#[test]
fn suggested_commands_can_be_typed() {
    let folder = folder();
    let (code, _, stderr) = outcome(train(&folder, "--epochs 1 --max-steps 1").arg("--run").arg("runs/a b $(x)"));
    assert_eq!(code, 0, "{stderr}");
    let typed = stderr.lines().rfind(|line| line.contains("--resume")).unwrap().trim();
    let mut shell = Command::new("sh");
    let status = shell.current_dir(folder.path()).arg("-c").arg(format!("{typed} --quiet > /dev/null")).status();
    assert!(status.unwrap().success(), "{typed}");
    let last = last_checkpoint(Path::new("runs/a b $(x)"));
    assert_eq!(Checkpoint::open(&folder.path().join(last)).unwrap().metadata().progress.total_steps, 4);
}
