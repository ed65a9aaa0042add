//! The metrics against definitions too slow and too plain to be wrong.

use onesheet::metrics::bootstrap::{Interval, Resamples};
use onesheet::metrics::calibration::{TEMPERATURES, best_temperature, cross_entropy, threshold_at};
use onesheet::metrics::{Scorer, Scores, average_precision, best_thresholds, precision_recall, roc_auc};
use proptest::prelude::*;

/// Every pair of a positive and a negative poster: 1 if ranked rightly, ½ if tied.
fn naive_roc_auc(posters: &[(f32, bool)]) -> Option<f64> {
    let (mut pairs, mut won) = (0.0, 0.0);
    for positive in posters.iter().filter(|p| p.1) {
        for negative in posters.iter().filter(|p| !p.1) {
            pairs += 1.0;
            won += if positive.0 > negative.0 {
                1.0
            } else if positive.0 == negative.0 {
                0.5
            } else {
                0.0
            };
        }
    }
    (pairs > 0.0).then(|| won / pairs)
}

/// The mean over positives of the precision among the posters ranked no lower.
fn naive_average_precision(posters: &[(f32, bool)]) -> Option<f64> {
    let positives: Vec<f32> = posters.iter().filter(|p| p.1).map(|p| p.0).collect();
    let precision_at = |cut: f32| {
        let named = posters.iter().filter(|p| p.0 >= cut);
        let (all, right) = named.fold((0.0, 0.0), |(all, right), p| (all + 1.0, right + f64::from(u8::from(p.1))));
        right / all
    };
    let sum: f64 = positives.iter().map(|&cut| precision_at(cut)).sum();
    (!positives.is_empty()).then(|| sum / positives.len() as f64)
}

/// Posters of one genre; few distinct probabilities, so that ties are common.
fn posters() -> impl Strategy<Value = Vec<(f32, bool)>> {
    prop::collection::vec(((0u8..12).prop_map(|p| f32::from(p) / 11.0), any::<bool>()), 0..60)
}

