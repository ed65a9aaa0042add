//! The header: what it says, how it is put together and how it is taken apart.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{BLOCK, Description, TensorFileError};

/// Headers above this are refused by every safetensors reader.
pub(super) const MAX_HEADER: usize = 100_000_000;

/// The header length in front of the header.
pub(super) const LENGTH_BYTES: usize = 8;

const FORMAT: &str = "onesheet-posters";
const VERSION: u32 = 1;

/// The whole header. The derived reader refuses unknown, missing and repeated names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    #[serde(rename = "__metadata__")]
    pub metadata: Metadata,
    pub images: TensorInfo,
    pub labels: TensorInfo,
    pub split: TensorInfo,
    pub digests: TensorInfo,
}

/// `__metadata__`, where safetensors allows nothing but strings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub format: String,
    pub version: String,
    pub size: String,
    pub genres: String,
    pub ids: String,
    pub provenance: String,
    pub digest: String,
}

impl Metadata {
    /// The digest of all that is not pixels: the strings before it and the three small tensors, each after its length.
    pub fn digest_with(&self, labels: &[u8], split: &[u8], digests: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new();
        let strings = [&self.format, &self.version, &self.size, &self.genres, &self.ids, &self.provenance];
        for part in strings.map(String::as_bytes).into_iter().chain([labels, split, digests]) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The extents that fix every shape and offset of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extents {
    pub n: usize,
    pub size: usize,
    pub genres: usize,
}

impl Extents {
    /// Name, shape and place of the four tensors, `None` if a product or a sum overflows.
    pub fn tensors(&self) -> Option<[TensorInfo; 4]> {
        let Extents { n, size, genres } = *self;
        let mut begin = 0usize;
        let mut place = |shape: Vec<usize>| {
            let bytes = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
            let end = begin.checked_add(bytes)?;
            let data_offsets = (std::mem::replace(&mut begin, end), end);
            Some(TensorInfo { dtype: Dtype::U8, shape, data_offsets })
        };
        Some([
            place(vec![n, size, size, 3])?,
            place(vec![n, genres])?,
            place(vec![n])?,
            place(vec![n.div_ceil(BLOCK), blake3::OUT_LEN])?,
        ])
    }
}

/// The header as JSON, `None` if the extents overflow. `small` are labels, split and digests.
pub(super) fn build(extents: Extents, description: &Description, ids: &[String], small: [&[u8]; 3]) -> Option<String> {
    let [images, labels, split, digests] = extents.tensors()?;
    let mut metadata = Metadata {
        format: FORMAT.to_owned(),
        version: VERSION.to_string(),
        size: extents.size.to_string(),
        genres: json(&description.genres),
        ids: json(ids),
        provenance: json(&description.provenance),
        digest: String::new(),
    };
    metadata.digest = metadata.digest_with(small[0], small[1], small[2]);
    Some(json(&Header { metadata, images, labels, split, digests }))
}

pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and their lists always have a JSON form")
}

/// As much of a header as every version and every other program's file has.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "__metadata__", default)]
    metadata: Option<EnvelopeMetadata>,
}

#[derive(Deserialize)]
struct EnvelopeMetadata {
    format: Option<String>,
    version: Option<String>,
}

/// The JSON in front of the tensors. Nothing is allocated that the file does not hold.
pub(super) fn read(path: &Path, file: &mut File, file_length: u64) -> Result<Vec<u8>, TensorFileError> {
    let refused = |reason: String| TensorFileError::NotSafetensors { path: path.to_owned(), reason };
    let mut read = |buffer: &mut [u8]| {
        file.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => refused(format!("it ends within its header, at {file_length} bytes")),
            _ => TensorFileError::Io { path: path.to_owned(), action: "read", source },
        })
    };
    let mut length = [0; LENGTH_BYTES];
    read(&mut length)?;
    let length = u64::from_le_bytes(length);
    let room = file_length.saturating_sub(LENGTH_BYTES as u64);
    if length > MAX_HEADER as u64 {
        return Err(refused(format!("its first eight bytes would mean a header of {length} bytes")));
    }
    if length > room {
        return Err(refused(format!("it ends within its header, at {file_length} bytes")));
    }
    let mut json = vec![0; length as usize];
    read(&mut json)?;
    Ok(json)
}

pub(super) fn parse(path: &Path, json: &[u8]) -> Result<Header, TensorFileError> {
    let path = || path.to_owned();
    let foreign = |reason: &str| TensorFileError::Foreign { path: path(), reason: reason.into() };
    // JSON of the wrong kind is another program's file; what is no JSON is no safetensors file.
    let envelope: Envelope = serde_json::from_slice(json).map_err(|error| {
        let reason = format!("its header: {error}");
        if error.is_data() {
            TensorFileError::Foreign { path: path(), reason }
        } else {
            TensorFileError::NotSafetensors { path: path(), reason }
        }
    })?;
    let EnvelopeMetadata { format, version } =
        envelope.metadata.ok_or_else(|| foreign("its header has no `__metadata__`"))?;
    if format.as_deref() != Some(FORMAT) {
        return Err(foreign(&format!("its metadata does not say `format: {FORMAT}`")));
    }
    let found = version.as_deref().and_then(|version| version.parse::<u32>().ok());
    match found {
        Some(VERSION) => {}
        Some(found) if found > VERSION => {
            return Err(TensorFileError::NewerVersion { path: path(), found, newest: VERSION });
        }
        _ => {
            return Err(TensorFileError::Malformed { path: path(), reason: format!("version {version:?}") });
        }
    }
    serde_json::from_slice(json)
        .map_err(|error| TensorFileError::Malformed { path: path(), reason: format!("header: {error}") })
}
