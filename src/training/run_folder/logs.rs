//! The two logs of a run, one row per step and one row per epoch.

use super::{RunFolderError, unwritable};
use crate::files::{Disk, replace, without_waiting};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
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
    /// Posters per second.
    pub images_per_second: f64,
    /// The Euclidean norm of the gradient; 0 in a log of an earlier version, which did not take it.
    #[serde(default)]
    pub gradient_norm: f64,
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

/// The whole rows of a run's `log.csv`; none where there is no log.
///
/// # Errors
/// [`RunFolderError::Log`] for a log that is not ours.
pub fn epochs_of(run: &Path) -> Result<Vec<EpochRow>, RunFolderError> {
    let path = run.join("log.csv");
    let unreadable = |cause: csv::Error| RunFolderError::Log { path: path.clone(), cause };
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text.map_err(|error| unreadable(error.into()))?,
    };
    csv::Reader::from_reader(whole_rows(&text)).deserialize().collect::<Result<_, _>>().map_err(unreadable)
}

/// The rows of a log that have their line end. A power cut or a full disk may have torn the last one.
fn whole_rows(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0)]
}

/// A log open at its end.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Whether rows were added since the last sync.
    unsynced: bool,
    /// For tests: rows until the disk is full.
    #[cfg(test)]
    pub rows_left: Option<u64>,
}

impl Log {
    /// Opens the log at `path`, a new one if there is none.
    pub fn open(path: PathBuf) -> Result<Log, RunFolderError> {
        let file = without_waiting(OpenOptions::new().append(true).create(true)).open(&path);
        let file = file.map_err(|cause| unwritable(&path, cause))?;
        Ok(Log {
            path,
            file,
            unsynced: false,
            #[cfg(test)]
            rows_left: None,
        })
    }

    /// Adds a row, in one call so that a kill leaves whole rows, and the header before the first.
    pub fn add(&mut self, row: &impl Serialize) -> Result<(), RunFolderError> {
        #[cfg(test)]
        if let Some(left) = &mut self.rows_left {
            if *left == 0 {
                return Err(unwritable(&self.path, io::ErrorKind::StorageFull.into()));
            }
            *left -= 1;
        }
        self.unsynced = true;
        let written = || -> io::Result<()> {
            let empty = self.file.metadata()?.len() == 0;
            let mut line = csv::WriterBuilder::new().has_headers(empty).from_writer(Vec::new());
            line.serialize(row).map_err(io::Error::other)?;
            (&self.file).write_all(&line.into_inner().map_err(|error| error.into_error())?)
        };
        written().map_err(|cause| unwritable(&self.path, cause))
    }

    /// Waits until all rows are on the disk.
    pub fn sync(&mut self) -> Result<(), RunFolderError> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(|cause| unwritable(&self.path, cause))?;
        }
        Ok(())
    }

    /// Rewrites the log with the rows that `keep` accepts, without a last row that was torn.
    pub fn keep<R: Serialize + DeserializeOwned>(&mut self, keep: impl Fn(&R) -> bool) -> Result<(), RunFolderError> {
        let unreadable = |cause: csv::Error| RunFolderError::Log { path: self.path.clone(), cause };
        let text = fs::read(&self.path).map_err(|error| unreadable(error.into()))?;
        let mut kept = csv::Writer::from_writer(Vec::new());
        for row in csv::Reader::from_reader(whole_rows(&text)).deserialize() {
            let row: R = row.map_err(unreadable)?;
            if keep(&row) {
                kept.serialize(row).map_err(unreadable)?;
            }
        }
        let kept = kept.into_inner().map_err(|error| unreadable(error.into_error().into()))?;
        replace(&Disk, &self.path, &kept)?;
        *self = Log::open(std::mem::take(&mut self.path))?;
        Ok(())
    }
}
