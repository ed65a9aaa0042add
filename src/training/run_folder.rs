//! The folder of a run.
//!
//! ```text
//! runs/NAME/
//!   config.toml         every setting, enough to repeat the run, and who worked on it
//!   log.csv             one row per epoch
//!   steps.csv           one row per step
//!   events.out.tfevents.…  the same two for TensorBoard
//!   plan.csv            what a training step computes and costs, a row a step of its plan
//!   profile.csv         a row a launch of a step, if the run was asked for it
//!   answers.safetensors what the best model says of each validation poster
//!   report.html         all of it to look at
//!   checkpoints/        last.safetensors and the two before it, best.safetensors, and with `keep_best` the models of some epochs
//!   lock                held by the trainer at work, with its process id in it
//! ```
//!
//! The lock is the operating system's, on the open file: it goes with the process however that ends, so none is ever
//! stale. What follows a checkpoint in the logs is cut off when a run goes on from it, so that each step has one row.

mod answers;
mod checkpoints;
mod error;
mod events;
mod lock;
mod logs;
mod places;
mod room;

pub use answers::{About, KeptAnswers, answers_file};
pub use checkpoints::{KEPT, best_checkpoint, epoch_checkpoint, last_checkpoint, step_checkpoint};
pub use error::RunFolderError;
pub use logs::{EpochRow, StepRow, epochs_of};
pub use places::{folder_of, plan_table, profile_table, report_file, settings_of, synthetic_posters};

use super::checkpoint::{Checkpoint, CheckpointError, Progress};
use super::config::RunConfig;
use super::history::Entry;
use super::tensorboard::Event;
use crate::files::{self, Disk, replace};
use events::Events;
use lock::lock;
use logs::Log;
use places::config_file;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A run folder that this process holds.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Open as long as the lock is held.
    lock: File,
    steps: Log,
    epochs: Log,
    events: Events,
    /// Whether there are to be events.
    tells_tensorboard: bool,
    history: Vec<Entry>,
    /// The step of the newest checkpoint that is whole.
    newest: Option<u64>,
    /// Whether that is `last.safetensors`; not after going back behind one that was damaged.
    newest_is_last: bool,
    /// The state that this process saved last, and when; at first when it took the folder.
    saved: Option<Progress>,
    saved_at: Instant,
    /// Whether there was a run here that had not saved anything.
    begins_anew: bool,
}

/// A run folder that no trainer can take.
#[derive(Debug)]
pub struct Held {
    lock: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // As a trainer leaves it.
        let _ = self.lock.set_len(0);
    }
}

/// A run folder to go on in.
#[derive(Debug)]
pub struct Resumed {
    /// The folder, held.
    pub folder: RunFolder,
    /// The newest checkpoint that is whole. None before the first was saved: the run begins anew.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with newer ones.
    pub damaged: Vec<CheckpointError>,
    /// The settings in `config.toml`, if they can be read.
    pub config: Option<RunConfig>,
}

impl RunFolder {
    /// Makes the folder of a new run, locks it and writes `config.toml`. A run that was there and has no checkpoint yet has nothing to
    /// lose: it begins anew.
    ///
    /// # Errors
    /// [`RunFolderError::Taken`], [`RunFolderError::Locked`] or [`RunFolderError::Unwritable`].
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self, RunFolderError> {
        let folder = checkpoints::folder(path);
        files::create_folder(&Disk, &folder).map_err(|cause| unwritable(path, cause))?;
        let lock = lock(path)?;
        if !checkpoints::all(path).is_empty() {
            return Err(RunFolderError::Taken { path: path.into() });
        }
        let mut folder = RunFolder::open(path, lock)?;
        folder.begins_anew = config_file(path).exists();
        folder.cut_back(&Progress::default())?;
        folder.write_config(config)?;
        Ok(folder)
    }

