//! A trained model for other programs, or for this one on another machine: its weights alone, as ONNX, or as Keras keeps them.

use super::checkpoint::{self, Checkpoint, CheckpointError, Metadata};
use crate::device::DeviceError;
use crate::files::{self, Disk, SaveError};
use crate::network::Architecture;
use crate::network::export::keras;
use crate::network::export::onnx::{self, Form};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Why a model was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The model lacks something, or its file cannot be written as safetensors.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The network cannot be laid out.
    #[error(transparent)]
    Network(#[from] DeviceError),
    /// Probabilities are to be calibrated by a temperature that nobody has looked for.
    #[error("{} has no temperature; find it on validation posters with `onesheet evaluate --run RUN --tune`", path.display())]
    Untuned {
        /// The model's file.
        path: PathBuf,
    },
    /// Keras has no such network that could load the weights.
    #[error(
        "{network} is none of Keras Applications, so nothing there could load its weights; --to onnx is for any network"
    )]
    NotInKeras {
        /// The network's title.
        network: &'static str,
    },
    /// HDF5 has no room for something.
    #[error("the weights do not fit into HDF5: {0}")]
    Hdf5(#[from] hdf5_writer::Error),
}

/// What an ONNX model is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Posters as they are decoded: `uint8 [N, H, W, 3]`, red, green and blue.
    Bytes,
    /// The network's own numbers: `float32 [N, 3, H, W]`, which the caller makes of bytes.
    Numbers,
}

/// Writes the `model` without what only training needs to `out`: weights, averages, and settings that name no folder of this machine.
/// Whatever answers from a checkpoint answers from it with the same bits.
///
/// # Errors
/// [`ExportError`]; what `out` held before is then still there.
pub fn safetensors(model: &Checkpoint, out: &Path) -> Result<(), ExportError> {
    let architecture = architecture(model)?;
    let mut metadata = model.metadata().clone();
    let config = &mut metadata.config;
    for path in [&mut config.data, &mut config.weights].into_iter().flatten() {
        *path = path.file_name().map(PathBuf::from).unwrap_or_default();
    }
    checkpoint::write(&Disk, out, &metadata, &architecture.named_shapes(), |name| Ok(model.values(name)?))
}

/// Writes the `model` as ONNX to `out`; its probabilities are calibrated or plain.
///
/// # Errors
/// [`ExportError`]; what `out` held before is then still there.
pub fn onnx(model: &Checkpoint, out: &Path, input: Input, calibrated: bool) -> Result<(), ExportError> {
    let metadata = model.metadata();
    let temperature = match (calibrated, &metadata.tuned) {
        (false, _) => 1.0,
        (true, Some(tuned)) => tuned.temperature,
        (true, None) => return Err(ExportError::Untuned { path: model.path().into() }),
    };
    let architecture = architecture(model)?;
    let title = metadata.config.network.title;
    let form = Form {
        bytes: (input == Input::Bytes).then(|| metadata.config.pixels.format()),
        temperature,
        about: format!("{title}, trained by Onesheet to name the genres of a film from its poster."),
        metadata: described(metadata, input, calibrated),
    };
    onnx::write(&Disk, out, &architecture, &form, |tensor| Ok(model.values_in_place(&tensor.name)?))
}

/// The network of a model that has all its tensors.
fn architecture(model: &Checkpoint) -> Result<Architecture, ExportError> {
    let Metadata { config, genres, .. } = model.metadata();
    let architecture = Architecture::new(&config.model(genres.len())).map_err(DeviceError::from)?;
    model.check(&architecture.named_shapes())?;
    Ok(architecture)
}

/// Writes the weights of `model` as Keras loads them to `out`, and what it takes to build the network around them as attributes. The
/// whole file is in memory on the way.
///
/// # Errors
/// [`ExportError`]; what `out` held before is then still there.
pub fn keras(model: &Checkpoint, out: &Path) -> Result<(), ExportError> {
    let config = &model.metadata().config;
    let network = config.network;
    let Some(class) = network.keras else { return Err(ExportError::NotInKeras { network: network.title }) };
    let architecture = architecture(model)?;
    let mut metadata = described(model.metadata(), Input::Numbers, false);
    metadata.extend([
        ("keras_class".to_owned(), class.to_owned()),
        ("pooling".to_owned(), config.pooling.to_string()),
        ("head".to_owned(), json!(network.head).to_string()),
    ]);
    let file = keras::encode(&architecture, &metadata, |tensor| -> Result<_, ExportError> {
        Ok(model.values_in_place(&tensor.name)?)
    })?;
    Ok(files::replace(&Disk, out, &file)?)
}

/// What lies beside a graph or weights: all that it takes to ask the model and to read its answers, lists as JSON.
fn described(metadata: &Metadata, input: Input, calibrated: bool) -> Vec<(String, String)> {
    let Metadata { genres, thresholds, resize, exif, alpha, tuned, config, .. } = metadata;
    let mut entries = vec![
        ("network", config.network.name.to_owned()),
        ("genres", json!(genres).to_string()),
        ("thresholds", json!(thresholds).to_string()),
        ("image_size", config.image_size.to_string()),
        ("resize", resize.clone()),
        ("exif", exif.clone()),
        ("alpha", alpha.clone()),
        ("pixels", config.pixels.name().to_owned()),
        ("calibrated", calibrated.to_string()),
    ];
    if input == Input::Numbers {
        let format = config.pixels.format();
        entries.push(("channel_order", json!(format.order).to_string()));
        entries.push(("scale", json!(format.scale).to_string()));
        entries.push(("shift", json!(format.shift).to_string()));
    }
    if let Some(tuned) = tuned {
        let thresholds = if calibrated { tuned.calibrated_thresholds() } else { tuned.thresholds.clone() };
        entries.push(("tuned_thresholds", json!(thresholds).to_string()));
        entries.push(("temperature", json!(tuned.temperature).to_string()));
    }
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
