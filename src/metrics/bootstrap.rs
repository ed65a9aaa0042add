//! How much of a score is luck of the posters: the bootstrap (Efron 1979).
//!
//! The films are drawn again, as many as there are and each as often as chance has it, and scored again; the scores' spread over a
//! thousand such draws is about the spread over other films from the same source. Whole films are drawn: the posters of one film
//! are no two pieces of evidence. Two models are compared on the same draws, so that what makes a draw easy for both is no difference.

use super::{Figure, Over};
use crate::random::{Philox, Stream};
use rayon::prelude::*;

/// How often the films are drawn.
pub const RESAMPLES: u32 = 1000;

/// The share of the resamples within an interval.
pub const CONFIDENCE: f64 = 0.95;

/// The resamples of a set of posters.
#[derive(Clone, Debug)]
pub struct Resamples {
    /// The film of each poster, `[N]`.
    film_of: Vec<u32>,
    films: u32,
    philox: Philox,
}

impl Resamples {
    /// Of posters whose films are numbered from 0, `film_of [N]`.
    pub fn new(film_of: Vec<u32>, seed: u64) -> Self {
        let films = film_of.iter().max().map_or(0, |last| last + 1);
        Resamples { film_of, films, philox: Philox::new(seed) }
    }

    /// Films there are.
    pub fn films(&self) -> u32 {
        self.films
    }

    /// How often each poster counts in a resample, `[N]`: a pure function of seed and number.
    pub fn times(&self, resample: u32) -> Vec<u32> {
        let mut sequence = self.philox.sequence(Stream::Bootstrap, resample, 0);
        let mut drawn = vec![0; self.films as usize];
        for _ in 0..self.films {
            drawn[sequence.below(self.films) as usize] += 1;
        }
        self.film_of.iter().map(|&film| drawn[film as usize]).collect()
    }

    /// What `score` says of each resample, in their order.
    fn each<R: Send>(&self, score: impl Fn(&[u32]) -> R + Sync) -> Vec<R> {
        (0..RESAMPLES).into_par_iter().map(|resample| score(&self.times(resample))).collect()
    }

    /// Each figure of the posters as they are, and its interval.
    pub fn estimates(&self, figures: impl Fn(&[u32]) -> Vec<Figure> + Sync) -> Vec<Estimate> {
        let resampled = self.each(&figures);
        let interval = |at: usize| Interval::of(resampled.iter().filter_map(|figures| figures[at].value).collect());
        let estimate =
            |(at, figure): (usize, Figure)| Estimate { interval: figure.value.and_then(|_| interval(at)), figure };
        figures(&self.once()).into_iter().enumerate().map(estimate).collect()
    }

    /// Each figure of one model minus that of another on the same posters, and the interval of the difference on the same resamples.
    ///
    /// # Panics
    /// If the two give different figures.
    pub fn differences(
        &self,
        figures: impl Fn(&[u32]) -> Vec<Figure> + Sync,
        others: impl Fn(&[u32]) -> Vec<Figure> + Sync,
    ) -> Vec<Difference> {
        let resampled = self.each(|times| (figures(times), others(times)));
        let both = |figure: &Figure, other: &Figure| Some(figure.value? - other.value?);
        let difference = |(at, (figure, other)): (usize, (Figure, Figure))| {
            assert_eq!((figure.over, figure.name), (other.over, other.name), "the same figures of both");
            let value = both(&figure, &other);
            let resampled = || resampled.iter().filter_map(|(these, those)| both(&these[at], &those[at])).collect();
            Difference { interval: value.and_then(|_| Interval::of(resampled())), value, figure, other: other.value }
        };
        figures(&self.once()).into_iter().zip(others(&self.once())).enumerate().map(difference).collect()
    }

    fn once(&self) -> Vec<u32> {
        vec![1; self.film_of.len()]
    }
}

/// The middle [`CONFIDENCE`] of the resamples, the percentile interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// As many resamples lie below it
    pub low: f64,
    /// as above it.
    pub high: f64,
}

impl Interval {
    /// Of what the resamples gave, those left out in which there is no such score; `None` if there is in none. A bound between two
    /// of them lies on the straight line from one to the other.
    pub fn of(mut resampled: Vec<f64>) -> Option<Interval> {
        resampled.sort_by(f64::total_cmp);
        let last = resampled.len().checked_sub(1)?;
        let quantile = |share: f64| {
            let at = share * last as f64;
            let (below, above) = (resampled[at.floor() as usize], resampled[at.ceil() as usize]);
            below + at.fract() * (above - below)
        };
        let outside = (1.0 - CONFIDENCE) / 2.0;
        Some(Interval { low: quantile(outside), high: quantile(1.0 - outside) })
    }

