//! Weights from elsewhere: ImageNet weights for the base, and files this program exported.
//!
//! Three kinds of file are read, told apart by their content:
//!
//! | file | written by | holds |
//! | --- | --- | --- |
//! | HDF5 (`.h5`, `.weights.h5`) | Keras from 2016 on, Keras Applications | the base, under Keras's names |
//! | safetensors with `layer1.0.conv1.weight` | torchvision, timm | the base, under PyTorch's names, with any prefix |
//! | any other safetensors | Onesheet | everything, under Keras's names, in Onesheet's layout |
//!
//! Whatever the file, the caller gets Onesheet's names and layouts (convolution kernels KRSC, dense kernels `[out, in]`) and
//! only has to copy. A foreign file's head classifies something else, so it is never read. A file of another network that
//! happens to hold all that this one has, as a ResNet-101's holds all that ResNet-50 has, is refused. Checkpoints are opened by
//! [`Checkpoint`](crate::training::checkpoint::Checkpoint), which compares their digests; what is read here has none.
//!
//! Files are not trusted. Shapes are compared before anything is allocated, so memory stays below the file's size plus
//! 64 MB; nothing outside the file is opened; pickles, which run code when loaded, are refused with the command that
//! converts them.

mod automatic;
mod compare;
mod error;
mod keras;
mod keras_2016;
mod looks;
mod onesheet;
mod safetensors_file;
mod torch;

use std::collections::BTreeMap;
use std::path::Path;

use crate::device::PixelFormat;
use crate::files;
use crate::formats::{self, Format};
use crate::network::{Architecture, NamedShape, NamedTensor, Network};
use compare::Comparison;

pub use error::ImportError;
use safetensors_file::SafetensorsFile;

/// Tensors by name: Keras's layer name, a slash, and `kernel`, `depthwise_kernel`, `pointwise_kernel`, `bias`, `gamma`, `beta`,
/// `moving_mean` or `moving_variance`.
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

/// What a model wants of a weights file: its tensors, in the order of its layers.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The network, for messages and for PyTorch's names.
    pub network: Network,
    /// The base's tensors.
    pub base: Vec<NamedShape>,
    /// The head's.
    pub head: Vec<NamedShape>,
}

impl Wanted {
    /// All tensors of a network.
    pub fn by(architecture: &Architecture) -> Self {
        let named = |tensors: &[NamedTensor]| {
            tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect::<Vec<_>>()
        };
        let (base, head) = architecture.base_and_head();
        Wanted { network: architecture.network, base: named(base), head: named(head) }
    }
}

/// Reads the weights in `path` for a model that wants these tensors and is fed `pixels`.
///
/// A foreign file must hold every tensor of the base; Onesheet's own must hold those, and the head's either all or none.
/// Beside them may stand what belongs to no network: another head, the optimiser's state.
///
/// # Errors
///
/// See [`ImportError`]: each names the file and, where there is one, the tensor with the shapes expected and found.
pub fn read(path: &Path, wanted: &Wanted, pixels: &PixelFormat) -> Result<Weights, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    let mut file = files::open(path).map_err(io)?;
    let weights = match formats::recognise(&mut file).map_err(io)? {
        Format::Hdf5 => keras::read(path, file, wanted, pixels)?,
        Format::Safetensors => {
            let file = SafetensorsFile::open(path, file)?;
            match torch::prefix(&file)? {
                Some(prefix) => torch::read(file, &prefix, wanted, pixels)?,
                None => onesheet::read(file, wanted)?,
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

/// Refuses a checkpoint with tensors of a base that are not among those wanted.
pub(crate) fn refuse_surplus(path: &Path, wanted: &Wanted, held: &[NamedShape]) -> Result<(), ImportError> {
    Comparison::new(path, wanted, held).keras_surplus(held.iter().map(|(name, _)| name.as_str()))
}

/// `[batch, rows, cols]` to `[batch, cols, rows]`: the one permutation all layouts need. Keras keeps output channels last
/// (HWIO and `[in, out]`, rows = all else), PyTorch keeps the kernel's extent last (KCRS, a batch per output channel).
pub(super) fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
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
