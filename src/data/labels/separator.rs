//! What stands between two genres of a film: found from the whole column, or said by the user.
//!
//! A cell alone does not tell: `Action/Adventure` may be two genres or one. In the column it shows. What falls apart into names
//! that other cells have too was several genres; what never does is a name. A name may well hold a slash or a blank and hardly
//! ever a comma or a semicolon, so that the former take more to be believed. A bar is never part of a name.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::data::genres::spelling_key;

/// What may separate genres. The first that does, does.
const CANDIDATES: [char; 5] = ['|', ',', ';', '/', ' '];

/// The letters that separate genres in a cell; none where a cell is one genre.
///
/// From text: the letters, `/` or `,;` (a blank stands for any white space), or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenreSeparator(Vec<char>);

/// The text is no separator of genres.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` separates no genres; say a character that does, such as `/`, or several, `,;`, or `none`")]
pub struct NoSeparator(String);

impl FromStr for GenreSeparator {
    type Err = NoSeparator;

    fn from_str(text: &str) -> Result<GenreSeparator, NoSeparator> {
        if text == "none" {
            return Ok(GenreSeparator(Vec::new()));
        }
        if text.is_empty() || text.chars().any(|letter| letter.is_alphanumeric() || "'\"[](){}".contains(letter)) {
            return Err(NoSeparator(text.to_owned()));
        }
        Ok(GenreSeparator(text.chars().collect()))
    }
}

impl fmt::Display for GenreSeparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |letter: &char| if *letter == ' ' { "a blank".to_owned() } else { format!("`{letter}`") };
        f.write_str(&self.0.iter().map(name).collect::<Vec<_>>().join(" or "))
    }
}

impl GenreSeparator {
    pub(super) fn of(letter: char) -> GenreSeparator {
        GenreSeparator(vec![letter])
    }

    /// Whether a cell is one genre.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts of `cell`, some of them perhaps empty or with blanks around.
    pub(super) fn split<'a>(&'a self, cell: &'a str) -> impl Iterator<Item = &'a str> {
        cell.split(move |letter: char| self.0.contains(&letter) || letter.is_whitespace() && self.0.contains(&' '))
    }

    /// The names in `cell`: its parts, trimmed, without the empty ones.
    fn names<'a>(&'a self, cell: &'a str) -> impl Iterator<Item = &'a str> {
        self.split(cell).map(str::trim).filter(|name| !name.is_empty())
    }

    /// How it is typed in a shell.
    pub fn flag(&self) -> String {
        let letters: String = self.0.iter().collect();
        if letters.is_empty() { "none".to_owned() } else { shell_words::quote(&letters).into_owned() }
    }
}

/// What a column says about one candidate.
enum Verdict<'a> {
    /// No cell has it, or it says nothing there.
    Absent,
    /// It separates genres.
    Separates,
    /// It is part of names, of this one first.
    InNames(&'a str),
    /// It may do either, in this cell first.
    Unclear(&'a Cell<'a>),
}

/// A cell's text, the first line that has it, and how many do.
struct Cell<'a> {
    text: &'a str,
    line: u64,
    rows: usize,
}

/// What separates the genres of a column.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) separator: GenreSeparator,
    /// A genre with a candidate in its name that was taken for a part of it, and the candidate.
    pub(super) kept: Option<(String, GenreSeparator)>,
}

/// It cannot be decided.
#[derive(Debug, PartialEq)]
pub(super) struct Undecided {
    pub(super) separator: GenreSeparator,
    pub(super) example: String,
    pub(super) line: u64,
}

/// Finds what separates the genres in `cells`, the cells of a column that are no lists, with their lines.
pub(super) fn decide<'a>(cells: impl Iterator<Item = (u64, &'a str)>) -> Result<Decision, Undecided> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut column: Vec<Cell> = Vec::new();
    for (line, text) in cells {
        let place = *places.entry(text).or_insert(column.len());
        match column.get_mut(place) {
            Some(cell) => cell.rows += 1,
            None => column.push(Cell { text, line, rows: 1 }),
        }
    }
    let (mut kept, mut unclear) = (None, None);
    for letter in CANDIDATES {
        // A blank is the last resort: only where nothing else may separate.
        if letter == ' ' && unclear.is_some() {
            break;
        }
        let separator = GenreSeparator::of(letter);
        match judge(letter, &separator, &column) {
            Verdict::Absent => {}
            Verdict::Separates => return Ok(Decision { separator, kept }),
            Verdict::InNames(name) => kept = kept.or(Some((name.to_owned(), separator))),
            Verdict::Unclear(cell) => {
                unclear = unclear.or(Some(Undecided { separator, example: cell.text.to_owned(), line: cell.line }));
            }
        }
    }
    match unclear {
        Some(undecided) => Err(undecided),
        None => Ok(Decision { separator: GenreSeparator(Vec::new()), kept }),
    }
}

/// Whether `letter` separates genres in `column`.
fn judge<'a>(letter: char, separator: &GenreSeparator, column: &'a [Cell]) -> Verdict<'a> {
    if letter == '|' {
        return if column.iter().any(|cell| cell.text.contains('|')) { Verdict::Separates } else { Verdict::Absent };
    }
    let several = |cell: &&Cell| separator.names(cell.text).nth(1).is_some();
    let combinations: Vec<&Cell> = column.iter().filter(several).collect();
    if combinations.is_empty() {
        return Verdict::Absent;
    }
    let names = Names::of(separator, column);
    let believed = |cell: &&&Cell| {
        let mut keys = separator.names(cell.text).map(spelling_key);
        match letter {
            ',' | ';' => keys.any(|key| names.recurs(&key)),
            '/' => keys.all(|key| names.recurs(&key)),
            // `Romantic Comedy` beside `Romantic Drama` and `Comedy` is a name; `Comedy Drama` beside both, or beside
            // `Drama Comedy`, is not.
            _ => keys.all(|key| names.stands_alone(&key)),
        }
    };
    let count = combinations.iter().filter(believed).count();
    let doubtful = || combinations.iter().find(|cell| !believed(cell)).copied().unwrap_or(combinations[0]);
    match letter {
        ' ' if count == combinations.len() => Verdict::Separates,
        // Nothing speaks for it, and names of two words are common.
        ' ' if count == 0 => Verdict::Absent,
        ' ' => Verdict::Unclear(doubtful()),
        _ if count * 2 >= combinations.len() => Verdict::Separates,
        '/' if count == 0 && repeat_and_are_few(&combinations, column) => Verdict::InNames(combinations[0].text),
        _ => Verdict::Unclear(doubtful()),
    }
}

