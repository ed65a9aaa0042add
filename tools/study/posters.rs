//! The posters of a run, where they are not simply those of a file.

use crate::exit::Usage;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::training::evaluation::films;
use std::path::Path;

/// In the provenance of what [`each_film_once`] writes: the digest of the file that it was made of.
const MADE_OF: &str = "each_film_once_of";

/// The posters of `file` without those of films that came before, written to `path` unless they are there already; none if no film
/// comes twice.
///
/// # Errors
/// The tensor files', and [`Usage`] if something else is at `path`.
pub fn each_film_once(file: &TensorFile, path: &Path) -> anyhow::Result<Option<TensorFile>> {
    let all: Vec<u32> = (0..file.len() as u32).collect();
    // Films are numbered as they come, so one that comes first has the next number.
    let mut first: Vec<usize> = Vec::new();
    for (poster, film) in films(file, &all).into_iter().enumerate() {
        if film as usize == first.len() {
            first.push(poster);
        }
    }
    if first.len() == file.len() {
        return Ok(None);
    }
    if path.exists() {
        let there = TensorFile::open(path).ok();
        let made_of = |there: &TensorFile| there.provenance().get(MADE_OF).cloned();
        return match there.as_ref().and_then(made_of) {
            Some(digest) if digest == file.digest() => Ok(there),
            Some(_) => Err(Usage(format!("{} was made of other posters; choose another --out", path.display())).into()),
            None => Err(Usage(format!("{} is in the way; choose another --out", path.display())).into()),
        };
    }
    let mut provenance = file.provenance().clone();
    provenance.insert(MADE_OF.into(), file.digest().into());
    let description =
        Description { size: file.size(), genres: file.genres().to_vec(), capacity: first.len(), provenance };
    let mut writer = TensorFileWriter::create(path, description)?;
    for poster in first {
        let image = file.image_checked(poster)?;
        writer.push(&file.ids()[poster], &image, file.labels(poster), file.split(poster))?;
    }
    writer.finish()?;
    Ok(Some(TensorFile::open(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::Split;
    use std::fs;
    use tempfile::TempDir;

    fn write(path: &Path, ids: &[&str]) -> TensorFile {
        let provenance = [("resize".to_owned(), "area".to_owned())].into();
        let description = Description { size: 8, genres: vec!["War".into()], capacity: ids.len(), provenance };
        let mut writer = TensorFileWriter::create(path, description).unwrap();
        for (number, id) in ids.iter().enumerate() {
            let split = Split::ALL[number % 3];
            writer.push(id, &[number as u8; 192], &[(number % 2) as u8], split).unwrap();
        }
        writer.finish().unwrap();
        TensorFile::open(path).unwrap()
    }

    #[test]
    fn a_film_is_kept_where_it_comes_first() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("once.safetensors");
        let file = write(&folder.path().join("all.safetensors"), &["114709", "b", "tt0114709", "c", "b", "d"]);
        let once = each_film_once(&file, &path).unwrap().unwrap();
        assert_eq!(once.ids(), ["114709", "b", "c", "d"]);
        for (poster, of) in [(0, 0), (1, 1), (2, 3), (3, 5)] {
            assert_eq!(once.image_checked(poster).unwrap(), file.image_checked(of).unwrap());
            assert_eq!((once.labels(poster), once.split(poster)), (file.labels(of), file.split(of)));
        }
        assert_eq!(once.provenance()["resize"], "area");

        // It is there already: nothing is written again, and nothing else is replaced.
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(each_film_once(&file, &path).unwrap().unwrap().digest(), once.digest());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        let other = write(&folder.path().join("other.safetensors"), &["1", "1"]);
        let error = each_film_once(&other, &path).unwrap_err().to_string();
        assert!(error.contains("was made of other posters"), "{error}");
        let error = each_film_once(&file, other.path()).unwrap_err().to_string();
        assert!(error.contains("is in the way"), "{error}");

        let distinct = write(&folder.path().join("distinct.safetensors"), &["1", "2"]);
        let path = folder.path().join("none.safetensors");
        assert!(each_film_once(&distinct, &path).unwrap().is_none() && !path.exists());
    }
}
