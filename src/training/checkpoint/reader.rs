//! Opening a checkpoint: everything that is wanted of it is verified before anything is used.

use super::{CheckpointError, DIGESTS, METADATA_KEY, Metadata, VERSION, is_for_training};
use crate::files;
use crate::files::mapped::Mapped;
use crate::formats::{Format, recognise};
use crate::network::{NamedShape, Network};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The longest header read. A checkpoint's has about 100 KB; parsed, a header takes some ten times its length.
const MAX_HEADER: u64 = 16 << 20;

/// Which of a checkpoint's tensors are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those of the model: two thirds of a file and more are for training, and not so much as read.
    Model,
}

/// A checkpoint whose head, length, settings, and the values and digests of all tensors that are wanted, have been found right.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Mapped,
    metadata: Metadata,
    /// In file order.
    tensors: Vec<NamedShape>,
    /// Where each tensor lies, counted from `data`.
    head: safetensors::tensor::Metadata,
    /// Where the header ends.
    data: usize,
}

impl Checkpoint {
    /// Opens and verifies the file at `path`, all of it.
    ///
    /// # Errors
    /// Each way a file can be wrong is a [`CheckpointError`] of its own, and none is met later.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Checkpoint::open_for(path, Wanted::All)
    }

    /// Opens the file at `path` for inference: verifies all but the tensors for training, which are not to be asked for.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_model(path: &Path) -> Result<Self, CheckpointError> {
        Checkpoint::open_for(path, Wanted::Model)
    }

    fn open_for(path: &Path, wanted: Wanted) -> Result<Self, CheckpointError> {
        let io = |cause| CheckpointError::Open { path: path.into(), cause };
        let mut file = files::open(path).map_err(io)?;
        if recognise(&mut file).map_err(io)? == Format::Pickle {
            return Err(CheckpointError::Pickle { path: path.into() });
        }
        let map = Mapped::new(&file, path).map_err(io)?;
        let length = map.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        if (MAX_HEADER + 1..=map.len() as u64).contains(&length) {
            let reason = format!("its header has {length} bytes, and a checkpoint's {MAX_HEADER} at most");
            return Err(CheckpointError::NotSafetensors { path: path.into(), reason });
        }
        let (length, head) = SafeTensors::read_metadata(&map).map_err(|error| refusal(path, &map, error))?;
        let data = length + 8;
        let (metadata, tensors) = verify(path, &head, &map[data..], wanted)?;
        Ok(Checkpoint { path: path.into(), map, metadata, tensors, head, data })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All but the tensors.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor's name and extents, in file order, digests left out.
    pub fn tensors(&self) -> &[NamedShape] {
        &self.tensors
    }

    /// Checks that it is of this network.
    ///
    /// # Errors
    /// [`CheckpointError::OtherNetwork`].
    pub fn check_network(&self, network: Network) -> Result<(), CheckpointError> {
        let found = self.metadata.config.network;
        if found == network {
            Ok(())
        } else {
            let (found, network) = (Box::new(found), Box::new(network));
            Err(CheckpointError::OtherNetwork { path: self.path.clone(), found, network })
        }
    }

    /// Checks that every one of `expected` is here with the same extents, before any is copied.
    ///
    /// # Errors
    /// [`CheckpointError::Missing`] or [`CheckpointError::Shape`] for the first that is not.
    pub fn check(&self, expected: &[NamedShape]) -> Result<(), CheckpointError> {
        for (name, shape) in expected {
            let Some((_, found)) = self.tensors.iter().find(|(found, _)| found == name) else {
                let hint = if is_for_training(name) {
                    ", or an exported one without the optimiser's state; resume from checkpoints/last.safetensors"
                } else {
                    ""
                };
                return Err(CheckpointError::Missing { path: self.path.clone(), tensor: name.clone(), hint });
            };
            if found != shape {
                return Err(CheckpointError::Shape {
                    path: self.path.clone(),
                    tensor: name.clone(),
                    found: found.clone(),
                    expected: shape.clone(),
                });
            }
        }
        Ok(())
    }

    /// The values of the tensor `name`.
    ///
    /// # Errors
    /// [`CheckpointError::Missing`] when there is none.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.values_in_place(name).map(Cow::into_owned)
    }

    /// The same where they lie in the file.
    ///
    /// # Errors
    /// As for [`values`](Self::values).
    pub fn values_in_place(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        let Some(bytes) = bytes_of(&self.head, &self.map[self.data..], name) else {
            return Err(CheckpointError::Missing { path: self.path.clone(), tensor: name.into(), hint: "" });
        };
        // Files of ours are aligned.
        Ok(bytemuck::try_cast_slice(bytes).map_or_else(|_| bytemuck::pod_collect_to_vec(bytes).into(), Cow::Borrowed))
    }
}

/// The bytes of the tensor `name`; `data` is what follows the header.
fn bytes_of<'a>(head: &safetensors::tensor::Metadata, data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, end) = head.info(name)?.data_offsets;
    data.get(start..end)
}

/// The metadata as TOML, or why it is none.
type Read = Result<toml::Table, toml::de::Error>;

