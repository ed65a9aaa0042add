//! Choosing the classes: a few genres by name, and "Other" for all the rest.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use super::films::Film;

/// The class of every genre that is not a class of its own; the last, where there are such genres.
pub const OTHER: &str = "Other";

/// The paper's genres, in the order of its tables.
pub const PAPER_GENRES: [&str; 6] = ["Action", "Comedy", "Drama", "Romance", "Crime", "Thriller"];

/// What spellings of one genre have in common: `Sci-Fi`, `sci fi`, `SCI_FI` and `SciFi` are all `scifi`.
pub(super) fn spelling_key(genre: &str) -> String {
    let matters = |letter: &char| !letter.is_whitespace() && *letter != '-' && *letter != '_';
    let key: String = genre.chars().filter(matters).flat_map(char::to_lowercase).collect();
    // Of "-" nothing would be left.
    if key.is_empty() { genre.to_owned() } else { key }
}

/// Leaves each genre once, where it came first.
pub(super) fn each_once(genres: &mut Vec<String>) {
    let mut seen = HashSet::with_capacity(genres.len());
    let is_first: Vec<bool> = genres.iter().map(|genre| seen.insert(genre.as_str())).collect();
    let mut is_first = is_first.into_iter();
    genres.retain(|_| is_first.next() == Some(true));
}

/// Whether the genre is [`OTHER`], however it is spelled.
fn is_other(genre: &str) -> bool {
    spelling_key(genre) == spelling_key(OTHER)
}

/// What becomes of genres that are no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are [`OTHER`], a class of its own.
    Other,
    /// They have no label; a film of nothing else is one without any.
    Unlabelled,
}

/// Which genres become classes.
///
/// From text: `top:6`, or names with commas between, `Action,Comedy,Drama`, in any spelling: `scifi` finds `Sci-Fi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenreChoice {
    /// The six most common ones; all of a table that has no more, and then there is no [`OTHER`].
    Usual,
    /// The most common ones; of equally common ones the first by name.
    Top(usize),
    /// These, in this order.
    Named(Vec<String>),
    /// All that at least so many films have.
    AtLeast(usize),
}

/// Why genres cannot be chosen so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenreError {
    /// The text is no choice.
    #[error("`{0}` chooses no genres; say `top:6`, or names with commas between: `Action,Comedy,Drama`")]
    NotAChoice(String),
    /// A genre is named twice.
    #[error("the genre `{0}` is named twice")]
    NamedTwice(String),
    /// There are not that many genres.
    #[error(
        "the table has {found} genres, not {wanted}; say `top:{}` or less, or leave --genres out to have all of them",
        found.saturating_sub(1).max(1)
    )]
    TooFew {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// No genre is that common.
    #[error("no genre has {wanted} films; the most common, {genre}, has {films}")]
    NoneCommon {
        /// How many films were asked for.
        wanted: usize,
        /// The most common genre.
        genre: String,
        /// How many films have it.
        films: usize,
    },
    /// A class would have no film to learn from.
    #[error("no film in the table is `{class}`; {hint}")]
    EmptyClass {
        /// The class.
        class: String,
        /// What to choose instead.
        hint: String,
    },
}

impl FromStr for GenreChoice {
    type Err = GenreError;

    fn from_str(text: &str) -> Result<GenreChoice, GenreError> {
        let not_a_choice = || GenreError::NotAChoice(text.to_owned());
        if let Some(number) = text.strip_prefix("top:") {
            return match number.parse() {
                Ok(number) if number > 0 => Ok(GenreChoice::Top(number)),
                _ => Err(not_a_choice()),
            };
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if name.is_empty() {
                return Err(not_a_choice());
            }
            if names.iter().any(|known| spelling_key(known) == spelling_key(name)) {
                return Err(GenreError::NamedTwice(name.to_owned()));
            }
            names.push(name.to_owned());
        }
        // "Other" is always there, and always last: naming it there changes nothing.
        if names.last().is_some_and(|name| is_other(name)) {
            names.pop();
        }
        if names.is_empty() || names.iter().any(|name| is_other(name)) {
            return Err(not_a_choice());
        }
        Ok(GenreChoice::Named(names))
    }
}

/// How many genres are classes where nobody chose.
const USUAL: usize = 6;

/// The classes of a data set, [`OTHER`] last if it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    names: Vec<String>,
    /// Their [`spelling_key`]s.
    keys: Vec<String>,
}

