//! Weights from elsewhere: ImageNet weights for the base, and files this program exported.
//!
//! Three kinds of file are read, told apart by their content:
//!
//! | file | written by | holds |
//! | --- | --- | --- |
//! | HDF5 (`.h5`, `.weights.h5`) | Keras from 2016 on, Keras Applications | the base, under Keras's names |
//! | safetensors with `layer1.0.conv1.weight` | torchvision, timm (`resnet50`) | the base, under PyTorch's names, with any prefix |
//! | safetensors with `conv1_conv/kernel` | Onesheet | everything, under Keras's names, in Onesheet's layout |
//!
//! Whatever the file, the caller gets Onesheet's names and layouts (convolution kernels KRSC, dense kernels `[out, in]`) and
//! only has to copy. A foreign file's head classifies something else, so it is never read. A file of another network that
//! happens to hold all that ResNet-50 has, such as a ResNet-101, is refused. Checkpoints are opened by
//! [`Checkpoint`](crate::training::checkpoint::Checkpoint), which compares their digests; what is read here has none.
//!
//! Files are not trusted. Shapes are compared before anything is allocated, so memory stays below the file's size plus
//! 64 MB; nothing outside the file is opened; pickles, which run code when loaded, are refused with the command that
//! converts them.

mod error;
mod keras;
mod keras_2016;
mod onesheet;
mod safetensors_file;
mod surplus;
mod torch;

use std::collections::BTreeMap;
use std::path::Path;

use crate::device::PixelFormat;
use crate::files;
use crate::formats::{self, Format};

pub use error::ImportError;
use safetensors_file::SafetensorsFile;

/// Tensors by name: Keras's layer name, a slash, and `kernel`, `bias`, `gamma`, `beta`, `moving_mean` or `moving_variance`.
pub type Tensors = BTreeMap<String, WeightTensor>;

/// What a weights file held, in Onesheet's names and layouts.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// All tensors of the base, and those of the head if the file is Onesheet's own and has one.
    pub tensors: Tensors,
    /// Who wrote the file.
    pub source: Source,
    /// What the user should know before training on such weights, a sentence each.
    pub notes: Vec<String>,
}

/// One tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTensor {
    /// `[K, R, S, C]`, `[out, in]` or `[channels]`.
    pub shape: Vec<usize>,
    /// The elements; finite, and not negative in a `moving_variance`.
    pub data: Vec<f32>,
}

/// Who wrote a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This program.
    Onesheet,
    /// Keras, any version, any of its HDF5 forms.
    Keras,
    /// torchvision or timm.
    Torch,
}

/// The pixels that Keras's ImageNet weights were made for: blue, green and red, each minus ImageNet's mean.
pub const KERAS_PIXELS: PixelFormat =
    PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };

/// Reads the weights in `path` for a model that is fed `pixels`. `expected` lists its tensors as (name, shape), in any order.
///
/// A foreign file must hold every tensor of the base; Onesheet's own must hold those, and the head's either all or none.
/// Beside them may stand what belongs to no network: another head, the optimiser's state.
///
/// # Errors
///
/// See [`ImportError`]: each names the file and, where there is one, the tensor with the shapes expected and found.
pub fn read(path: &Path, expected: &[(String, Vec<usize>)], pixels: &PixelFormat) -> Result<Weights, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    let mut file = files::open(path).map_err(io)?;
    let base = base_of(expected);
    let weights = match formats::recognise(&mut file).map_err(io)? {
        Format::Hdf5 => keras::read(path, file, &base, pixels)?,
        Format::Safetensors => {
            let file = SafetensorsFile::open(path, file)?;
            match torch::prefix(&file)? {
                Some(prefix) => torch::read(file, &prefix, &base, pixels)?,
                None => onesheet::read(file, expected)?,
            }
        }
        Format::Pickle => return Err(ImportError::Pickle { path: path.to_owned() }),
        Format::KerasArchive => return Err(ImportError::KerasArchive { path: path.to_owned() }),
        Format::Unknown => return Err(ImportError::Unrecognised { path: path.to_owned() }),
    };
    for (name, tensor) in &weights.tensors {
        let variance = name.ends_with("/moving_variance");
        let bad = |v: &f32| !v.is_finite() || (variance && *v < 0.0);
        if let Some(index) = tensor.data.iter().position(bad) {
            return Err(ImportError::Value {
                path: path.to_owned(),
                tensor: name.clone(),
                index,
                value: tensor.data[index],
            });
        }
    }
    Ok(weights)
}

/// Refuses a file of another network, by the names of all its tensors, which are Keras's of today.
pub(crate) fn refuse_another_network<'a>(
    path: &Path,
    held: impl Iterator<Item = &'a str>,
    expected: &[(String, Vec<usize>)],
) -> Result<(), ImportError> {
    let ours = base_of(expected).into_iter().map(|(name, _)| name.to_owned()).collect();
    surplus::refuse(path, held.filter(|name| surplus::is_keras_base(name)), &ours, surplus::keras_block)
}

/// A tensor the model wants: its name and shape.
type Wanted<'a> = (&'a str, &'a [usize]);

/// Whether a tensor belongs to the ResNet base: there every layer with weights has a name that begins with `conv`.
pub(crate) fn in_base(name: &str) -> bool {
    name.starts_with("conv")
}

fn base_of(expected: &[(String, Vec<usize>)]) -> Vec<Wanted<'_>> {
    let base = expected.iter().filter(|(name, _)| in_base(name));
    base.map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
}

/// `[batch, rows, cols]` to `[batch, cols, rows]`: the one permutation all layouts need. Keras keeps output channels last
/// (HWIO and `[in, out]`, rows = all else), PyTorch keeps the kernel's extent last (KCRS, a batch per output channel).
fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    if data.is_empty() {
        return out;
    }
    for matrix in data.chunks_exact(rows * cols) {
        for col in 0..cols {
            out.extend(matrix[col..].iter().step_by(cols));
        }
    }
    out
}
