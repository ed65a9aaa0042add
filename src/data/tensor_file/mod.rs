//! The tensor file: every poster of a data set, decoded and resized, in one memory-mapped file.
//!
//! It is a [safetensors](https://huggingface.co/docs/safetensors) file, so that Python reads it in one line,
//! `safetensors.numpy.load_file("posters.safetensors")`:
//!
//! | tensor    | type and shape       | holds                                                                    |
//! | --------- | -------------------- | ------------------------------------------------------------------------ |
//! | `images`  | u8 [N, H, W, 3]      | pixels, red green blue, H = W = `size`                                   |
//! | `labels`  | u8 [N, C]            | 1 where the film has the genre, else 0                                   |
//! | `split`   | u8 [N]               | 0 train, 1 validation, 2 test: the bytes of [`Split`](super::Split)      |
//! | `digests` | u8 [ceil(N/64), 32]  | BLAKE3 of each block of 64 images                                        |
//!
//! `__metadata__` holds strings: `format`, `version`, `size`, then `genres` (JSON list), `ids` (JSON list), `provenance`
//! (JSON object), and `digest`, the BLAKE3 of everything but the pixels. So a flipped bit anywhere is found: in the header and the
//! small tensors by [`TensorFile::open`], in an image by the first [`TensorFile::image_checked`] that touches its block.
//!
//! Layout: eight bytes of header length, the header as JSON, then the tensors in the order above. The number of images is not known
//! when the first is written, but their place must be: the header gets room for `capacity` ids, and what it does not need is
//! filled with spaces, which the format allows at its end. The images come first and the small tensors wait in memory, so the data
//! has no holes however many images there turn out to be.

mod error;
mod reader;
mod writer;

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Deserialize, Serialize};

pub use error::TensorFileError;
pub use reader::TensorFile;
pub use writer::TensorFileWriter;

/// Images that share a digest.
pub const BLOCK: usize = 64;

/// Longest id, counted as it is written: quotes and backslashes inside take four bytes, other ASCII one.
pub const MAX_ID: usize = 64;

/// Headers above this are refused by every safetensors reader.
const MAX_HEADER: usize = 100_000_000;

/// The header length in front of the header.
const LENGTH_BYTES: usize = 8;

const FORMAT: &str = "onesheet-posters";
const VERSION: u32 = 1;

/// What a new tensor file will hold.
#[derive(Clone, Debug)]
pub struct Description {
    /// Height and width of every image.
    pub size: usize,
    /// The names of the label columns.
    pub genres: Vec<String>,
    /// The most images that will be pushed. Room for their ids is kept in the header, about 70 bytes each.
    pub capacity: usize,
    /// Where the posters came from and how they were prepared, for people and reports.
    pub provenance: BTreeMap<String, String>,
}

/// The whole header. The derived reader refuses unknown, missing and repeated names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Metadata,
    images: TensorInfo,
    labels: TensorInfo,
    split: TensorInfo,
    digests: TensorInfo,
}

/// `__metadata__`, where safetensors allows nothing but strings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: String,
    version: String,
    size: String,
    genres: String,
    ids: String,
    provenance: String,
    digest: String,
}

impl Metadata {
    /// The digest of all that is not pixels: the strings before it and the three small tensors, each after its length.
    fn digest_with(&self, labels: &[u8], split: &[u8], digests: &[u8]) -> String {
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
struct Extents {
    n: usize,
    size: usize,
    genres: usize,
}

impl Extents {
    /// Name, shape and place of the four tensors, `None` if a product or a sum overflows.
    fn tensors(&self) -> Option<[TensorInfo; 4]> {
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