    /// Locks the folder of a run and looks for the checkpoint to go on from.
    ///
    /// # Errors
    /// [`RunFolderError::NoRun`], [`RunFolderError::AllDamaged`], [`RunFolderError::Settings`], [`RunFolderError::Locked`] or
    /// [`RunFolderError::Unwritable`].
    pub fn resume(path: &Path) -> Result<Resumed, RunFolderError> {
        let missing = config_file(path);
        if !missing.exists() && checkpoints::all(path).is_empty() {
            return Err(RunFolderError::NoRun { path: path.into(), missing: last_checkpoint(path) });
        }
        let lock = lock(path)?;
        // Somebody may have removed it with all that was in it, and the run begins anew.
        files::create_folder(&Disk, &checkpoints::folder(path)).map_err(|cause| unwritable(path, cause))?;
        let mut text = String::new();
        let read = files::open(&missing).and_then(|mut file| file.read_to_string(&mut text));
        let config = read.map_err(|error| error.to_string()).and_then(|_| {
            let config = toml::from_str::<RunConfig>(&text).map_err(|error| error.to_string())?;
            config.check().map_err(|error| error.to_string())?;
            Ok(config)
        });
        let (checkpoint, damaged) = match checkpoints::newest(path)? {
            Some((checkpoint, damaged)) => (Some(checkpoint), damaged),
            None => (None, Vec::new()),
        };
        let mut config = match config {
            Ok(config) => Some(config),
            // The checkpoint has the settings as well; all that is lost is the history.
            Err(_) if checkpoint.is_some() => None,
            Err(cause) => return Err(RunFolderError::Settings { path: path.into(), cause }),
        };
        let mut folder = RunFolder::open(path, lock)?;
        folder.history = config.as_mut().map_or(Vec::new(), |config| std::mem::take(&mut config.history));
        folder.newest = checkpoint.as_ref().map(|newest| newest.metadata().progress.total_steps);
        folder.newest_is_last = checkpoint.as_ref().is_some_and(|newest| newest.path() == last_checkpoint(path));
        Ok(Resumed { folder, checkpoint, damaged, config })
    }

    /// Keeps trainers out of the folder of a run as long as what is returned lives.
    ///
    /// # Errors
    /// [`RunFolderError::Locked`] and [`RunFolderError::Unwritable`].
    pub fn hold(path: &Path) -> Result<Held, RunFolderError> {
        Ok(Held { lock: lock(path)? })
    }

