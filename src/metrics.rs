//! Scores of a multi-label classifier, each beside what a rule that never looks at a poster would get.
//!
//! A weighted F1 alone says little here: answering *yes* to every genre scores 0.519 on the test rows of the paper, whose
//! best network scores 0.52. So every F1 comes with two baselines, the fair coin and always-yes, and with measures that no
//! constant answer can win: average precision and the area under the ROC curve.
//!
//! Where a denominator is zero the ratio is 0, scikit-learn's default (`zero_division` without the warning): a genre never
//! predicted has precision 0, a genre absent from the targets has recall and F1 0. It still counts in the macro averages
//! and weighs nothing in the weighted ones. Average precision and ROC-AUC judge a ranking, and where there is nothing to
//! rank they do not exist: such a genre is left out of their means.

pub mod bootstrap;
pub mod calibration;
mod figures;
mod ranking;
mod scorer;
mod thresholds;

pub use figures::{Figure, Over};
pub use ranking::{average_precision, precision_recall, roc_auc};
pub use scorer::{CoOccurrence, Scorer};
pub use thresholds::best_thresholds;

use serde::{Deserialize, Serialize};

/// `numerator / denominator`, or 0 where the denominator is 0.
fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator == 0.0 { 0.0 } else { numerator / denominator }
}

/// How one genre's decisions fell out, from which every threshold score follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCounts {
    /// Rightly not named.
    pub true_negatives: u64,
    /// Named, though the film is of another genre.
    pub false_positives: u64,
    /// Missed.
    pub false_negatives: u64,
    /// Rightly named.
    pub true_positives: u64,
}

impl ConfusionCounts {
    /// Counts a decision so many times.
    fn record(&mut self, named: bool, target: bool, times: u64) {
        let count = match (named, target) {
            (false, false) => &mut self.true_negatives,
            (true, false) => &mut self.false_positives,
            (false, true) => &mut self.false_negatives,
            (true, true) => &mut self.true_positives,
        };
        *count += times;
    }

    /// Posters counted.
    pub fn posters(&self) -> u64 {
        self.true_negatives + self.false_positives + self.false_negatives + self.true_positives
    }

    /// Posters that are of this genre.
    pub fn support(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// Share of the decisions that were right.
    pub fn accuracy(&self) -> f64 {
        ratio((self.true_negatives + self.true_positives) as f64, self.posters() as f64)
    }

    /// Decisions that were wrong.
    pub fn errors(&self) -> u64 {
        self.false_positives + self.false_negatives
    }

    /// TP / (TP + FP): how often the genre is right when named.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives as f64, (self.true_positives + self.false_positives) as f64)
    }

    /// TP / (TP + FN): how often the genre is named when right.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives as f64, self.support() as f64)
    }

    /// 2·TP / (2·TP + FP + FN), the harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let twice = 2 * self.true_positives;
        ratio(twice as f64, (twice + self.errors()) as f64)
    }

    /// p, the share of posters that are of this genre.
    pub fn share(&self) -> f64 {
        ratio(self.support() as f64, self.posters() as f64)
    }

    /// What a fair coin scores: precision p and recall ½, so F1 = p / (p + ½).
    pub fn coin_f1(&self) -> f64 {
        self.share() / (self.share() + 0.5)
    }

    /// What always naming the genre scores: precision p and recall 1, so F1 = 2p / (1 + p).
    pub fn always_yes_f1(&self) -> f64 {
        2.0 * self.share() / (1.0 + self.share())
    }
}

/// One genre's row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenreScores {
    /// The decisions at the threshold.
    pub counts: ConfusionCounts,
    /// Area under the precision–recall steps; `None` where no poster is of this genre.
    pub average_precision: Option<f64>,
    /// Area under the ROC curve; `None` where every poster, or none, is of this genre.
    pub roc_auc: Option<f64>,
}

/// The genres' scores in one number each: a mean over genres.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// Mean precision.
    pub precision: f64,
    /// Mean recall.
    pub recall: f64,
    /// Mean F1.
    pub f1: f64,
    /// Mean average precision over the genres that have one; `None` where none has.
    pub average_precision: Option<f64>,
    /// Mean area under the ROC curve over the genres that have one; `None` where none has.
    pub roc_auc: Option<f64>,
    /// The fair coin's mean F1.
    pub coin_f1: f64,
    /// Always-yes's mean F1.
    pub always_yes_f1: f64,
}

