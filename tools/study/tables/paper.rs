//! The paper's own figures, as far as they are public: its Table 1, and the decisions of one of its networks (`docs/paper.md` says from where).

use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::metrics::{ConfusionCounts, GenreScores, Scores};
use std::sync::LazyLock;

/// Table 1, in the order of [`synthetic::GENRES`].
pub const COUNTS: [u32; 7] = [5293, 12518, 19788, 6168, 5234, 4787, 21840];

/// The rows of its label table.
pub const POSTERS: u32 = 39_140;

/// What the published network is called in the tables, and after how many epochs it was asked.
pub const PUBLISHED: (&str, u64) = ("the paper's ResNet-Img on its own test rows", 10);

/// Its decisions on the last 3,914 rows: not named rightly and wrongly named, not named wrongly and rightly named, genre by genre.
const DECISIONS: [[u64; 4]; 7] = [
    [2623, 822, 249, 220],
    [2095, 714, 601, 504],
    [789, 1305, 474, 1346],
    [3064, 405, 334, 111],
    [3059, 483, 277, 95],
    [2921, 558, 289, 146],
    [331, 1406, 268, 1909],
];

/// Whether these posters have the paper's genres.
pub fn has_its_genres(file: &TensorFile) -> bool {
    file.genres() == synthetic::GENRES
}

/// Its scores. How it ranks posters, and how often all of a poster's genres are right, is not known.
pub fn published() -> &'static Scores {
    static SCORES: LazyLock<Scores> = LazyLock::new(|| {
        let genre = |[true_negatives, false_positives, false_negatives, true_positives]: [u64; 4]| GenreScores {
            counts: ConfusionCounts { true_negatives, false_positives, false_negatives, true_positives },
            average_precision: None,
            roc_auc: None,
        };
        Scores::from_genres(DECISIONS.map(genre).to_vec(), 0)
    });
    &SCORES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_network_scores_what_its_notebook_printed() {
        let scores = published();
        assert_eq!(scores.posters, 3914);
        assert!((scores.weighted.f1 - 0.51503).abs() <= 5e-6, "{}", scores.weighted.f1);
        // The test rows of Table 1.
        let supports = scores.genres.iter().map(|genre| genre.counts.support());
        assert_eq!(supports.collect::<Vec<_>>(), [469, 1105, 1820, 445, 372, 435, 2177]);
    }
}
