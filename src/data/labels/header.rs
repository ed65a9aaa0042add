//! What the header of a table says: the separator of its columns, and which column holds what.

use std::path::Path;

use super::Options;
use super::encoding::text;
use super::error::LabelError;
use super::records::{Cutter, head};
use crate::data::genres::spelling_key;

/// What may separate columns. The first that yields the columns wanted does.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The names that columns of ids have, in [`spelling_key`]'s form; the first that the header has counts.
const IDS: [&str; 17] = [
    "imdbid",
    "tconst",
    "imdbtitleid",
    "id",
    "movieid",
    "filmid",
    "filename",
    "file",
    "imagename",
    "imagefile",
    "image",
    "imagepath",
    "filepath",
    "path",
    "posterfile",
    "posterpath",
    "poster",
];
/// The same of columns of genres.
const GENRES: [&str; 6] = ["genre", "genres", "genrename", "genrenames", "label", "labels"];
/// The same of columns of addresses of posters.
const POSTERS: [&str; 2] = ["poster", "posterurl"];

/// The columns of a table, counted from 0.
pub(super) struct Header {
    /// What stands between two columns.
    pub(super) separator: u8,
    /// The names of all columns.
    pub(super) names: Vec<String>,
    /// The column of the ids.
    pub(super) id: usize,
    /// The column of the genres; `None` where each genre may have a column of its own.
    pub(super) genre: Option<usize>,
    /// The column with the addresses of the posters.
    pub(super) poster: Option<usize>,
}

impl Header {
    /// Reads the first line of `table`.
    pub(super) fn read(path: &Path, table: &[u8], options: &Options) -> Result<Header, LabelError> {
        let line = head(table);
        let find = |genre_needed: bool| {
            let separators = SEPARATORS.iter().filter(|separator| line.contains(separator));
            separators
                .copied()
                .find_map(|separator| Header::find(separator, names(line, separator), genre_needed, options))
        };
        if let Some(header) = find(true) {
            return match header.twin(options) {
                Some(column) => Err(LabelError::Twice { path: path.to_owned(), column }),
                None => Ok(header),
            };
        }
        if options.genre_column.is_none()
            && let Some(header) = find(false)
        {
            return Ok(header);
        }
        // The widest header is the likeliest to be what was meant.
        let headers = SEPARATORS.iter().rev().map(|&separator| names(line, separator));
        let columns = headers.max_by_key(Vec::len).unwrap_or_default();
        for wanted in [&options.id_column, &options.genre_column].into_iter().flatten() {
            if named(&columns, wanted).is_none() {
                return Err(LabelError::Column { path: path.to_owned(), wanted: wanted.clone(), columns });
            }
        }
        Err(not_understood(path, table))
    }

    /// The name that a second column has in common with that of the genres, so that there is no telling which is meant.
    fn twin(&self, options: &Options) -> Option<String> {
        let name = &self.names[self.genre?];
        let is_twin = |other: &&String| match options.genre_column {
            Some(_) => *other == name,
            None => spelling_key(other) == spelling_key(name),
        };
        (self.names.iter().filter(is_twin).count() > 1).then(|| name.clone())
    }

    fn find(separator: u8, names: Vec<String>, genre_needed: bool, options: &Options) -> Option<Header> {
        let column = |wanted: &Option<String>, known: &[&str]| match wanted {
            Some(name) => named(&names, name),
            None => known.iter().find_map(|key| names.iter().position(|name| spelling_key(name) == *key)),
        };
        let id = column(&options.id_column, &IDS)?;
        let genre = column(&options.genre_column, &GENRES).filter(|&genre| genre != id);
        // One column for each genre takes an id and two genres at least.
        if genre.is_none() && (genre_needed || names.len() < 3) {
            return None;
        }
        let poster = column(&None, &POSTERS).filter(|&poster| poster != id && Some(poster) != genre);
        Some(Header { separator, names, id, genre, poster })
    }
}

/// The refusal of a table that has no such columns.
pub(super) fn not_understood(path: &Path, table: &[u8]) -> LabelError {
    let found = text(head(table)).trim_end().chars().take(120).collect();
    LabelError::Header { path: path.to_owned(), found }
}

/// The names in a header, if they are separated so.
fn names(header: &[u8], separator: u8) -> Vec<String> {
    let mut cutter = Cutter::new(separator);
    // A header has no width to compare with but its own.
    match cutter.fill(header, 0) {
        Ok(()) => cutter.cells().iter().map(|cell| text(cell).trim().to_owned()).collect(),
        Err(_) => Vec::new(),
    }
}

/// The column that a user calls `wanted`: of that very name, else of one that differs in nothing but case, blanks, `-` and `_`.
fn named(names: &[String], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim();
    let exact = names.iter().position(|name| name == wanted);
    exact.or_else(|| names.iter().position(|name| spelling_key(name) == spelling_key(wanted)))
}
