//! The same network in PyTorch, in a Python of the user's.

use anyhow::{Context, ensure};
use onesheet::training::config::Precision;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
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

/// Runs `pytorch.py`, which prints a [`Time`] a line, and reports each as it comes.
///
/// # Errors
/// If the script fails, after what it has come to until then.
pub fn run(
    python: &Path,
    precision: Precision,
    batch: usize,
    image_size: usize,
    steps: usize,
    mut report: impl FnMut(Time) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/step/pytorch.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(["--precision", &format!("{precision:?}").to_lowercase()])
        .args(["--batch", &batch.to_string(), "--image-size", &image_size.to_string(), "--steps", &steps.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("--python {}", python.display()))?;
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line?;
        report(serde_json::from_str(&line).with_context(|| format!("PyTorch said {line:?}"))?)?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "PyTorch failed in {}: {status}", python.display());
    Ok(())
}