/// Whether most rows of the column are none of `combinations`, and each of these has two rows on average: so do names.
fn repeat_and_are_few(combinations: &[&Cell], column: &[Cell]) -> bool {
    let rows: usize = combinations.iter().map(|cell| cell.rows).sum();
    rows >= 2 * combinations.len() && rows * 2 < column.iter().map(|cell| cell.rows).sum()
}

/// The names that a column falls apart into.
#[derive(Default)]
struct Names {
    of: HashMap<String, Place>,
}

/// Where a name occurs.
#[derive(Default)]
struct Place {
    /// In how many cells of different text.
    cells: usize,
    /// The last of them, to count it once.
    last: usize,
    first_of_several: bool,
    last_of_several: bool,
    alone: bool,
}

impl Names {
    fn of(separator: &GenreSeparator, column: &[Cell]) -> Names {
        let mut names = Names::default();
        for (number, cell) in (1..).zip(column) {
            let keys: Vec<String> = separator.names(cell.text).map(spelling_key).collect();
            let several = keys.len() > 1;
            let end = keys.len();
            for (at, key) in (1..).zip(keys) {
                let place = names.of.entry(key).or_default();
                place.cells += usize::from(place.last != number);
                place.last = number;
                place.alone |= !several;
                place.first_of_several |= several && at == 1;
                place.last_of_several |= several && at == end;
            }
        }
        names
    }

    /// Whether the name occurs in two cells of different text.
    fn recurs(&self, key: &str) -> bool {
        self.of.get(key).is_some_and(|place| place.cells > 1)
    }

    /// Whether the name occurs alone, or both as the first and as the last of several.
    fn stands_alone(&self, key: &str) -> bool {
        self.of.get(key).is_some_and(|place| place.alone || place.first_of_several && place.last_of_several)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What separates the genres in `cells`: its letters, or `? ` and the cell that leaves it open.
    fn decided(cells: &[&str]) -> String {
        match decide((2..).zip(cells.iter().copied())) {
            Ok(decision) => decision.separator.0.iter().collect(),
            Err(undecided) => format!("? {}", undecided.example),
        }
    }

    #[test]
    fn a_separator_is_found_from_the_whole_column() {
        for (separator, cells) in [
            ("|", &["Comedy, Dark|War", "Drama"][..]),
            (",", &["Comedy, Drama", "Drama", "Sci-Fi/Fantasy"]),
            (",", &["Sci-Fi/Fantasy,Drama", "Drama,Sci-Fi", "Fantasy"]),
            (",", &["comedy, drama", "Drama", "Game Show, Comedy"]),
            (";", &["Comedy;Drama", "Film Noir;Comedy"]),
            ("/", &["Comedy / Drama", "Drama / Comedy", "Sci-Fi"]),
            (" ", &["Comedy Drama", "Drama Comedy"]),
            (" ", &["Comedy  Drama", "Drama", "Comedy", "Film-Noir"]),
            ("", &["Comedy", "Drama"]),
            ("", &["Kitchen Sink", "War", "Science Fiction", "Film-Noir"]),
            ("", &["Romantic Comedy", "Comedy", "Romantic Drama", "Drama"]),
            ("", &["Sci-Fi/Fantasy", "Sci-Fi/Fantasy", "Drama", "War", "Drama"]),
            ("", &[]),
        ] {
            assert_eq!(decided(cells), separator, "{cells:?}");
        }
    }

    #[test]
    fn what_could_be_either_is_left_to_the_user() {
        for (example, cells) in [
            ("Comedy, Drama", &["Comedy, Drama", "Comedy, Drama"][..]),
            ("Comedy; Drama", &["Comedy; Drama", "War"]),
            ("Sci-Fi/Fantasy", &["Sci-Fi/Fantasy", "War", "Drama"]),
            ("Sci-Fi/Fantasy", &["Sci-Fi/Fantasy", "Sci-Fi/Fantasy", "War/Drama", "War/Drama"]),
            ("Sci-Fi/Fantasy", &["Sci-Fi/Fantasy", "Fantasy", "Drama"]),
            ("Science Fiction", &["Science Fiction", "Comedy Drama", "Drama", "Comedy"]),
        ] {
            assert_eq!(decided(cells), format!("? {example}"));
        }
    }

    #[test]
    fn a_separator_can_be_typed() {
        let separator: GenreSeparator = ", ;".parse().unwrap();
        assert_eq!(separator.names("a\u{a0}b,c;;d").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(separator.to_string(), "`,` or a blank or `;`");
        assert_eq!(separator.flag(), "', ;'");
        let none: GenreSeparator = "none".parse().unwrap();
        assert_eq!(none.names(" a|b ").collect::<Vec<_>>(), ["a|b"]);
        for text in ["", "and", "[", "'"] {
            assert_eq!(text.parse::<GenreSeparator>(), Err(NoSeparator(text.to_owned())));
        }
    }
}
