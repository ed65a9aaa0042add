//! Finding a film's poster in a folder, whatever the file name's spelling of the id.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirEntry, FileType};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::films::FilmId;
use crate::files;

/// What a poster's file name may end in, in any case of letters.
pub const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// How many folders deep posters are looked for: some collections have one folder a year.
const DEEPEST: usize = 3;

/// The largest poster file, in bytes.
pub const LARGEST_FILE: u64 = 20 << 20;

/// Which symbolic links in a folder of posters are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Those to regular files inside the folder: nobody can make a folder reach outside itself.
    Inside,
    /// All, to files and to folders.
    All,
}

/// A folder of posters, indexed once.
#[derive(Clone, Debug)]
pub struct PosterFolder {
    root: PathBuf,
    posters: HashMap<FilmId, Vec<PathBuf>>,
    not_read: HashMap<FilmId, String>,
    notes: Vec<String>,
}

impl PosterFolder {
    /// Looks through `root` and the folders in it for files named `{id}.jpg`, `.jpeg`, `.png` or `.webp`.
    ///
    /// Only regular files count, and symbolic links as `links` says. What is passed over is named in [`not_read`](Self::not_read)
    /// or in [`notes`](Self::notes).
    ///
    /// # Errors
    /// The system's, when `root` itself cannot be read; a folder in it that cannot is a note.
    pub fn index(root: &Path, links: Links) -> io::Result<PosterFolder> {
        let mut search = Search::through(root, links)?;
        let mut posters: HashMap<FilmId, Vec<PathBuf>> = HashMap::with_capacity(search.files.len());
        for path in search.files {
            match id(&path) {
                Some(id) => posters.entry(id).or_default().push(path),
                None => search.passed_over.push((path, "its name is no film's id".to_owned())),
            }
        }
        search.passed_over.sort();
        let mut notes = search.notes;
        notes.sort();
        if let Some((path, why)) = search.passed_over.first() {
            let (count, first) = (search.passed_over.len(), path.display());
            notes.push(format!("passed over in {}: {count} files; the first: {first}, {why}", root.display()));
        }
        let mut not_read = HashMap::new();
        for (path, why) in search.passed_over {
            if let Some(id) = id(&path) {
                not_read.entry(id).or_insert_with(|| format!("{} is not read: {why}", path.display()));
            }
        }
        Ok(PosterFolder { root: root.to_owned(), posters, not_read, notes })
    }

    /// The folder that was indexed.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The films that have a poster, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &FilmId> {
        self.posters.keys()
    }

    /// The posters of the film `id`, by path; more than one where the folder has several files of its name.
    pub fn find(&self, id: &FilmId) -> &[PathBuf] {
        self.posters.get(id).map_or(&[], Vec::as_slice)
    }

    /// A file named after the film `id` that is no poster, and why.
    pub fn not_read(&self, id: &FilmId) -> Option<&str> {
        self.not_read.get(id).map(String::as_str)
    }

    /// What else was passed over, a sentence each: folders that cannot be read, and how many files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The files in `root` and in the folders in it, up to three deep, whose names end as those of posters do, by path; whatever else they are
/// called. Symbolic links are followed inside `root`.
///
/// # Errors
/// The system's, when `root` itself cannot be read.
pub fn in_folder(root: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Search::through(root, Links::Inside)?.files)
}

/// The film that the name of a file stands for.
fn id(path: &Path) -> Option<FilmId> {
    path.file_stem()?.to_str().and_then(FilmId::parse)
}

/// A search through a folder.
struct Search {
    links: Links,
    /// The folder itself, without links in its path.
    inside: PathBuf,
    /// Folders that were looked into, so that links in a ring end.
    seen: HashSet<PathBuf>,
    files: Vec<PathBuf>,
    /// Files that are no posters, and why.
    passed_over: Vec<(PathBuf, String)>,
    notes: Vec<String>,
}

impl Search {
    /// Looks through a folder. The files come by path.
    fn through(root: &Path, links: Links) -> io::Result<Search> {
        let inside = root.canonicalize()?;
        let seen = HashSet::from([inside.clone()]);
        let mut search = Search { links, inside, seen, files: Vec::new(), passed_over: Vec::new(), notes: Vec::new() };
        search.folder(root, fs::read_dir(root)?, DEEPEST);
        search.files.sort();
        Ok(search)
    }

    fn folder(&mut self, folder: &Path, entries: fs::ReadDir, deeper: usize) {
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry, deeper),
                Err(error) => self.notes.push(format!("cannot read all of {}: {error}", folder.display())),
            }
        }
    }

    fn entry(&mut self, entry: &DirEntry, deeper: usize) {
        let path = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => self.follow(&path),
            kind => kind.map_err(|error| error.to_string()),
        };
        match kind {
            Err(why) => self.passed_over.push((path, why)),
            Ok(kind) if kind.is_dir() => self.sub_folder(&path, deeper),
            Ok(kind) if !kind.is_file() => self.passed_over.push((path, "it is a pipe or a device".to_owned())),
            Ok(_) if has_known_extension(&path) => self.files.push(path),
            Ok(_) => {
                let why = format!("only {} are", EXTENSIONS.map(|extension| format!(".{extension}")).join(", "));
                self.passed_over.push((path, why));
            }
        }
    }

    fn sub_folder(&mut self, path: &Path, deeper: usize) {
        if deeper == 0 {
            return self.notes.push(format!("not looked into, more than {DEEPEST} folders deep: {}", path.display()));
        }
        match path.canonicalize().and_then(|real| Ok((real, fs::read_dir(path)?))) {
            Ok((real, entries)) => {
                if self.seen.insert(real) {
                    self.folder(path, entries, deeper - 1);
                }
            }
            Err(error) => self.notes.push(format!("not looked into, {error}: {}", path.display())),
        }
    }

    /// What kind of thing a link leads to, or why it is not followed.
    fn follow(&self, link: &Path) -> Result<FileType, String> {
        let broken = |_| "it is a link that leads nowhere".to_owned();
        let target = link.canonicalize().map_err(broken)?;
        let kind = fs::metadata(&target).map_err(broken)?.file_type();
        if self.links == Links::Inside && kind.is_dir() {
            return Err("it is a link to a folder; --follow-links follows it".to_owned());
        }
        if self.links == Links::Inside && !target.starts_with(&self.inside) {
            return Err("it is a link out of the folder; --follow-links follows it".to_owned());
        }
        Ok(kind)
    }
}

fn has_known_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Why a poster's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses, or it is a folder, a pipe or a device.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is too large; none of it was read.
    #[error("the file has {0} bytes; a poster has {LARGEST_FILE} at most")]
    TooLarge(u64),
}

/// The bytes of the poster at `path`, [`LARGEST_FILE`] at most.
///
/// # Errors
/// [`ReadError`]
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = files::open(path)?;
    let length = file.metadata()?.len();
    if length > LARGEST_FILE {
        return Err(ReadError::TooLarge(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The file may grow meanwhile.
    file.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