impl Classes {
    /// Chooses the classes by the genres of all `films`.
    ///
    /// Classes that the table chooses ([`GenreChoice::Top`], [`GenreChoice::AtLeast`]) come in a fixed order: first the
    /// paper's six in the paper's order, then the rest from common to rare. So the same set of genres gives the same outputs
    /// in the same places, whichever genre happens to lead in a table, and `top:6` of the paper's table is the paper's.
    ///
    /// # Errors
    /// [`GenreError`], for classes without a film.
    pub fn choose(choice: &GenreChoice, rest: Rest, films: &[Film]) -> Result<Classes, GenreError> {
        // By key, with the spelling met first: where a table was read, it has but one.
        let mut counts: HashMap<String, (&str, usize)> = HashMap::new();
        for genre in films.iter().flat_map(|film| &film.genres) {
            counts.entry(spelling_key(genre)).or_insert((genre, 0)).1 += 1;
        }
        let had_other = counts.remove(&spelling_key(OTHER)).is_some();
        let known: HashSet<String> = counts.keys().cloned().collect();
        let mut common: Vec<(&str, usize)> = counts.into_values().collect();
        common.sort_by_key(|&(name, films)| (std::cmp::Reverse(films), name));

        let mut names: Vec<String> = match *choice {
            GenreChoice::Usual if common.len() <= USUAL => {
                let mut names = in_fixed_order(&common);
                names.extend((had_other && rest == Rest::Other).then(|| OTHER.to_owned()));
                return Ok(Classes::new(names));
            }
            GenreChoice::Usual => in_fixed_order(&common[..USUAL]),
            GenreChoice::Named(ref names) => names.clone(),
            GenreChoice::Top(wanted) if wanted > common.len() => {
                return Err(GenreError::TooFew { wanted, found: common.len() });
            }
            GenreChoice::Top(wanted) => in_fixed_order(&common[..wanted]),
            GenreChoice::AtLeast(wanted) => match common.partition_point(|&(_, films)| films >= wanted) {
                0 => {
                    let (genre, films) = common.first().copied().unwrap_or((OTHER, 0));
                    return Err(GenreError::NoneCommon { wanted, genre: genre.to_owned(), films });
                }
                reached => in_fixed_order(&common[..reached]),
            },
        };
        if let Some(class) = names.iter().find(|name| !known.contains(&spelling_key(name))) {
            let known: Vec<&str> = common.iter().map(|&(name, _)| name).collect();
            return Err(GenreError::EmptyClass {
                class: class.clone(),
                hint: format!("its genres are {}", known.join(", ")),
            });
        }
        if rest == Rest::Unlabelled {
            return Ok(Classes::new(names));
        }
        if names.len() == common.len() && !had_other {
            let hint =
                format!("leave one of the {} genres out, so that it falls to Other, or say --no-other", common.len());
            return Err(GenreError::EmptyClass { class: OTHER.to_owned(), hint });
        }
        names.push(OTHER.to_owned());
        Ok(Classes::new(names))
    }

    fn new(names: Vec<String>) -> Classes {
        let keys = names.iter().map(|name| spelling_key(name)).collect();
        Classes { names, keys }
    }

    /// The names, [`OTHER`] last if it is one.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The labels `[C]` of a film: 1 for each of its genres, and 1 for [`OTHER`], if that is a class, where any of them is none.
    pub fn multi_hot(&self, genres: &[String]) -> Vec<u8> {
        let mut labels = vec![0; self.names.len()];
        let other = self.keys.iter().position(|key| *key == spelling_key(OTHER));
        for genre in genres {
            let genre = spelling_key(genre);
            if let Some(class) = self.keys.iter().position(|key| *key == genre).or(other) {
                labels[class] = 1;
            }
        }
        labels
    }
}