    /// Whether all of it is above 0, or all of it below.
    pub fn is_clear_of_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// A figure and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Of the posters as they are.
    pub figure: Figure,
    /// `None` where there is no such figure.
    pub interval: Option<Interval>,
}

/// A figure of one model beside another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Of the one.
    pub figure: Figure,
    /// Of the other.
    pub other: Option<f64>,
    /// The one minus the other; `None` where one of them has none.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// The interval of a figure among `estimates`.
pub fn interval(estimates: &[Estimate], over: Over, name: &str) -> Option<Interval> {
    let found = estimates.iter().find(|estimate| estimate.figure.over == over && estimate.figure.name == name);
    found.and_then(|estimate| estimate.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_posters_of_a_film_are_drawn_together_and_as_many_films_as_there_are() {
        let resamples = Resamples::new(vec![0, 1, 0, 2, 3, 2], 7);
        assert_eq!(resamples.films(), 4);
        let mut drawn = [0; 4];
        for number in 0..1000 {
            let times = resamples.times(number);
            assert_eq!(times, resamples.times(number));
            assert_eq!((times[0], times[3]), (times[2], times[5]), "{times:?}");
            let films = [times[0], times[1], times[3], times[4]];
            assert_eq!(films.iter().sum::<u32>(), 4, "{times:?}");
            drawn.iter_mut().zip(films).for_each(|(drawn, times)| *drawn += times);
        }
        assert!(drawn.iter().all(|drawn: &u32| drawn.abs_diff(1000) <= 120), "{drawn:?}");
        assert_ne!(resamples.times(0), resamples.times(1));
        assert_ne!((0..9).map(|at| resamples.times(at)).collect::<Vec<_>>(), {
            let others = Resamples::new(vec![0, 1, 0, 2, 3, 2], 8);
            (0..9).map(|at| others.times(at)).collect::<Vec<_>>()
        });
    }

    #[test]
    fn an_interval_leaves_a_fortieth_out_at_each_end() {
        let hundred: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let Interval { low, high } = Interval::of(hundred).unwrap();
        assert!((low - 2.5).abs() <= 1e-12 && (high - 97.5).abs() <= 1e-12, "{low} {high}");
        assert_eq!(Interval::of(vec![0.5]), Some(Interval { low: 0.5, high: 0.5 }));
        assert_eq!(Interval::of(Vec::new()), None);
        let clear = |low, high| Interval { low, high }.is_clear_of_zero();
        assert_eq!(
            [clear(0.1, 0.2), clear(-0.2, -0.1), clear(-0.1, 0.1), clear(0.0, 0.1), clear(-0.1, 0.0)],
            [true, true, false, false, false]
        );
    }

    /// The mean of 400 fair coins has the standard deviation 0.025, and its interval is 1.96 of it to each side.
    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_has_it() {
        let resamples = Resamples::new((0..400).collect(), 1);
        let mean = |times: &[u32]| {
            let heads: u32 = times.iter().step_by(2).sum();
            vec![Figure { over: Over::All, name: "mean", value: Some(f64::from(heads) / 400.0) }]
        };
        let found = resamples.estimates(mean);
        let Interval { low, high } = interval(&found, Over::All, "mean").unwrap();
        assert_eq!(found[0].figure.value, Some(0.5));
        assert!((low - 0.451).abs() <= 0.006 && (high - 0.549).abs() <= 0.006, "{low} {high}");
        // Two posters a film, and so half as many draws: wider by √2.
        let resamples = Resamples::new((0..400).map(|poster| poster / 4 * 2 + poster % 2).collect(), 1);
        let Interval { low, high } = interval(&resamples.estimates(mean), Over::All, "mean").unwrap();
        assert!((low - 0.431).abs() <= 0.009 && (high - 0.569).abs() <= 0.009, "{low} {high}");
    }

    #[test]
    fn what_a_resample_does_not_have_is_left_out() {
        let resamples = Resamples::new((0..3).collect(), 1);
        let first =
            |times: &[u32]| vec![Figure { over: Over::Macro, name: "first", value: (times[0] > 0).then_some(0.25) }];
        assert_eq!(resamples.estimates(first)[0].interval, Some(Interval { low: 0.25, high: 0.25 }));
        let second =
            |times: &[u32]| vec![Figure { over: Over::Macro, name: "first", value: (times[1] > 0).then_some(1.0) }];
        let [difference] = resamples.differences(second, first)[..] else { panic!() };
        assert_eq!((difference.value, difference.other), (Some(0.75), Some(0.25)));
        assert_eq!(difference.interval, Some(Interval { low: 0.75, high: 0.75 }));
        let none = |_: &[u32]| vec![Figure { over: Over::Macro, name: "first", value: None }];
        let [difference] = resamples.differences(none, first)[..] else { panic!() };
        assert_eq!((difference.value, difference.interval), (None, None));
    }
}
