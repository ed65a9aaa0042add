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

#[cfg(test)]
impl EpochRow {
    /// The row of an epoch that ended with `step`, for tests to which the rest is all one.
    pub(super) fn example(epoch: u32, step: u64) -> EpochRow {
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
}

#[cfg(test)]
mod tests {
    use super::super::RunFolder;
    use super::*;
    use crate::training::checkpoint::Progress;
    use crate::training::config::RunConfig;

    fn step(step: u64) -> StepRow {
        let loss = 0.1 + step as f64;
        StepRow { step, loss, learning_rate: 1e-3, gradient_norm: 2.5, images_per_second: 1.0 / 3.0 }
    }

    #[test]
    fn logs_are_cut_back_to_the_checkpoint_and_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(folder.path(), &RunConfig::default()).unwrap();
        for number in 1..=5 {
            run.log_step(&step(number)).unwrap();
        }
        run.log_epoch(&EpochRow::example(1, 2)).unwrap();
        run.log_epoch(&EpochRow::example(2, 4)).unwrap();
        fs::OpenOptions::new().append(true).open(folder.path().join("steps.csv")).unwrap().write_all(b"6,0.1").unwrap();
        run.cut_back(&Progress { epoch: 1, step: 1, total_steps: 3, ..Progress::default() }).unwrap();
        run.log_step(&step(4)).unwrap();
        run.log_epoch(&EpochRow::example(2, 4)).unwrap();

        let mut steps = csv::Reader::from_path(folder.path().join("steps.csv")).unwrap();
        let steps: Vec<StepRow> = steps.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(steps, [step(1), step(2), step(3), step(4)]);
        let mut epochs = csv::Reader::from_path(folder.path().join("log.csv")).unwrap();
        let epochs: Vec<EpochRow> = epochs.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(epochs, [EpochRow::example(1, 2), EpochRow::example(2, 4)]);

        run.cut_back(&Progress { epoch: 1, step: 2, total_steps: 4, ..Progress::default() }).unwrap();
        let text = fs::read_to_string(folder.path().join("log.csv")).unwrap();
        assert_eq!(text.lines().count(), 2, "the second epoch's last step is saved, its end is not");

        run.cut_back(&Progress::default()).unwrap();
        run.log_step(&step(1)).unwrap();
        let text = fs::read_to_string(folder.path().join("steps.csv")).unwrap();
        assert_eq!(
            text.lines().next(),
            Some("step,loss,learning_rate,images_per_second,gradient_norm"),
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
        run.cut_back(&Progress { step: 1, total_steps: 1, ..Progress::default() }).unwrap();
        run.log_step(&step(2)).unwrap();
        let steps = csv::Reader::from_path(path).unwrap().deserialize().collect::<Result<Vec<StepRow>, _>>().unwrap();
        let first = StepRow { step: 1, loss: 0.5, learning_rate: 1e-3, gradient_norm: 0.0, images_per_second: 30.0 };
        assert_eq!(steps, [first, step(2)]);
    }
}
