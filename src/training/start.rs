//! What a run starts from, where it is not random numbers: a checkpoint of this program, or weights from elsewhere.

use super::TrainingError;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::RunConfig;
use crate::device::{Device, DeviceError};
use crate::model::Model;
use crate::network::Architecture;
use crate::network::import::{self, Source, Tensors, Wanted, WeightTensor, Weights};
use std::path::Path;

/// Reads the weights in `path` for a new run on these `genres`.
///
/// A checkpoint is verified to its last byte, and gives the base; it gives the head as well if it was trained for the same
/// genres. Everything else is read by [`import::read`].
///
/// # Errors
/// [`TrainingError::Checkpoint`] for a checkpoint, [`TrainingError::Weights`] for other files.
pub fn read(path: &Path, config: &RunConfig, genres: &[String]) -> Result<Weights, TrainingError> {
    let architecture = Architecture::new(&config.model(genres.len())).map_err(DeviceError::from)?;
    let wanted = Wanted::by(&architecture);
    match Checkpoint::open(path) {
        Ok(checkpoint) => from_checkpoint(&checkpoint, config, &wanted, genres),
        // None of ours: what it is the importer finds out, and says so if it is none of its kinds either.
        Err(
            CheckpointError::Open { .. }
            | CheckpointError::Foreign { .. }
            | CheckpointError::NotSafetensors { .. }
            | CheckpointError::Truncated { .. }
            | CheckpointError::Pickle { .. },
        ) => Ok(import::read(path, &wanted, &config.pixels.format())?),
        Err(error) => Err(error.into()),
    }
}

/// Copies `weights` over the tensors of `model` that have their names. What the weights lack, as a foreign file lacks the head, keeps
/// its initial values.
///
/// # Errors
/// The device's.
pub fn copy<D: Device>(weights: &Weights, model: &mut Model<D>) -> Result<(), DeviceError> {
    for tensor in &model.architecture().tensors.clone() {
        if let Some(values) = weights.tensors.get(&tensor.name) {
            model.write(tensor, &values.data)?;
        }
    }
    Ok(())
}

fn from_checkpoint(
    checkpoint: &Checkpoint,
    config: &RunConfig,
    wanted: &Wanted,
    genres: &[String],
) -> Result<Weights, TrainingError> {
    checkpoint.check_network(wanted.network)?;
    import::refuse_surplus(checkpoint.path(), wanted, checkpoint.tensors())?;
    let metadata = checkpoint.metadata();
    let has_same_genres = metadata.genres == genres;
    let head = if has_same_genres { &wanted.head[..] } else { &[] };
    let taken = [&wanted.base, head].concat();
    checkpoint.check(&taken)?;
    let mut tensors = Tensors::new();
    for (name, shape) in taken {
        let data = checkpoint.values(&name)?;
        tensors.insert(name, WeightTensor { shape, data });
    }
    let mut notes = Vec::new();
    if !has_same_genres {
        notes.push(format!(
            "these weights name other genres ({}), so only their base is taken and the head starts new",
            metadata.genres.join(", ")
        ));
    }
    if metadata.config.pixels != config.pixels {
        let [theirs, ours] = [metadata.config.pixels, config.pixels].map(|pixels| pixels.name());
        notes.push(format!("these weights were trained on --pixels {theirs}; this run feeds them {ours} ones"));
    }
    Ok(Weights { tensors, source: Source::Onesheet, notes })
}
