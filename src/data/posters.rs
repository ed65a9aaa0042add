//! Finding a film's poster in a folder, whatever the file name's spelling of the id.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::films::FilmId;

/// What a poster's file name may end in, in any case of letters.
pub const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// How many folders deep posters are looked for: some collections have one folder a year.
const DEEPEST: usize = 3;

/// The largest poster file, in bytes.
pub const LARGEST_FILE: u64 = 20 << 20;

/// A folder of posters, indexed once.
#[derive(Clone, Debug)]
pub struct PosterFolder {
    root: PathBuf,
    files: HashMap<FilmId, PathBuf>,
}

impl PosterFolder {
    /// Looks through `root` and the folders in it for files named `{id}.jpg`, `.jpeg`, `.png` or `.webp`.
    ///
    /// Of two files of one film the first by path counts. Only regular files do: a symbolic link is followed when it leads to
    /// a regular file inside `root`, and everything else (a link out of it, a link to a folder, a pipe, on which opening would
    /// wait for ever) is passed over.
    pub fn index(root: &Path) -> io::Result<PosterFolder> {
        let inside = root.canonicalize()?;
        let mut files = Vec::new();
        collect(root, &inside, DEEPEST, &mut files)?;
        files.sort();
        let mut folder = PosterFolder { root: root.to_owned(), files: HashMap::with_capacity(files.len()) };
        for path in files {
            if let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).and_then(FilmId::parse) {
                folder.files.entry(id).or_insert(path);
            }
        }
        Ok(folder)
    }

    /// The folder that was indexed.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The films that have a poster, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &FilmId> {
        self.files.keys()
    }

    /// The poster of the film `id`.
    pub fn find(&self, id: &FilmId) -> Option<&Path> {
        self.files.get(id).map(PathBuf::as_path)
    }
}

/// Adds the files in `folder` that could be posters to `files`.
fn collect(folder: &Path, inside: &Path, deepest: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if deepest > 0 {
                collect(&path, inside, deepest - 1, files)?;
            }
            continue;
        }
        let named_so = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)));
        if named_so && (kind.is_file() || kind.is_symlink() && leads_to_file_inside(&path, inside)) {
            files.push(path);
        }
    }
    Ok(())
}

fn leads_to_file_inside(link: &Path, inside: &Path) -> bool {
    link.canonicalize().is_ok_and(|target| target.starts_with(inside) && target.is_file())
}

/// Why a poster's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is too large; it was not opened.
    #[error("the file has {0} bytes; a poster has {LARGEST_FILE} at most")]
    TooLarge(u64),
    /// It is a folder, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
}

/// The bytes of the poster at `path`, [`LARGEST_FILE`] at most.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile);
    }
    if metadata.len() > LARGEST_FILE {
        return Err(ReadError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // The file may grow meanwhile.
    File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
