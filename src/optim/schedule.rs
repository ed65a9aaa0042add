//! The learning rate over a run.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// The share of the full rate that a curve which falls ends at.
const FINAL: f64 = 0.01;

/// What becomes of the learning rate once it is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// It stays
    #[default]
    Constant,
    /// It falls along half a cosine wave to a hundredth in the last epoch's last step
    Cosine,
}

/// A rate that rises in a straight line over the first steps, and then follows a curve: a pure function of the step.
///
/// Adam's first steps follow the signs of gradients whose moments have seen next to nothing: at the full rate they throw a
/// fresh network about (Goyal et al. 2017, section 2.2, for SGD; Ma and Yarats 2021 for Adam). A rate that falls lets the weights
/// settle (Loshchilov and Hutter 2017, without their restarts).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The full rate.
    pub rate: f64,
    /// Steps until then; 0 for the full rate at once.
    pub warmup: u64,
    /// What becomes of it then.
    pub curve: Curve,
    /// Steps of the run in all, at the last of which the curve ends.
    pub steps: u64,
}

impl Schedule {
    /// The rate of the `step`-th step, counted from 1: rate · step / warmup up to the full rate; behind it, with f the final share,
    /// rate · (f + (1 − f) · (1 + cos(π · (step − warmup) / (steps − warmup))) / 2) if it falls.
    pub fn rate_at(&self, step: u64) -> f64 {
        let Schedule { rate, warmup, curve, steps } = *self;
        if step < warmup {
            return rate * step as f64 / warmup as f64;
        }
        match curve {
            Curve::Constant => rate,
            Curve::Cosine => {
                let (done, span) = ((step - warmup) as f64, steps.saturating_sub(warmup).max(1) as f64);
                rate * (FINAL + (1.0 - FINAL) * 0.5 * (1.0 + (PI * (done / span).min(1.0)).cos()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn the_rate_rises_in_equal_steps_and_stays() {
        let schedule = Schedule { rate: 0.5, warmup: 4, curve: Curve::Constant, steps: 6 };
        assert_eq!([1, 2, 3, 4, 5, 1000].map(|step| schedule.rate_at(step)), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn without_warmup_the_first_step_has_the_full_rate() {
        assert_eq!(Schedule { rate: 1e-3, warmup: 0, curve: Curve::Constant, steps: 9 }.rate_at(1), 1e-3);
    }

    #[test]
    fn a_cosine_falls_from_the_full_rate_to_a_hundredth_of_it() {
        let schedule = Schedule { rate: 2.0, warmup: 4, curve: Curve::Cosine, steps: 16 };
        assert_eq!([1, 3, 4].map(|step| schedule.rate_at(step)), [0.5, 1.5, 2.0]);
        // A third, half and two thirds of the way: cos is ½, 0 and −½.
        for (step, share) in [(8, 0.01 + 0.99 * 0.75), (10, 0.01 + 0.99 * 0.5), (12, 0.01 + 0.99 * 0.25), (16, 0.01)] {
            assert_relative_eq!(schedule.rate_at(step), 2.0 * share, max_relative = 1e-12);
        }
        assert!((4..16).all(|step| schedule.rate_at(step) > schedule.rate_at(step + 1)));
        // What is never reached does no harm either: beyond the end, and a run that is all warm-up.
        assert_relative_eq!(schedule.rate_at(1000), 0.02, max_relative = 1e-12);
        let short = Schedule { steps: 3, ..schedule };
        assert_eq!([3, 4].map(|step| short.rate_at(step)), [1.5, 2.0]);
        assert_relative_eq!(short.rate_at(5), 0.02, max_relative = 1e-12);
    }
}
