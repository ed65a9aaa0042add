//! Measures that need no threshold: they judge only the order in which a genre's posters are ranked.
//!
//! Both walk the posters once from the most to the least probable, a *group of ties* at a time: equal probabilities are one
//! point of the curve, so the order in which posters happen to be stored cannot change a score.

/// A genre's posters from the most to the least probable, as groups of equal probability: (positives, negatives) each.
fn tied_groups(mut posters: Vec<(f32, bool)>) -> Vec<(u64, u64)> {
    posters.sort_by(|a, b| b.0.total_cmp(&a.0));
    posters
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| {
            let positives = group.iter().filter(|(_, target)| *target).count() as u64;
            (positives, group.len() as u64 - positives)
        })
        .collect()
}

/// Average precision: `Σ (R_k − R_{k−1})·P_k` over the distinct probabilities, the area under the precision–recall steps
/// without interpolation, as scikit-learn's `average_precision_score`.
///
/// `None` for a genre with no positive, for then there is nothing to find (scikit-learn gives 0 and warns). `posters` are
/// (probability, whether the genre is true).
pub fn average_precision(posters: Vec<(f32, bool)>) -> Option<f64> {
    let positives = posters.iter().filter(|(_, target)| *target).count() as u64;
    let (mut tp, mut fp, mut sum) = (0, 0, 0.0);
    for (up, down) in tied_groups(posters) {
        tp += up;
        fp += down;
        sum += up as f64 * tp as f64 / (tp + fp) as f64;
    }
    (positives > 0).then(|| sum / positives as f64)
}

/// Area under the receiver operating characteristic: the chance that a positive poster ranks above a negative one, where
/// a tie counts half.
///
/// `None` when either kind is absent, for then there is no pair to rank (scikit-learn gives NaN and warns).
pub fn roc_auc(posters: Vec<(f32, bool)>) -> Option<f64> {
    let positives = posters.iter().filter(|(_, target)| *target).count() as u64;
    let pairs = positives * (posters.len() as u64 - positives);
    let (mut above, mut won) = (0, 0.0);
    for (up, down) in tied_groups(posters) {
        won += down as f64 * (above as f64 + up as f64 / 2.0);
        above += up;
    }
    (pairs > 0).then(|| won / pairs as f64)
}
