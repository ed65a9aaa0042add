//! The folder of a run.
//!
//! ```text
//! runs/NAME/
//!   config.toml         every setting, enough to repeat the run
//!   log.csv             a row an epoch
//!   steps.csv           a row a step
//!   profile.csv         a row a launch of a step, if the run was asked for it
//!   checkpoints/        last.safetensors, best.safetensors
//!   model.safetensors   the best weights alone, to hand on
//!   lock                held by the trainer at work, with its process id in it
//! ```
//!
//! The lock is the operating system's, on the open file: it goes with the process however that ends, so none is ever
//! stale. What follows a checkpoint in the logs is cut off when a run goes on from it, so that each step has one row.

use super::config::RunConfig;
use crate::files::{Disk, SaveError, quoted, replace};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A row of `steps.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Steps done in all, this one included.
    pub step: u64,
    /// The batch's loss.
    pub loss: f64,
    /// Adam's learning rate in this step.
    pub learning_rate: f64,
    /// The Euclidean norm of the gradient; 0 in a log of an earlier release, which did not take it.
    #[serde(default)]
    pub gradient_norm: f64,
    /// Posters per second.
    pub images_per_second: f64,
}

/// A row of `log.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Epochs done, this one included.
    pub epoch: u32,
    /// Steps done in all.
    pub step: u64,
    /// Mean loss of the epoch's training batches.
    pub train_loss: f64,
    /// Mean loss over the validation posters.
    pub validation_loss: f64,
    /// Share of decisions that are right.
    pub binary_accuracy: f64,
    /// F1 averaged over genres by support.
    pub weighted_f1: f64,
    /// The fair coin's weighted F1.
    pub coin_f1: f64,
    /// Always-yes's weighted F1.
    pub always_yes_f1: f64,
    /// Mean average precision.
    pub mean_average_precision: f64,
    /// Adam's learning rate in the epoch's last step.
    pub learning_rate: f64,
    /// Seconds since the epoch began, or was resumed.
    pub seconds: f64,
}

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
    /// There is no run to go on with.
    #[error("{} holds no run to go on with: there is no {}", path.display(), missing.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file looked for.
        missing: PathBuf,
    },
    /// A log cannot be read back.
    #[error("cannot read {}: {cause}; move it away and the run goes on with a new one", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        cause: csv::Error,
    },
    /// A file could not be replaced.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// The folder that `name` stands for: a bare name is one under `runs/`, anything with a separator is a path.
pub fn folder_of(name: &Path) -> PathBuf {
    let bare = name.parent() == Some(Path::new("")) && name.file_name().is_some();
    if bare { Path::new("runs").join(name) } else { name.to_path_buf() }
}

/// The checkpoint that a run goes on from.
pub fn last_checkpoint(run: &Path) -> PathBuf {
    run.join("checkpoints").join("last.safetensors")
}

/// The checkpoint with the best validation mAP.
pub fn best_checkpoint(run: &Path) -> PathBuf {
    run.join("checkpoints").join("best.safetensors")
}

/// The best weights without the optimiser's state.
pub fn exported_model(run: &Path) -> PathBuf {
    run.join("model.safetensors")
}

/// The launches of a training step and their times.
pub fn profile_table(run: &Path) -> PathBuf {
    run.join("profile.csv")
}

/// The posters that a run without data drew for itself.
pub fn synthetic_posters(run: &Path) -> PathBuf {
    run.join("posters.safetensors")
}

/// A run folder that this process holds.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Open as long as the lock is held.
    _lock: File,
    steps: File,
    epochs: File,
}

impl RunFolder {
    /// Makes the folder of a new run, locks it and writes `config.toml`.
    ///
    /// # Errors
    /// [`RunFolderError::Taken`], [`RunFolderError::Locked`] or [`RunFolderError::Unwritable`].
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self, RunFolderError> {
        let checkpoints = path.join("checkpoints");
        fs::create_dir_all(&checkpoints).map_err(|cause| unwritable(path, cause))?;
        let lock = lock(path)?;
        if last_checkpoint(path).exists() || path.join("config.toml").exists() {
            return Err(RunFolderError::Taken { path: path.into() });
        }
        let text = config.to_toml().map_err(|error| unwritable(&path.join("config.toml"), io::Error::other(error)))?;
        replace(&Disk, &path.join("config.toml"), text.as_bytes())?;
        RunFolder::open(path, lock)
    }

