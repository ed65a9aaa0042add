//! Reading a tensor file through a memory map.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::Mmap;

use super::header::{self, Extents, Header, LENGTH_BYTES};
use super::{BLOCK, TensorFileError};
use crate::data::Split;

/// A tensor file, open for reading from any number of threads.
///
/// The images stay on disk: an access maps the page it touches. What the system cannot promise is that nobody else shortens the file
/// meanwhile, and touching a page that is gone ends the process with SIGBUS. [`open`](Self::open) compares the length with the
/// header and [`check_length`](Self::check_length) does so again (the loader asks at the start of each epoch); a file cut within an
/// epoch still ends the run, which then goes on from its checkpoint. Files written here are never changed in place: a new one is
/// renamed over the old, whose map lives on.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    extents: Extents,
    image_bytes: usize,
    genres: Vec<String>,
    ids: Vec<String>,
    provenance: BTreeMap<String, String>,
    digest: String,
    /// Where in the map each tensor lies.
    images: Range<usize>,
    labels: Range<usize>,
    split: Range<usize>,
    digests: Range<usize>,
    /// For each block of images whether its digest was compared, and how that went.
    blocks: Vec<AtomicU8>,
}

const UNTOUCHED: u8 = 0;
const SOUND: u8 = 1;
const DAMAGED: u8 = 2;

impl TensorFile {
    /// Opens and checks the file: header, length, shapes, and every byte but those of the images.
    ///
    /// # Errors
    /// [`TensorFileError`], in the order its variants are listed up to [`TensorFileError::NoImages`].
    pub fn open(path: &Path) -> Result<TensorFile, TensorFileError> {
        let failed = |action| move |source| TensorFileError::Io { path: path.to_owned(), action, source };
        let malformed = |reason: String| TensorFileError::Malformed { path: path.to_owned(), reason };

        let mut file = File::open(path).map_err(failed("open"))?;
        let found = file.metadata().map_err(failed("read"))?.len();
        let json = header::read(path, &mut file, found)?;
        let header = header::parse(path, &json)?;
        let Header { metadata, images, labels, split, digests } = header;

        let extents = Extents {
            n: *images.shape.first().ok_or_else(|| malformed("`images` has no shape".into()))?,
            size: metadata.size.parse().map_err(|_| malformed(format!("size `{}`", metadata.size)))?,
            genres: labels.shape.last().copied().unwrap_or(0),
        };
        if extents.n == 0 {
            return Err(TensorFileError::NoImages { path: path.to_owned() });
        }
        if extents.size == 0 || extents.genres == 0 {
            return Err(malformed("no pixels or no genres".into()));
        }
        let plan = extents.tensors().ok_or_else(|| malformed("shapes beyond any file".into()))?;
        let data = LENGTH_BYTES + json.len();
        let mut places = [const { 0..0 }; 4];
        let named = [("images", images), ("labels", labels), ("split", split), ("digests", digests)];
        for ((place, planned), (name, given)) in places.iter_mut().zip(plan).zip(named) {
            if (given.dtype, &given.shape, given.data_offsets) != (planned.dtype, &planned.shape, planned.data_offsets)
            {
                return Err(malformed(format!(
                    "`{name}` is {:?} {:?} at {:?}, expected {:?} {:?} at {:?}",
                    given.dtype, given.shape, given.data_offsets, planned.dtype, planned.shape, planned.data_offsets
                )));
            }
            let (begin, end) = planned.data_offsets;
            let beyond = || malformed(format!("`{name}` ends beyond any file"));
            *place = data + begin..data.checked_add(end).ok_or_else(beyond)?;
        }
        let [images, labels, split, digests] = places;
        let expected = digests.end as u64;
        if found != expected {
            return Err(TensorFileError::Length { path: path.to_owned(), expected, found });
        }

        // SAFETY: the map is read-only and private to this value. Files of this kind are replaced by renaming, never written in
        // place; should another program do that all the same, bytes may change under the map, but every one of them is a valid `u8`,
        // and the type's documentation says what happens when the file shrinks.
        let map = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
        if map.len() as u64 != expected {
            return Err(TensorFileError::Length { path: path.to_owned(), expected, found: map.len() as u64 });
        }

        let (small_labels, small_split) = (&map[labels.clone()], &map[split.clone()]);
        if metadata.digest_with(small_labels, small_split, &map[digests.clone()]) != metadata.digest {
            return Err(TensorFileError::Damaged { path: path.to_owned(), part: "labels, splits or metadata".into() });
        }
        let ids: Vec<String> = parse_list(&metadata.ids).map_err(|e| malformed(format!("ids: {e}")))?;
        let genres: Vec<String> = parse_list(&metadata.genres).map_err(|e| malformed(format!("genres: {e}")))?;
        let provenance =
            serde_json::from_str(&metadata.provenance).map_err(|e| malformed(format!("provenance: {e}")))?;
        if ids.len() != extents.n {
            return Err(malformed(format!("{} ids for {} images", ids.len(), extents.n)));
        }
        if genres.len() != extents.genres {
            return Err(malformed(format!("{} genres for {} label columns", genres.len(), extents.genres)));
        }
        if let Some(at) = small_labels.iter().position(|&label| label > 1) {
            let (row, label) = (at / extents.genres, small_labels[at]);
            return Err(malformed(format!("image {row} (`{}`) has a label {label}, expected 0 or 1", ids[row])));
        }
        if let Some(at) = small_split.iter().position(|&byte| Split::from_byte(byte).is_none()) {
            return Err(malformed(format!(
                "image {at} (`{}`) has split {}, expected 0, 1 or 2",
                ids[at], small_split[at]
            )));
        }
        let blocks = std::iter::repeat_with(|| AtomicU8::new(UNTOUCHED)).take(extents.n.div_ceil(BLOCK)).collect();
        let image_bytes = images.len() / extents.n;
        Ok(TensorFile {
            path: path.to_owned(),
            file,
            map,
            extents,
            image_bytes,
            genres,
            ids,
            provenance,
            digest: metadata.digest,
            images,
            labels,
            split,
            digests,
            blocks,
        })
    }

