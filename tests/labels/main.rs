//! The many forms in which people keep ids and genres: each is read right, or refused by name, or warned of.

mod folders;
mod genres;
mod round_trip;
mod rows;
mod tables;

use std::path::Path;

use onesheet::data::films::Film;
use onesheet::data::labels::{LabelError, LabelTable, Options};

fn parse(table: impl AsRef<[u8]>) -> Result<LabelTable, LabelError> {
    Options::default().parse(Path::new("table.csv"), table.as_ref())
}

/// `id: genres` of every usable row.
fn films(table: &LabelTable) -> Vec<String> {
    let film = |film: &Film| format!("{}: {}", film.id.as_str().trim_start_matches("tt000000"), film.genres.join("|"));
    table.rows.iter().map(film).collect()
}

/// `line: kind of reason` of every other row.
fn skipped(table: &LabelTable) -> Vec<String> {
    table.skipped.iter().map(|row| format!("{}: {}", row.line, row.reason.kind())).collect()
}

/// The films of a table of which every row is usable and nothing is warned of.
fn clean(table: impl AsRef<[u8]>) -> Vec<String> {
    let table = parse(table).unwrap();
    assert_eq!((skipped(&table), &table.warnings), (vec![], &vec![]));
    films(&table)
}
