//! Files, opened and replaced with care: once, for everybody.
//!
//! [`open`] reads nothing but regular files. A [`Replacement`] takes a file's place so that whatever happens, the old one or
//! the new one is there, whole: write beside, sync, rename, sync the folder. The few calls this takes are a trait, [`Files`],
//! so that tests can make each of them fail in turn; [`Disk`] is the real thing.

pub mod mapped;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Opens a regular file for reading; anything else is refused with its kind, and without waiting for it: a pipe would
/// be waited for until somebody writes into it.
///
/// # Errors
/// The system's, and [`io::ErrorKind::InvalidInput`] for what is no file.
pub fn open(path: &Path) -> io::Result<File> {
    // Before opening, because opening a device can do something; and after it, because a name can change hands meanwhile.
    refuse_what_is_no_file(fs::metadata(path)?)?;
    let file = without_waiting(OpenOptions::new().read(true)).open(path)?;
    refuse_what_is_no_file(file.metadata()?)?;
    Ok(file)
}

/// Has a pipe that stands in a file's place be opened, or refused, at once, instead of waiting for whoever is at its other end.
pub(crate) fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options
}

fn refuse_what_is_no_file(metadata: fs::Metadata) -> io::Result<()> {
    match metadata {
        metadata if metadata.is_file() => Ok(()),
        metadata if metadata.is_dir() => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a folder, not a file")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device, not a file")),
    }
}

/// The folder that the file at `path` is in.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The bytes that may still be written into `folder` by whoever asks.
///
/// # Errors
/// The system's.
pub fn free_space(folder: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        let system = rustix::fs::statvfs(folder)?;
        // A file system that does not know its own size says 0.
        if system.f_blocks == 0 {
            return Ok(u64::MAX);
        }
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
    // Nobody else is asked; there a disk says so when it is full.
    #[cfg(not(unix))]
    {
        fs::metadata(folder).map(|_| u64::MAX)
    }
}

/// `path` as a shell takes it, for commands that are suggested.
pub fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}

/// The file system calls that saving takes.
pub trait Files {
    /// A file open for writing.
    type File: Write;

    /// Creates the file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Waits until the file's content is on the disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives the file a new name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the folder's names are on the disk, a rename among them.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives the file a second name, which nothing may have yet.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder in one that is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's own calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        without_waiting(OpenOptions::new().write(true).create(true).truncate(true)).open(path)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Only Unix opens a folder as a file; elsewhere the rename is as durable as the system makes it.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
}

