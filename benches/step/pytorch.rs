//! The same network in PyTorch, in a Python of the user's.

use anyhow::{Context, ensure};
use onesheet::training::config::Precision;
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};

/// One of its times.
#[derive(Deserialize)]
pub struct Time {
    /// PyTorch, its version, and how it ran.
    pub engine: String,
    /// `train` or `infer`.
    pub work: String,
    /// A step's.
    pub ms: f64,
}

/// Runs `pytorch.py`, which prints a [`Time`] a line.
pub fn run(
    python: &Path,
    precision: Precision,
    batch: usize,
    image_size: usize,
    steps: usize,
) -> anyhow::Result<Vec<Time>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/step/pytorch.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--precision", &format!("{precision:?}").to_lowercase()])
        .args(["--batch", &batch.to_string(), "--image-size", &image_size.to_string(), "--steps", &steps.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("--python {}", python.display()))?;
    ensure!(output.status.success(), "PyTorch failed in {}: {}", python.display(), output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("PyTorch said {line:?}"))).collect()
}
