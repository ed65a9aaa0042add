//! A folder for each genre, with the posters of its films in it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::LabelError;
use super::genre_cell;
use super::{Dialect, Found};
use crate::data::films::{Film, FilmId};
use crate::data::posters::{self, EXTENSIONS};
use crate::data::skipped::{Reason, SkippedRow};

/// A film met, and the first of its posters.
struct Met {
    row: usize,
    poster: PathBuf,
}

/// Reads the folder `root` and a digest of its names. The line of a film is the number of its first poster, in the order of
/// the paths.
pub(super) fn read(root: &Path) -> Result<(Found, blake3::Hash), LabelError> {
    let failed = |source| LabelError::Read { path: root.to_owned(), source };
    let genres = genres(root).map_err(failed)?;
    let inside = root.canonicalize().map_err(failed)?;
    let mut films: HashMap<FilmId, Met> = HashMap::new();
    let (mut rows, mut skipped, mut names): (Vec<Film>, Vec<SkippedRow>, Vec<String>) = Default::default();
    let (mut digest, mut line) = (blake3::Hasher::new(), 0);
    for folder in &genres {
        let posters = posters_in(folder, &inside).map_err(failed)?;
        let genre = name(folder);
        if !posters.is_empty() {
            names.push(genre.clone());
        }
        for poster in posters {
            line += 1;
            let file = name(&poster);
            digest.update(format!("{genre}/{file}\n").as_bytes());
            let mut skip = |id: &str, reason| skipped.push(SkippedRow::new(line, id, reason));
            let genres = match genre_cell::checked([&*genre].into_iter()) {
                Ok(genres) => genres,
                Err(reason) => {
                    skip(&file, reason);
                    continue;
                }
            };
            let Some(id) = FilmId::of_file(&file) else {
                skip(&file, Reason::BadId);
                continue;
            };
            match films.get(&id) {
                None => {
                    films.insert(id.clone(), Met { row: rows.len(), poster });
                    rows.push(Film { line, id, genres, poster_url: None });
                }
                // Folders whose files are numbered each for itself have the same names for different films.
                Some(met) if !is_same(&met.poster, &poster) => {
                    let first = met.poster.strip_prefix(root).unwrap_or(&met.poster).display();
                    let why = format!(
                        "{genre}/{file} has the name of {first} and is another picture, so perhaps another film"
                    );
                    skip(id.as_str(), Reason::BadRow(why));
                }
                Some(met) if rows[met.row].genres.contains(&genre) => {}
                Some(met) => rows[met.row].genres.extend(genres),
            }
        }
    }
    if line == 0 {
        return Err(LabelError::NoFolders { path: root.to_owned() });
    }
    Ok((Found { dialect: Dialect::Folders(names), rows, skipped, warnings: Vec::new() }, digest.finalize()))
}

/// The last part of `path`, for reading.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in `root`, without the hidden ones that tools leave.
fn genres(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut genres = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            genres.push(entry.path());
        }
    }
    genres.sort();
    Ok(genres)
}

/// The files in `folder` that could be posters: regular ones, and links that lead to one `inside` the folder of labels.
fn posters_in(folder: &Path, inside: &Path) -> io::Result<Vec<PathBuf>> {
    let mut posters = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let leads_inside = || path.canonicalize().is_ok_and(|target| target.starts_with(inside) && target.is_file());
        if EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
            && (kind.is_file() || kind.is_symlink() && leads_inside())
        {
            posters.push(path);
        }
    }
    posters.sort();
    Ok(posters)
}

/// Whether two files hold the same bytes. One that cannot be read holds others.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((posters::read(a), posters::read(b)), (Ok(a), Ok(b)) if a == b)
}
