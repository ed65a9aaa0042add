//! Calibration: whether of the genres that were given 70 %, seven in ten are true, and the temperature that brings them nearer to it.

use super::{Figure, Over};

/// Bins of a reliability table, of equal width.
pub const BINS: usize = 10;

/// The temperatures that are looked at. Beyond them lie answers that are all right, or no better than none.
pub const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// The decisions whose probability lies in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub decisions: u64,
    /// How many of them are true.
    pub positives: u64,
    /// The sum of their probabilities.
    pub sum: f64,
}

impl Bin {
    /// Counts a decision so many times.
    fn count(&mut self, probability: f64, is_true: bool, times: u32) {
        self.decisions += u64::from(times);
        self.positives += u64::from(is_true) * u64::from(times);
        self.sum += probability * f64::from(times);
    }

    /// The mean probability, and the share that is true; `None` in an empty bin.
    pub fn means(&self) -> Option<(f64, f64)> {
        let mean = |sum: f64| sum / self.decisions as f64;
        (self.decisions > 0).then(|| (mean(self.sum), mean(self.positives as f64)))
    }
}

/// What is true beside what was promised, in [`BINS`] ranges of the probability: the first from 0 to below 0.1, the last
/// from 0.9 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    /// From the lowest probabilities on.
    pub bins: [Bin; BINS],
}

impl Reliability {
    /// Of probabilities and targets (0 or 1), whatever genres they are of.
    pub fn new<'a>(answers: impl IntoIterator<Item = (&'a f32, &'a u8)>) -> Self {
        let mut reliability = Reliability::default();
        for (&probability, &target) in answers {
            let probability = f64::from(probability);
            reliability.bins[bin_of(probability)].count(probability, target != 0, 1);
        }
        reliability
    }

    /// The expected calibration error `Σ n_b/n · |mean probability − share that is true|` over the bins b: of the probability of
    /// *yes*, a decision a genre and poster (Naeini, Cooper and Hauskrecht 2015), and not of the likeliest class. 0 without decisions.
    pub fn expected_calibration_error(&self) -> f64 {
        let n: u64 = self.bins.iter().map(|bin| bin.decisions).sum();
        let gap = |bin: &Bin| (bin.sum - bin.positives as f64).abs();
        super::ratio(self.bins.iter().map(gap).sum(), n as f64)
    }
}

/// The number of the bin that a probability lies in.
fn bin_of(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

/// Both calibration errors for any resample of the posters, of `probabilities [N, C]` and `targets [N, C]`: that of all genres in one table, and,
/// over [`Over::Macro`], the mean over genres of theirs; see [`Reliability::expected_calibration_error`] and [`genre_by_genre`].
pub fn errors(probabilities: &[f32], targets: &[u8], classes: usize) -> impl Fn(&[u32]) -> Vec<Figure> + Sync + use<> {
    let decision = |(&probability, &target): (&f32, &u8)| (f64::from(probability), target != 0);
    let decisions: Vec<(f64, bool)> = probabilities.iter().zip(targets).map(decision).collect();
    move |times| {
        let mut genres = vec![Reliability::default(); classes];
        let mut together = Reliability::default();
        for (row, &times) in decisions.chunks_exact(classes).zip(times) {
            for (genre, &(probability, is_true)) in genres.iter_mut().zip(row) {
                let bin = bin_of(probability);
                genre.bins[bin].count(probability, is_true, times);
                together.bins[bin].count(probability, is_true, times);
            }
        }
        let is_empty = times.iter().all(|&times| times == 0);
        let mean = genres.iter().map(Reliability::expected_calibration_error).sum::<f64>() / classes as f64;
        let figure = |over, error| Figure { over, name: ERROR, value: (!is_empty).then_some(error) };
        vec![figure(Over::All, together.expected_calibration_error()), figure(Over::Macro, mean)]
    }
}

/// The name of a calibration error among the figures.
pub const ERROR: &str = "expected_calibration_error";

/// The mean over genres of their expected calibration errors, of `probabilities [N, C]` and `targets [N, C]`. All genres in one table
/// can hide two that err to opposite sides; this mean cannot.
pub fn genre_by_genre(probabilities: &[f32], targets: &[u8], classes: usize) -> f64 {
    let genre = |c: usize| {
        let answers = probabilities.iter().zip(targets).skip(c).step_by(classes);
        Reliability::new(answers).expected_calibration_error()
    };
    (0..classes).map(genre).sum::<f64>() / classes as f64
}

/// Binary cross-entropy of one logit: `−log σ(z)` if the target is true, else `−log(1 − σ(z))`.
fn cross_entropy_of(z: f64, target: u8) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p() - if target != 0 { z } else { 0.0 }
}

