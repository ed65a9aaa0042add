//! A checkpoint: one safetensors file that holds all there is to know about a run.
//!
//! | what | where in the file |
//! | --- | --- |
//! | weights and batch norm's averages | f32 tensors under Keras's layer names, `conv1_conv/kernel`, `conv1_bn/moving_mean`, … |
//! | both Adam moments | the same names behind `adam.m/` and `adam.v/` |
//! | with `--ema`: what learns, as the tensors above are its moving average | the same names behind `learning/` |
//! | settings, genres, thresholds (the tuned ones too), temperature, progress | [`Metadata`] as TOML, under `onesheet` in `__metadata__` |
//! | a BLAKE3 digest of each tensor, in file order, and then of the metadata | `digests` u8 [T + 1, 32], the last tensor |
//!
//! Layouts are the engine's: convolution kernels KRSC, dense kernels `[outputs, inputs]`. The file is written as a
//! stream, one tensor in memory at a time. A file without the moments is a model to hand on: enough for inference, with
//! its genres, thresholds and pixel format inside, but not to go on training from.

mod reader;
mod writer;

pub use reader::Checkpoint;
pub use writer::write;

use super::bounds::OutOfBounds;
use super::config::RunConfig;
use super::tuning::Tuned;
use crate::data::squaring::{Alpha, Exif};
use crate::files::SaveError;
use crate::formats::pickle_conversion;
use crate::network::Network;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// The name of the first Adam moment of the parameter `name`.
pub fn first_moment(name: &str) -> String {
    format!("adam.m/{name}")
}

/// The name of the second Adam moment of the parameter `name`.
pub fn second_moment(name: &str) -> String {
    format!("adam.v/{name}")
}

/// The name of what the parameter or running average `name` learns as, where a moving average has its own name: that is what answers.
pub fn learning(name: &str) -> String {
    format!("learning/{name}")
}

/// Whether a tensor of a checkpoint belongs to training, and inference has no use for it.
fn is_for_training(name: &str) -> bool {
    name.starts_with("adam.") || name.starts_with("learning/")
}

/// The tensor of digests.
const DIGESTS: &str = "digests";

/// Our key in safetensors' `__metadata__`.
const METADATA_KEY: &str = "onesheet";

/// The version of [`Metadata`] and of the layout around it that this program writes.
const VERSION: u32 = 1;

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The epoch under way, from 0; equal to the number of epochs in the end.
    pub epoch: u32,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps done in all: Adam's t.
    pub total_steps: u64,
    /// Sum of this epoch's losses so far.
    pub loss_sum: f64,
    /// Steps of this epoch that were left out because of a bad number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// The best validation mAP so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
    /// Epochs behind the best one, none of them better.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stale: u32,
}

/// How posters were treated before there was a choice.
fn ignore() -> String {
    Exif::Ignore.name().into()
}

/// The same for transparency.
fn drop_alpha() -> String {
    Alpha::Drop.name().into()
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// What a checkpoint knows besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What each output stands for.
    pub genres: Vec<String>,
    /// A genre is named where its probability is at least this, unless the tuned ones are asked for; an entry a genre.
    pub thresholds: Vec<f64>,
    /// How posters were made square, `area` or `nearest`, so that inference does it the same way.
    pub resize: String,
    /// What became of an orientation noted beside their pixels, `apply` or `ignore`.
    #[serde(default = "ignore")]
    pub exif: String,
    /// What became of transparent pixels, `drop` or `white`.
    #[serde(default = "drop_alpha")]
    pub alpha: String,
    /// Identifies the tensor file that the run reads, so that a run is not resumed on other posters.
    pub data_digest: String,
    /// Thresholds and a temperature for these weights, where somebody has looked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Tuned>,
    /// How far the run has come.
    pub progress: Progress,
    /// The run's settings, the pixel format among them.
    pub config: RunConfig,
}

