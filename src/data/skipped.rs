//! The rows that did not make it into the tensor file, and why: a table beside the file, `posters.skipped.csv`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::files::{self, Disk, SaveError};

/// Why a row of the label table has no place in the tensor file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The line is not a row of the table.
    BadRow(String),
    /// The id cell holds nothing that can be an id.
    BadId,
    /// The film has no genre.
    NoGenre,
    /// The genre cell cannot be read.
    BadGenres(String),
    /// An earlier row is the same film.
    Duplicate {
        /// The line that stands for the film.
        first_line: u64,
    },
    /// The folder has no poster of this film; the text says why, where that is known.
    NoPoster(String),
    /// The poster is there and cannot be used.
    BadPoster(String),
    /// The poster is the very same file as that of other films, so it is a "no image" picture and no poster.
    Placeholder {
        /// How many films share it.
        films: usize,
    },
}

impl Reason {
    /// The reason in a word or two: equal for equal kinds, so that it can be counted and filtered.
    pub fn kind(&self) -> &'static str {
        match self {
            Reason::BadRow(_) => "bad row",
            Reason::BadId => "bad id",
            Reason::NoGenre => "no genre",
            Reason::BadGenres(_) => "bad genres",
            Reason::Duplicate { .. } => "duplicate",
            Reason::NoPoster(_) => "no poster",
            Reason::BadPoster(_) => "bad poster",
            Reason::Placeholder { .. } => "placeholder",
        }
    }

    /// What else there is to say about this row; may be empty.
    pub fn detail(&self) -> String {
        match self {
            Reason::BadId => "an id is an IMDb number or 1 to 64 of A-Z a-z 0-9 _ -".to_owned(),
            Reason::NoGenre => String::new(),
            Reason::Duplicate { first_line } => format!("the same film as line {first_line}"),
            Reason::Placeholder { films } => format!("the same image as {} other films", films - 1),
            Reason::BadRow(why) | Reason::BadGenres(why) | Reason::NoPoster(why) | Reason::BadPoster(why) => {
                why.clone()
            }
        }
    }
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    /// The row's line in the label table; the header is line 1.
    pub line: u64,
    /// The film's id, or what the table has in its place.
    pub id: String,
    /// Why.
    pub reason: Reason,
}

impl SkippedRow {
    /// A skipped row; of an `id` that is none only the first 64 characters are kept.
    pub fn new(line: u64, id: &str, reason: Reason) -> SkippedRow {
        SkippedRow { line, id: id.chars().take(64).collect(), reason }
    }
}

/// How many rows were skipped for each kind of reason.
pub fn count_by_reason(rows: &[SkippedRow]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.reason.kind()).or_default() += 1;
    }
    counts
}

/// The head of the table.
pub(super) const COLUMNS: [&str; 4] = ["line", "id", "reason", "detail"];

/// Writes `rows` as a table `line,id,reason,detail` in the order of their lines.
///
/// The table holds text from outside and people open it in a spreadsheet, so no cell may begin like a formula.
///
/// # Errors
/// As [`files::replace`].
pub fn write(path: &Path, rows: &[SkippedRow]) -> Result<(), SaveError> {
    files::replace(&Disk, path, &table(rows))
}

fn table(rows: &[SkippedRow]) -> Vec<u8> {
    let mut rows: Vec<&SkippedRow> = rows.iter().collect();
    rows.sort_by_key(|row| row.line);
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut line = |cells: [&str; 4]| table.write_record(cells).expect("memory takes every record of four cells");
    line(COLUMNS);
    for row in rows {
        let cells = [&row.id, row.reason.kind(), &row.reason.detail()].map(plain_text);
        line([&row.line.to_string(), &cells[0], &cells[1], &cells[2]]);
    }
    table.into_inner().expect("memory can be flushed")
}

/// `cell` without control characters, and with an apostrophe where a spreadsheet would see a formula.
fn plain_text(cell: &str) -> String {
    let text: String = cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match text.trim_start().chars().next() {
        Some('=' | '+' | '-' | '@') => format!("'{text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_cell_never_begins_like_a_formula() {
        for (cell, written) in [
            ("=1+1", "'=1+1"),
            ("+3", "'+3"),
            ("-2", "'-2"),
            ("@x", "'@x"),
            (" =1", "' =1"),
            ("tt1=2", "tt1=2"),
            ("", ""),
        ] {
            assert_eq!(plain_text(cell), written);
        }
        assert_eq!(plain_text("\t=1"), "\u{fffd}=1", "a tab is no blank once it is replaced");
    }

    #[test]
    fn rows_come_out_in_the_tables_order_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("posters.skipped.csv");
        let rows = [
            SkippedRow::new(9, "=cmd|' /C calc'!A0", Reason::BadId),
            SkippedRow::new(4, "tt0000004", Reason::Placeholder { films: 3 }),
        ];
        write(&path, &rows).unwrap();
        let expected = "line,id,reason,detail\n4,tt0000004,placeholder,the same image as 2 other films\n\
            9,'=cmd|' /C calc'!A0,bad id,an id is an IMDb number or 1 to 64 of A-Z a-z 0-9 _ -\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(count_by_reason(&rows), BTreeMap::from([("bad id", 1), ("placeholder", 1)]));
    }
}