impl Averages {
    /// The mean of `genres` weighed by `weight`.
    fn new(genres: &[GenreScores], weight: impl Fn(&GenreScores) -> f64) -> Self {
        let mean_of_those_with = |score: &dyn Fn(&GenreScores) -> Option<f64>| {
            let scored = || genres.iter().filter_map(|genre| Some((weight(genre), score(genre)?)));
            let weights: f64 = scored().map(|(weight, _)| weight).sum();
            (weights > 0.0).then(|| scored().map(|(weight, score)| weight * score).sum::<f64>() / weights)
        };
        let mean = |score: fn(&ConfusionCounts) -> f64| {
            mean_of_those_with(&|genre| Some(score(&genre.counts))).unwrap_or_default()
        };
        Averages {
            precision: mean(ConfusionCounts::precision),
            recall: mean(ConfusionCounts::recall),
            f1: mean(ConfusionCounts::f1),
            average_precision: mean_of_those_with(&|genre| genre.average_precision),
            roc_auc: mean_of_those_with(&|genre| genre.roc_auc),
            coin_f1: mean(ConfusionCounts::coin_f1),
            always_yes_f1: mean(ConfusionCounts::always_yes_f1),
        }
    }

    /// The F1 to beat: the better of the two baselines.
    pub fn baseline_f1(&self) -> f64 {
        self.coin_f1.max(self.always_yes_f1)
    }
}

/// Everything said about a model's answers on one set of posters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// N, the posters scored.
    pub posters: u64,
    /// One row per genre, in the model's order.
    pub genres: Vec<GenreScores>,
    /// Means over genres weighed by their support; its F1 is the paper's headline.
    pub weighted: Averages,
    /// Plain means over genres; its average precision is mAP.
    pub unweighted: Averages,
    /// Share of the N·C decisions that are wrong.
    pub hamming_loss: f64,
    /// Share of posters with every genre right (subset accuracy).
    pub exact_match: f64,
}

impl Scores {
    /// Scores `probabilities [N, C]` against `targets [N, C]` (0 or 1), naming a genre where `p >= threshold[c]`.
    ///
    /// # Panics
    /// If the lengths disagree: `thresholds [C]` sets the number of genres.
    pub fn new(probabilities: &[f32], targets: &[u8], thresholds: &[f32]) -> Self {
        let scorer = Scorer::new(probabilities, targets, thresholds);
        scorer.scores(&vec![1; scorer.posters()])
    }

    /// Of `genres` that were scored one by one, where `exact` posters had every decision right.
    pub fn from_genres(genres: Vec<GenreScores>, exact: u64) -> Self {
        let posters = genres.first().map_or(0, |genre| genre.counts.posters());
        let decisions: u64 = genres.iter().map(|genre| genre.counts.posters()).sum();
        let errors: u64 = genres.iter().map(|genre| genre.counts.errors()).sum();
        Scores {
            posters,
            weighted: Averages::new(&genres, |genre| genre.counts.support() as f64),
            unweighted: Averages::new(&genres, |_| 1.0),
            hamming_loss: ratio(errors as f64, decisions as f64),
            exact_match: ratio(exact as f64, posters as f64),
            genres,
        }
    }

    /// Share of the N·C decisions that are right, Keras's `binary_accuracy`.
    pub fn binary_accuracy(&self) -> f64 {
        1.0 - self.hamming_loss
    }

    /// mAP: the plain mean of the average precisions of the genres that have one. The best checkpoint is chosen by it.
    ///
    /// 0 where no genre has one: then no epoch is better than another, and the first one stays the best.
    pub fn mean_average_precision(&self) -> f64 {
        self.unweighted.average_precision.unwrap_or_default()
    }

