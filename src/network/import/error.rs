//! What can be wrong with a weights file, in words for the person who has it.

use std::io;
use std::path::PathBuf;

use crate::files::quoted;
use crate::formats::pickle_conversion;

/// Why a weights file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither HDF5 nor safetensors.
    #[error("{} is neither an HDF5 nor a safetensors file; weights come as Keras's .h5 or as .safetensors", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
    },
    /// A pickle, or a zip archive around one, as `torch.save` writes it.
    #[error(
        "{} is a pickle, which can run code when it is loaded, so it is not read here; if you trust it, convert it:\n  {}",
        path.display(), pickle_conversion(path)
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// Keras 3's whole-model zip archive.
    #[error(
        "{} is a whole-model archive of Keras; save its weights alone:\n  \
         python -c \"import sys, keras; keras.models.load_model(sys.argv[1]).save_weights(sys.argv[2])\" {} {}",
        path.display(), quoted(path), quoted(&path.with_extension("weights.h5"))
    )]
    KerasArchive {
        /// The file.
        path: PathBuf,
    },
    /// Cut off, or contradicting itself.
    #[error("{} is damaged: {reason}; fetch or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A Keras file whose layers are numbered but not named.
    #[error("{} does not say its layers' names, as early Keras 3 wrote it; load it there and save it with a current Keras", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// Some tensors of the model are not in the file.
    #[error(
        "{} lacks {count} of the {of} tensors of {network}: {}{}; {seems}",
        path.display(), first.join(", "), if *count > first.len() { ", …" } else { "" }
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The title of the network that is wanted.
        network: &'static str,
        /// The first few, under the names the file would use.
        first: Vec<String>,
        /// How many are missing.
        count: usize,
        /// How many were looked for.
        of: usize,
        /// What the file seems to hold instead.
        seems: String,
    },
    /// All of the model's tensors are there and others of the network beside them, or of the same name in another size.
    #[error(
        "{} holds another network's weights: it has {tensor}, which {network} does not have ({seems}); give the weights of a \
         {network}",
        path.display()
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// The title of the network that is wanted.
        network: &'static str,
        /// The first tensor too many, under the file's name for it.
        tensor: String,
        /// What has such a tensor.
        seems: String,
    },
    /// Several copies of the network under different prefixes.
    #[error(
        "{} holds several networks, under {}; there is no telling which is meant: save one of them alone",
        path.display(), prefixes.join(", ")
    )]
    SeveralNetworks {
        /// The file.
        path: PathBuf,
        /// The prefixes.
        prefixes: Vec<String>,
    },
    /// A tensor has another shape than the model's.
    #[error("in {} the tensor {tensor} has shape {found:?}, where {network}'s has {expected:?}; {seems}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The title of the network that is wanted.
        network: &'static str,
        /// The tensor, under the file's name for it.
        tensor: String,
        /// The model's shape, in the file's layout.
        expected: Box<[usize]>,
        /// The file's shape.
        found: Box<[u64]>,
        /// What the file seems to hold.
        seems: String,
    },
    /// A tensor's elements are of a kind that is not read.
    #[error("in {} the tensor {tensor} holds {found}; weights must be 32-bit floats (16-bit ones are read from safetensors)", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor, under the file's name for it.
        tensor: String,
        /// The file's element type.
        found: String,
    },
    /// A tensor holds an infinity, a NaN or a negative variance.
    #[error("in {} element {index} of {tensor} is {value}; such weights would poison every output", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor, under Onesheet's name.
        tensor: String,
        /// Row-major, in Onesheet's layout.
        index: usize,
        /// What is there.
        value: f32,
    },
}