/// Makes the folder at `path` and those on the way to it that are not there yet, each made to last by syncing the one it is in.
///
/// # Errors
/// The system's.
pub fn create_folder<F: Files>(files: &F, path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_folder(files, parent)?;
    match files.create_folder(path) {
        // Somebody else made it in this moment.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result?,
    }
    files.sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Why a file was not saved, and in which state that leaves it.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A call before the rename failed: what was there before is still there.
    #[error("cannot save {}: {doing} it failed: {cause}; what was saved there before is untouched", path.display())]
    Untouched {
        /// The file that was to be replaced.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// There is nowhere to put it.
    #[error("cannot save {}: there is no folder {}", path.display(), parent_of(path).display())]
    NoFolder {
        /// The file that was to be made.
        path: PathBuf,
    },
    /// The new file is in place, but a power cut could still bring the old one back.
    #[error("{} is saved, but its folder could not be synced: {cause}; a power cut could undo it", path.display())]
    NotDurable {
        /// The file that was replaced.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// A file being written beside the one it will replace. Dropped before [`commit`](Replacement::commit), it goes away and
/// the old file stays.
pub struct Replacement<'a, F: Files> {
    files: &'a F,
    path: PathBuf,
    beside: PathBuf,
    /// `None` once committed.
    writer: Option<BufWriter<F::File>>,
}

impl<'a, F: Files> Replacement<'a, F> {
    /// Starts writing `<path>.partial`.
    ///
    /// # Errors
    /// [`SaveError::NoFolder`] where it would be, and [`SaveError::Untouched`] when it cannot be created for another reason.
    pub fn create(files: &'a F, path: &Path) -> Result<Self, SaveError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let beside = PathBuf::from(name);
        let file = files.create(&beside);
        let file = file.map_err(|cause| match parent_of(path).is_dir() {
            false if cause.kind() == io::ErrorKind::NotFound => SaveError::NoFolder { path: path.into() },
            _ => SaveError::Untouched { path: path.into(), doing: "creating", cause },
        })?;
        let writer = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Replacement { files, path: path.into(), beside, writer })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`SaveError::Untouched`], as for all that follows until the rename.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        let writer = self.writer.as_mut().expect("only commit takes the writer");
        writer.write_all(bytes).map_err(|cause| self.untouched("writing", cause))
    }

    /// Puts the file in its place. A sync that fails is a save that failed: it is never tried again, because the system
    /// may by then have forgotten the pages it could not write.
    ///
    /// # Errors
    /// [`SaveError::Untouched`] up to the rename, [`SaveError::NotDurable`] after it.
    pub fn commit(mut self) -> Result<(), SaveError> {
        let mut writer = self.writer.take().expect("only commit takes the writer");
        let written = match writer.flush() {
            Err(cause) => Err(self.untouched("writing", cause)),
            Ok(()) => match self.files.sync(writer.get_ref()) {
                Err(cause) => Err(self.untouched("syncing", cause)),
                Ok(()) => Ok(()),
            },
        };
        // Closed without flushing once more: what could not be written is given up with the file.
        drop(writer.into_parts());
        let renamed = written.and_then(|()| {
            self.files.rename(&self.beside, &self.path).map_err(|cause| self.untouched("renaming", cause))
        });
        if let Err(error) = renamed {
            self.discard();
            return Err(error);
        }
        self.files
            .sync_folder(parent_of(&self.path))
            .map_err(|cause| SaveError::NotDurable { path: self.path.clone(), cause })
    }

    fn untouched(&self, doing: &'static str, cause: io::Error) -> SaveError {
        SaveError::Untouched { path: self.path.clone(), doing, cause }
    }

    /// Removes what was written. Where even that fails the remains do no harm: the next save overwrites them.
    fn discard(&self) {
        let _ = self.files.remove(&self.beside);
    }
}

impl<F: Files> Drop for Replacement<'_, F> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            drop(writer.into_parts());
            self.discard();
        }
    }
}

/// Replaces `path` by `bytes`.
///
/// # Errors
/// As [`Replacement::commit`].
pub fn replace<F: Files>(files: &F, path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    let mut file = Replacement::create(files, path)?;
    file.write(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(open(&file).is_ok());
        assert!(open(folder.path()).unwrap_err().to_string().contains("folder"));
        assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open(&pipe).unwrap_err().to_string().contains("pipe"));
        assert!(open(Path::new("/dev/zero")).unwrap_err().to_string().contains("device"));
        assert!(Disk.create(&pipe).is_err(), "nobody reads from it");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none").join("file");
        let error = replace(&Disk, &path, b"x").unwrap_err().to_string();
        let expected =
            format!("cannot save {}: there is no folder {}", path.display(), path.parent().unwrap().display());
        assert_eq!(error, expected);
    }

    #[test]
    fn the_free_space_is_the_systems() {
        let folder = tempfile::tempdir().unwrap();
        let answer = std::process::Command::new("df").args(["-P", "-k"]).arg(folder.path()).output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        let kilobytes: u64 = text.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
        // Others write to the same disk meanwhile.
        let free = free_space(folder.path()).unwrap();
        assert!(free.abs_diff(kilobytes * 1024) <= 1 << 30, "{free} bytes, or {kilobytes} kB by df");
        assert_eq!(free_space(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn suggested_paths_can_be_typed() {
        for (path, typed) in [("runs/a", "runs/a"), ("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", "'it'\\''s'")] {
            assert_eq!(quoted(Path::new(path)), typed);
        }
    }
}
