//! From an error to an exit code, for every tool in one place.

use crate::console::{OutputError, tell};
#[cfg(feature = "fetch")]
use onesheet::data::download::DownloadError;
use onesheet::data::loader::LoaderError;
use onesheet::data::outputs::Refused;
use onesheet::data::prepare::PrepareError;
use onesheet::data::tensor_file::TensorFileError;
use onesheet::device::DeviceError;
use onesheet::model::import::ImportError;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::CheckpointError;
use onesheet::training::run_folder::RunFolderError;
use std::error::Error;
use std::process::ExitCode;

/// What `--help` says about them.
pub const CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 bad data, 4 bad weights or checkpoint, 5 device or memory, \
6 diverged, 129, 130 or 143 interrupted after saving";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// Bad data, also for a data file that is cut short while it is mapped.
pub const DATA: u8 = 3;
const WEIGHTS: u8 = 4;
const DEVICE: u8 = 5;
const DIVERGED: u8 = 6;

/// Options that do not go together in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Some input could not be used; each was named on its own when it was met.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadData(pub String);

/// A signal ended the run after a clean save.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub struct Interrupted(pub i32);

/// Prints the error, unless it was a wish, and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Interrupted(signal)) = error.downcast_ref() {
        return ExitCode::from(128 + *signal as u8);
    }
    if let Some(OutputError::Closed) = error.downcast_ref() {
        return ExitCode::SUCCESS;
    }
    tell(format_args!("error: {error:#}"));
    ExitCode::from(error.chain().find_map(code).unwrap_or(FAILED))
}

/// The code of an error whose type says enough.
fn code(error: &(dyn Error + 'static)) -> Option<u8> {
    if error.is::<Usage>() || error.is::<Refused>() {
        return Some(USAGE);
    }
    if error.is::<BadData>() {
        return Some(DATA);
    }
    if let Some(error) = error.downcast_ref::<TrainingError>() {
        return Some(match error {
            TrainingError::Device(_) => DEVICE,
            TrainingError::Loader(error) => loader(error),
            TrainingError::TensorFile(error) => tensor_file(error),
            TrainingError::Checkpoint(error) => checkpoint(error),
            TrainingError::Weights(_) => WEIGHTS,
            TrainingError::RunFolder(error) => run_folder(error),
            TrainingError::Diverged { .. } => DIVERGED,
            TrainingError::EmptySplit { .. } | TrainingError::OtherPosters { .. } => DATA,
            TrainingError::ImageSize { .. } | TrainingError::Settings(_) => USAGE,
        });
    }
    if let Some(error) = error.downcast_ref() {
        return Some(checkpoint(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(tensor_file(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(match error {
            PrepareError::Write(error) => tensor_file(error),
            error if error.is_bad_data() => DATA,
            _ => FAILED,
        });
    }
    #[cfg(feature = "fetch")]
    if let Some(DownloadError::NoAddresses) = error.downcast_ref() {
        return Some(DATA);
    }
    if error.is::<ImportError>() {
        return Some(WEIGHTS);
    }
    error.is::<DeviceError>().then_some(DEVICE)
}

fn run_folder(error: &RunFolderError) -> u8 {
    match error {
        RunFolderError::AllDamaged { .. } | RunFolderError::Checkpoint(_) => WEIGHTS,
        _ => FAILED,
    }
}

fn loader(error: &LoaderError) -> u8 {
    match error {
        LoaderError::EmptyBatch | LoaderError::BatchTooLarge { .. } => USAGE,
        LoaderError::NoImages => DATA,
        LoaderError::File(error) => tensor_file(error),
        LoaderError::Thread(_) => FAILED,
    }
}

fn tensor_file(error: &TensorFileError) -> u8 {
    match error {
        TensorFileError::Io { .. } | TensorFileError::NoSpace { .. } => FAILED,
        _ => DATA,
    }
}

fn checkpoint(error: &CheckpointError) -> u8 {
    match error {
        CheckpointError::Save(_) | CheckpointError::Settings { .. } => FAILED,
        CheckpointError::NotFinite { .. } => DIVERGED,
        _ => WEIGHTS,
    }
}
