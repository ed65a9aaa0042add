//! Training as a whole: what a run is, where it is kept, and how it survives being stopped.
//!
//! A run is a [`config`] (everything needed to repeat it, what its [`recipe`] adds to the paper's protocol included) and a
//! [`run_folder`] that holds it: logs, and [`checkpoint`]s written through the small I/O trait of [`files`](crate::files). The [`trainer`] takes a [`learner`], a model with its optimiser, through
//! the epochs, on several devices with [`replicas`], from weights that [`start`] reads if there are any; [`evaluation`] asks the model about posters it did not learn from,
//! [`tuning`] finds thresholds and a temperature for its answers, [`export`] writes it for other programs, [`profiling`] measures steps, and [`numerics`] finds out where in a
//! bad step the first number went wrong.

pub mod bounds;
pub mod checkpoint;
pub mod config;
pub mod dry_run;
pub mod evaluation;
pub mod experiment;
pub mod export;
pub mod history;
pub mod learner;
pub mod numerics;
pub mod profiling;
pub mod recipe;
pub mod replicas;
pub mod run_folder;
pub mod start;
pub mod surest;
pub mod tensorboard;
pub mod trainer;
pub mod tuning;

use crate::checks::NonFinite;
use crate::data::Split;
use crate::data::loader::LoaderError;
use crate::data::tensor_file::TensorFileError;
use crate::device::DeviceError;
use crate::network::import::ImportError;
use bounds::OutOfBounds;
use checkpoint::CheckpointError;
use run_folder::RunFolderError;
use std::path::PathBuf;

/// Where a bad number was, for the end of a message.
fn told(place: Option<&NonFinite>) -> String {
    place.map_or(String::new(), |place| format!(" ({place})"))
}

/// Why a run could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The device's.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The posters'.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The tensor file's.
    #[error(transparent)]
    TensorFile(#[from] TensorFileError),
    /// The checkpoint's.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Those of the weights that a run is to start from.
    #[error(transparent)]
    Weights(#[from] ImportError),
    /// A setting that no run can have, from a file.
    #[error(transparent)]
    Settings(#[from] OutOfBounds),
    /// The run folder's.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// A loss, or a norm that goes with it, that is no number.
    #[error("{what} is {value}: the weights have diverged{}", told(place.as_deref()))]
    Diverged {
        /// Which number, and when.
        what: String,
        /// Its value.
        value: f64,
        /// Where the first such number was, if that was looked for.
        place: Option<Box<NonFinite>>,
    },
    /// Nothing to train on, or nothing to choose the best epoch by.
    #[error("{} has no {} posters; prepare it from more films, or with another --split", path.display(), split.name())]
    EmptySplit {
        /// The tensor file.
        path: PathBuf,
        /// The split that is empty.
        split: Split,
    },
    /// Posters of another size than the settings ask for.
    #[error("the posters in {} are {found}×{found} pixels, not {asked}×{asked}; prepare them again with `onesheet prepare --image-size {asked}`, or leave out --image-size where it was given", path.display())]
    ImageSize {
        /// The tensor file.
        path: PathBuf,
        /// Its posters' side.
        found: usize,
        /// The side asked for.
        asked: usize,
    },
    /// A run was to go on with other posters than it began with.
    #[error("{} was trained on other posters than those in {}; a run goes on only with its own, so put them back or start a new one", checkpoint.display(), posters.display())]
    OtherPosters {
        /// The tensor file.
        posters: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}