/// Why a checkpoint could not be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be replaced.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A weight is not a number; such a file would only hide the last good one.
    #[error("{tensor} holds a value that is not finite, so {} is not written; the last checkpoint stays", path.display())]
    NotFinite {
        /// The file that was to be written.
        path: PathBuf,
        /// The first tensor with such a value.
        tensor: String,
    },
    /// The settings do not fit TOML.
    #[error("cannot write the settings into {}: {cause}", path.display())]
    Settings {
        /// The file that was to be written.
        path: PathBuf,
        /// What TOML said.
        cause: toml::ser::Error,
    },
    /// The file could not be opened, or is none.
    #[error("cannot open {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is shorter or longer than its head says.
    #[error("{} is cut short or padded: {found} bytes, where its head describes {expected}; copy it again, or use an earlier checkpoint", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The file is not safetensors at all.
    #[error("{} is no checkpoint: {reason}; give a file that `onesheet train` wrote, such as runs/NAME/checkpoints/best.safetensors", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pickle, as `torch.save` writes it.
    #[error(
        "{} is a pickle, which can run code when it is loaded, so it is not read here, and no checkpoint of onesheet; if it \
         is a network that you trust, convert it and start a run from it with `onesheet train --weights`:\n  {}",
        path.display(), pickle_conversion(path)
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// Safetensors, but written by something else.
    #[error("{} is a safetensors file, but not a checkpoint of onesheet; ImageNet weights go to `onesheet train --weights`, posters to `--data`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("{} has version {found}, this program reads up to {VERSION}; a newer onesheet can read it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The head cannot be understood.
    #[error("the settings in {} cannot be read: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// A setting that no run can have.
    #[error("the settings in {} cannot be used: {cause}", path.display())]
    OutOfBounds {
        /// The file.
        path: PathBuf,
        /// Which setting.
        cause: OutOfBounds,
    },
    /// A value that is no number, or a negative one where squares are averaged.
    #[error("in {} element {index} of {tensor} is {value}; such weights would poison every output, so use an earlier checkpoint", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Row-major.
        index: usize,
        /// What is there.
        value: f32,
    },
    /// The content is not what was written.
    #[error("{part} in {} is damaged: its digest does not match; copy the file again, or use an earlier checkpoint", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The tensor, or the metadata.
        part: String,
    },
    /// Its tensors are another network's.
    #[error(
        "{} is a checkpoint of {}, and not of {}; that network is chosen by --network {found} when a run begins",
        path.display(), found.title, network.title
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// The network in it.
        found: Box<Network>,
        /// The one that it was to be of.
        network: Box<Network>,
    },
    /// A tensor the model has is not in the file.
    #[error("{} has no tensor {tensor}; it is of another model{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor looked for.
        tensor: String,
        /// What else may be the matter.
        hint: &'static str,
    },
    /// A tensor has other extents than the model's.
    #[error("{tensor} in {} is {found:?}, the model has {expected:?}; genres and --pooling must be those the checkpoint was trained with", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Extents in the file.
        found: Vec<usize>,
        /// Extents in the model.
        expected: Vec<usize>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_from_before_there_was_a_choice_say_what_was_done_then() {
        let metadata = Metadata {
            genres: vec!["Drama".into()],
            thresholds: vec![0.3],
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "white".into(),
            data_digest: String::new(),
            tuned: None,
            progress: Progress { left_out: 1, stale: 1, epoch: 1, step: 2, total_steps: 2, ..Progress::default() },
            config: RunConfig::default(),
        };
        let text = toml::to_string(&metadata).unwrap();
        let newer = ["exif", "alpha", "left_out", "stale", "network"];
        let is_old = |line: &&str| !newer.iter().any(|name| line.starts_with(&format!("{name} = ")));
        let old: Vec<&str> = text.lines().filter(is_old).collect();
        assert_eq!(old.len(), text.lines().count() - newer.len());
        let progress = Progress { left_out: 0, stale: 0, ..metadata.progress };
        let expected = Metadata { exif: "ignore".into(), alpha: "drop".into(), progress, ..metadata };
        assert_eq!(toml::from_str::<Metadata>(&old.join("\n")).unwrap(), expected);
        // And one that has nothing to say of it is as it was then.
        let text = toml::to_string(&expected).unwrap();
        assert!(!text.contains("left_out") && !text.contains("stale"));
    }
}