/// The first value that would spoil what is computed from the tensor `name`: one that is no number, or a negative mean of
/// squares.
fn first_poison(name: &str, bytes: &[u8]) -> Option<(usize, f32)> {
    let is_mean_of_squares = name.ends_with("/moving_variance") || name.starts_with("adam.v/");
    let is_poison = |value: f32| !value.is_finite() | (is_mean_of_squares & (value < 0.0));
    let values: &[[u8; 4]] = bytes.as_chunks().0;
    // Without a way out in the middle of a chunk, so that it is many at a time.
    let has_poison =
        |chunk: &&[[u8; 4]]| chunk.iter().fold(false, |found, &v| found | is_poison(f32::from_le_bytes(v)));
    let (at, chunk) = values.chunks(4096).enumerate().find(|(_, chunk)| has_poison(chunk))?;
    let mut values = chunk.iter().map(|&bytes| f32::from_le_bytes(bytes)).enumerate();
    values.find(|&(_, value)| is_poison(value)).map(|(index, value)| (4096 * at + index, value))
}

/// The metadata and tensors of a file, once every promise it makes is found kept.
fn verify(
    path: &Path,
    head: &safetensors::tensor::Metadata,
    data: &[u8],
    wanted: Wanted,
) -> Result<(Metadata, Vec<NamedShape>), CheckpointError> {
    let Some(text) = head.metadata().as_ref().and_then(|entries| entries.get(METADATA_KEY)) else {
        return Err(CheckpointError::Foreign { path: path.into() });
    };
    let table = newest_known(path, text.parse())?;

    // From here on the file is known as one of ours, so whatever does not fit is damage.
    let damaged = |part: &str| CheckpointError::Damaged { path: path.into(), part: part.into() };
    let tensor = |name: &str| head.info(name).zip(bytes_of(head, data, name)).ok_or_else(|| damaged(name));
    let mut names = head.offset_keys();
    if names.pop().as_deref() != Some(DIGESTS) {
        return Err(damaged("the table of digests"));
    }
    let (info, digests) = tensor(DIGESTS)?;
    if info.dtype != Dtype::U8 || info.shape != [names.len() + 1, 32] {
        return Err(damaged("the table of digests"));
    }

    let (digests, digest_of_metadata) = digests.split_at(32 * names.len());
    let found = names.par_iter().zip(digests.par_chunks_exact(32)).map(|(name, digest)| {
        let (info, bytes) = tensor(name)?;
        let is_wanted = wanted == Wanted::All || !is_for_training(name);
        if info.dtype != Dtype::F32 || is_wanted && blake3::hash(bytes).as_bytes() != digest {
            return Err(damaged(name));
        }
        match first_poison(name, if is_wanted { bytes } else { &[] }) {
            Some((index, value)) => {
                Err(CheckpointError::Value { path: path.into(), tensor: name.clone(), index, value })
            }
            None => Ok((name.clone(), info.shape.clone())),
        }
    });
    // All threads at work, and of several faults the first in the file.
    let found: Vec<Result<NamedShape, CheckpointError>> = found.collect();
    let tensors = found.into_iter().collect::<Result<_, _>>()?;
    if blake3::hash(text.as_bytes()).as_bytes() != digest_of_metadata {
        return Err(damaged("the metadata"));
    }
    Ok((parse(path, table)?, tensors))
}

/// What `text` was read as, if it is of no later version: that may have any form, its digests included. What is wrong with
/// it otherwise is said once the digests have shown that it was written so.
fn newest_known(path: &Path, read: Read) -> Result<Read, CheckpointError> {
    let version = read.as_ref().ok().and_then(|table| table.get("version")?.as_integer());
    match version {
        Some(version) if version > i64::from(VERSION) => {
            Err(CheckpointError::Newer { path: path.into(), found: u32::try_from(version).unwrap_or(u32::MAX) })
        }
        _ => Ok(read),
    }
}

/// The settings, each of them one that a run can have.
fn parse(path: &Path, read: Read) -> Result<Metadata, CheckpointError> {
    let unreadable = |reason: String| CheckpointError::Metadata { path: path.into(), reason };
    let mut table = read.map_err(|error| unreadable(error.to_string()))?;
    if table.remove("version").and_then(|version| version.as_integer()) != Some(i64::from(VERSION)) {
        return Err(unreadable("there is no version number".into()));
    }
    let metadata = Metadata::deserialize(table).map_err(|error| unreadable(error.to_string()))?;
    metadata.check().map_err(|cause| CheckpointError::OutOfBounds { path: path.into(), cause })?;
    Ok(metadata)
}

/// Tells a file that was cut short from one that never was safetensors.
fn refusal(path: &Path, bytes: &[u8], error: SafeTensorError) -> CheckpointError {
    let found = bytes.len() as u64;
    let head = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    // A JSON object where the header should be: the beginning at least is right.
    let begins_well = bytes.get(8) == Some(&b'{');
    match error {
        SafeTensorError::InvalidHeaderLength if begins_well => {
            CheckpointError::Truncated { path: path.into(), found, expected: head.saturating_add(8) }
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let data = data_len(bytes, head).unwrap_or(0);
            CheckpointError::Truncated {
                path: path.into(),
                found,
                expected: data.saturating_add(head).saturating_add(8),
            }
        }
        error => CheckpointError::NotSafetensors { path: path.into(), reason: error.to_string() },
    }
}

/// The bytes of data that a whole header describes.
fn data_len(bytes: &[u8], head: u64) -> Option<u64> {
    let json = bytes.get(8..8usize.checked_add(usize::try_from(head).ok()?)?)?;
    let head: safetensors::tensor::Metadata = serde_json::from_slice(json).ok()?;
    Some(head.data_len() as u64)
}
