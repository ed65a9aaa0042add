//! A film as the label table names it: its canonical id, and one row of the table.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::genres::each_once;
use super::posters::EXTENSIONS;
use super::skipped::{Reason, SkippedRow};

/// The longest id, in bytes. It becomes a file name, so it stays well below every file system's limit.
const LONGEST: usize = 64;

/// The one spelling of a film's id.
///
/// IMDb ids are `tt` and at least seven digits, whatever way the table or the file name wrote them: `114709.0` (a
/// spreadsheet was here), `114709`, `0114709` and `tt0114709` are all `tt0114709`. Any other id of letters, digits, `_` and
/// `-`, 64 at most, stands as it is. Nothing else is an id, so an id is always safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilmId(String);

impl FilmId {
    /// The canonical id `text` stands for; `None` when it can be no id.
    ///
    /// ```
    /// use onesheet::data::films::FilmId;
    /// assert_eq!(FilmId::parse("114709.0").unwrap().as_str(), "tt0114709");
    /// assert_eq!(FilmId::parse("../../etc/passwd"), None);
    /// ```
    pub fn parse(text: &str) -> Option<FilmId> {
        let text = text.trim();
        let id = match imdb_number(text) {
            Some(number) => format!("tt{number:0>7}"),
            None => text.to_owned(),
        };
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        ((1..=LONGEST).contains(&id.len()) && id.bytes().all(safe)).then_some(FilmId(id))
    }

    /// The id in the name of a poster's file, whatever path is before it; `None` where `text` is no such name.
    ///
    /// No id ends in `.jpg`, `.jpeg`, `.png` or `.webp`, so a file name is never taken for an id, nor an id for a file name.
    ///
    /// ```
    /// use onesheet::data::films::FilmId;
    /// assert_eq!(FilmId::of_file("posters/1013.jpg"), FilmId::parse("1013"));
    /// assert_eq!(FilmId::of_file("1013"), None);
    /// ```
    pub fn of_file(text: &str) -> Option<FilmId> {
        let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
        let (stem, extension) = name.rsplit_once('.')?;
        EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)).then(|| FilmId::parse(stem))?
    }

    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digits of an IMDb id without leading zeros: `tt0114709`, `0114709` and `114709.0` all give `114709`.
fn imdb_number(text: &str) -> Option<&str> {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let digits = match text.split_at_checked(2) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("tt") => rest,
        _ => match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
            _ => text,
        },
    };
    is_number(digits).then(|| digits.trim_start_matches('0'))
}

/// A usable row of a label table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Film {
    /// The row's line in the table; the header is line 1.
    pub line: u64,
    /// Which film it is.
    pub id: FilmId,
    /// Its genres, at least one, each once, in the table's order.
    pub genres: Vec<String>,
    /// Where its poster can be fetched, if the table says so.
    pub poster_url: Option<String>,
}

/// Makes every film one film: the first row of an id stays and takes over the genres that only later rows name.
///
/// A union, because a genre is a fact about the film and tables leave genres out more often than they invent them. The later
/// rows are returned as skipped, each naming the line that stands for it.
pub fn merge_duplicates(rows: Vec<Film>) -> (Vec<Film>, Vec<SkippedRow>) {
    let mut first: HashMap<FilmId, usize> = HashMap::new();
    let mut repeated: HashSet<usize> = HashSet::new();
    let mut films: Vec<Film> = Vec::with_capacity(rows.len());
    let mut skipped = Vec::new();
    for row in rows {
        let Some(&kept) = first.get(&row.id) else {
            first.insert(row.id.clone(), films.len());
            films.push(row);
            continue;
        };
        let film = &mut films[kept];
        skipped.push(SkippedRow::new(row.line, row.id.as_str(), Reason::Duplicate { first_line: film.line }));
        film.genres.extend(row.genres);
        film.poster_url = film.poster_url.take().or(row.poster_url);
        repeated.insert(kept);
    }
    // At the end and not row by row, which would take quadratic time for a film of many rows.
    for film in repeated {
        each_once(&mut films[film].genres);
    }
    (films, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_film_has_one_id_however_it_is_spelled() {
        for spelling in
            ["tt0114709", "TT0114709", "tt114709", "0114709", "114709", "114709.0", "114709.", " 114709.00 "]
        {
            assert_eq!(FilmId::parse(spelling).unwrap().as_str(), "tt0114709", "{spelling:?}");
        }
        assert_eq!(FilmId::parse("tt15398776").unwrap().as_str(), "tt15398776");
        assert_eq!(FilmId::parse("0").unwrap().as_str(), "tt0000000");
        assert_eq!(FilmId::parse("my-film_3").unwrap().as_str(), "my-film_3");
    }

    #[test]
    fn what_is_no_file_name_is_no_id() {
        let long = "9".repeat(LONGEST - 1);
        for text in
            ["", " ", "..", "a/b", "a\\b", "114709.5", "tt1.0", "1 2", "a\0b", "naïve", "=1+1", &long, &"a".repeat(65)]
        {
            assert_eq!(FilmId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_id_of_a_file_is_its_stem() {
        for name in ["1013.jpg", "a/b c/1013.JPEG", "..\\x\\tt1013.png", "/1013.0.webp", "./1013.jpg"] {
            assert_eq!(FilmId::of_file(name).unwrap().as_str(), "tt0001013", "{name:?}");
        }
        for name in ["1013", "1013.0", "1013.gif", "a.b.jpg", ".jpg", "a/.jpg", "1013.jpg/", "jpg", "é.jpg", ""] {
            assert_eq!(FilmId::of_file(name), None, "{name:?}");
        }
    }

    #[test]
    fn later_rows_of_a_film_give_it_their_genres_and_are_listed() {
        let row = |line, id, genres: &[&str]| Film {
            line,
            id: FilmId::parse(id).unwrap(),
            genres: genres.iter().map(|genre| genre.to_string()).collect(),
            poster_url: None,
        };
        let at = |address: &str, row: Film| Film { poster_url: Some(address.to_owned()), ..row };
        let (films, skipped) = merge_duplicates(vec![
            row(2, "7", &["Drama"]),
            at("first", row(3, "8", &["War"])),
            at("late", row(5, "tt7", &["Crime", "Drama"])),
            at("second", row(6, "8", &["War"])),
        ]);
        // The first address of a film counts, in whichever row it is.
        assert_eq!(films, [at("late", row(2, "7", &["Drama", "Crime"])), at("first", row(3, "8", &["War"]))]);
        let duplicate = |line, id, first_line| SkippedRow::new(line, id, Reason::Duplicate { first_line });
        assert_eq!(skipped, [duplicate(5, "tt0000007", 2), duplicate(6, "tt0000008", 3)]);
    }
}
