//! How many films have each genre, in each split: the table a data set is judged by.

use super::Split;

/// Films per class and split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// `classes[c][s]`: the films of class c in split s, splits in the order of [`Split::ALL`].
    pub classes: Vec<[usize; 3]>,
    /// `films[s]`: all films in split s.
    pub films: [usize; 3],
}

impl Counts {
    /// Counts films given as labels `[C]` and split.
    pub fn of<'a>(classes: usize, films: impl IntoIterator<Item = (&'a [u8], Split)>) -> Counts {
        let mut counts = Counts { classes: vec![[0; 3]; classes], films: [0; 3] };
        for (labels, split) in films {
            counts.films[split as usize] += 1;
            for (class, &label) in counts.classes.iter_mut().zip(labels) {
                class[split as usize] += usize::from(label);
            }
        }
        counts
    }

    /// All films.
    pub fn total(&self) -> usize {
        self.films.iter().sum()
    }
}
