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
use std::str::FromStr;

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

/// Where the model of an epoch is kept, counted from 1, while the epoch is one of the best.
pub fn epoch_checkpoint(run: &Path, epoch: u32) -> PathBuf {
    folder(run).join(format!("epoch-{epoch:04}.safetensors"))
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
    let mut older: Vec<u64> = numbered(run, "step-");
    older.sort_unstable_by(|a, b| b.cmp(a));
    older
}

/// The epochs whose models are kept beside the best.
pub(super) fn epochs(run: &Path) -> Vec<u32> {
    numbered(run, "epoch-")
}

/// The numbers in the names of the checkpoints that begin so.
fn numbered<N: FromStr>(run: &Path, begin: &str) -> Vec<N> {
    let names = fs::read_dir(folder(run)).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let number = |name: &str| name.strip_prefix(begin)?.strip_suffix(".safetensors")?.parse().ok();
    names.filter_map(|name| number(name.to_str()?)).collect()
}

/// Removes the models of epochs that are none of the `best`.
pub(super) fn prune_epochs<F: Files>(files: &F, run: &Path, best: &[u32]) {
    for epoch in epochs(run).into_iter().filter(|epoch| !best.contains(epoch)) {
        // One that stays does no harm.
        let _ = files.remove(&epoch_checkpoint(run, epoch));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Disk, replace};
    use crate::training::checkpoint::Progress;
    use crate::training::config::RunConfig;
    use crate::training::run_folder::RunFolder;

    #[test]
    fn the_newest_three_checkpoints_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        let saves = std::cell::Cell::new(0);
        let save = |run: &mut RunFolder, step: u64, total_steps: u64| {
            let progress = Progress { step, total_steps, ..Progress::default() };
            run.save(&progress, |path| {
                saves.set(saves.get() + 1);
                Ok::<_, RunFolderError>(replace(&Disk, path, total_steps.to_string().as_bytes())?)
            })
            .unwrap();
        };
        for steps in [3, 8, 12, 20] {
            save(&mut run, steps, steps);
            // The same state is not written twice; another at the same step, such as the epoch's end, is.
            save(&mut run, steps, steps);
            save(&mut run, 0, steps);
        }
        assert_eq!(saves.get(), 8);
        let held: Vec<(PathBuf, String)> =
            all(folder.path()).into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
        let expected = [(last_checkpoint(folder.path()), 20), (step_checkpoint(folder.path(), 12), 12)];
        let expected = expected.into_iter().chain([(step_checkpoint(folder.path(), 8), 8)]);
        assert_eq!(held, expected.map(|(path, step)| (path, step.to_string())).collect::<Vec<_>>());
        // Gone back to step 8, because 20 and 12 were damaged: what is newer than the run goes with the next save.
        run.newest_is_last = false;
        save(&mut run, 9, 9);
        let held = all(folder.path());
        assert_eq!(held, [last_checkpoint(folder.path()), step_checkpoint(folder.path(), 8)]);
    }
}
