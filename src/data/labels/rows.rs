//! The rows of a table that has one column of ids and one of genres, and what every kind of table does with a row.

use std::collections::HashMap;
use std::path::Path;

use super::encoding::text;
use super::error::LabelError;
use super::genre_cell;
use super::header::Header;
use super::literal;
use super::records::Records;
use super::separator;
use super::warning::Warning;
use super::{Dialect, Found, Options};
use crate::data::films::{Film, FilmId};
use crate::data::skipped::{Reason, SkippedRow};

/// A row whose id is one.
pub(super) struct Row<'a> {
    pub(super) line: u64,
    pub(super) id: FilmId,
    pub(super) cells: Vec<&'a [u8]>,
    pub(super) poster_url: Option<String>,
}

/// Gives `take` each row of `table`, which begins with its header; returns those that make no sense, to `take` either.
/// Blank rows are passed over.
pub(super) fn each(
    table: &[u8],
    header: &Header,
    mut take: impl FnMut(Row) -> Result<(), Reason>,
) -> (Vec<SkippedRow>, Option<Warning>) {
    let mut skipped = Vec::new();
    let mut files = Files::default();
    let mut longer: Option<(usize, u64)> = None;
    // Cells under no name are too many as well.
    let width = header.names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    let mut records = header.records(table);
    while let Some((line, cells)) = records.next() {
        let cells = match cells {
            Ok(cells) => cells,
            Err(why) => {
                skipped.push(SkippedRow::new(line, "", Reason::BadRow(why)));
                continue;
            }
        };
        if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
            continue;
        }
        if cells.len() <= header.id.max(header.genre.unwrap_or_default()) {
            let why = format!("{} cells, fewer than the header names", cells.len());
            skipped.push(SkippedRow::new(line, "", Reason::BadRow(why)));
            continue;
        }
        let raw_id = text(cells[header.id]).into_owned();
        let id = match files.id(&raw_id, line) {
            Ok(id) => id,
            Err(reason) => {
                skipped.push(SkippedRow::new(line, &raw_id, reason));
                continue;
            }
        };
        if cells.iter().skip(width).any(|cell| !cell.trim_ascii().is_empty()) {
            let (rows, first) = longer.unwrap_or((0, line));
            longer = Some((rows + 1, first));
        }
        let url = header.poster.and_then(|column| cells.get(column)).map(|url| text(url).trim().to_owned());
        let poster_url = url.filter(|url| !url.is_empty());
        if let Err(reason) = take(Row { line, id: id.clone(), cells, poster_url }) {
            skipped.push(SkippedRow::new(line, id.as_str(), reason));
        }
    }
    (skipped, longer.map(|(rows, line)| Warning::MoreCells { rows, line }))
}

impl Header {
    /// The rows after the header.
    pub(super) fn records<'a>(&self, table: &'a [u8]) -> Records<'a> {
        let header = super::records::head(table).len();
        Records::new(table.get(header + 1..).unwrap_or_default(), self.separator, self.names.len())
    }
}

/// The ids that were file names. Posters are found by the name alone, so two files of one name cannot be told apart.
#[derive(Default)]
struct Files {
    seen: HashMap<FilmId, (String, u64)>,
}

impl Files {
    /// The id in the cell `raw` of line `line`.
    fn id(&mut self, raw: &str, line: u64) -> Result<FilmId, Reason> {
        let raw = raw.trim();
        let Some(id) = FilmId::of_file(raw) else {
            return FilmId::parse(raw).ok_or(Reason::BadId);
        };
        let (first, first_line) = self.seen.entry(id.clone()).or_insert_with(|| (raw.to_owned(), line));
        if first != raw {
            let why = format!("{raw} and {first} on line {first_line} have the same name, by which posters are found");
            return Err(Reason::BadRow(why));
        }
        Ok(id)
    }
}

/// Reads a table with a column `genre` of genres.
pub(super) fn read(
    path: &Path,
    table: &[u8],
    header: &Header,
    genre: usize,
    options: &Options,
) -> Result<Found, LabelError> {
    let mut films: Vec<(Film, String)> = Vec::new();
    let (mut skipped, longer) = each(table, header, |row| {
        let cell = text(row.cells[genre]).trim().to_owned();
        let film = Film { line: row.line, id: row.id, genres: Vec::new(), poster_url: row.poster_url };
        films.push((film, cell));
        Ok(())
    });
    let mut warnings = Vec::from_iter(longer);
    let separator = match &options.genre_separator {
        Some(separator) => separator.clone(),
        None => {
            let decision = separator_of(&films).map_err(|undecided| LabelError::Separator {
                path: path.to_owned(),
                column: header.names[genre].clone(),
                separator: undecided.separator,
                example: undecided.example,
                line: undecided.line,
            })?;
            let kept = |(genre, separator)| Warning::KeptTogether { genre, separator };
            warnings.extend(decision.kept.map(kept));
            decision.separator
        }
    };
    let mut rows = Vec::with_capacity(films.len());
    for (mut film, cell) in films {
        match genre_cell::read(&cell, &separator) {
            Ok(genres) => {
                film.genres = genres;
                rows.push(film);
            }
            Err(reason) => skipped.push(SkippedRow::new(film.line, film.id.as_str(), reason)),
        }
    }
    let dialect = Dialect::Column {
        columns: char::from(header.separator),
        id: header.names[header.id].clone(),
        genre: header.names[genre].clone(),
        separator,
    };
    Ok(Found { dialect, rows, skipped, warnings })
}

/// What separates genres in the cells that are no lists.
fn separator_of(films: &[(Film, String)]) -> Result<separator::Decision, separator::Undecided> {
    let plain = |(_, cell): &&(Film, String)| !genre_cell::is_nothing(cell) && !literal::is_list(cell);
    separator::decide(films.iter().filter(plain).map(|(film, cell)| (film.line, cell.as_str())))
}
