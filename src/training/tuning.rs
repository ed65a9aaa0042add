//! What is learned of a model's answers once it is trained: a threshold for each genre, and a temperature.

use super::checkpoint::{self, Checkpoint, CheckpointError, Metadata};
use super::evaluation::Answers;
use crate::files::Disk;
use crate::metrics::best_thresholds;
use crate::metrics::calibration::{best_temperature, threshold_at};
use serde::{Deserialize, Serialize};

/// Found on validation posters, and kept in the model's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// The threshold of each genre with the highest F1: [`best_thresholds`].
    pub thresholds: Vec<f64>,
    /// What logits are divided by to be calibrated: [`best_temperature`].
    pub temperature: f64,
    /// How many posters that was found on.
    pub posters: u64,
    /// Identifies the tensor file they are of.
    pub data_digest: String,
}

impl Tuned {
    /// Of a model's `answers` about the validation posters of the file with this digest, where `defaults` are its thresholds otherwise.
    pub fn new(answers: &Answers, defaults: &[f64], data_digest: &str) -> Self {
        Tuned {
            thresholds: best_thresholds(&answers.probabilities, &answers.targets, defaults),
            temperature: best_temperature(&answers.logits, &answers.targets),
            posters: (answers.targets.len() / defaults.len()) as u64,
            data_digest: data_digest.into(),
        }
    }

    /// The thresholds of calibrated probabilities, at which the same genres are named.
    pub fn calibrated_thresholds(&self) -> Vec<f64> {
        self.thresholds.iter().map(|&threshold| threshold_at(self.temperature, threshold)).collect()
    }
}

/// Puts `tuned` into the file that `checkpoint` was opened from, all of it; every tensor stays as it is.
///
/// # Errors
/// The disk's; what the file held before is then still there.
pub fn store(checkpoint: &Checkpoint, tuned: Tuned) -> Result<Metadata, CheckpointError> {
    let metadata = Metadata { tuned: Some(tuned), ..checkpoint.metadata().clone() };
    checkpoint::write(&Disk, checkpoint.path(), &metadata, checkpoint.tensors(), |name| checkpoint.values(name))?;
    Ok(metadata)
}