proptest! {
    #[test]
    fn roc_auc_counts_pairs(posters in posters()) {
        match (roc_auc(posters.clone()), naive_roc_auc(&posters)) {
            (Some(found), Some(expected)) => prop_assert!((found - expected).abs() <= 1e-12, "{found} {expected}"),
            (found, expected) => prop_assert_eq!(found, expected),
        }
    }

    #[test]
    fn average_precision_averages_precision_over_positives(posters in posters()) {
        match (average_precision(posters.clone()), naive_average_precision(&posters)) {
            (Some(found), Some(expected)) => prop_assert!((found - expected).abs() <= 1e-12, "{found} {expected}"),
            (found, expected) => prop_assert_eq!(found, expected),
        }
    }

    #[test]
    fn the_precision_recall_curve_has_a_point_for_each_threshold(posters in posters()) {
        let points = precision_recall(posters.clone());
        let positives = posters.iter().filter(|p| p.1).count() as f64;
        let mut cuts: Vec<f32> = posters.iter().map(|p| p.0).collect();
        cuts.sort_by(|a, b| b.total_cmp(a));
        cuts.dedup();
        prop_assert_eq!(points.len(), if positives > 0.0 { cuts.len() } else { 0 });
        for (cut, (recall, precision)) in cuts.into_iter().zip(points) {
            let named: Vec<_> = posters.iter().filter(|p| p.0 >= cut).collect();
            let right = named.iter().filter(|p| p.1).count() as f64;
            prop_assert_eq!((recall, precision), (right / positives, right / named.len() as f64));
        }
    }

    #[test]
    fn the_order_of_the_posters_does_not_matter(posters in posters()) {
        let reversed: Vec<_> = posters.iter().rev().copied().collect();
        prop_assert_eq!(roc_auc(posters.clone()), roc_auc(reversed.clone()));
        prop_assert_eq!(average_precision(posters), average_precision(reversed));
    }

    #[test]
    fn turning_the_ranking_over_turns_the_area_over(posters in posters()) {
        let turned: Vec<_> = posters.iter().map(|&(p, target)| (-p, target)).collect();
        if let (Some(area), Some(turned)) = (roc_auc(posters), roc_auc(turned)) {
            prop_assert!((area + turned - 1.0).abs() <= 1e-12);
        }
    }

    #[test]
    fn counts_and_shares_follow_their_definitions(
        rows in prop::collection::vec(prop::array::uniform3((0u8..=10, any::<bool>())), 1..40),
        cut in 0u8..=10,
    ) {
        let probabilities: Vec<f32> = rows.iter().flatten().map(|&(p, _)| f32::from(p) / 10.0).collect();
        let targets: Vec<u8> = rows.iter().flatten().map(|&(_, target)| u8::from(target)).collect();
        let scores = Scores::new(&probabilities, &targets, &[f32::from(cut) / 10.0; 3]);

        let named = |p: u8| p >= cut;
        let n = rows.len() as f64;
        let mut weighted = 0.0;
        let mut support = 0.0;
        for (c, genre) in scores.genres.iter().enumerate() {
            let count = |wanted: (bool, bool)| rows.iter().filter(|row| (named(row[c].0), row[c].1) == wanted).count();
            let counts = genre.counts;
            prop_assert_eq!(counts.true_positives as usize, count((true, true)));
            prop_assert_eq!(counts.false_positives as usize, count((true, false)));
            prop_assert_eq!(counts.false_negatives as usize, count((false, true)));
            prop_assert_eq!(counts.true_negatives as usize, count((false, false)));
            let (precision, recall) = (counts.precision(), counts.recall());
            let harmonic = if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
            prop_assert!((counts.f1() - harmonic).abs() <= 1e-12);
            weighted += counts.support() as f64 * counts.f1();
            support += counts.support() as f64;
        }
        let weighted = if support == 0.0 { 0.0 } else { weighted / support };
        prop_assert!((scores.weighted.f1 - weighted).abs() <= 1e-12);

        // mAP and the mean area are over the genres that have one, and nothing else.
        let mean = |scores: Vec<f64>| (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
        let close = |found: Option<f64>, expected: Option<f64>| match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() <= 1e-12,
            (found, expected) => found == expected,
        };
        let column = |c: usize| rows.iter().map(|row| (f32::from(row[c].0) / 10.0, row[c].1)).collect::<Vec<_>>();
        let precisions = (0..3).filter_map(|c| naive_average_precision(&column(c))).collect();
        let areas = (0..3).filter_map(|c| naive_roc_auc(&column(c))).collect();
        prop_assert!(close(scores.unweighted.average_precision, mean(precisions)), "{:?}", scores.unweighted);
        prop_assert!(close(scores.unweighted.roc_auc, mean(areas)), "{:?}", scores.unweighted);

        let wrong = rows.iter().flatten().filter(|(p, target)| named(*p) != *target).count() as f64;
        prop_assert!((scores.hamming_loss - wrong / (3.0 * n)).abs() <= 1e-12);
        let exact = rows.iter().filter(|row| row.iter().all(|(p, target)| named(*p) == *target)).count() as f64;
        prop_assert!((scores.exact_match - exact / n).abs() <= 1e-12);
    }
}

/// Posters of three genres, each with a probability of few and whether it is true.
fn rows() -> impl Strategy<Value = Vec<[(u8, bool); 3]>> {
    prop::collection::vec(prop::array::uniform3((0u8..=10, any::<bool>())), 1..40)
}

fn flat(rows: &[[(u8, bool); 3]]) -> (Vec<f32>, Vec<u8>) {
    rows.iter().flatten().map(|&(p, target)| (f32::from(p) / 10.0, u8::from(target))).unzip()
}