    fn open(path: &Path, lock: File) -> Result<Self, RunFolderError> {
        let (steps, epochs) = (Log::open(path.join("steps.csv"))?, Log::open(path.join("log.csv"))?);
        let (history, saved_at) = (Vec::new(), Instant::now());
        Ok(RunFolder {
            path: path.into(),
            lock,
            steps,
            epochs,
            events: Events::at(path),
            tells_tensorboard: false,
            history,
            newest: None,
            newest_is_last: false,
            saved: None,
            saved_at,
            begins_anew: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was a run here before, stopped before it had saved anything, that this one takes the place of.
    pub fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    /// Notes in `config.toml` that a trainer begins, or changes a setting.
    ///
    /// # Errors
    /// [`RunFolderError::Save`].
    pub fn note(&mut self, config: &RunConfig, entry: Entry) -> Result<(), RunFolderError> {
        self.history.push(entry);
        self.write_config(config)
    }

    fn write_config(&self, config: &RunConfig) -> Result<(), RunFolderError> {
        let (path, config) = (config_file(&self.path), RunConfig { history: self.history.clone(), ..config.clone() });
        let text = config.to_toml().map_err(|error| unwritable(&path, io::Error::other(error)))?;
        Ok(replace(&Disk, &path, text.as_bytes())?)
    }

    /// The epochs with the highest validation mAP by the log, `most` of them at most; of two alike the earlier.
    ///
    /// # Errors
    /// [`RunFolderError::Log`].
    pub fn best_epochs(&self, most: u32) -> Result<Vec<u32>, RunFolderError> {
        let mut rows = epochs_of(&self.path)?;
        // It is sound, and so the earlier stays in front.
        rows.sort_by(|a, b| b.mean_average_precision.total_cmp(&a.mean_average_precision));
        Ok(rows.into_iter().take(most as usize).map(|row| row.epoch).collect())
    }

    /// Removes the models of epochs that are none of the `best`.
    pub fn prune_epochs(&self, best: &[u32]) {
        checkpoints::prune_epochs(&Disk, &self.path, best);
    }

    /// How long ago this process saved, or took the folder.
    pub fn since_save(&self) -> Duration {
        self.saved_at.elapsed()
    }

    /// The step of the newest checkpoint that is whole.
    pub fn saved_step(&self) -> Option<u64> {
        self.newest
    }

    /// Has `write` replace `last.safetensors` by the state at `progress`; what it held becomes the first of the older ones. Does nothing
    /// if it was just that state that was saved last.
    ///
    /// The logs are synced first, since a run that goes on from the checkpoint does not write those rows again.
    ///
    /// # Errors
    /// Those of `write`; the checkpoints are then as they were. [`RunFolderError::Unwritable`] for a log that cannot be synced; the
    /// checkpoint is written all the same.
    pub fn save<E: From<RunFolderError>>(
        &mut self,
        progress: &Progress,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.saved.as_ref() == Some(progress) {
            return Ok(());
        }
        let logged = self.steps.sync().and(self.epochs.sync()).and(self.events.sync());
        let steps = progress.total_steps;
        if let Some(before) = self.newest.filter(|&before| self.newest_is_last && before != steps) {
            checkpoints::keep(&Disk, &self.path, before);
        }
        write(&last_checkpoint(&self.path))?;
        checkpoints::prune(&Disk, &self.path, steps);
        (self.newest, self.newest_is_last) = (Some(steps), true);
        (self.saved, self.saved_at) = (Some(*progress), Instant::now());
        Ok(logged?)
    }

    /// Has the next [`save`](Self::save) write even the state that was saved last, since its settings have changed.
    pub fn save_again(&mut self) {
        self.saved = None;
    }

    /// The newest checkpoint that is whole, to go back to.
    ///
    /// # Errors
    /// [`RunFolderError::AllDamaged`], and [`RunFolderError::NoRun`] if there is none.
    pub fn newest(&self) -> Result<Checkpoint, RunFolderError> {
        let newest = checkpoints::newest(&self.path)?;
        let missing = || RunFolderError::NoRun { path: self.path.clone(), missing: last_checkpoint(&self.path) };
        Ok(newest.ok_or_else(missing)?.0)
    }

    /// Has what is logged from here on be told to TensorBoard as well, or not.
    pub fn tell_tensorboard(&mut self, tells: bool) {
        self.tells_tensorboard = tells;
    }

    /// Cuts the logs back to `progress`, where the checkpoint stands.
    ///
    /// # Errors
    /// [`RunFolderError::Log`] for a log that is not ours, [`RunFolderError::Save`] when it cannot be replaced.
    pub fn cut_back(&mut self, progress: &Progress) -> Result<(), RunFolderError> {
        self.steps.keep(|row: &StepRow| row.step <= progress.total_steps)?;
        // By epochs and not by steps: after an epoch's last step the epoch may still have to be validated.
        self.epochs.keep(|row: &EpochRow| row.epoch <= progress.epoch)?;
        self.events.cut_back(progress)
    }

    /// Adds a row to `steps.csv`.
    ///
    /// # Errors
    /// [`RunFolderError::Unwritable`].
    pub fn log_step(&mut self, row: &StepRow) -> Result<(), RunFolderError> {
        self.steps.add(row)?;
        self.log_event(|| Event::of_step(row))
    }

    /// Adds a row to `log.csv`.
    ///
    /// # Errors
    /// [`RunFolderError::Unwritable`].
    pub fn log_epoch(&mut self, row: &EpochRow) -> Result<(), RunFolderError> {
        self.epochs.add(row)
    }

    /// Adds a record to the event files, where TensorBoard is to be told.
    ///
    /// # Errors
    /// [`RunFolderError::Unwritable`].
    pub(super) fn log_event(&mut self, event: impl FnOnce() -> Event) -> Result<(), RunFolderError> {
        if self.tells_tensorboard { self.events.add(&event()) } else { Ok(()) }
    }
}

#[cfg(test)]
impl RunFolder {
    /// Has the log `name` fail once it has got so many steps.
    pub(super) fn fill_disk_for(&mut self, name: &str, steps: u64) {
        match name {
            "steps.csv" => self.steps.rows_left = Some(steps - 1),
            _ => self.epochs.rows_left = Some(0),
        }
    }

    /// Has it seem to be saved as long ago.
    pub(super) fn age(&mut self, by: Duration) {
        self.saved_at -= by;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // So that who takes the lock next is not mistaken for this process in the moment before it has written its own id.
        let _ = self.lock.set_len(0);
    }
}

fn unwritable(path: &Path, cause: io::Error) -> RunFolderError {
    RunFolderError::Unwritable { path: path.into(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_trainer_has_the_folder_and_the_other_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        assert!(!run.begins_anew());
        let error = RunFolder::create(folder.path(), &RunConfig::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(run);
        // Killed before it had saved anything, it has nothing to lose.
        assert!(RunFolder::create(folder.path(), &RunConfig::default()).unwrap().begins_anew());
        for checkpoint in [last_checkpoint(folder.path()), step_checkpoint(folder.path(), 7)] {
            fs::write(&checkpoint, "one").unwrap();
            let error = RunFolder::create(folder.path(), &RunConfig::default()).unwrap_err();
            assert!(matches!(error, RunFolderError::Taken { .. }), "{error}");
            fs::remove_file(&checkpoint).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_a_files_place_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        };
        drop(RunFolder::create(folder.path(), &RunConfig::default()).unwrap());
        pipe("config.toml");
        let error = RunFolder::resume(folder.path()).unwrap_err();
        assert!(matches!(error, RunFolderError::Settings { .. }) && error.to_string().contains("pipe"), "{error}");
        pipe("steps.csv");
        assert!(matches!(
            RunFolder::create(folder.path(), &RunConfig::default()),
            Err(RunFolderError::Unwritable { .. })
        ));
    }

    #[test]
    fn a_file_in_the_folders_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = RunFolder::create(&path.join("run"), &RunConfig::default()).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("--run"), "{error}");
        let error = RunFolder::resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds no run: there is no") && error.contains("last.safetensors"), "{error}");
    }
}