    /// Locks the folder of a run that has a checkpoint to go on from.
    ///
    /// # Errors
    /// [`RunFolderError::NoRun`], [`RunFolderError::Locked`] or [`RunFolderError::Unwritable`].
    pub fn resume(path: &Path) -> Result<Self, RunFolderError> {
        let missing = last_checkpoint(path);
        if !missing.exists() {
            return Err(RunFolderError::NoRun { path: path.into(), missing });
        }
        let lock = lock(path)?;
        RunFolder::open(path, lock)
    }

    fn open(path: &Path, lock: File) -> Result<Self, RunFolderError> {
        let (steps, epochs) = (append(&path.join("steps.csv"))?, append(&path.join("log.csv"))?);
        Ok(RunFolder { path: path.into(), _lock: lock, steps, epochs })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts both logs back to the first `steps` steps, where the checkpoint stands.
    ///
    /// # Errors
    /// [`RunFolderError::Log`] for a log that is not ours, [`RunFolderError::Save`] when it cannot be replaced.
    pub fn cut_back(&mut self, steps: u64) -> Result<(), RunFolderError> {
        let (step_log, epoch_log) = (self.path.join("steps.csv"), self.path.join("log.csv"));
        keep_rows(&step_log, |row: &StepRow| row.step <= steps)?;
        keep_rows(&epoch_log, |row: &EpochRow| row.step <= steps)?;
        (self.steps, self.epochs) = (append(&step_log)?, append(&epoch_log)?);
        Ok(())
    }

    /// Adds a row to `steps.csv`.
    ///
    /// # Errors
    /// [`RunFolderError::Unwritable`].
    pub fn log_step(&mut self, row: &StepRow) -> Result<(), RunFolderError> {
        log(&mut self.steps, row).map_err(|cause| unwritable(&self.path.join("steps.csv"), cause))
    }

    /// Adds a row to `log.csv`.
    ///
    /// # Errors
    /// [`RunFolderError::Unwritable`].
    pub fn log_epoch(&mut self, row: &EpochRow) -> Result<(), RunFolderError> {
        log(&mut self.epochs, row).map_err(|cause| unwritable(&self.path.join("log.csv"), cause))
    }
}

fn unwritable(path: &Path, cause: io::Error) -> RunFolderError {
    RunFolderError::Unwritable { path: path.into(), cause }
}

/// Takes the folder's lock, or says who has it.
fn lock(folder: &Path) -> Result<File, RunFolderError> {
    let path = folder.join("lock");
    let failed = |cause| unwritable(&path, cause);
    // Not truncated on opening: another process's id may be in it.
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            write!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Empty for the moment between the other's locking and its writing.
            let written = file.read_to_string(&mut holder).is_ok_and(|length| length > 0);
            let holder = if written { holder } else { "unknown".into() };
            Err(RunFolderError::Locked { path: folder.into(), holder })
        }
    }
}

/// Opens a log at its end.
fn append(path: &Path) -> Result<File, RunFolderError> {
    OpenOptions::new().append(true).create(true).open(path).map_err(|cause| unwritable(path, cause))
}

/// Writes one row, in one call so that a kill leaves whole rows, and the header before the first.
fn log(file: &mut File, row: &impl Serialize) -> io::Result<()> {
    let empty = file.metadata()?.len() == 0;
    let mut line = csv::WriterBuilder::new().has_headers(empty).from_writer(Vec::new());
    line.serialize(row).map_err(io::Error::other)?;
    file.write_all(&line.into_inner().map_err(|error| error.into_error())?)
}

