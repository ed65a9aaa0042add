//! Rung 4 as a user meets it: `onesheet train` on CUDA has the losses of `onesheet train` on the processor, step by step, each
//! from its own weights; on the simulated GPU, or with `ONESHEET_TEST_DEVICE=cuda` on a real one.
//!
//! With the start that `train` has of itself, whose rate still rises here: an epoch of these batches is a hundred steps. A start at
//! the full rate, or at gamma 1 everywhere, as the paper's experiments have it, is chaotic: there the processor leaves itself as
//! fast when the last bit of a few sums is flipped, and `cuda_training/` compares step by step from equal weights.

#[path = "support/beside.rs"]
mod beside;
#[path = "support/cuda.rs"]
mod cuda;
mod support;

use onesheet::training::run_folder::StepRow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::compare;
use tempfile::TempDir;

const FIXED: [&str; 7] = ["train", "--image-size", "64", "--batch", "8", "--seed", "7"];

/// The program under test: where cargo says, else beside this test, else one folder up, where cargo has put it.
fn tool() -> PathBuf {
    let named = std::env::var_os("CARGO_BIN_EXE_onesheet").map(PathBuf::from);
    named.or_else(|| beside::find(&["onesheet", "../onesheet"])).expect("`onesheet` is not beside this test")
}

/// The losses in `steps.csv` after a run of `steps` steps on drawn posters.
fn losses(folder: &Path, device: &str, precision: &str, steps: u64) -> Vec<f64> {
    let run = folder.join(format!("{device}-{precision}"));
    let output = Command::new(tool())
        .args(FIXED)
        .args(["--device", device, "--precision", precision, "--max-steps", &steps.to_string(), "--run"])
        .arg(&run)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    // What a start costs on a GPU is told: the driver's compiler, and all until the first step.
    for line in [" files of kernels compiled in ", "first step done "] {
        assert_eq!(told.contains(line), device != "cpu", "{line:?}: {told}");
    }
    assert!(!told.contains("first step done 0.0 s"), "the clock starts with the program: {told}");
    let rows = csv::Reader::from_path(run.join("steps.csv")).unwrap().into_deserialize::<StepRow>();
    let losses: Vec<f64> = rows.map(|row| row.unwrap().loss).collect();
    assert_eq!(losses.len() as u64, steps);
    // A checkpoint has 310 MB.
    fs::remove_dir_all(&run).unwrap();
    losses
}

/// Runs each precision beside the processor and prints how far each loss is off.
fn follow(steps: u64, tolerances: &[(&str, f64)]) {
    let folder = TempDir::new().unwrap();
    let device = if cuda::is_real() { "cuda" } else { "sim" };
    eprintln!("these runs are on --device {device}");
    let expected = losses(folder.path(), "cpu", "f32", steps);
    let found: Vec<Vec<f64>> =
        tolerances.iter().map(|(precision, _)| losses(folder.path(), device, precision, steps)).collect();
    println!("step,loss,{}", tolerances.iter().map(|&(precision, _)| precision).collect::<Vec<_>>().join(","));
    for (step, expected) in expected.iter().enumerate() {
        let off: Vec<String> = found.iter().map(|found| format!("{:.1e}", found[step] / expected - 1.0)).collect();
        println!("{},{expected:.6},{}", step + 1, off.join(","));
    }
    for (&(precision, tolerance), found) in tolerances.iter().zip(&found) {
        compare(&format!("losses of train --device {device} in {precision}"), found, &expected, 0.0, tolerance)
            .unwrap();
    }
}

/// Measured: 1.2e-7.
#[test]
fn train_in_f32_begins_as_it_does_on_the_processor() {
    follow(3, &[("f32", 1e-4)]);
}

/// Measured: 1.8e-4.
#[test]
fn train_in_tf32_begins_as_it_does_on_the_processor() {
    follow(3, &[("tf32", 2e-3)]);
}

/// Measured: 3.5e-4.
#[test]
fn train_in_bf16_begins_as_it_does_on_the_processor() {
    follow(3, &[("bf16", 5e-3)]);
}

#[test]
#[ignore = "minutes; prints how far each loss is off"]
fn twenty_steps_of_train_follow_the_processors() {
    follow(20, &[("f32", 1e-3), ("bf16", 2e-2)]);
}
