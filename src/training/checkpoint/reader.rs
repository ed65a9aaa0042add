//! Opening a checkpoint: everything is verified before anything is used.

use super::{CheckpointError, DIGESTS, METADATA_KEY, Metadata, NamedShape, VERSION, is_moment};
use crate::files::mapped::Mapped;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A checkpoint whose head, length and every digest have been found right.
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
        let io = |cause| CheckpointError::Open { path: path.into(), cause };
        let map = Mapped::open(path).map_err(io)?;
        let (length, head) = SafeTensors::read_metadata(&map).map_err(|error| refusal(path, &map, error))?;
        let data = length + 8;
        let (metadata, tensors) = verify(path, &head, &map[data..])?;
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

    /// Checks that every one of `expected` is here with the same extents, before any is copied.
    ///
    /// # Errors
    /// [`CheckpointError::Missing`] or [`CheckpointError::Shape`] for the first that is not.
    pub fn check(&self, expected: &[NamedShape]) -> Result<(), CheckpointError> {
        for (name, shape) in expected {
            let Some((_, found)) = self.tensors.iter().find(|(found, _)| found == name) else {
                let hint = if is_moment(name) {
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
        let Some(bytes) = bytes_of(&self.head, &self.map[self.data..], name) else {
            return Err(CheckpointError::Missing { path: self.path.clone(), tensor: name.into(), hint: "" });
        };
        Ok(bytemuck::pod_collect_to_vec(bytes))
    }
}

/// The bytes of the tensor `name`; `data` is what follows the header.
fn bytes_of<'a>(head: &safetensors::tensor::Metadata, data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, end) = head.info(name)?.data_offsets;
    data.get(start..end)
}

/// The metadata and tensors of a file, once every promise it makes is found kept.
fn verify(
    path: &Path,
    head: &safetensors::tensor::Metadata,
    data: &[u8],
) -> Result<(Metadata, Vec<NamedShape>), CheckpointError> {
    let Some(text) = head.metadata().as_ref().and_then(|entries| entries.get(METADATA_KEY)) else {
        return Err(CheckpointError::Foreign { path: path.into() });
    };
    let metadata = parse(path, text)?;

    let wrong = |reason: String| CheckpointError::NotSafetensors { path: path.into(), reason };
    let tensor = |name: &str| {
        let parts = head.info(name).zip(bytes_of(head, data, name));
        parts.ok_or_else(|| wrong(format!("it has no tensor {name}")))
    };
    let mut names = head.offset_keys();
    if names.pop().as_deref() != Some(DIGESTS) {
        return Err(wrong(format!("its last tensor is not {DIGESTS}")));
    }
    let (info, digests) = tensor(DIGESTS)?;
    if info.dtype != Dtype::U8 || info.shape != [names.len() + 1, 32] {
        return Err(wrong(format!("{DIGESTS} is {:?}, {} tensors need one row more", info.shape, names.len())));
    }

    let damaged = |part: &str| CheckpointError::Damaged { path: path.into(), part: part.into() };
    let mut rows = digests.chunks_exact(32);
    let mut tensors = Vec::with_capacity(names.len());
    for name in names {
        let (info, bytes) = tensor(&name)?;
        if info.dtype != Dtype::F32 {
            return Err(wrong(format!("{name} holds {:?}, not F32", info.dtype)));
        }
        if rows.next() != Some(blake3::hash(bytes).as_bytes()) {
            return Err(damaged(&name));
        }
        tensors.push((name, info.shape.clone()));
    }
    if rows.next() != Some(blake3::hash(text.as_bytes()).as_bytes()) {
        return Err(damaged("the metadata"));
    }
    Ok((metadata, tensors))
}

/// Reads the version first, for a later one may have any form, and then the rest.
fn parse(path: &Path, text: &str) -> Result<Metadata, CheckpointError> {
    let unreadable = |reason: String| CheckpointError::Metadata { path: path.into(), reason };
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
    match table.remove("version").and_then(|version| version.as_integer()) {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) if version > i64::from(VERSION) => {
            return Err(CheckpointError::Newer {
                path: path.into(),
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        _ => return Err(unreadable("there is no version number".into())),
    }
    let metadata = Metadata::deserialize(table).map_err(|error| unreadable(error.to_string()))?;
    if metadata.genres.is_empty() || metadata.genres.len() != metadata.thresholds.len() {
        let (genres, thresholds) = (metadata.genres.len(), metadata.thresholds.len());
        return Err(unreadable(format!("{genres} genres with {thresholds} thresholds")));
    }
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