    /// Number of images, N.
    #[expect(clippy::len_without_is_empty, reason = "a file without images does not open")]
    pub fn len(&self) -> usize {
        self.extents.n
    }

    /// Height and width of every image.
    pub fn size(&self) -> usize {
        self.extents.size
    }

    /// Bytes of an image, H · W · 3.
    pub fn image_bytes(&self) -> usize {
        self.image_bytes
    }

    /// Identifies the content: the BLAKE3 of everything but the pixels, their digests included.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Names of the label columns, C of them.
    pub fn genres(&self) -> &[String] {
        &self.genres
    }

    /// The id of each image, as the label table spelled it.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Where the posters came from and how they were prepared.
    pub fn provenance(&self) -> &BTreeMap<String, String> {
        &self.provenance
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pixels of image `i`, `[H, W, 3]`, whatever their digest says. Panics if `i` is not below [`len`](Self::len).
    pub fn image(&self, i: usize) -> &[u8] {
        &self.map[self.images.clone()][i * self.image_bytes..][..self.image_bytes]
    }

    /// Pixels of image `i`, `[H, W, 3]`, after [`verify_block`](Self::verify_block) of its block.
    ///
    /// # Errors
    /// [`TensorFileError::Damaged`], for every image of a damaged block.
    pub fn image_checked(&self, i: usize) -> Result<&[u8], TensorFileError> {
        self.verify_block(i / BLOCK)?;
        Ok(self.image(i))
    }

    /// Labels of image `i`, one 0 or 1 a genre. Panics if `i` is not below [`len`](Self::len).
    pub fn labels(&self, i: usize) -> &[u8] {
        &self.map[self.labels.clone()][i * self.extents.genres..][..self.extents.genres]
    }

    /// The split of image `i`. Panics if `i` is not below [`len`](Self::len).
    pub fn split(&self, i: usize) -> Split {
        // Checked when the file was opened, though the map could have changed since: a byte unknown now counts as held back.
        Split::from_byte(self.map[self.split.clone()][i]).unwrap_or(Split::Test)
    }

    /// The images of `split`, in file order.
    pub fn indices(&self, split: Split) -> Vec<u32> {
        (0..self.len()).filter(|&i| self.split(i) == split).map(|i| i as u32).collect()
    }

    /// How many of the images `indices` have each genre, `[C]`.
    pub fn class_counts(&self, indices: &[u32]) -> Vec<u32> {
        let mut counts = vec![0; self.extents.genres];
        for &i in indices {
            for (count, &label) in counts.iter_mut().zip(self.labels(i as usize)) {
                *count += u32::from(label);
            }
        }
        counts
    }

    /// Compares the digest of 64 images, `64 · block` and on, with the one written beside them. The first call for a block reads it
    /// whole; later ones remember the answer. Panics if there is no such block.
    ///
    /// # Errors
    /// [`TensorFileError::Damaged`] names the images.
    pub fn verify_block(&self, block: usize) -> Result<(), TensorFileError> {
        let first = block * BLOCK;
        let last = self.len().min(first + BLOCK) - 1;
        // Two threads may both find it untouched and both compare: the answer is the same, and it guards no other memory.
        let mut state = self.blocks[block].load(Ordering::Relaxed);
        if state == UNTOUCHED {
            let pixels = &self.map[self.images.clone()][first * self.image_bytes..(last + 1) * self.image_bytes];
            let written = &self.map[self.digests.clone()][block * blake3::OUT_LEN..][..blake3::OUT_LEN];
            state = if blake3::hash(pixels).as_bytes() == written { SOUND } else { DAMAGED };
            self.blocks[block].store(state, Ordering::Relaxed);
        }
        match state {
            SOUND => Ok(()),
            _ => Err(TensorFileError::Damaged {
                path: self.path.clone(),
                part: format!("images {first} to {last} (`{}` to `{}`)", self.ids[first], self.ids[last]),
            }),
        }
    }

    /// Whether the file is still as long as its header says.
    ///
    /// # Errors
    /// [`TensorFileError::Length`] if not, [`TensorFileError::Io`] if the system does not say.
    pub fn check_length(&self) -> Result<(), TensorFileError> {
        let metadata = self.file.metadata().map_err(|source| TensorFileError::Io {
            path: self.path.clone(),
            action: "read the length of",
            source,
        })?;
        let (expected, found) = (self.map.len() as u64, metadata.len());
        if found == expected {
            Ok(())
        } else {
            Err(TensorFileError::Length { path: self.path.clone(), expected, found })
        }
    }
}

fn parse_list(json: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(json)
}
