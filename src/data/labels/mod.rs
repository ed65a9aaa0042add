//! Label tables: which films there are, and their genres.
//!
//! A table has a column with the films' ids and either one with their genres or one for each genre; or it is a folder that has a
//! folder for each genre. Everything else is found:
//!
//! | what | how |
//! | --- | --- |
//! | the encoding | UTF-16 by its byte order mark, else UTF-8; what is neither is Latin-1 |
//! | what separates columns | `,` `;` a tab or a bar, whichever makes the header name the columns |
//! | the columns | by name: `imdbId`, `tconst`, `Id`, `filename`, …; `Genre`, `genres`, `labels`, …; `Poster` (addresses) |
//! | an id | `114709.0`, `tt0114709`, `my-film_3`, or a poster's file name with any path before it |
//! | genres in a cell | a list of Python's or JSON's, also of objects with a `name`; or separated as the whole column shows |
//!
//! So Kaggle's `MovieGenre.csv`, the paper's `cleaned_data.csv`, `Id,Genre`, IMDb's `title.basics.tsv`, TMDb's and MovieLens's
//! tables are read as they come. [`Options`] say what the names in the header do not.
//!
//! A table comes from the internet and is treated so: a list is read by a parser of nothing else, and a row that makes no
//! sense is put aside with its line and the reason, never an end of the run. What could be read in two ways is refused or
//! becomes a [`Warning`].

mod aliases;
mod encoding;
mod error;
mod folder;
mod genre_cell;
mod header;
mod large;
mod literal;
mod one_hot;
mod records;
mod rows;
mod separator;
mod spelling;
mod warning;

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::Path;

use super::films::{Film, FilmId};
use super::skipped::SkippedRow;
use crate::files;
use header::Header;

pub use aliases::Aliases;
pub use error::LabelError;
pub use separator::{GenreSeparator, NoSeparator};
pub use warning::{Merged, Warning};

/// The largest table that is read whole, in bytes. Kaggle's has 7 MB.
const LARGEST_TABLE: u64 = 256 << 20;

/// How a table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A column of ids and one of genres.
    Column {
        /// What separates columns.
        columns: char,
        /// The name of the column of ids.
        id: String,
        /// The name of the column of genres.
        genre: String,
        /// What separates genres, in cells that are no lists.
        separator: GenreSeparator,
    },
    /// A column of ids and one for each genre.
    OneHot {
        /// The name of the column of ids.
        id: String,
        /// The names of the columns of genres.
        genres: Vec<String>,
        /// The names of the other columns.
        others: Vec<String>,
    },
    /// A folder for each of these genres.
    Folders(Vec<String>),
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dialect::Column { columns, id, genre, separator } => {
                match columns {
                    ',' => {}
                    '\t' => write!(f, "columns separated by tabs, ")?,
                    _ => write!(f, "columns separated by `{columns}`, ")?,
                }
                write!(f, "ids from `{id}`, genres from `{genre}`")?;
                if separator.is_none() { Ok(()) } else { write!(f, " separated by {separator}") }
            }
            Dialect::OneHot { id, genres, others } => {
                write!(f, "ids from `{id}`, a column for each genre: {}", genres.join(", "))?;
                if others.is_empty() { Ok(()) } else { write!(f, " (and none of these: {})", others.join(", ")) }
            }
            Dialect::Folders(genres) => write!(f, "a folder for each genre: {}", genres.join(", ")),
        }
    }
}

/// A label table as it stands, repeated films included.
#[derive(Clone, Debug)]
pub struct LabelTable {
    /// How it was read.
    pub dialect: Dialect,
    /// The usable rows, in the table's order; at least one.
    pub rows: Vec<Film>,
    /// The others.
    pub skipped: Vec<SkippedRow>,
    /// What may be meant otherwise.
    pub warnings: Vec<Warning>,
    /// A digest of the table's bytes; of a folder's names.
    pub digest: blake3::Hash,
}

/// The rows of a table, and how they were found.
struct Found {
    dialect: Dialect,
    rows: Vec<Film>,
    skipped: Vec<SkippedRow>,
    warnings: Vec<Warning>,
}

/// What a table does not say itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The name of the column of ids, instead of a known one.
    pub id_column: Option<String>,
    /// The name of the column of genres, instead of a known one.
    pub genre_column: Option<String>,
    /// What separates genres in a cell, instead of what the column shows.
    pub genre_separator: Option<GenreSeparator>,
    /// Other names of genres.
    pub aliases: Option<Aliases>,
    /// The films that matter in a table that [is too large](is_large) to be read whole.
    pub wanted: Option<HashSet<FilmId>>,
}

/// Reads the label table at `path`, which says all by itself.
///
/// # Errors
/// As [`Options::read`].
pub fn read(path: &Path) -> Result<LabelTable, LabelError> {
    Options::default().read(path)
}

/// Whether the table at `path` is too large to be read whole.
pub fn is_large(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > LARGEST_TABLE)
}

impl Options {
    /// Reads the label table at `path`, a file or a folder that has a folder for each genre.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn read(&self, path: &Path) -> Result<LabelTable, LabelError> {
        let failed = |source| LabelError::Read { path: path.to_owned(), source };
        if path.is_dir() {
            let (found, digest) = folder::read(path)?;
            return self.finish(path, found, digest);
        }
        let file = files::open(path).map_err(failed)?;
        let too_large = || LabelError::TooLarge { path: path.to_owned() };
        if file.metadata().map_err(failed)?.len() > LARGEST_TABLE {
            let wanted = self.wanted.as_ref().ok_or_else(too_large)?;
            let (table, digest) = large::read_wanted(path, file, self, wanted)?.ok_or_else(too_large)?;
            return self.parse_as(path, &table, digest);
        }
        let mut bytes = Vec::new();
        // The file may grow meanwhile.
        file.take(LARGEST_TABLE + 1).read_to_end(&mut bytes).map_err(failed)?;
        self.parse(path, &bytes)
    }

    /// Reads the label table `bytes`; `path` is for the messages.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn parse(&self, path: &Path, bytes: &[u8]) -> Result<LabelTable, LabelError> {
        self.parse_as(path, bytes, blake3::hash(bytes))
    }

    fn parse_as(&self, path: &Path, bytes: &[u8], digest: blake3::Hash) -> Result<LabelTable, LabelError> {
        let table = encoding::decode(bytes);
        let header = Header::read(path, &table, self)?;
        let found = match header.genre {
            Some(genre) => rows::read(path, &table, &header, genre, self)?,
            None => one_hot::read(path, &table, &header)?,
        };
        self.finish(path, found, digest)
    }

    /// What every kind of table goes through: one name for each genre, and no table without films.
    fn finish(&self, path: &Path, found: Found, digest: blake3::Hash) -> Result<LabelTable, LabelError> {
        let Found { dialect, mut rows, mut skipped, mut warnings } = found;
        skipped.sort_by_key(|row| row.line);
        if rows.is_empty() {
            let (count, first) = (skipped.len(), skipped.into_iter().next());
            return Err(LabelError::NoFilm { path: path.to_owned(), skipped: count, first });
        }
        if let Some(aliases) = &self.aliases {
            spelling::rename(&mut rows, |genre| aliases.genre(genre));
        }
        warnings.extend(spelling::merge(&mut rows));
        warnings.extend(spelling::may_be_several(&rows));
        Ok(LabelTable { dialect, rows, skipped, warnings, digest })
    }
}
