//! What can be wrong with a weights file, in words for the person who has it.

use std::io;
use std::path::{Path, PathBuf};

use super::surplus::shortened;
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
        "{} lacks {count} of the model's {of} tensors: {}{}; {}",
        path.display(), first.join(", "), if *count > first.len() { ", …" } else { "" }, what_there_is(there.as_deref())
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The first few, under the names the file would use.
        first: Vec<String>,
        /// How many are missing.
        count: usize,
        /// How many were looked for.
        of: usize,
        /// A tensor that the file has, where it has none of the model's.
        there: Option<String>,
    },
    /// All of the model's tensors are there and others of the network beside them, or of the same name in another size.
    #[error(
        "{} holds another network's weights: it has {tensor}, which ResNet-50 does not have ({looks_like}); give the \
         weights of a ResNet-50",
        path.display()
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// The first tensor too many, under the file's name for it.
        tensor: String,
        /// What has such a tensor.
        looks_like: &'static str,
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
    #[error("in {} the tensor {tensor} has shape {found:?}, ResNet-50's has {expected:?}{}", path.display(), wider(expected, found))]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor, under the file's name for it.
        tensor: String,
        /// The model's shape, in the file's layout.
        expected: Vec<usize>,
        /// The file's shape.
        found: Vec<u64>,
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

impl ImportError {
    /// `Missing` for these names, or nothing if there are none; `there` is a tensor that the file does have.
    pub(super) fn missing(
        path: &Path,
        names: Vec<String>,
        of: usize,
        there: Option<String>,
    ) -> Result<(), ImportError> {
        match names.len() {
            0 => Ok(()),
            count => {
                let first = names.into_iter().take(4).collect();
                let there = there.filter(|_| count == of).map(|name| shortened(&name));
                Err(ImportError::Missing { path: path.to_owned(), first, count, of, there })
            }
        }
    }
}

/// What a file has that lacks what was looked for.
fn what_there_is(there: Option<&str>) -> String {
    match there {
        Some(name) => {
            format!("what it has is called like {name}: no names of Keras's, torchvision's or timm's ResNet-50")
        }
        None => "is it a ResNet-50?".to_owned(),
    }
}

/// A guess at the network whose tensor has more elements than ours along some axis.
fn wider(expected: &[usize], found: &[u64]) -> &'static str {
    let more = expected.iter().zip(found).any(|(&ours, &theirs)| theirs > ours as u64);
    let same_rank = expected.len() == found.len();
    if same_rank && more {
        "; it is of a wider network, such as a Wide ResNet or a ResNeXt"
    } else {
        "; it is of another network"
    }
}
