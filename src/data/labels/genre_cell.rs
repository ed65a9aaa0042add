//! The genres in one cell.

use super::literal;
use super::separator::GenreSeparator;
use crate::data::genres::each_once;
use crate::data::skipped::Reason;

/// The longest name of a genre, in characters.
const LONGEST_GENRE: usize = 40;

/// What tables write where they know no genre: IMDb, MovieLens, Python, SQL.
const NOTHING: [&str; 8] = ["", "N/A", "nan", "None", "\\N", "null", "(no genres listed)", "set()"];

/// Whether `name` is one of the ways of saying "no genre".
pub(super) fn is_nothing(name: &str) -> bool {
    NOTHING.iter().any(|nothing| name.eq_ignore_ascii_case(nothing))
}

/// The genres in a cell, which is a list or has separators between: each once, "N/A" and its like left out.
pub(super) fn read(cell: &str, separator: &GenreSeparator) -> Result<Vec<String>, Reason> {
    let cell = cell.trim();
    if is_nothing(cell) {
        return Err(Reason::NoGenre);
    }
    if literal::is_list(cell) {
        let names = literal::parse(cell).map_err(Reason::BadGenres)?;
        return checked(names.iter().map(String::as_str));
    }
    checked(separator.split(cell))
}

/// Those of `names` that say something, each once.
pub(super) fn checked<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Reason> {
    let mut genres = Vec::new();
    for name in names.map(str::trim).filter(|name| !is_nothing(name)) {
        if name.chars().count() > LONGEST_GENRE || name.chars().any(char::is_control) {
            return Err(Reason::BadGenres(format!("a genre is up to {LONGEST_GENRE} printable characters")));
        }
        genres.push(name.to_owned());
    }
    each_once(&mut genres);
    if genres.is_empty() { Err(Reason::NoGenre) } else { Ok(genres) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genres_are_trimmed_and_come_once() {
        let read = |cell: &str| read(cell, &GenreSeparator::of('|'));
        assert_eq!(read(" Drama|Crime | Drama|N/A|"), Ok(vec!["Drama".to_owned(), "Crime".to_owned()]));
        for nothing in
            ["", "[]", "['N/A']", "nan", "||", "['']", "\\N", "N/A", "(no genres listed)", "()", "{}", "set()"]
        {
            assert_eq!(read(nothing), Err(Reason::NoGenre), "{nothing:?}");
        }
        for bad in ["Dra\0ma", "(Drama)", &"x".repeat(41)] {
            assert!(matches!(read(bad), Err(Reason::BadGenres(_))), "{bad:?}");
        }
    }
}
