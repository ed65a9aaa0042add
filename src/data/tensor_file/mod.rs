//! The tensor file: every poster of a data set, decoded and resized, in one memory-mapped file.
//!
//! It is a [safetensors](https://huggingface.co/docs/safetensors) file, so that Python reads it in one line,
//! `safetensors.numpy.load_file("posters.safetensors")`:
//!
//! | tensor    | type and shape          | holds                                                               |
//! | --------- | ----------------------- | ------------------------------------------------------------------- |
//! | `images`  | u8 `[N, H, W, 3]`       | pixels, red green blue, H = W = `size`                              |
//! | `labels`  | u8 `[N, C]`             | 1 where the film has the genre, else 0                              |
//! | `split`   | u8 `[N]`                | 0 train, 1 validation, 2 test: the bytes of [`Split`](super::Split) |
//! | `digests` | u8 `[ceil(N/64), 32]`   | BLAKE3 of each block of 64 images                                   |
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
mod header;
mod reader;
mod writer;

use std::collections::BTreeMap;

pub use error::TensorFileError;
pub use reader::{Access, TensorFile};
pub use writer::{TensorFileWriter, begins_like_one};

/// Images that share a digest.
pub const BLOCK: usize = 64;

/// Longest id, counted as it is written: quotes and backslashes inside take four bytes, other ASCII one.
pub const MAX_ID: usize = 64;

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
