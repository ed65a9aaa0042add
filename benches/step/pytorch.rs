//! The same network in PyTorch, in a Python of the user's.

#[path = "../../tests/support/beside.rs"]
mod beside;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use onesheet::training::config::PrecisionChoice;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether the script has ended.
const GLANCE: Duration = Duration::from_millis(200);

/// How PyTorch runs the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A kernel after another, as written.
    Eager,
    /// Through `torch.compile`.
    Compiled,
    /// Through `torch.compile` into CUDA graphs, its mode `reduce-overhead`.
    ReduceOverhead,
}

/// The step that PyTorch takes.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// How wide its numbers are.
    pub precision: PrecisionChoice,
    /// Images.
    pub batch: usize,
    /// Their height and width.
    pub image_size: usize,
    /// How often it is taken.
    pub steps: usize,
}

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
/// If the script fails or takes longer than `limit`, after what it has come to until then.
pub fn run(
    python: &Path,
    way: Way,
    step: Step,
    limit: Duration,
    mut report: impl FnMut(Time) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    let name = way.to_possible_value().context("every way has a name")?;
    let mut child = start(python, name.get_name(), step)?;
    let stdout = child.stdout.take().context("its output is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| sender.send(line)));
    loop {
        match lines.recv_timeout(GLANCE) {
            Ok(line) => {
                let line = line?;
                report(serde_json::from_str(&line).with_context(|| format!("PyTorch said {line:?}"))?)?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            // Its output may stay open: compilers that it started have it, too.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                bail!("PyTorch {} took longer than {} s", name.get_name(), limit.as_secs());
            }
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "PyTorch {} failed in {}: {status}", name.get_name(), python.display());
    Ok(())
}

fn start(python: &Path, way: &str, step: Step) -> anyhow::Result<Child> {
    let Step { precision, batch, image_size, steps } = step;
    let [batch, image_size, steps] = [batch, image_size, steps].map(|number| number.to_string());
    // Cargo runs a bench in the package's folder.
    let script = beside::find(&["pytorch.py"]).unwrap_or_else(|| PathBuf::from("benches/step/pytorch.py"));
    ensure!(script.is_file(), "pytorch.py is not beside this bench");
    Command::new(python)
        .arg(script)
        .args(["--precision", &format!("{precision:?}").to_lowercase(), "--way", way])
        .args(["--batch", &batch, "--image-size", &image_size, "--steps", &steps])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("--python {}", python.display()))
}
