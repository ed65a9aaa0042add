//! Label tables: which films there are, and their genres.
//!
//! Three dialects are understood, told apart by their header:
//!
//! | dialect | columns | id | genres |
//! | --- | --- | --- | --- |
//! | Kaggle's `MovieGenre.csv` | `imdbId`, `Genre`, `Poster` and others | `114709` | `Animation\|Comedy` |
//! | the paper's `cleaned_data.csv` | `imdbId`, `Genre` | `114709.0` | `['Animation', 'Comedy']` |
//! | plain | `Id`, `Genre` | `tt0114709` | `['Animation', 'Comedy']` |
//!
//! A table comes from the internet and is treated so: bytes that are not UTF-8 are Latin-1, the Python list is read by a
//! parser of nothing else, and a row that makes no sense is put aside with its line and the reason, never an end of the run.
//! A row is one line. A quote left open therefore costs its own line and not the rest of the table, which is worth more here
//! than line breaks inside a cell.

mod python_list;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::films::{Film, FilmId};
use super::skipped::{Reason, SkippedRow};

/// The longest line that is read, in bytes; longer ones are skipped.
const LONGEST_LINE: usize = 64 << 10;
/// The largest table, in bytes. Kaggle's has 7 MB.
const LARGEST_TABLE: u64 = 256 << 20;
/// The longest name of a genre, in characters.
const LONGEST_GENRE: usize = 40;

/// Why no films came out of a label table.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The file cannot be read.
    #[error("cannot read the label table {}", path.display())]
    Read {
        /// The table.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is too large to be a label table.
    #[error("the label table {} is larger than {} MB; is it the right file?", path.display(), LARGEST_TABLE >> 20)]
    TooLarge {
        /// The table.
        path: PathBuf,
    },
    /// The first line names no columns that are known.
    #[error(
        "the header of {} is `{found}`; understood are `imdbId,…,Genre,…,Poster` (Kaggle's MovieGenre.csv), `imdbId,Genre` and \
         `Id,Genre`",
        path.display()
    )]
    Header {
        /// The table.
        path: PathBuf,
        /// Its first line, shortened.
        found: String,
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
}

/// `; line 2: bad id`, for the message of [`LabelError::NoFilm`].
fn first_skipped(row: &Option<SkippedRow>) -> String {
    let say = |row: &SkippedRow| format!("; line {}: {} {}", row.line, row.reason.kind(), row.reason.detail());
    row.as_ref().map(say).unwrap_or_default()
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Kaggle's `MovieGenre.csv`, with the addresses of the posters.
    Kaggle,
    /// The paper's `cleaned_data.csv`.
    Paper,
    /// `Id,Genre`.
    Plain,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Kaggle => "Kaggle's table",
            Dialect::Paper => "the paper's table",
            Dialect::Plain => "an Id,Genre table",
        })
    }
}

/// A label table as it stands, repeated films included.
#[derive(Clone, Debug)]
pub struct LabelTable {
    /// Whose table it is.
    pub dialect: Dialect,
    /// The usable rows, in the table's order; at least one.
    pub rows: Vec<Film>,
    /// The others.
    pub skipped: Vec<SkippedRow>,
}

/// Reads the label table at `path`.
pub fn read(path: &Path) -> Result<LabelTable, LabelError> {
    let failed = |source| LabelError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LARGEST_TABLE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_TABLE {
        return Err(LabelError::TooLarge { path: path.to_owned() });
    }
    parse(path, &bytes)
}

/// Reads the label table `bytes`; `path` is for the messages.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<LabelTable, LabelError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    let header = lines.next().map_or(&b""[..], |(_, line)| line);
    let mut cutter = Cutter::new();
    let columns = Columns::find(cutter.cut(header)).ok_or_else(|| LabelError::Header {
        path: path.to_owned(),
        found: text(header).trim_end().chars().take(120).collect(),
    })?;
    let mut table = LabelTable { dialect: columns.dialect, rows: Vec::new(), skipped: Vec::new() };
    for (number, line) in lines {
        let cells = cutter.cut(line);
        match columns.film(number, cells) {
            Some(Ok(film)) => table.rows.push(film),
            Some(Err(row)) => table.skipped.push(row),
            None => {}
        }
    }
    if table.rows.is_empty() {
        let (skipped, first) = (table.skipped.len(), table.skipped.into_iter().next());
        return Err(LabelError::NoFilm { path: path.to_owned(), skipped, first });
    }
    Ok(table)
}

/// Which column holds what, counted from 0.
struct Columns {
    dialect: Dialect,
    id: usize,
    genre: usize,
    poster: Option<usize>,
}

impl Columns {
    fn find(header: Result<Vec<&[u8]>, String>) -> Option<Columns> {
        let names = header.ok()?;
        let column = |name: &str| names.iter().position(|cell| text(cell).trim().eq_ignore_ascii_case(name));
        let genre = column("Genre")?;
        let poster = column("Poster").or_else(|| column("Poster URL"));
        let (id, dialect) = match (column("imdbId"), column("Id"), poster) {
            (Some(id), _, Some(_)) => (id, Dialect::Kaggle),
            (Some(id), _, None) => (id, Dialect::Paper),
            (None, Some(id), _) => (id, Dialect::Plain),
            (None, None, _) => return None,
        };
        Some(Columns { dialect, id, genre, poster })
    }

