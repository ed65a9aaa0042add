//! SIGKILL at random moments, some of them inside a save: what is killed loses one save interval at most, and ends in the bits of a run
//! that was left alone.
//!
//! The test starts this very program again as the process that it kills.
#![cfg(unix)]

#[path = "support/runs.rs"]
mod runs;
#[path = "support/mod.rs"]
mod support;

use onesheet::device::cpu::Cpu;
use onesheet::training::checkpoint::Progress;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{Resumed, RunFolder, RunFolderError, last_checkpoint};
use onesheet::training::trainer::{Ending, Trainer};
use rand::RngExt;
use runs::{begin, config, posters, remains};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use tempfile::TempDir;

/// Tells the process to be killed which folder has its posters and its run.
const FOLDER: &str = "ONESHEET_KILLED_RUN";

/// A checkpoint a step, so that there is much to be cut off.
fn settings(folder: &Path) -> RunConfig {
    RunConfig { save_every: 0.0, ..config(&folder.join("posters.safetensors")) }
}

#[test]
#[ignore = "the process that the other tests kill; alone, it does a run of its own"]
fn a_run_to_be_killed() {
    let own = TempDir::new().unwrap();
    let folder = env::var_os(FOLDER).map_or_else(
        || {
            posters(own.path());
            own.path().to_path_buf()
        },
        PathBuf::from,
    );
    let (config, path) = (settings(&folder), folder.join("run"));
    let file = Arc::new(onesheet::data::tensor_file::TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let device = Rc::new(Cpu::new());
    let (mut trainer, mut run) = match RunFolder::resume(&path) {
        Ok(Resumed { mut folder, checkpoint: Some(checkpoint), damaged, .. }) => {
            assert!(damaged.is_empty(), "{damaged:?}");
            let trainer = Trainer::resume(device, config, file, &checkpoint).unwrap();
            folder.cut_back(&checkpoint.metadata().progress).unwrap();
            (trainer, folder)
        }
        // Killed before its first checkpoint.
        Ok(Resumed { mut folder, checkpoint: None, .. }) => {
            folder.cut_back(&Progress::default()).unwrap();
            (Trainer::new(device, config, file).unwrap(), folder)
        }
        // Or before there was anything.
        Err(RunFolderError::NoRun { .. } | RunFolderError::Settings { .. }) => {
            let run = RunFolder::create(&path, &config).unwrap();
            (Trainer::new(device, config, file).unwrap(), run)
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap(), Ending::Finished);
}

fn start(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_run_to_be_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills runs until `kills` have been, and has each go on to its end in between.
fn kill(kills: u32, seed: u64) {
    let folder = TempDir::new().unwrap();
    posters(folder.path());
    let (run, straight) = (folder.path().join("run"), folder.path().join("straight"));
    let began = Instant::now();
    assert_eq!(begin(&settings(folder.path()), &straight), Ending::Finished);
    let (long, expected) = (began.elapsed().as_millis() as u64, remains(&straight));
    let partial = last_checkpoint(&run).with_extension("safetensors.partial");
    let mut dice = support::generator(seed);
    let (mut done, mut inside, mut finished) = (0, 0, 0);
    while done < kills {
        let mut child = start(folder.path());
        if dice.random_bool(0.5) {
            // As soon as a checkpoint is being written.
            let _ = fs::remove_file(&partial);
            while !partial.exists() && child.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
        } else {
            thread::sleep(Duration::from_millis(dice.random_range(0..long)));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(code) = output.status.code() {
            assert_eq!(code, 0, "{said}");
            assert!(remains(&run) == expected, "run {finished}, seed {seed}");
            fs::remove_dir_all(&run).unwrap();
            finished += 1;
            continue;
        }
        done += 1;
        inside += u32::from(partial.exists());
        if !run.exists() {
            continue;
        }
        let logged = fs::read_to_string(run.join("steps.csv")).unwrap_or_default().lines().skip(1).count() as u64;
        let saved = match RunFolder::resume(&run) {
            Ok(Resumed { checkpoint, damaged, .. }) => {
                assert!(damaged.is_empty(), "kill {done}, seed {seed}: {damaged:?}");
                checkpoint.map_or(0, |checkpoint| checkpoint.metadata().progress.total_steps)
            }
            Err(RunFolderError::NoRun { .. } | RunFolderError::Settings { .. }) => 0,
            Err(error) => panic!("kill {done}, seed {seed}: {error}"),
        };
        assert!(logged <= saved + 1, "kill {done}, seed {seed}: {logged} steps were done, {saved} are saved");
    }
    let output = start(folder.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(remains(&run) == expected, "the last run, seed {seed}");
    assert!(5 * inside >= kills, "{inside} of {kills} kills met a save");
    println!("{kills} kills, {inside} of them inside a save; {} runs ended in the right bits", finished + 1);
}

#[test]
fn two_hundred_kills_lose_one_interval_each_and_no_bit() {
    kill(200, 1);
}

#[test]
#[ignore = "a minute or two"]
fn two_thousand_kills() {
    kill(2000, 2);
}
