//! Tables that have a column for each genre, with 1 where a film is of it and 0 where not.

use std::path::Path;

use super::encoding::text;
use super::error::LabelError;
use super::genre_cell;
use super::header::{Header, not_understood};
use super::rows;
use super::{Dialect, Found};
use crate::data::films::Film;
use crate::data::skipped::Reason;

/// What a cell says; `Err` where it is neither 0 nor 1.
fn value(cell: &[u8]) -> Result<Option<bool>, ()> {
    let cell = cell.trim_ascii();
    let is_one_of = |words: [&str; 3]| words.iter().any(|word| cell.eq_ignore_ascii_case(word.as_bytes()));
    match cell {
        b"" => Ok(None),
        _ if is_one_of(["1", "1.0", "true"]) => Ok(Some(true)),
        _ if is_one_of(["0", "0.0", "false"]) => Ok(Some(false)),
        _ => Err(()),
    }
}

/// Reads a table without a column of genres: the columns that hold nothing but 0 and 1 (or true and false) are genres.
pub(super) fn read(path: &Path, table: &[u8], header: &Header) -> Result<Found, LabelError> {
    let genres = genres(table, header);
    if genres.len() < 2 {
        return Err(not_understood(path, table));
    }
    let names = |columns: &[usize]| columns.iter().map(|&column| header.names[column].clone()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    let width = header.names.len();
    let (skipped, _) = rows::each(table, header, |row| {
        if !is_whole(&row.cells, width) {
            let why = format!("{} cells, where the header names {width}", row.cells.len());
            return Err(Reason::BadRow(why));
        }
        let set = genres.iter().filter(|&&column| value(row.cells[column]) == Ok(Some(true)));
        let genres = genre_cell::checked(set.map(|&column| header.names[column].as_str()))?;
        rows.push(Film { line: row.line, id: row.id, genres, poster_url: row.poster_url });
        Ok(())
    });
    let others: Vec<usize> = (0..width).filter(|column| *column != header.id && !genres.contains(column)).collect();
    let dialect =
        Dialect::OneHot { id: header.names[header.id].clone(), genres: names(&genres), others: names(&others) };
    Ok(Found { dialect, rows, skipped, warnings: Vec::new() })
}

/// The columns with a name that hold nothing but 0 and 1 in all whole rows.
fn genres(table: &[u8], header: &Header) -> Vec<usize> {
    let width = header.names.len();
    let named = |column: usize| !header.names[column].is_empty();
    let mut could_be: Vec<bool> =
        (0..width).map(|column| column != header.id && Some(column) != header.poster && named(column)).collect();
    let mut says_something = vec![false; width];
    let mut records = header.records(table);
    while let Some((_, cells)) = records.next() {
        let Some(cells) = cells.ok().filter(|cells| is_whole(cells, width)) else { continue };
        for column in 0..width {
            match value(cells[column]) {
                Ok(said) => says_something[column] |= said.is_some(),
                Err(()) => could_be[column] = false,
            }
        }
    }
    (0..width).filter(|&column| could_be[column] && says_something[column]).collect()
}

/// Whether a row has a cell for each column, and else only empty ones. In others every 1 may stand in the wrong column.
fn is_whole(cells: &[&[u8]], width: usize) -> bool {
    cells.len() >= width && cells[width..].iter().all(|cell| text(cell).trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_and_zeros() {
        for (cell, said) in [(" 1 ", Some(true)), ("1.0", Some(true)), ("True", Some(true)), ("0.0", Some(false))] {
            assert_eq!(value(cell.as_bytes()), Ok(said));
        }
        assert_eq!(value(b" "), Ok(None));
        for cell in ["2", "10", "yes", "0.5", "-1"] {
            assert_eq!(value(cell.as_bytes()), Err(()), "{cell}");
        }
    }
}
