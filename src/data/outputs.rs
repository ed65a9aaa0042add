//! Where `prepare` writes, and what it must not write over.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::skipped::COLUMNS;
use super::tensor_file;
use crate::files;

/// A place that `prepare` will not write to.
#[derive(Debug, thiserror::Error)]
#[error("will not write {}: {why}", path.display())]
pub struct Refused {
    path: PathBuf,
    why: String,
}

/// The two files that `prepare` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// The tensor file.
    pub tensors: PathBuf,
    /// The list of the rows that are not in it, named after it so that two in one folder do not share a list.
    pub skipped: PathBuf,
}

impl Outputs {
    /// `posters.safetensors` and `posters.skipped.csv`.
    pub fn new(tensors: &Path) -> Outputs {
        let mut skipped = tensors.to_owned();
        if tensors.extension().is_some_and(|extension| extension == "safetensors") {
            skipped.set_extension("");
        }
        let mut skipped = skipped.into_os_string();
        skipped.push(".skipped.csv");
        Outputs { tensors: tensors.to_owned(), skipped: skipped.into() }
    }

    /// Refuses places where something would be lost: a file is replaced only by one of its own kind, so neither the label
    /// table nor a poster nor the lock of a run is in danger, whatever path or link leads to it.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn check(&self, labels: &Path) -> Result<(), Refused> {
        for (path, is_ours) in [(&self.tensors, tensor_file::begins_like_one as IsOurs), (&self.skipped, is_list)] {
            let refused = |why: String| Refused { path: path.clone(), why };
            refuse_what_would_be_lost(path, labels, is_ours).map_err(refused)?;
            let mut beside = path.clone().into_os_string();
            beside.push(".partial");
            let refused =
                |why| Refused { path: path.clone(), why: format!("it is first written beside it, and {why}") };
            refuse_what_is_written_through(Path::new(&beside), labels, is_ours).map_err(refused)?;
        }
        Ok(())
    }
}

type IsOurs = fn(&Path) -> io::Result<bool>;

/// Refuses a path where the finished file is moved to.
fn refuse_what_would_be_lost(path: &Path, labels: &Path, is_ours: IsOurs) -> Result<(), String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if metadata.is_dir() {
        return Err("it is a folder; name a file in it".to_owned());
    }
    if !metadata.is_file() {
        return Err("it is a pipe or a device; name a file".to_owned());
    }
    if is_same(&metadata, labels) {
        return Err("it is the label table; choose another name".to_owned());
    }
    // An empty file has nothing to lose.
    match is_ours(path) {
        Ok(ours) if ours || metadata.len() == 0 => Ok(()),
        Ok(_) => Err("there is another file, which `prepare` did not write; choose another name".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Refuses a path that is opened for writing where it stands, if that is more than a leftover of a run before.
fn refuse_what_is_written_through(path: &Path, labels: &Path, is_ours: IsOurs) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let is_leftover = || is_ours(path).unwrap_or(false) || is_unfinished(path).unwrap_or(false);
    if metadata.is_file() && !has_other_names(&metadata) && !is_same(&metadata, labels) && is_leftover() {
        return Ok(());
    }
    Err(format!("{} is in use for something else; choose another name", path.display()))
}

/// Whether the file at `path` is the beginning of one of ours: a tensor file gets its header last, and has zeros there until then.
fn is_unfinished(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    files::open(path)?.take(64).read_to_end(&mut start)?;
    Ok(start.iter().all(|&byte| byte == 0) || COLUMNS.join(",").as_bytes().starts_with(&start))
}

/// Whether the file at `path` is a list of skipped rows.
fn is_list(path: &Path) -> io::Result<bool> {
    let head = COLUMNS.join(",");
    let mut start = Vec::new();
    files::open(path)?.take(head.len() as u64).read_to_end(&mut start)?;
    Ok(start == head.as_bytes())
}

/// Whether `metadata` are those of the file at `other`, under whatever name.
fn is_same(metadata: &Metadata, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(other).is_ok_and(|other| (metadata.dev(), metadata.ino()) == (other.dev(), other.ino()))
    }
    // Elsewhere the content has to tell.
    #[cfg(not(unix))]
    {
        let _ = (metadata, other);
        false
    }
}

fn has_other_names(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(metadata) > 1;
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_a_list_of_its_own() {
        for (tensors, skipped) in [
            ("posters.safetensors", "posters.skipped.csv"),
            ("a/b.2.safetensors", "a/b.2.skipped.csv"),
            ("posters", "posters.skipped.csv"),
            ("posters.bin", "posters.bin.skipped.csv"),
        ] {
            assert_eq!(Outputs::new(Path::new(tensors)).skipped, Path::new(skipped));
        }
    }
}
