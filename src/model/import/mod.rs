//! Weights from elsewhere: ImageNet weights for the base, and files this program exported.
//!
//! Three kinds of file are read, told apart by their content:
//!
//! | file | written by | holds |
//! | --- | --- | --- |
//! | HDF5 (`.h5`, `.weights.h5`) | Keras 2 and 3, Keras Applications | the base, under Keras's names |
//! | safetensors with `layer1.0.conv1.weight` | torchvision, timm (`resnet50`) | the base, under PyTorch's names |
//! | safetensors with `conv1_conv/kernel` | Onesheet | everything, under Keras's names, in Onesheet's layout |
//!
//! Whatever the file, the caller gets Onesheet's names and layouts (convolution kernels KRSC, dense kernels `[out, in]`) and
//! only has to copy. A foreign file's head classifies something else, so it is never read.
//!
//! Files are not trusted. Shapes are compared before anything is allocated, so memory stays below the file's size plus
//! 64 MB; nothing outside the file is opened; pickles, which run code when loaded, are refused with the command that
//! converts them.

mod error;
mod keras;
mod onesheet;
mod safetensors_file;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

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

impl Source {
    /// What the user should know before training on such weights.
    pub fn caveat(self) -> Option<&'static str> {
        match self {
            Source::Onesheet | Source::Keras => None,
            Source::Torch => Some(
                "these weights were trained as ResNet-50 v1.5, whose stages stride in the 3x3 convolution; here, as in \
                 Keras, the first 1x1 strides. They are a good start for training, but untrained layers on top of them \
                 see features somewhat unlike ImageNet's; Keras's own .h5 fits exactly",
            ),
        }
    }
}

/// Reads the weights in `path`. `expected` lists the model's tensors as (name, shape), in any order.
///
/// A foreign file must hold every tensor of the base; Onesheet's own must hold those, and the head's either all or none.
/// Tensors beyond `expected` (optimiser state, other heads) are ignored.
///
/// # Errors
///
/// See [`ImportError`]: each names the file and, where there is one, the tensor with the shapes expected and found.
pub fn read(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<Weights, ImportError> {
    let (tensors, source) = match recognise(path)? {
        Format::Hdf5 => (keras::read(path, &base_of(expected))?, Source::Keras),
        Format::Safetensors => {
            let file = SafetensorsFile::open(path)?;
            if torch::wrote(&file) {
                (torch::read(file, &base_of(expected))?, Source::Torch)
            } else {
                (onesheet::read(file, expected)?, Source::Onesheet)
            }
        }
    };
    for (name, tensor) in &tensors {
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
    Ok(Weights { tensors, source })
}

/// A tensor the model wants: its name and shape.
type Wanted<'a> = (&'a str, &'a [usize]);

/// Whether a tensor belongs to the ResNet base: there every layer with weights has a name that begins with `conv`.
fn in_base(name: &str) -> bool {
    name.starts_with("conv")
}

fn base_of(expected: &[(String, Vec<usize>)]) -> Vec<Wanted<'_>> {
    let base = expected.iter().filter(|(name, _)| in_base(name));
    base.map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
}

enum Format {
    Hdf5,
    Safetensors,
}

/// Tells a file's format from its first bytes; a file name proves nothing.
fn recognise(path: &Path) -> Result<Format, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    // Asked before opening: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(io(std::io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut file = File::open(path).map_err(io)?;
    let mut start = Vec::new();
    file.by_ref().take(4096).read_to_end(&mut start).map_err(io)?;

    if start.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Ok(Format::Hdf5);
    }
    if start.starts_with(b"PK\x03\x04") {
        // A zip archive lists its files at the end: `data.pkl` is PyTorch's, `model.weights.h5` is Keras's.
        let length = file.seek(SeekFrom::End(0)).map_err(io)?;
        file.seek(SeekFrom::Start(length.saturating_sub(65_536))).map_err(io)?;
        let mut end = Vec::new();
        file.take(65_536).read_to_end(&mut end).map_err(io)?;
        let lists = |name: &[u8]| [&start, &end].iter().any(|part| part.windows(name.len()).any(|w| w == name));
        if lists(b"model.weights.h5") {
            return Err(ImportError::KerasArchive { path: path.to_owned() });
        }
        if lists(b".pkl") {
            return Err(ImportError::Pickle { path: path.to_owned() });
        }
    }
    // A pickle begins with the opcode PROTO and its version.
    if let [0x80, 0..=5, ..] = start[..] {
        return Err(ImportError::Pickle { path: path.to_owned() });
    }
    // Safetensors begins with its header's length, eight bytes, and the header is a JSON object.
    if start.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    Err(ImportError::Unrecognised { path: path.to_owned() })
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
