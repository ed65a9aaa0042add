//! What `infer` and `evaluate` answer, number by number, against the library asked directly: which of two checkpoints, which
//! posters, which pixels, which thresholds. Each wrong choice is tried here too, and shown to have another answer.

mod asked;
mod evaluate;
mod infer;
mod models;

use assert_cmd::Command;
use onesheet::device::cpu::Cpu;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Runs the command in `folder` and gives its exit code, stdout and stderr.
fn run<S: AsRef<std::ffi::OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> (i32, String, String) {
    let mut command = Command::cargo_bin("onesheet").unwrap();
    let output = command.current_dir(folder).args(args).timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

/// What the tools say of `--device cpu`.
fn device() -> String {
    use onesheet::device::Memory;
    Cpu::fastest().name() + "; --device cpu"
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
