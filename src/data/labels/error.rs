//! Why no films came out of a label table.

use std::io;
use std::path::PathBuf;

use super::LARGEST_TABLE;
use super::separator::GenreSeparator;
use crate::data::skipped::SkippedRow;

/// Why no films came out of a label table.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The file or folder cannot be read.
    #[error("cannot read the label table {}", path.display())]
    Read {
        /// The table.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two columns of genres.
    #[error("{} has two columns named `{column}`; put the genres of a film into one of them, or rename the other", path.display())]
    Twice {
        /// The table.
        path: PathBuf,
        /// The name.
        column: String,
    },
    /// The file is too large to be read whole.
    #[error(
        "the label table {} is larger than {} MB; with --posters DIR such a table is read for the films that have posters in DIR; \
         without, cut it down to the films you want",
        path.display(),
        LARGEST_TABLE >> 20
    )]
    TooLarge {
        /// The table.
        path: PathBuf,
    },
    /// The first line names no columns that are known.
    #[error(
        "the header of {} is `{found}`; understood are `imdbId,…,Genre,…,Poster` (Kaggle's MovieGenre.csv), `imdbId,Genre`, \
         `Id,Genre` and their like, and an id with a column of 0 and 1 for each genre; say --id-column NAME and --genre-column NAME \
         for other names",
        path.display()
    )]
    Header {
        /// The table.
        path: PathBuf,
        /// Its first line, shortened.
        found: String,
    },
    /// The header lacks a column that was asked for.
    #[error("{} has no column `{wanted}`; its columns are {}", path.display(), columns.join(", "))]
    Column {
        /// The table.
        path: PathBuf,
        /// The column that was asked for.
        wanted: String,
        /// The columns it has.
        columns: Vec<String>,
    },
    /// It cannot be told what stands between two genres of a film.
    #[error(
        "cannot tell whether {separator} separates genres in the column `{column}` of {}: on line {line}, `{example}` may be one \
         genre or several; say --genre-separator {} if it is several, --genre-separator none if it is one",
        path.display(),
        separator.flag()
    )]
    Separator {
        /// The table.
        path: PathBuf,
        /// The column of the genres.
        column: String,
        /// What may separate them.
        separator: GenreSeparator,
        /// A cell with it.
        example: String,
        /// The cell's line.
        line: u64,
    },
    /// Not one row could be used.
    #[error("{} has no usable row among {skipped}{}", path.display(), first_skipped(.first))]
    NoFilm {
        /// The table.
        path: PathBuf,
        /// How many rows were skipped.
        skipped: usize,
        /// The first of them.
        first: Option<SkippedRow>,
    },
    /// The folder holds no posters in folders named after genres.
    #[error(
        "{} is no folder of labels: it should hold a folder for each genre, and these the posters, named {{id}}.jpg, .jpeg, .png or .webp",
        path.display()
    )]
    NoFolders {
        /// The folder.
        path: PathBuf,
    },
    /// The table of aliases cannot be used.
    #[error("the table of aliases {}: {why}", path.display())]
    Aliases {
        /// The table.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
}

/// `; line 2: bad id`, for the message of [`LabelError::NoFilm`].
fn first_skipped(row: &Option<SkippedRow>) -> String {
    let say = |row: &SkippedRow| format!("; line {}: {} {}", row.line, row.reason.kind(), row.reason.detail());
    row.as_ref().map(say).unwrap_or_default()
}
