//! All scores in one row, for what is done to each of them alike.

use super::{Averages, GenreScores, Scores};

/// What a score is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The genre with this number.
    Genre(usize),
    /// The mean over genres, weighed by their support.
    Weighted,
    /// The plain mean over genres.
    Macro,
    /// All decisions together.
    All,
}

/// A score by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub over: Over,
    /// `precision`, `recall`, `f1`, `average_precision` and `roc_auc` of a genre and of the means; `hamming_loss`, `exact_match`,
    /// `binary_accuracy` and `margin` of all, which is the weighted F1 minus that of the better baseline.
    pub name: &'static str,
    /// `None` where it does not exist, as for a ranking of nothing.
    pub value: Option<f64>,
}

impl Scores {
    /// Every score, genre by genre, then the weighted means, the plain ones, and what is of all decisions together.
    pub fn figures(&self) -> Vec<Figure> {
        let five = |over, values: [Option<f64>; 5]| {
            let names = ["precision", "recall", "f1", "average_precision", "roc_auc"];
            names.into_iter().zip(values).map(move |(name, value)| Figure { over, name, value })
        };
        let genre = |(number, genre): (usize, &GenreScores)| {
            let GenreScores { counts, average_precision, roc_auc } = *genre;
            let threshold = [counts.precision(), counts.recall(), counts.f1()].map(Some);
            let [precision, recall, f1] = threshold;
            five(Over::Genre(number), [precision, recall, f1, average_precision, roc_auc])
        };
        let mean = |over, averages: &Averages| {
            let Averages { precision, recall, f1, average_precision, roc_auc, .. } = *averages;
            five(over, [Some(precision), Some(recall), Some(f1), average_precision, roc_auc])
        };
        let of_all = [
            ("hamming_loss", self.hamming_loss),
            ("exact_match", self.exact_match),
            ("binary_accuracy", self.binary_accuracy()),
            ("margin", self.weighted.f1 - self.weighted.baseline_f1()),
        ];
        let genres = self.genres.iter().enumerate().flat_map(genre);
        let means = mean(Over::Weighted, &self.weighted).chain(mean(Over::Macro, &self.unweighted));
        let of_all = of_all.into_iter().map(|(name, value)| Figure { over: Over::All, name, value: Some(value) });
        genres.chain(means).chain(of_all).collect()
    }
}
