//! The checkpoints of a run: the newest three to go on from, and the best.
//!
//! `last.safetensors` is always the newest. Before it is replaced it gets a second name, `step-00001200.safetensors`; so there
//! is a whole `last` at every moment, and two older ones behind it for the day its disk block goes bad. (Where the file system has
//! no second names, hard links, `last` is the only one.)

use super::RunFolderError;
use crate::files::Files;
use crate::training::checkpoint::{Checkpoint, CheckpointError};
use std::fs;
use std::path::{Path, PathBuf};

/// How many checkpoints are kept to go on from.
pub const KEPT: usize = 3;

/// The newest checkpoint of a run.
pub fn last_checkpoint(run: &Path) -> PathBuf {
    folder(run).join("last.safetensors")
}

/// The checkpoint with the best validation mAP.
pub fn best_checkpoint(run: &Path) -> PathBuf {
    folder(run).join("best.safetensors")
}

/// Where the checkpoint after `steps` steps is kept once it is the newest no more.
pub fn step_checkpoint(run: &Path, steps: u64) -> PathBuf {
    folder(run).join(format!("step-{steps:08}.safetensors"))
}

/// The folder of the checkpoints.
pub(super) fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The checkpoints to go on from that are there, the newest first.
pub(super) fn all(run: &Path) -> Vec<PathBuf> {
    let last = last_checkpoint(run);
    let last = last.exists().then_some(last);
    last.into_iter().chain(older(run).into_iter().map(|steps| step_checkpoint(run, steps))).collect()
}

/// The steps of the checkpoints behind the last, the newest first.
fn older(run: &Path) -> Vec<u64> {
    let names = fs::read_dir(folder(run)).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let steps = |name: &str| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
    let mut older: Vec<u64> = names.filter_map(|name| steps(name.to_str()?)).collect();
    older.sort_unstable_by(|a, b| b.cmp(a));
    older
}

/// The newest checkpoint that is whole, and what is wrong with those that are newer; `None` if there is none at all.
///
/// # Errors
/// [`RunFolderError::AllDamaged`], and [`RunFolderError::Checkpoint`] for one that a later release wrote: it is sound.
pub(super) fn newest(run: &Path) -> Result<Option<(Checkpoint, Vec<CheckpointError>)>, RunFolderError> {
    let mut damaged = Vec::new();
    for path in all(run) {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
            Err(newer @ CheckpointError::Newer { .. }) => return Err(newer.into()),
            Err(error) => damaged.push(error),
        }
    }
    if damaged.is_empty() { Ok(None) } else { Err(RunFolderError::AllDamaged { path: run.into(), damaged }) }
}

/// Gives `last.safetensors`, which holds the state after `steps` steps, a second name to keep.
pub(super) fn keep<F: Files>(files: &F, run: &Path, steps: u64) {
    // There already, when the save before this one failed. Any other failure costs a fallback, and no more.
    let _ = files.link(&last_checkpoint(run), &step_checkpoint(run, steps));
}

/// Removes what is not among the newest once `last.safetensors` holds the state after `steps` steps; and what claims to be
/// newer, which was found damaged when the run went on from an older one.
pub(super) fn prune<F: Files>(files: &F, run: &Path, steps: u64) {
    let (newer, older): (Vec<u64>, Vec<u64>) = older(run).into_iter().partition(|&step| step >= steps);
    for step in older.into_iter().skip(KEPT - 1).chain(newer) {
        // One that stays does no harm.
        let _ = files.remove(&step_checkpoint(run, step));
    }
}
