//! Writing a tensor file as a stream, in memory that does not grow with the pixels.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::header::{self, Extents, LENGTH_BYTES, MAX_HEADER};
use super::{BLOCK, Description, MAX_ID, TensorFileError};
use crate::data::Split;
use crate::files::{self, Disk, Files};

/// What every tensor file of posters has behind the length of its header.
const BEGINNING: &[u8] = br#"{"__metadata__":{"format":"onesheet-posters""#;

/// What an id may add to the header: itself, its two escaped quotes and a comma.
const ID_BYTES: usize = MAX_ID + 5;

/// Writes a tensor file image by image, beside its final place; [`finish`](Self::finish) moves it there.
///
/// Dropped unfinished, it removes what it wrote. A file that was at the path before stays until the new one is complete.
#[derive(Debug)]
pub struct TensorFileWriter {
    path: PathBuf,
    /// Renamed to `path` at the end; its guard removes it otherwise.
    partial: Partial,
    out: BufWriter<File>,
    description: Description,
    image_bytes: usize,
    /// Bytes kept for the header.
    reserved: usize,
    ids: Vec<String>,
    labels: Vec<u8>,
    split: Vec<u8>,
    digests: Vec<u8>,
    /// Of the block being filled.
    hasher: blake3::Hasher,
}

