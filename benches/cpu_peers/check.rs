//! Whether everybody computes the same.

use crate::contestant::{Contestant, Work};
use onesheet::device::Precision;

/// Steps whose losses are compared: the first says whether the forward pass in training is the same, the others whether gradients
/// and Adam are.
const STEPS: usize = 3;

/// What our model gives in f32.
pub struct Expected {
    /// Over each number of images.
    logits: Vec<(usize, Vec<f64>)>,
    /// Over the most.
    losses: Vec<f64>,
    most: usize,
}

impl Expected {
    /// Of a contestant that has not trained yet. It has, then.
    pub fn new(contestant: &mut Contestant<'_>, batches: &[usize]) -> anyhow::Result<Self> {
        let logits = batches.iter().map(|&images| Ok((images, contestant.logits(images)?)));
        let logits = logits.collect::<anyhow::Result<_>>()?;
        let most = batches.iter().copied().max().unwrap_or(1);
        Ok(Expected { logits, losses: contestant.losses(most, STEPS)?, most })
    }

    /// The largest [`error`] of what a contestant, which has not trained yet, gives in the place of these. After training it has.
    pub fn error(&self, contestant: &mut Contestant<'_>, work: Work) -> anyhow::Result<f64> {
        match work {
            Work::Train => Ok(error(&contestant.losses(self.most, STEPS)?, &self.losses)),
            Work::Infer => {
                let errors =
                    self.logits.iter().map(|(images, expected)| Ok(error(&contestant.logits(*images)?, expected)));
                // Not `f64::max`, which would lose a NaN.
                errors.collect::<anyhow::Result<Vec<f64>>>().map(|errors| largest(&errors))
            }
        }
    }
}

/// What passes. Losses behind steps of Adam stray further than logits: where a gradient is all rounding, its step is as long as any.
/// Untrained weights make large differences of the roundings of bf16, so that there only nonsense fails; that it is the same
/// network is seen in f32.
pub fn tolerance(work: Work, precision: Precision) -> f64 {
    match (work, precision) {
        (Work::Infer, Precision::F32 | Precision::Tf32) => 1e-3,
        (Work::Train, Precision::F32 | Precision::Tf32) => 2e-2,
        (_, Precision::Bf16) => 2.0,
    }
}

/// The largest difference over the largest expected number.
fn error(numbers: &[f64], expected: &[f64]) -> f64 {
    if numbers.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences: Vec<f64> =
        numbers.iter().zip(expected).map(|(number, expected)| (number - expected).abs()).collect();
    let sizes: Vec<f64> = expected.iter().map(|number| number.abs()).collect();
    largest(&differences) / largest(&sizes)
}

/// The largest of some numbers; NaN if one of them is.
fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(0.0, |most, number| if number <= most { most } else { number })
}