/// Mean binary cross-entropy of each poster over its genres, `[N]`, of `logits [N, C]` against `targets [N, C]`, all genres weighing alike.
pub fn cross_entropies(logits: &[f32], targets: &[u8], classes: usize) -> Vec<f64> {
    let mean = |(logits, targets): (&[f32], &[u8])| {
        let terms = logits.iter().zip(targets).map(|(&z, &target)| cross_entropy_of(z.into(), target));
        terms.sum::<f64>() / classes as f64
    };
    logits.chunks_exact(classes).zip(targets.chunks_exact(classes)).map(mean).collect()
}

/// Mean binary cross-entropy of logits divided by `temperature`; 0 where there are none.
pub fn cross_entropy(logits: &[f32], targets: &[u8], temperature: f64) -> f64 {
    let terms = logits.iter().zip(targets).map(|(&z, &target)| cross_entropy_of(f64::from(z) / temperature, target));
    super::ratio(terms.sum(), logits.len() as f64)
}

/// The temperature T within [`TEMPERATURES`] whose probabilities σ(z/T) have the lowest mean binary cross-entropy (Guo, Pleiss, Sun and
/// Weinberger 2017). One number for all genres: it moves no poster past another, so no ranking changes. 1 where none is better.
///
/// The mean is convex in 1/T: Newton's steps on its slope, halved where they leave the interval in which the slope changes its sign.
pub fn best_temperature(logits: &[f32], targets: &[u8]) -> f64 {
    // The slope in 1/T and the slope's own.
    let slopes = |inverse: f64| {
        let mut slopes = (0.0, 0.0);
        for (&z, &target) in logits.iter().zip(targets) {
            let z = f64::from(z);
            let p = 1.0 / (1.0 + (-inverse * z).exp());
            slopes.0 += (p - f64::from(u8::from(target != 0))) * z;
            slopes.1 += p * (1.0 - p) * z * z;
        }
        slopes
    };
    let (mut low, mut high) = (1.0 / TEMPERATURES.end(), 1.0 / TEMPERATURES.start());
    let mut inverse = 1.0f64;
    for round in 0..200 {
        let (slope, bend) = slopes(inverse);
        match slope.total_cmp(&0.0) {
            std::cmp::Ordering::Less => low = inverse,
            std::cmp::Ordering::Greater => high = inverse,
            std::cmp::Ordering::Equal => break,
        }
        let newton = inverse - slope / bend;
        // Towards a bound where nothing else stops it, the geometric mean is quicker than the middle. And it always comes to an end.
        let next = if newton > low && newton < high && round < 50 { newton } else { (low * high).sqrt() };
        if (next - inverse).abs() <= 1e-12 * inverse {
            break;
        }
        inverse = next;
    }
    let temperature = (1.0 / inverse).clamp(*TEMPERATURES.start(), *TEMPERATURES.end());
    let loss = |temperature| cross_entropy(logits, targets, temperature);
    if loss(temperature) < loss(1.0) { temperature } else { 1.0 }
}