/// A temporary file that is removed when dropped, unless it was renamed.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.renamed {
            // Nobody to tell: the error that brought us here is on its way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl TensorFileWriter {
    /// Starts the file that will be at `path`.
    ///
    /// # Errors
    /// [`TensorFileError::Description`] for no genres, no pixels, no images or too many of them; [`TensorFileError::NoSpace`] if
    /// the disk cannot hold them; [`TensorFileError::Busy`]; [`TensorFileError::Io`].
    pub fn create(path: &Path, description: Description) -> Result<TensorFileWriter, TensorFileError> {
        let unfit = |reason: String| TensorFileError::Description { path: path.to_owned(), reason };
        let Description { size, ref genres, capacity, .. } = description;
        let name = path.file_name().ok_or_else(|| unfit("the path does not end in a file name".into()))?;
        if genres.is_empty() || size == 0 {
            return Err(unfit(format!("{} genres and images of {size}x{size} pixels", genres.len())));
        }
        if capacity == 0 {
            return Err(TensorFileError::NoImages { path: path.to_owned() });
        }
        // With `capacity` images every number in the header is at its longest, so this header, with room for the ids, is the largest.
        let extents = Extents { n: capacity, size, genres: genres.len() };
        let reserved = header::build(extents, &description, &[], [&[]; 3])
            .and_then(|json| capacity.checked_mul(ID_BYTES)?.checked_add(json.len()))
            // Images start on a cache line.
            .and_then(|bytes| Some(bytes.checked_add(LENGTH_BYTES)?.checked_next_multiple_of(64)? - LENGTH_BYTES))
            .filter(|&bytes| bytes <= MAX_HEADER)
            .ok_or_else(|| unfit(format!("{capacity} images of {size}x{size} pixels are too many for one file")))?;
        let image_bytes = size * size * 3;
        // Beside each image its labels and split, and for each block a digest; all of it before the old file goes.
        let needed = (LENGTH_BYTES + reserved) as u64 + capacity as u64 * (image_bytes + genres.len() + 2) as u64;
        let folder = files::parent_of(path);
        let free = files::free_space(folder).map_err(|source| TensorFileError::Io {
            path: path.to_owned(),
            action: "write",
            source,
        })?;
        if free < needed {
            return Err(TensorFileError::NoSpace { path: path.to_owned(), needed, free });
        }

        let mut partial_name = name.to_owned();
        partial_name.push(".partial");
        let partial = path.with_file_name(partial_name);
        let failed = |action| {
            let path = partial.clone();
            move |source| TensorFileError::Io { path, action, source }
        };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&partial).map_err(failed("create"))?;
        // Where the file system has no locks, two writers of one file are not told apart; nothing else needs the lock.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(TensorFileError::Busy { path: partial });
        }
        let guard = Partial { path: partial.clone(), renamed: false };
        file.set_len(0).map_err(failed("write"))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.seek(SeekFrom::Start((LENGTH_BYTES + reserved) as u64)).map_err(failed("write"))?;
        Ok(TensorFileWriter {
            path: path.to_owned(),
            partial: guard,
            out,
            description,
            image_bytes,
            reserved,
            ids: Vec::new(),
            labels: Vec::new(),
            split: Vec::new(),
            digests: Vec::new(),
            hasher: blake3::Hasher::new(),
        })
    }

    /// Appends one poster: `image` is `size · size · 3` bytes, `labels` one byte per genre, 0 or 1.
    ///
    /// # Errors
    /// [`TensorFileError::Row`] if one of them does not fit, the id is longer than [`MAX_ID`] or the file is at its capacity: the
    /// writer is unchanged and can go on. [`TensorFileError::Io`].
    pub fn push(&mut self, id: &str, image: &[u8], labels: &[u8], split: Split) -> Result<(), TensorFileError> {
        let (capacity, genres) = (self.description.capacity, self.description.genres.len());
        let reason = if self.ids.len() == capacity {
            format!("it was planned for {capacity} images and has them")
        } else if image.len() != self.image_bytes {
            format!("the image has {} bytes, not {}", image.len(), self.image_bytes)
        } else if labels.len() != genres {
            format!("{} labels for {genres} genres", labels.len())
        } else if labels.iter().any(|&label| label > 1) {
            format!("labels are 0 or 1, not {labels:?}")
        } else if header::json(&header::json(id)).len() > MAX_ID + 6 {
            // Six for the pair of plain quotes around the whole and the pair of escaped ones inside.
            format!("its id is longer than {MAX_ID} bytes")
        } else {
            self.out.write_all(image).map_err(|source| self.failed("write", source))?;
            self.hasher.update(image);
            self.ids.push(id.to_owned());
            self.labels.extend_from_slice(labels);
            self.split.push(split as u8);
            if self.ids.len().is_multiple_of(BLOCK) {
                self.end_block();
            }
            return Ok(());
        };
        Err(TensorFileError::Row { path: self.path.clone(), id: id.to_owned(), reason })
    }

    /// Completes the file and moves it to its path, synced to disk.
    ///
    /// # Errors
    /// [`TensorFileError::NoImages`] if nothing was pushed, [`TensorFileError::Io`]; the path is then as it was before.
    pub fn finish(mut self) -> Result<(), TensorFileError> {
        let n = self.ids.len();
        if n == 0 {
            return Err(TensorFileError::NoImages { path: self.path });
        }
        if !n.is_multiple_of(BLOCK) {
            self.end_block();
        }
        let extents = Extents { n, size: self.description.size, genres: self.description.genres.len() };
        let small = [&self.labels[..], &self.split[..], &self.digests[..]];
        let mut json = header::build(extents, &self.description, &self.ids, small)
            .filter(|json| json.len() <= self.reserved)
            .expect("room for this header was kept when the file was started")
            .into_bytes();
        json.resize(self.reserved, b' ');
        self.write_rest(&json).map_err(|source| self.failed("write", source))?;
        fs::rename(&self.partial.path, &self.path).map_err(|source| TensorFileError::Io {
            path: self.path.clone(),
            action: "move the finished file to",
            source,
        })?;
        self.partial.renamed = true;
        Disk.sync_folder(files::parent_of(&self.path)).map_err(|source| TensorFileError::Io {
            path: self.path.clone(),
            action: "sync the folder of",
            source,
        })
    }

    fn write_rest(&mut self, header: &[u8]) -> io::Result<()> {
        // A failed push may have left part of an image behind; a file with such a shift must not come into being.
        let expected = (LENGTH_BYTES + self.reserved + self.ids.len() * self.image_bytes) as u64;
        if self.out.stream_position()? != expected {
            return Err(io::Error::other("an image before was written in part"));
        }
        for tensor in [&self.labels, &self.split, &self.digests] {
            self.out.write_all(tensor)?;
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&(header.len() as u64).to_le_bytes())?;
        self.out.write_all(header)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()
    }

    fn end_block(&mut self) {
        self.digests.extend_from_slice(self.hasher.finalize().as_bytes());
        self.hasher.reset();
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TensorFileError {
        TensorFileError::Io { path: self.partial.path.clone(), action, source }
    }
}

/// Whether the file at `path` begins like one of these, whole or not.
///
/// # Errors
/// The system's.
pub fn begins_like_one(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    files::open(path)?.take((LENGTH_BYTES + BEGINNING.len()) as u64).read_to_end(&mut start)?;
    Ok(start.get(LENGTH_BYTES..) == Some(BEGINNING))
}
