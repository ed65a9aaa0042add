//! What can be wrong with a tensor file, in words for the person who has it.

use std::io;
use std::path::PathBuf;

/// Why a tensor file could not be written, opened or trusted.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// No safetensors header.
    #[error("{} is not a safetensors file: {reason}; `onesheet prepare` makes one from a label table and posters", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A safetensors file that does not say it holds posters.
    #[error("{} is a safetensors file, but not one of posters: {reason}; `onesheet prepare` makes one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// Written by a later release.
    #[error("{} has version {found} of the posters format, this program reads up to {newest}; update onesheet, or prepare the file again", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        newest: u32,
    },
    /// Shorter or longer than its header says: cut off, or changed under way.
    #[error("{} is {found} bytes long, its header promises {expected}; copy or prepare it again", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes by the header.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// A posters file whose parts contradict each other.
    #[error("{}: {reason}; prepare the file again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which part, and what was expected.
        reason: String,
    },
    /// Bytes that are not those that were written.
    #[error("{}: {part} changed after writing (their digest differs); copy or prepare the file again, and check the disk", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        part: String,
    },
    /// No images, on writing or on opening.
    #[error("{} has no images; check that the label table's ids name the posters in the folder", path.display())]
    NoImages {
        /// The file.
        path: PathBuf,
    },
    /// A [`Description`](super::Description) that no file can have.
    #[error("cannot plan {}: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What to change.
        reason: String,
    },
    /// An image, id or label row that does not fit the [`Description`](super::Description).
    #[error("cannot add `{id}` to {}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The film.
        id: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The disk is too full for the file.
    #[error(
        "{} may take {} MB, and its disk has {} MB left; make room, or choose a place on another disk",
        path.display(),
        needed.div_ceil(1_000_000),
        free / 1_000_000
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// The most bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Another process is writing the same file.
    #[error("{} is being written by another process; wait for it or choose another name", path.display())]
    Busy {
        /// The temporary file both want.
        path: PathBuf,
    },
}
