//! Reading a tensor file: its images through a memory map, or by calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use super::header::{self, Extents, Header, LENGTH_BYTES};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{BLOCK, TensorFileError};
use crate::data::Split;
use crate::files;
use crate::files::mapped::Mapped;

/// How the images of a tensor file are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Through a memory map: the fastest, but a file cut short meanwhile ends the process
    #[default]
    Map,
    /// By calls, for file systems where others write or connections break: each failure is an error like others
    Read,
}

/// A tensor file, open for reading from any number of threads.
///
/// The images stay on disk; all else is in memory. What the system cannot promise is that nobody else writes into the file meanwhile.
/// So the digest of a block of images is compared when the first of them is read, again after [`forget_checks`](Self::forget_checks)
/// (the loader's each epoch), and again when [`check_unchanged`](Self::check_unchanged) (the loader's each batch) finds the file written
/// to. A file that is shorter than it was is an error there; a map touched in the moment before that ends the process
/// ([`mapped`](crate::files::mapped)). Files written here are never changed in place: a new one is renamed over the old, which lives on
/// as long as it is open.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// `None` where images are read by calls.
    map: Option<Mapped>,
    length: u64,
    /// When the file was last written to, as far as its digests were compared.
    written: Mutex<Option<SystemTime>>,
    extents: Extents,
    image_bytes: usize,
    genres: Vec<String>,
    ids: Vec<String>,
    provenance: BTreeMap<String, String>,
    digest: String,
    /// Where in the file the images lie.
    images: Range<usize>,
    labels: Vec<u8>,
    split: Vec<u8>,
    digests: Vec<u8>,
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
        TensorFile::open_for(path, Access::Map)
    }

    /// The same, with a choice of how images are read.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_for(path: &Path, access: Access) -> Result<TensorFile, TensorFileError> {
        let failed = |action| move |source| TensorFileError::Io { path: path.to_owned(), action, source };
        let malformed = |reason: String| TensorFileError::Malformed { path: path.to_owned(), reason };

        let mut file = files::open(path).map_err(failed("open"))?;
        let status = file.metadata().map_err(failed("read"))?;
        let (found, written) = (status.len(), status.modified().ok());
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

        let small = |place: &Range<usize>| {
            let mut bytes = vec![0; place.len()];
            read_at(&file, &mut bytes, place.start as u64).map_err(failed("read"))?;
            Ok(bytes)
        };
        let (labels, split, digests) = (small(&labels)?, small(&split)?, small(&digests)?);
        if metadata.digest_with(&labels, &split, &digests) != metadata.digest {
            return Err(TensorFileError::Damaged { path: path.to_owned(), part: "labels, splits or metadata".into() });
        }
        let map = match access {
            Access::Map => Some(Mapped::new(&file, path).map_err(failed("map"))?),
            Access::Read => None,
        };
        if let Some(map) = &map
            && map.len() as u64 != expected
        {
            return Err(TensorFileError::Length { path: path.to_owned(), expected, found: map.len() as u64 });
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
        if let Some(at) = labels.iter().position(|&label| label > 1) {
            let (row, label) = (at / extents.genres, labels[at]);
            return Err(malformed(format!("image {row} (`{}`) has a label {label}, expected 0 or 1", ids[row])));
        }
        if let Some(at) = split.iter().position(|&byte| Split::from_byte(byte).is_none()) {
            return Err(malformed(format!("image {at} (`{}`) has split {}, expected 0, 1 or 2", ids[at], split[at])));
        }
        let blocks = std::iter::repeat_with(|| AtomicU8::new(UNTOUCHED)).take(extents.n.div_ceil(BLOCK)).collect();
        let image_bytes = images.len() / extents.n;
        Ok(TensorFile {
            path: path.to_owned(),
            file,
            map,
            length: expected,
            written: Mutex::new(written),
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

    /// Pixels of image `i`, `[H, W, 3]`, after [`verify_block`](Self::verify_block) of its block. Panics if `i` is not below
    /// [`len`](Self::len).
    ///
    /// # Errors
    /// [`TensorFileError::Damaged`], for every image of a damaged block; [`TensorFileError::Length`] and [`TensorFileError::Io`].
    pub fn image_checked(&self, i: usize) -> Result<Cow<'_, [u8]>, TensorFileError> {
        self.verify_block(i / BLOCK)?;
        self.pixels(i..i + 1)
    }

    /// Pixels of the images `range`.
    fn pixels(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, TensorFileError> {
        let place =
            self.images.start + range.start * self.image_bytes..self.images.start + range.end * self.image_bytes;
        match &self.map {
            Some(map) => Ok(Cow::Borrowed(&map[place])),
            None => {
                let mut bytes = vec![0; place.len()];
                match read_at(&self.file, &mut bytes, place.start as u64) {
                    Ok(()) => Ok(Cow::Owned(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        self.check_length()?;
                        Err(self.unreadable(error))
                    }
                    Err(error) => Err(self.unreadable(error)),
                }
            }
        }
    }

    fn unreadable(&self, source: io::Error) -> TensorFileError {
        TensorFileError::Io { path: self.path.clone(), action: "read", source }
    }

    /// Labels of image `i`, one 0 or 1 a genre. Panics if `i` is not below [`len`](Self::len).
    pub fn labels(&self, i: usize) -> &[u8] {
        &self.labels[i * self.extents.genres..][..self.extents.genres]
    }

    /// The split of image `i`. Panics if `i` is not below [`len`](Self::len).
    pub fn split(&self, i: usize) -> Split {
        Split::from_byte(self.split[i]).expect("each byte was looked at when the file was opened")
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
    /// [`TensorFileError::Damaged`] names the images; [`TensorFileError::Length`] and [`TensorFileError::Io`].
    pub fn verify_block(&self, block: usize) -> Result<(), TensorFileError> {
        let first = block * BLOCK;
        let last = self.len().min(first + BLOCK) - 1;
        // Two threads may both find it untouched and both compare: the answer is the same, and it guards no other memory.
        let mut state = self.blocks[block].load(Ordering::Relaxed);
        if state == UNTOUCHED {
            let pixels = self.pixels(first..last + 1)?;
            let written = &self.digests[block * blake3::OUT_LEN..][..blake3::OUT_LEN];
            state = if blake3::hash(&pixels).as_bytes() == written { SOUND } else { DAMAGED };
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

    /// Has every digest compared once more when its images are next read.
    pub fn forget_checks(&self) {
        self.blocks.iter().for_each(|state| state.store(UNTOUCHED, Ordering::Relaxed));
    }

    /// Whether the file is still as long as its header says; if it was written to since this was last asked, its digests are compared
    /// once more.
    ///
    /// # Errors
    /// [`TensorFileError::Length`] if not, [`TensorFileError::Io`] if the system does not say.
    pub fn check_unchanged(&self) -> Result<(), TensorFileError> {
        let now = self.check_length()?;
        let mut written = self.written.lock().expect("nothing in here panics");
        if *written != now {
            *written = now;
            self.forget_checks();
        }
        Ok(())
    }

    /// When the file was last written to, if it is still as long as its header says.
    fn check_length(&self) -> Result<Option<SystemTime>, TensorFileError> {
        let status = self.file.metadata().map_err(|source| TensorFileError::Io {
            path: self.path.clone(),
            action: "read the length of",
            source,
        })?;
        let (expected, found) = (self.length, status.len());
        if found == expected {
            Ok(status.modified().ok())
        } else {
            Err(TensorFileError::Length { path: self.path.clone(), expected, found })
        }
    }
}

/// Fills `bytes` from the file, from `offset` on.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(not(unix))]
    {
        use std::io::{Read, Seek, SeekFrom};
        // A position of its own, since other threads read as well.
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

fn parse_list(json: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(json)
}
