//! What can be wrong with a run folder, in words for the person who has it.

use crate::files::{SaveError, quoted};
use crate::training::checkpoint::CheckpointError;
use std::io;
use std::path::PathBuf;

/// Why a run folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// The folder or a file in it cannot be written.
    #[error("cannot write {}: {cause}; choose another place with --run", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A new run was to go where there is one already.
    #[error("{} already holds a run; go on with it by `onesheet train --resume {}`, or choose another --run", path.display(), quoted(path))]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains there.
    #[error("{} is in use by process {holder}; wait for it to end, or choose another --run", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other process's id, as it wrote it down.
        holder: String,
    },
    /// There is no run.
    #[error("{} holds no run: there is no {}", path.display(), missing.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file looked for.
        missing: PathBuf,
    },
    /// No checkpoint of the run is whole.
    #[error("no checkpoint of {} is whole: {}", path.display(), damaged.iter().map(CheckpointError::to_string).collect::<Vec<_>>().join("; "))]
    AllDamaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong with each.
        damaged: Vec<CheckpointError>,
    },
    /// The run has no checkpoint, and its settings cannot be read.
    #[error("{} has no checkpoint yet, and its settings cannot be read to begin anew: {cause}; remove the folder, or choose another --run", path.display())]
    Settings {
        /// The folder.
        path: PathBuf,
        /// What is wrong with `config.toml`.
        cause: String,
    },
    /// The disk has no room for the checkpoints.
    #[error("{} has {} MB free, and the run needs {} MB more for its checkpoints; free some, or choose another --run", path.display(), free.div_ceil(1_000_000), needed.div_ceil(1_000_000))]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes there are.
        free: u64,
        /// Bytes it takes.
        needed: u64,
    },
    /// A checkpoint that a later release wrote.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A log cannot be read back.
    #[error("cannot read {}: {cause}; move it away and the run goes on with a new one", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        cause: csv::Error,
    },
    /// The settings of a run cannot be read.
    #[error("cannot read the settings of the run in {}: {cause}", path.display())]
    BadSettings {
        /// `config.toml`.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The answers of a run's best model cannot be read.
    #[error("{} holds no answers of a model: {cause}; remove it, and `onesheet report` asks the best checkpoint again", path.display())]
    Answers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file could not be replaced.
    #[error(transparent)]
    Save(#[from] SaveError),
}
