//! Scoring the same answers on many resamples of the posters.

use super::ranking::Ranking;
use super::{ConfusionCounts, GenreScores, Scores};

/// A model's answers, decided and ranked once. A resample is then no copy of them, but how often each poster counts.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// `[N, C]`: whether a genre is named, and whether it is true.
    decisions: Vec<(bool, bool)>,
    /// One a genre.
    rankings: Vec<Ranking>,
}

impl Scorer {
    /// Of `probabilities [N, C]` and `targets [N, C]` (0 or 1), naming a genre where `p >= threshold[c]`.
    ///
    /// # Panics
    /// If the lengths disagree: `thresholds [C]` sets the number of genres.
    pub fn new(probabilities: &[f32], targets: &[u8], thresholds: &[f32]) -> Self {
        let classes = thresholds.len();
        assert_eq!(probabilities.len(), targets.len(), "a probability for each target");
        assert_eq!(probabilities.len() % classes, 0, "whole rows of {classes} genres");
        let answers = || probabilities.iter().zip(targets).map(|(&probability, &target)| (probability, target != 0));
        let decided = |((probability, target), &threshold)| (probability >= threshold, target);
        Scorer {
            decisions: answers().zip(thresholds.iter().cycle()).map(decided).collect(),
            rankings: (0..classes).map(|c| Ranking::new(answers().skip(c).step_by(classes))).collect(),
        }
    }

    /// N.
    pub fn posters(&self) -> usize {
        self.decisions.len() / self.rankings.len()
    }

    /// The scores where poster i counts `times[i]` times, `times [N]`.
    ///
    /// # Panics
    /// If there are not N.
    pub fn scores(&self, times: &[u32]) -> Scores {
        let classes = self.rankings.len();
        assert_eq!(times.len(), self.posters(), "how often each poster counts");
        let mut counts = vec![ConfusionCounts::default(); classes];
        let mut exact = 0;
        for (row, &times) in self.decisions.chunks_exact(classes).zip(times) {
            for (counts, &(named, target)) in counts.iter_mut().zip(row) {
                counts.record(named, target, times.into());
            }
            exact += u64::from(times) * u64::from(row.iter().all(|(named, target)| named == target));
        }
        let genre = |(counts, ranking): (ConfusionCounts, &Ranking)| GenreScores {
            counts,
            average_precision: ranking.average_precision(times),
            roc_auc: ranking.roc_auc(times),
        };
        Scores::from_genres(counts.into_iter().zip(&self.rankings).map(genre).collect(), exact)
    }

    /// How often each two genres come together.
    pub fn co_occurrence(&self) -> CoOccurrence {
        let classes = self.rankings.len();
        let mut table =
            CoOccurrence { classes, is_true: vec![0; classes * classes], named: vec![0; classes * classes] };
        for row in self.decisions.chunks_exact(classes) {
            for (a, first) in row.iter().enumerate() {
                for (b, second) in row.iter().enumerate() {
                    table.is_true[a * classes + b] += u64::from(first.1 && second.1);
                    table.named[a * classes + b] += u64::from(first.0 && second.0);
                }
            }
        }
        table
    }
}

/// How many posters have both of two genres, in truth and as named. A model that learned which genres go together names two
/// together about as often as they are; the diagonal holds each genre by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoOccurrence {
    classes: usize,
    is_true: Vec<u64>,
    named: Vec<u64>,
}

impl CoOccurrence {
    /// The posters that are of both genres, `[C]` for each of the other genres in the model's order.
    pub fn true_with(&self, genre: usize) -> &[u64] {
        &self.is_true[genre * self.classes..][..self.classes]
    }

    /// The posters for which both genres are named, `[C]`.
    pub fn named_with(&self, genre: usize) -> &[u64] {
        &self.named[genre * self.classes..][..self.classes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three posters of three genres, named at 0.5: {0, 1} as {0}, {1} as {1, 2}, {0, 1, 2} as {0, 1}.
    #[test]
    fn genres_that_come_together_are_counted() {
        let probabilities = [0.9, 0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 0.6, 0.3];
        let table = Scorer::new(&probabilities, &[1, 1, 0, 0, 1, 0, 1, 1, 1], &[0.5; 3]).co_occurrence();
        assert_eq!([0, 1, 2].map(|genre| table.true_with(genre).to_vec()), [[2, 2, 1], [2, 3, 1], [1, 1, 1]]);
        assert_eq!([0, 1, 2].map(|genre| table.named_with(genre).to_vec()), [[2, 1, 0], [1, 2, 1], [0, 1, 1]]);
    }
}
