//! The threshold of each genre at which its F1 is highest.

/// For each genre the threshold with the highest F1 of `probabilities [N, C]` against `targets [N, C]` (0 or 1), `[C]`. To be asked
/// of validation posters: on those that it was found on, such a threshold promises more than it keeps on others.
///
/// There are as many ways to decide a genre as it has distinct probabilities, and each stands for all thresholds between two
/// neighbours. Of these the middle is taken, so that a last digit that another device computes otherwise changes no decision; below
/// the lowest probability, half of it. Where several ways have the same F1, it is the one whose threshold is nearest to the genre's
/// of `defaults [C]`, the lower one of two; if the default itself decides in the best way, it stays. So it does for a genre without a positive,
/// which shows no threshold to be better than another. Compared are whole numbers, so the answer is the same everywhere.
///
/// # Panics
/// If the lengths disagree: `defaults` sets the number of genres.
pub fn best_thresholds(probabilities: &[f32], targets: &[u8], defaults: &[f64]) -> Vec<f64> {
    let classes = defaults.len();
    assert_eq!(probabilities.len(), targets.len(), "a probability for each target");
    assert_eq!(probabilities.len() % classes, 0, "whole rows of {classes} genres");
    let genre = |(c, &default)| {
        let answers = probabilities.iter().zip(targets).skip(c).step_by(classes);
        best_threshold(answers.map(|(&probability, &target)| (probability, target != 0)).collect(), default)
    };
    defaults.iter().enumerate().map(genre).collect()
}

/// F1 as a fraction of whole numbers, 2·TP / (TP + FP + positives).
#[derive(Clone, Copy)]
struct Fraction {
    numerator: u64,
    denominator: u64,
}

impl Fraction {
    fn cmp(self, other: Fraction) -> std::cmp::Ordering {
        let cross = |a: Fraction, b: Fraction| u128::from(a.numerator) * u128::from(b.denominator);
        cross(self, other).cmp(&cross(other, self))
    }
}

fn best_threshold(mut posters: Vec<(f32, bool)>, default: f64) -> f64 {
    posters.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = posters.iter().filter(|(_, target)| *target).count() as u64;
    if positives == 0 {
        return default;
    }
    let mut best: Option<(Fraction, f64)> = None;
    let (mut named, mut right) = (0, 0);
    let groups: Vec<&[(f32, bool)]> = posters.chunk_by(|a, b| a.0 == b.0).collect();
    for (at, group) in groups.iter().enumerate() {
        named += group.len() as u64;
        right += group.iter().filter(|(_, target)| *target).count() as u64;
        let f1 = Fraction { numerator: 2 * right, denominator: named + positives };
        let threshold = between(groups.get(at + 1).map(|below| below[0].0), group[0].0, default);
        let is_better = best.is_none_or(|(highest, kept)| {
            let is_nearer = || (threshold - default).abs() <= (kept - default).abs();
            f1.cmp(highest)
                .then_with(|| if is_nearer() { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less })
                .is_gt()
        });
        if is_better {
            best = Some((f1, threshold));
        }
    }
    best.map_or(default, |(_, threshold)| threshold)
}

/// A threshold that names probability `lowest` and not the next one `below` it, if there is any: `default` if it does, else the middle.
fn between(below: Option<f32>, lowest: f32, default: f64) -> f64 {
    let divides = |threshold: f32| threshold <= lowest && below.is_none_or(|below| below < threshold);
    if divides(default as f32) {
        return default;
    }
    let middle = ((f64::from(below.unwrap_or(0.0)) + f64::from(lowest)) / 2.0) as f32;
    f64::from(if divides(middle) { middle } else { lowest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(posters: &[(f32, u8)]) -> f64 {
        let (probabilities, targets): (Vec<f32>, Vec<u8>) = posters.iter().copied().unzip();
        let [threshold] = best_thresholds(&probabilities, &targets, &[0.3])[..] else { panic!() };
        threshold
    }

    /// The cuts' F1, from the highest: 2/(1+3), 4/(2+3), 4/(3+3), 6/(4+3), 6/(5+3).
    #[test]
    fn the_middle_of_the_best_gap_is_taken() {
        assert_eq!(one(&[(0.875, 1), (0.75, 1), (0.625, 0), (0.5, 1), (0.4375, 0)]), 0.46875);
        // In the order of the posters there is nothing to see.
        assert_eq!(one(&[(0.4375, 0), (0.5, 1), (0.875, 1), (0.625, 0), (0.75, 1)]), 0.46875);
    }

    #[test]
    fn a_default_that_decides_as_well_stays() {
        assert_eq!(one(&[(0.5, 1), (0.25, 0)]), 0.3);
        assert_eq!(one(&[(0.3, 1), (0.25, 0)]), 0.3, "the threshold itself is named");
        assert_eq!(one(&[(0.5, 1), (0.3, 0)]), f64::from(0.4f32));
    }

    #[test]
    fn of_equals_the_nearest_to_the_default_is_taken_and_of_two_the_lower() {
        // Naming the first and naming all four have 2/3 each, and nothing in between as much. The middles are 0.4375 and 0.0625.
        let posters = [(0.5, 1), (0.375, 0), (0.25, 0), (0.125, 1)];
        let (probabilities, targets): (Vec<f32>, Vec<u8>) = posters.into_iter().unzip();
        let near = |default| best_thresholds(&probabilities, &targets, &[default])[0];
        assert_eq!([near(0.2), near(0.25), near(0.26), near(0.375)], [0.0625, 0.0625, 0.4375, 0.4375]);
    }

    #[test]
    fn a_genre_without_a_positive_keeps_the_default_and_one_without_a_negative_is_always_named() {
        assert_eq!(one(&[(0.9, 0), (0.1, 0)]), 0.3);
        assert_eq!(one(&[]), 0.3);
        assert_eq!(one(&[(0.9, 1), (0.125, 1)]), 0.0625);
        assert_eq!(one(&[(0.9, 1), (0.5, 1)]), 0.3);
        assert_eq!(one(&[(0.0, 1), (0.5, 0)]), 0.0);
    }

    #[test]
    fn neighbours_that_nothing_lies_between_are_still_told_apart() {
        let high = 0.75f32.next_up();
        let (probabilities, targets) = ([high, 0.75], [1, 0]);
        let threshold = best_thresholds(&probabilities, &targets, &[0.3])[0] as f32;
        assert!(threshold <= high && threshold > 0.75);
    }

    #[test]
    fn each_genre_has_its_own() {
        let thresholds = best_thresholds(&[0.9, 0.2, 0.5, 0.1], &[1, 1, 0, 0], &[0.3, 0.4]);
        assert_eq!(thresholds, [f64::from(0.7f32), f64::from(0.15f32)]);
    }
}
