//! Whether the disk has room for what a run is going to keep.

use super::checkpoints::{self, KEPT, best_checkpoint, epoch_checkpoint};
use super::{RunFolder, RunFolderError, unwritable};
use crate::files;
use crate::training::learner::Keep;
use std::fs;
use std::path::PathBuf;

impl RunFolder {
    /// Whether the disk has room for all checkpoints that the run keeps and the one being written, for the best and the one that replaces
    /// it, and for the models of `keep_best` epochs and one more, if that is more than one; where one takes `saved_bytes`.
    ///
    /// # Errors
    /// [`RunFolderError::NoSpace`], and [`RunFolderError::Unwritable`] where the system does not say.
    pub fn check_space(&self, keep_best: u32, saved_bytes: impl Fn(Keep) -> u64) -> Result<(), RunFolderError> {
        let (full, weights) = (saved_bytes(Keep::Everything), saved_bytes(Keep::Weights));
        let free = files::free_space(&self.path).map_err(|cause| unwritable(&self.path, cause))?;
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let there: u64 = checkpoints::all(&self.path).into_iter().map(size).sum();
        let best = size(best_checkpoint(&self.path));
        let epochs: u64 =
            checkpoints::epochs(&self.path).iter().map(|&epoch| size(epoch_checkpoint(&self.path, epoch))).sum();
        let of_epochs = if keep_best > 1 { (u64::from(keep_best) + 1) * weights } else { 0 };
        let needed = ((KEPT as u64 + 1) * full).saturating_sub(there)
            + (2 * weights).saturating_sub(best)
            + of_epochs.saturating_sub(epochs);
        if needed <= free { Ok(()) } else { Err(RunFolderError::NoSpace { path: self.path.clone(), free, needed }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::last_checkpoint;
    use super::*;
    use crate::training::config::RunConfig;

    #[test]
    fn a_disk_without_room_is_refused_before_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        let sizes = |full, weights| {
            move |keep| match keep {
                Keep::Everything => full,
                Keep::Weights => weights,
            }
        };
        run.check_space(1, sizes(1000, 100)).unwrap();
        let free = files::free_space(folder.path()).unwrap();
        let error = run.check_space(1, sizes(free / 3, 0)).unwrap_err();
        assert!(matches!(&error, RunFolderError::NoSpace { needed, .. } if *needed == free / 3 * 4), "{error}");
        assert!(error.to_string().contains("--run"), "{error}");
        // What is there already need not be found once more.
        fs::write(last_checkpoint(folder.path()), [0; 900]).unwrap();
        fs::write(best_checkpoint(folder.path()), [0; 50]).unwrap();
        fs::write(epoch_checkpoint(folder.path(), 3), [0; 40]).unwrap();
        for (keep_best, of_epochs) in [(1, 0), (2, (3 << 50) - 40)] {
            let refused = run.check_space(keep_best, sizes(1 << 60, 1 << 50)).unwrap_err();
            let RunFolderError::NoSpace { needed, .. } = refused else { panic!("{refused}") };
            assert_eq!(needed, (4 << 60) - 900 + (2 << 50) - 50 + of_epochs);
        }
    }
}
