//! What was read and may be meant otherwise.

use std::fmt;

use super::separator::GenreSeparator;

/// The most genres that a warning names.
const MOST: usize = 30;

/// Spellings of one genre.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The most frequent spelling, which stands for all.
    pub genre: String,
    /// The others, each with the number of rows that had it.
    pub spellings: Vec<(String, usize)>,
}

/// What was read and may be meant otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Genres that differ in nothing but case, blanks, `-` and `_` became one.
    Merged(Vec<Merged>),
    /// Genres whose names are made of names of other genres; each with the number of rows that have it.
    MayBeSeveral(Vec<(String, usize)>),
    /// What could separate genres was taken for a part of their names.
    KeptTogether {
        /// One of the names.
        genre: String,
        /// What may separate.
        separator: GenreSeparator,
    },
    /// Rows have more cells than the header; the cells too many were passed over.
    MoreCells {
        /// How many rows.
        rows: usize,
        /// The line of the first.
        line: u64,
    },
}

impl Warning {
    /// The kind of warning in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Warning::Merged(_) => "merged",
            Warning::MayBeSeveral(_) => "may be several",
            Warning::KeptTogether { .. } => "kept together",
            Warning::MoreCells { .. } => "more cells",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Merged(genres) => {
                let spelling = |(spelling, rows): &(String, usize)| format!("`{spelling}` ({})", number_of(*rows));
                let genre = |merged: &Merged| {
                    format!("{} into `{}`", list(merged.spellings.iter().map(spelling)), merged.genre)
                };
                write!(f, "spellings of one genre are merged: {}", list(genres.iter().map(genre)))
            }
            Warning::MayBeSeveral(genres) => {
                let genre = |(genre, rows): &(String, usize)| format!("`{genre}` ({})", number_of(*rows));
                let genres = list(genres.iter().map(genre));
                write!(
                    f,
                    "each of these counts as one genre, though its parts are genres too: {genres}; --genre-separator takes several \
                     characters, and --aliases gives a genre another name"
                )
            }
            Warning::KeptTogether { genre, separator } => write!(
                f,
                "genres with {separator} in the name, such as `{genre}`, are taken as they stand; if it separates genres, say \
                 --genre-separator {}",
                separator.flag()
            ),
            Warning::MoreCells { rows, line } => write!(
                f,
                "{} with more cells than the header has, line {line} first; those too many are passed over (a cell with a separator \
                 in it needs quotes)",
                number_of(*rows)
            ),
        }
    }
}

/// `1 row`, `2 rows`.
fn number_of(rows: usize) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// The first of `items`, with commas between, and how many more there are.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(MOST);
    let mut text = items.take(MOST).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