/// The threshold on σ(z/T) that decides as `threshold` does on σ(z): σ(log(t/(1 − t))/T).
pub fn threshold_at(temperature: f64, threshold: f64) -> f64 {
    1.0 / (1.0 + (-(threshold / (1.0 - threshold)).ln() / temperature).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_what_was_promised_and_what_is_true() {
        let (probabilities, targets) = ([0.0, 0.0625, 0.125, 0.875, 0.9375, 1.0, 1.0, 1.0], [0, 1, 0, 1, 1, 1, 0, 0]);
        let reliability = Reliability::new(probabilities.iter().zip(&targets));
        let bin = |decisions, positives, sum| Bin { decisions, positives, sum };
        let mut expected = [Bin::default(); BINS];
        expected[0] = bin(2, 1, 0.0625);
        expected[1] = bin(1, 0, 0.125);
        expected[8] = bin(1, 1, 0.875);
        expected[9] = bin(4, 2, 3.9375);
        assert_eq!(reliability.bins, expected);
        assert_eq!((expected[0].means(), expected[2].means()), (Some((0.03125, 0.5)), None));
        // (0.9375 + 0.125 + 0.125 + 1.9375) / 8.
        assert_eq!(reliability.expected_calibration_error(), 0.390625);
        assert_eq!(Reliability::default().expected_calibration_error(), 0.0);
    }

    #[test]
    fn two_genres_that_err_to_opposite_sides_do_not_cancel() {
        let (probabilities, targets) = ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0]);
        assert_eq!(Reliability::new(probabilities.iter().zip(&targets)).expected_calibration_error(), 0.0);
        assert_eq!(genre_by_genre(&probabilities, &targets, 2), 0.5);
    }

    /// A poster that counts twice is two posters, and one that counts not at all is none.
    #[test]
    fn the_errors_of_a_resample_are_those_of_its_posters() {
        let (probabilities, targets) = ([0.5f32, 0.95, 0.25, 0.15, 0.85, 0.5], [1, 1, 0, 1, 1, 0]);
        let errors = errors(&probabilities, &targets, 2);
        let of = |times: &[u32]| errors(times).into_iter().map(|figure| figure.value).collect::<Vec<_>>();
        let copied = |rows: &[usize]| {
            let probabilities: Vec<f32> =
                rows.iter().flat_map(|row| probabilities[2 * row..2 * row + 2].to_vec()).collect();
            let targets: Vec<u8> = rows.iter().flat_map(|row| targets[2 * row..2 * row + 2].to_vec()).collect();
            let together = Reliability::new(probabilities.iter().zip(&targets)).expected_calibration_error();
            [together, genre_by_genre(&probabilities, &targets, 2)]
        };
        for (times, rows) in [([1, 1, 1], &[0, 1, 2][..]), ([2, 0, 1], &[0, 0, 2]), ([0, 3, 0], &[1, 1, 1])] {
            for (found, expected) in of(&times).into_iter().zip(copied(rows)) {
                assert!((found.unwrap() - expected).abs() <= 1e-15, "{times:?}: {found:?} {expected}");
            }
        }
        assert_ne!(of(&[1, 1, 1]), of(&[2, 0, 1]));
        assert_eq!(of(&[0, 0, 0]), [None, None]);
    }

    #[test]
    fn cross_entropy_is_what_its_definition_says_and_finite_everywhere() {
        for (z, target) in [(-3.0, 0), (-3.0, 1), (0.5, 0), (2.0, 1)] {
            let p = 1.0 / (1.0 + f64::exp(-z));
            let expected = -(if target == 1 { p } else { 1.0 - p }).ln();
            assert!((cross_entropy_of(z, target) - expected).abs() <= 1e-12, "{z} {target}");
        }
        assert_eq!(
            (cross_entropy_of(1000.0, 0), cross_entropy_of(-1000.0, 1), cross_entropy_of(1000.0, 1)),
            (1000.0, 1000.0, 0.0)
        );
        let each = cross_entropies(&[0.0, 0.0, 3.0, -3.0], &[0, 1, 1, 0], 2);
        assert!((each[0] - 2f64.ln()).abs() <= 1e-12 && (each[1] - f64::exp(-3.0).ln_1p()).abs() <= 1e-12, "{each:?}");
        let all = cross_entropy(&[0.0, 0.0, 3.0, -3.0], &[0, 1, 1, 0], 1.0);
        assert!((all - (each[0] + each[1]) / 2.0).abs() <= 1e-12);
    }

    /// Three of four are true where the logit is 2 and one of four where it is −2: σ(2/T) = ¾ at T = 2/log 3.
    #[test]
    fn the_temperature_is_the_one_that_a_pencil_finds() {
        let (logits, targets) = ([2.0, 2.0, 2.0, 2.0, -2.0, -2.0, -2.0, -2.0], [1, 1, 1, 0, 0, 0, 0, 1]);
        let found = best_temperature(&logits, &targets);
        assert!((found - 2.0 / 3f64.ln()).abs() <= 1e-9, "{found}");
        // Too timid: the same at a tenth.
        let found = best_temperature(&logits.map(|z| z / 10.0), &targets);
        assert!((found - 0.2 / 3f64.ln()).abs() <= 1e-8, "{found}");
        // From far away, where Newton's first step leaves every bound.
        let found = best_temperature(&logits.map(|z| z * 20.0), &targets);
        assert!((found - 40.0 / 3f64.ln()).abs() <= 1e-6, "{found}");
    }

    #[test]
    fn answers_that_are_all_right_or_all_wrong_end_at_the_bounds() {
        assert!(best_temperature(&[3.0, -3.0], &[1, 0]) <= 0.1);
        let wrong = best_temperature(&[3.0, -3.0], &[0, 1]);
        assert!(wrong > 99.0 && wrong <= 100.0, "{wrong}");
        assert_eq!(best_temperature(&[0.0, 0.0], &[0, 1]), 1.0);
        assert_eq!(best_temperature(&[], &[]), 1.0);
    }

    #[test]
    fn a_threshold_goes_with_the_temperature() {
        assert_eq!((threshold_at(3.0, 0.5), threshold_at(3.0, 0.0), threshold_at(3.0, 1.0)), (0.5, 0.0, 1.0));
        // log(0.8 / 0.2) is log 4, and half of it log 2: 2 / 3.
        assert!((threshold_at(2.0, 0.8) - 2.0 / 3.0).abs() <= 1e-15);
    }
}