/// The paper's genres first and as the paper has them, then the others as they come.
fn in_fixed_order(common: &[(&str, usize)]) -> Vec<String> {
    let mut names: Vec<String> = common.iter().map(|&(name, _)| name.to_owned()).collect();
    names.sort_by_key(|name| {
        PAPER_GENRES.iter().position(|paper| spelling_key(paper) == spelling_key(name)).unwrap_or(PAPER_GENRES.len())
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::films::FilmId;

    /// Films with these genres, `Drama Crime` being one film with two.
    fn films(genres: &[&str]) -> Vec<Film> {
        let film = |(line, genres): (u64, &&str)| Film {
            line,
            id: FilmId::parse(&line.to_string()).unwrap(),
            genres: genres.split(' ').map(str::to_owned).collect(),
            poster_url: None,
        };
        (2..).zip(genres).map(film).collect()
    }

    fn names(choice: &str, films: &[Film]) -> Result<String, GenreError> {
        Classes::choose(&choice.parse()?, Rest::Other, films).map(|classes| classes.names().join(" "))
    }

    #[test]
    fn top_takes_the_common_and_keeps_the_papers_order() {
        let films =
            films(&["Thriller War", "Thriller War Action", "Thriller War Action", "Horror", "Action", "Drama", "War"]);
        // War 4, Action 3, Thriller 3, Drama 1, Horror 1
        assert_eq!(names("top:1", &films).unwrap(), "War Other");
        assert_eq!(names("top:3", &films).unwrap(), "Action Thriller War Other");
        assert_eq!(names("top:4", &films).unwrap(), "Action Drama Thriller War Other");
        assert_eq!(names("War,Action", &films).unwrap(), "War Action Other");
        assert_eq!(names("War, Action, Other", &films).unwrap(), "War Action Other");
        assert_eq!(
            Classes::choose(&GenreChoice::AtLeast(3), Rest::Other, &films).unwrap().names().join(" "),
            "Action Thriller War Other"
        );
    }

    #[test]
    fn a_class_without_a_film_is_refused_by_name() {
        let films = films(&["Drama War", "War"]);
        let message = |choice| names(choice, &films).unwrap_err().to_string();
        assert_eq!(message("War,Western"), "no film in the table is `Western`; its genres are War, Drama");
        assert!(message("War,Drama").starts_with("no film in the table is `Other`"));
        assert!(message("top:2").starts_with("no film in the table is `Other`"));
        assert_eq!(
            message("top:3"),
            "the table has 2 genres, not 3; say `top:1` or less, or leave --genres out to have all of them"
        );
        let rare = Classes::choose(&GenreChoice::AtLeast(3), Rest::Other, &films).unwrap_err();
        assert_eq!(rare.to_string(), "no genre has 3 films; the most common, War, has 2");
    }

    #[test]
    fn a_table_of_few_genres_has_them_all_and_no_other() {
        let usual =
            |films: &[Film]| Classes::choose(&GenreChoice::Usual, Rest::Other, films).unwrap().names().join(" ");
        assert_eq!(usual(&films(&["War Drama", "War", "Action"])), "Action Drama War");
        assert_eq!(usual(&films(&["A B C D", "E F"])), "A B C D E F");
        assert_eq!(usual(&films(&["War", "other Drama"])), "Drama War Other");
        assert_eq!(usual(&films(&["A B C D", "E F A", "G B C D E F"])), "A B C D E F Other");
        let classes = Classes::choose(&GenreChoice::Usual, Rest::Other, &films(&["War Drama", "Drama"])).unwrap();
        assert_eq!(classes.multi_hot(&["War".to_owned()]), [0, 1]);
    }

    #[test]
    fn without_other_a_genre_that_is_no_class_has_no_label() {
        let films = films(&["Drama War", "War other", "Crime", "Drama"]);
        let chosen = |choice: &GenreChoice| Classes::choose(choice, Rest::Unlabelled, &films).unwrap();
        let two = chosen(&"Drama,War".parse().unwrap());
        assert_eq!(two.names(), ["Drama", "War"]);
        let labels: Vec<_> = films.iter().map(|film| two.multi_hot(&film.genres)).collect();
        assert_eq!(labels, [[1, 1], [0, 1], [0, 0], [1, 0]]);
        // All there are, which with Other would leave nothing to it; and one alone.
        assert_eq!(chosen(&GenreChoice::Top(3)).names(), ["Drama", "Crime", "War"]);
        assert_eq!(chosen(&GenreChoice::Usual).names(), ["Drama", "Crime", "War"]);
        assert_eq!(chosen(&GenreChoice::Top(1)).names(), ["Drama"]);
        let error = Classes::choose(&"Western".parse().unwrap(), Rest::Unlabelled, &films).unwrap_err();
        assert!(matches!(error, GenreError::EmptyClass { .. }), "{error}");
    }

    #[test]
    fn classes_are_found_in_any_spelling() {
        let films = films(&["sci-fi drama", "drama other"]);
        assert_eq!(names("Drama,SciFi", &films).unwrap(), "Drama SciFi Other");
        let classes = Classes::choose(&"Drama".parse().unwrap(), Rest::Other, &films).unwrap();
        assert_eq!(classes.multi_hot(&films[0].genres), [1, 1]);
        assert_eq!(classes.multi_hot(&["Dram".to_owned()]), [0, 1], "a part of a name is another name");
        assert_eq!("scifi,Sci-Fi".parse::<GenreChoice>(), Err(GenreError::NamedTwice("Sci-Fi".to_owned())));
        assert_eq!("Drama,other".parse(), Ok(GenreChoice::Named(vec!["Drama".to_owned()])));
    }

    #[test]
    fn spellings_of_one_genre_have_one_key() {
        for genre in ["Sci-Fi", "sci fi", "SCI_FI", "SciFi"] {
            assert_eq!(spelling_key(genre), "scifi");
        }
        assert_eq!(spelling_key("-"), "-");
    }

    #[test]
    fn nonsense_is_no_choice() {
        for text in ["", "top:", "top:0", "top:-1", "top:x", "A,,B", "Other", "Other,Drama"] {
            assert_eq!(text.parse::<GenreChoice>(), Err(GenreError::NotAChoice(text.to_owned())));
        }
        assert_eq!("War,War".parse::<GenreChoice>(), Err(GenreError::NamedTwice("War".to_owned())));
    }

    #[test]
    fn any_genre_outside_the_classes_sets_other() {
        let films = films(&["Drama War", "Drama Crime", "Other"]);
        let classes = Classes::choose(&"Crime,Drama".parse().unwrap(), Rest::Other, &films).unwrap();
        let labels: Vec<_> = films.iter().map(|film| classes.multi_hot(&film.genres)).collect();
        assert_eq!(labels, [[0, 1, 1], [1, 1, 0], [0, 0, 1]]);
    }
}