/// Rewrites a log with the rows that `keep` accepts. A power cut may have torn the last row: without its line end it goes.
fn keep_rows<R: Serialize + DeserializeOwned>(path: &Path, keep: impl Fn(&R) -> bool) -> Result<(), RunFolderError> {
    let unreadable = |cause: csv::Error| RunFolderError::Log { path: path.into(), cause };
    let text = fs::read(path).map_err(|error| unreadable(error.into()))?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut kept = csv::Writer::from_writer(Vec::new());
    for row in csv::Reader::from_reader(&text[..whole]).deserialize() {
        let row: R = row.map_err(unreadable)?;
        if keep(&row) {
            kept.serialize(row).map_err(unreadable)?;
        }
    }
    let kept = kept.into_inner().map_err(|error| unreadable(error.into_error().into()))?;
    Ok(replace(&Disk, path, &kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepRow {
        let loss = 0.1 + step as f64;
        StepRow { step, loss, learning_rate: 1e-3, gradient_norm: 2.5, images_per_second: 1.0 / 3.0 }
    }

    fn epoch(epoch: u32, step: u64) -> EpochRow {
        EpochRow {
            epoch,
            step,
            train_loss: 0.5,
            validation_loss: 0.6,
            binary_accuracy: 0.7,
            weighted_f1: 0.5,
            coin_f1: 0.4,
            always_yes_f1: 0.45,
            mean_average_precision: 0.3,
            learning_rate: 1e-3,
            seconds: 12.5,
        }
    }

    #[test]
    fn logs_are_cut_back_to_the_checkpoint_and_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        for number in 1..=5 {
            run.log_step(&step(number)).unwrap();
        }
        run.log_epoch(&epoch(1, 2)).unwrap();
        run.log_epoch(&epoch(2, 4)).unwrap();
        run.steps.write_all(b"6,0.1").unwrap();
        run.cut_back(3).unwrap();
        run.log_step(&step(4)).unwrap();
        run.log_epoch(&epoch(2, 4)).unwrap();

        let mut steps = csv::Reader::from_path(folder.path().join("steps.csv")).unwrap();
        let steps: Vec<StepRow> = steps.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(steps, [step(1), step(2), step(3), step(4)]);
        let mut epochs = csv::Reader::from_path(folder.path().join("log.csv")).unwrap();
        let epochs: Vec<EpochRow> = epochs.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(epochs, [epoch(1, 2), epoch(2, 4)]);

        run.cut_back(0).unwrap();
        run.log_step(&step(1)).unwrap();
        let text = fs::read_to_string(folder.path().join("steps.csv")).unwrap();
        assert_eq!(
            text.lines().next(),
            Some("step,loss,learning_rate,gradient_norm,images_per_second"),
            "a header all the same"
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_log_without_gradient_norms_goes_on_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        let path = folder.path().join("steps.csv");
        fs::write(&path, "step,loss,learning_rate,images_per_second\n1,0.5,0.001,30\n").unwrap();
        run.cut_back(1).unwrap();
        run.log_step(&step(2)).unwrap();
        let steps = csv::Reader::from_path(path).unwrap().deserialize().collect::<Result<Vec<StepRow>, _>>().unwrap();
        let first = StepRow { step: 1, loss: 0.5, learning_rate: 1e-3, gradient_norm: 0.0, images_per_second: 30.0 };
        assert_eq!(steps, [first, step(2)]);
    }

    #[test]
    fn one_trainer_has_the_folder_and_the_other_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        let error = RunFolder::create(folder.path(), &RunConfig::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(run);
        let error = RunFolder::create(folder.path(), &RunConfig::default()).unwrap_err();
        assert!(matches!(error, RunFolderError::Taken { .. }), "{error}");
    }

    #[test]
    fn fifty_races_have_one_winner_each() {
        let folder = tempfile::tempdir().unwrap();
        for race in 0..50 {
            let path = folder.path().join(race.to_string());
            let contestants: Vec<_> = (0..4)
                .map(|_| {
                    let path = path.clone();
                    std::thread::spawn(move || RunFolder::create(&path, &RunConfig::default()))
                })
                .collect();
            let results: Vec<_> = contestants.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "race {race}: {results:?}");
        }
    }

    #[test]
    fn a_file_in_the_folders_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = RunFolder::create(&path.join("run"), &RunConfig::default()).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("--run"), "{error}");
        let error = RunFolder::resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no run to go on with") && error.contains("last.safetensors"), "{error}");
    }

    #[test]
    fn bare_names_live_under_runs() {
        for (name, folder) in [("a", "runs/a"), ("runs/a", "runs/a"), ("./a", "./a"), ("/x/a", "/x/a"), ("..", "..")] {
            assert_eq!(folder_of(Path::new(name)), Path::new(folder));
        }
    }
}