    /// The film on line `number`, which has these cells; `None` where the line is blank.
    fn film(&self, number: u64, cells: Result<Vec<&[u8]>, String>) -> Option<Result<Film, SkippedRow>> {
        let bad_row = |why| Some(Err(SkippedRow::new(number, "", Reason::BadRow(why))));
        let cells = match cells {
            Ok(cells) => cells,
            Err(why) => return bad_row(why),
        };
        if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
            return None;
        }
        let (Some(raw_id), Some(genres)) = (cells.get(self.id), cells.get(self.genre)) else {
            return bad_row(format!("{} cells, fewer than the header names", cells.len()));
        };
        let raw_id = text(raw_id);
        let Some(id) = FilmId::parse(&raw_id) else {
            return Some(Err(SkippedRow::new(number, &raw_id, Reason::BadId)));
        };
        let url = self.poster.and_then(|column| cells.get(column)).map(|url| text(url).trim().to_owned());
        let poster_url = url.filter(|url| !url.is_empty());
        Some(match read_genres(&text(genres)) {
            Ok(genres) => Ok(Film { line: number, id, genres, poster_url }),
            Err(reason) => Err(SkippedRow::new(number, id.as_str(), reason)),
        })
    }
}

/// Cuts lines into cells; one for a whole table, because its making costs more than its use.
struct Cutter {
    core: csv_core::Reader,
    /// The line, with the line break back on.
    input: Vec<u8>,
    /// The cells without their quotes, one after the other, and where each ends.
    cells: Vec<u8>,
    ends: Vec<usize>,
}

impl Cutter {
    fn new() -> Cutter {
        let core = csv_core::ReaderBuilder::new().terminator(csv_core::Terminator::Any(b'\n')).build();
        Cutter { core, input: Vec::new(), cells: Vec::new(), ends: Vec::new() }
    }

    /// The cells of one line, its line break already cut off.
    fn cut(&mut self, line: &[u8]) -> Result<Vec<&[u8]>, String> {
        if line.len() > LONGEST_LINE {
            return Err(format!("{} bytes long; a row has {LONGEST_LINE} at most", line.len()));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(Vec::new());
        }
        self.input.clear();
        self.input.extend_from_slice(line);
        self.input.push(b'\n');
        // Quotes only shorten, and two cells have a comma between them: there is always room.
        self.cells.resize(self.input.len(), 0);
        self.ends.resize(self.input.len() + 1, 0);
        self.core.reset();
        let (result, _, _, count) = self.core.read_record(&self.input, &mut self.cells, &mut self.ends);
        if result != csv_core::ReadRecordResult::Record {
            return Err("a quote that is never closed".to_owned());
        }
        let begins = std::iter::once(0).chain(self.ends[..count].iter().copied());
        Ok(begins.zip(&self.ends[..count]).map(|(begin, &end)| &self.cells[begin..end]).collect())
    }
}

/// `bytes` as text: UTF-8 where it is that, else Latin-1, in which every byte is a character.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// The genres in a cell, which is a Python list or has bars between: each once, "N/A" and its like left out.
fn read_genres(cell: &str) -> Result<Vec<String>, Reason> {
    let cell = cell.trim();
    let names = match cell.starts_with('[') {
        true => python_list::parse(cell).map_err(Reason::BadGenres)?,
        false => cell.split('|').map(str::to_owned).collect(),
    };
    let mut genres: Vec<String> = Vec::with_capacity(names.len());
    for name in &names {
        let name = name.trim();
        if ["", "N/A", "nan", "None"].iter().any(|nothing| name.eq_ignore_ascii_case(nothing)) {
            continue;
        }
        if name.chars().count() > LONGEST_GENRE || name.chars().any(char::is_control) {
            return Err(Reason::BadGenres(format!("a genre is up to {LONGEST_GENRE} printable characters")));
        }
        if !genres.iter().any(|genre| genre == name) {
            genres.push(name.to_owned());
        }
    }
    if genres.is_empty() { Err(Reason::NoGenre) } else { Ok(genres) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genres_are_trimmed_and_come_once() {
        assert_eq!(read_genres(" Drama|Crime | Drama|N/A|"), Ok(vec!["Drama".to_owned(), "Crime".to_owned()]));
        for nothing in ["", "[]", "['N/A']", "nan", "||", "['']"] {
            assert_eq!(read_genres(nothing), Err(Reason::NoGenre), "{nothing:?}");
        }
        for bad in ["Dra\0ma", &"x".repeat(41)] {
            assert!(matches!(read_genres(bad), Err(Reason::BadGenres(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_open_quote_costs_one_line() {
        let mut cutter = Cutter::new();
        let mut cut = |line: &str| {
            let cells = cutter.cut(line.as_bytes()).ok()?;
            Some(cells.iter().map(|cell| text(cell).into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(cut("1,\"['A', 'B']"), None);
        assert_eq!(cut("1,2\r").unwrap(), ["1", "2"]);
        assert_eq!(cut("\""), None);
        assert_eq!(cut("1,\"a \"\"b\"\"\",c\"d").unwrap(), ["1", "a \"b\"", "c\"d"]);
        assert_eq!(cut(",").unwrap(), ["", ""]);
        assert_eq!(cut("\"\"").unwrap(), [""]);
        assert_eq!(cut("").unwrap(), [""; 0]);
    }
}