    /// How many genres have no average precision, since no poster is of them.
    pub fn genres_without_positives(&self) -> usize {
        self.genres.iter().filter(|genre| genre.average_precision.is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's own confusion counts on its 3,914 test rows (TN, FP, FN, TP) and the F1 that follow.
    const PAPER: [(&str, [u64; 4], f64); 7] = [
        ("Action", [2623, 822, 249, 220], 29.12),
        ("Comedy", [2095, 714, 601, 504], 43.39),
        ("Drama", [789, 1305, 474, 1346], 60.21),
        ("Romance", [3064, 405, 334, 111], 23.10),
        ("Crime", [3059, 483, 277, 95], 20.00),
        ("Thriller", [2921, 558, 289, 146], 25.64),
        ("Other", [331, 1406, 268, 1909], 69.52),
    ];

    fn paper() -> Scores {
        let genres = PAPER.map(|(_, [tn, fp, fne, tp], _)| GenreScores {
            counts: ConfusionCounts {
                true_negatives: tn,
                false_positives: fp,
                false_negatives: fne,
                true_positives: tp,
            },
            average_precision: None,
            roc_auc: None,
        });
        Scores::from_genres(genres.to_vec(), 0)
    }

    #[test]
    fn the_papers_counts_give_the_papers_scores() {
        let scores = paper();
        for (genre, (name, _, f1)) in scores.genres.iter().zip(PAPER) {
            let found = 100.0 * genre.counts.f1();
            assert!((found - f1).abs() <= 0.005, "{name}: F1 {found:.4} is not {f1}");
        }
        assert!((scores.weighted.f1 - 0.51503).abs() <= 5e-6, "weighted F1 {}", scores.weighted.f1);
        assert!((scores.hamming_loss - 0.29874).abs() <= 5e-6, "hamming loss {}", scores.hamming_loss);
        assert!((scores.binary_accuracy() - 0.70126).abs() <= 5e-6);
        assert_eq!(scores.posters, 3914);
    }

    #[test]
    fn always_yes_on_the_papers_test_rows_scores_what_the_paper_scores() {
        let averages = paper().weighted;
        assert!((averages.always_yes_f1 - 0.519).abs() <= 5e-4, "always-yes {}", averages.always_yes_f1);
        assert!(averages.coin_f1 < averages.always_yes_f1);
        assert_eq!(averages.baseline_f1(), averages.always_yes_f1);
    }

    #[test]
    fn the_baselines_are_what_such_rules_score() {
        // 2 of 8 posters are of the genre; the coin names one of each kind's half.
        let coin = ConfusionCounts { true_negatives: 3, false_positives: 3, false_negatives: 1, true_positives: 1 };
        assert_eq!(coin.f1(), coin.coin_f1());
        let yes = ConfusionCounts { true_negatives: 0, false_positives: 6, false_negatives: 0, true_positives: 2 };
        assert_eq!(yes.f1(), yes.always_yes_f1());
    }

    #[test]
    fn a_genre_nobody_has_scores_zero_and_is_left_out_where_rankings_are_judged() {
        let scores = Scores::new(&[0.9, 0.2, 0.1, 0.8], &[1, 0, 0, 0], &[0.5, 0.5]);
        let absent = scores.genres[1];
        assert_eq!([absent.counts.precision(), absent.counts.recall(), absent.counts.f1()], [0.0; 3]);
        assert_eq!((absent.average_precision, absent.roc_auc), (None, None));
        assert_eq!((scores.weighted.f1, scores.unweighted.f1), (1.0, 0.5));
        assert_eq!((scores.unweighted.roc_auc, scores.mean_average_precision()), (Some(1.0), 1.0));
        assert_eq!((scores.weighted.average_precision, scores.genres_without_positives()), (Some(1.0), 1));
        assert_eq!((scores.hamming_loss, scores.exact_match), (0.25, 0.5));
    }

    /// The trainer keeps the epoch with the highest mAP: no number of epochs without one may look like progress.
    #[test]
    fn where_no_genre_has_positives_no_epoch_is_better_than_another() {
        let epochs = [[0.9, 0.2], [0.1, 0.8]].map(|answers| Scores::new(&answers, &[0, 0], &[0.5, 0.5]));
        for scores in &epochs {
            let unweighted = scores.unweighted;
            assert_eq!(
                (unweighted.average_precision, unweighted.roc_auc, scores.genres_without_positives()),
                (None, None, 2)
            );
            assert_eq!(scores.weighted.average_precision, None);
        }
        assert_eq!(epochs[0].mean_average_precision(), epochs[1].mean_average_precision());
        assert!(epochs[0].mean_average_precision() >= 0.0, "a number, which the log and the checkpoint can hold");
    }

    #[test]
    fn the_threshold_itself_names_the_genre() {
        let scores = Scores::new(&[0.3, 0.29999998], &[1, 1], &[0.3]);
        assert_eq!((scores.genres[0].counts.true_positives, scores.genres[0].counts.false_negatives), (1, 1));
    }

    #[test]
    fn no_posters_score_zero_everywhere() {
        let scores = Scores::new(&[], &[], &[0.3; 7]);
        assert_eq!((scores.posters, scores.weighted.f1, scores.hamming_loss, scores.exact_match), (0, 0.0, 0.0, 0.0));
        assert_eq!(scores.unweighted.coin_f1, 0.0);
    }
}