proptest! {
    #[test]
    fn tuned_thresholds_have_the_highest_f1_that_any_has(rows in rows(), default in 0.0f64..=1.0) {
        let (probabilities, targets) = flat(&rows);
        let f1 = |thresholds: [f32; 3]| {
            Scores::new(&probabilities, &targets, &thresholds).genres.iter().map(|genre| genre.counts.f1()).collect::<Vec<_>>()
        };
        let tuned = best_thresholds(&probabilities, &targets, &[default; 3]);
        let found = f1(std::array::from_fn(|c| tuned[c] as f32));
        let untuned = f1([default as f32; 3]);
        // Every way to decide is had at one of these.
        let any: Vec<_> = (0..=11).map(|p| f1([p as f32 / 10.0; 3])).collect();
        for c in 0..3 {
            let best = any.iter().map(|f1| f1[c]).fold(0.0, f64::max);
            prop_assert_eq!(found[c], best);
            prop_assert!(found[c] >= untuned[c]);
            let has_positives = rows.iter().any(|row| row[c].1);
            let may_stay = untuned[c] == best || !has_positives;
            prop_assert!(!may_stay || tuned[c] == default, "{} became {}", default, tuned[c]);
        }
    }

    #[test]
    fn no_other_temperature_has_a_lower_cross_entropy(
        answers in prop::collection::vec((-30.0f32..30.0, any::<bool>()), 1..60),
        other in TEMPERATURES,
        scale in -3.0f32..3.0,
    ) {
        let (logits, targets): (Vec<f32>, Vec<u8>) =
            answers.iter().map(|&(z, target)| (z * scale.exp(), u8::from(target))).unzip();
        let loss = |temperature| cross_entropy(&logits, &targets, temperature);
        let temperature = best_temperature(&logits, &targets);
        prop_assert!(TEMPERATURES.contains(&temperature));
        prop_assert!(loss(temperature) <= loss(1.0));
        prop_assert!(loss(temperature) <= loss(other) * (1.0 + 1e-9) + 1e-12, "{} {} at {}", temperature, loss(temperature), other);
    }

    #[test]
    fn thresholds_go_with_the_temperature(z in -20.0f64..20.0, cut in -20.0f64..20.0, temperature in TEMPERATURES) {
        prop_assume!((z - cut).abs() >= 1e-3 * (1.0 + temperature));
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        prop_assert_eq!(sigmoid(z / temperature) >= threshold_at(temperature, sigmoid(cut)), z >= cut);
    }

    #[test]
    fn a_resample_scores_as_the_copied_posters_would(
        rows in rows(), times in prop::collection::vec(0u32..4, 40), cut in 0u8..=10,
    ) {
        let (probabilities, targets) = flat(&rows);
        let thresholds = [f32::from(cut) / 10.0; 3];
        let times = &times[..rows.len()];
        let copies = rows.iter().zip(times).flat_map(|(row, &times)| std::iter::repeat_n(*row, times as usize));
        let (copied, true_of_copies) = flat(&copies.collect::<Vec<_>>());
        let found = Scorer::new(&probabilities, &targets, &thresholds).scores(times);
        prop_assert_eq!(found, Scores::new(&copied, &true_of_copies, &thresholds));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_model_is_no_better_than_itself(rows in rows(), seed in any::<u64>()) {
        let (probabilities, targets) = flat(&rows);
        let scorer = Scorer::new(&probabilities, &targets, &[0.3; 3]);
        let resamples = Resamples::new((0..rows.len() as u32).map(|poster| poster / 2).collect(), seed);
        let figures = |times: &[u32]| scorer.scores(times).figures();
        for difference in resamples.differences(figures, figures) {
            prop_assert_eq!(difference.value.is_some(), difference.figure.value.is_some());
            prop_assert!(difference.value.is_none_or(|value| value == 0.0));
            let nothing = Interval { low: 0.0, high: 0.0 };
            prop_assert!(difference.interval.is_none_or(|interval| interval == nothing));
        }
    }
}

/// Values printed by scikit-learn 1.9's `average_precision_score` and `roc_auc_score`.
#[test]
fn ties_are_treated_as_scikit_learn_treats_them() {
    let posters = vec![(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
    assert!((average_precision(posters.clone()).unwrap() - 0.8333333333333333).abs() <= 1e-15);
    assert_eq!(roc_auc(posters), Some(0.75));
    let tied = vec![(0.5, true), (0.5, false), (0.5, false), (0.9, true), (0.2, false), (0.2, true)];
    assert!((average_precision(tied.clone()).unwrap() - 2.0 / 3.0).abs() <= 1e-15);
    assert_eq!(roc_auc(tied), Some(0.6111111111111112));
}
