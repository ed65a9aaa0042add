//! Who trains, who validates, who is the exam: two rules.

use super::Split;
use super::films::{Film, FilmId};

/// How films are dealt to the three splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitRule {
    /// By a hash of the film's id: 10 % test, and 10 % of the rest validation.
    ///
    /// A film's side depends on its id alone, so it is the same in every table and never changes when the data grow.
    ById,
    /// As the paper did: the last tenth of the table's rows is test; of the rest a tenth, drawn by `seed`, is validation.
    ///
    /// Rows are dealt, not films: a film that the table repeats can be on both sides.
    Paper {
        /// Draws the validation rows. (The paper's own draw had no seed.)
        seed: u64,
    },
}

impl SplitRule {
    /// The split of each of `films`, which are in the table's order.
    pub fn assign(self, films: &[Film]) -> Vec<Split> {
        match self {
            SplitRule::ById => films.iter().map(|film| by_id(&film.id)).collect(),
            SplitRule::Paper { seed } => paper(films.len(), seed),
        }
    }

    /// The rule as the tensor file's provenance records it.
    pub fn describe(self) -> String {
        match self {
            SplitRule::ById => "hash of the id".to_owned(),
            SplitRule::Paper { seed } => format!("paper, seed {seed}"),
        }
    }
}

fn by_id(id: &FilmId) -> Split {
    // The prefix keeps this hash apart from any other hash of an id.
    let hash = blake3::hash(format!("onesheet split {id}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    let share = f64::from(u32::from_le_bytes([a, b, c, d])) / (1u64 << 32) as f64;
    match share {
        _ if share < 0.10 => Split::Test,
        _ if share < 0.19 => Split::Validation,
        _ => Split::Train,
    }
}

fn paper(rows: usize, seed: u64) -> Vec<Split> {
    let test = rows / 10;
    let rest = rows - test;
    let mut splits = vec![Split::Train; rest];
    // A tenth of the rows, every set of them equally likely: those whose (seed, row) hashes lowest.
    let lot = |row: usize| *blake3::hash(format!("onesheet validation {seed} {row}").as_bytes()).as_bytes();
    let mut drawn: Vec<usize> = (0..rest).collect();
    drawn.sort_by_cached_key(|&row| lot(row));
    for &row in &drawn[..rest / 10] {
        splits[row] = Split::Validation;
    }
    splits.resize(rows, Split::Test);
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn films(numbers: impl Iterator<Item = u64>) -> Vec<Film> {
        let film = |number: u64| Film {
            line: number + 2,
            id: FilmId::parse(&number.to_string()).unwrap(),
            genres: vec!["Drama".to_owned()],
            poster_url: None,
        };
        numbers.map(film).collect()
    }

    fn sizes(splits: &[Split]) -> [usize; 3] {
        Split::ALL.map(|split| splits.iter().filter(|&&s| s == split).count())
    }

    #[test]
    fn the_papers_sizes() {
        let splits = SplitRule::Paper { seed: 1 }.assign(&films(0..39_140));
        assert_eq!(sizes(&splits), [31_704, 3_522, 3_914]);
        assert!(splits[35_226..].iter().all(|&split| split == Split::Test));
        assert_eq!(splits, SplitRule::Paper { seed: 1 }.assign(&films(0..39_140)));
        assert_ne!(splits, SplitRule::Paper { seed: 2 }.assign(&films(0..39_140)));
        assert_eq!(sizes(&SplitRule::Paper { seed: 1 }.assign(&films(0..1))), [1, 0, 0]);
    }

    #[test]
    fn validation_rows_come_from_everywhere() {
        let splits = SplitRule::Paper { seed: 7 }.assign(&films(0..10_000));
        for part in splits[..9_000].chunks(1_000) {
            let drawn = part.iter().filter(|&&split| split == Split::Validation).count();
            assert!((60..=140).contains(&drawn), "{drawn} of 1000, where 100 are expected (standard deviation 9.5)");
        }
    }

    #[test]
    fn a_film_never_changes_side() {
        let some = films((0..20_000).step_by(3));
        let all = films(0..20_000);
        let splits = SplitRule::ById.assign(&all);
        let of_some: Vec<Split> = splits.iter().copied().step_by(3).collect();
        assert_eq!(SplitRule::ById.assign(&some), of_some);

        let [train, validation, test] = sizes(&splits);
        assert!((15_950..=16_450).contains(&train), "{train} of 20000, where 16200 are expected");
        assert!((1_650..=1_950).contains(&validation), "{validation} of 20000, where 1800 are expected");
        assert!((1_850..=2_150).contains(&test), "{test} of 20000, where 2000 are expected");
    }

    #[test]
    fn the_hash_is_for_ever() {
        // A change here would move films between the splits of everybody's data.
        let of = |id: &str| by_id(&FilmId::parse(id).unwrap());
        assert_eq!(of("tt0000000"), Split::Train);
        assert_eq!(of("tt0000007"), Split::Validation);
        assert_eq!(of("tt0000011"), Split::Test);
    }
}
