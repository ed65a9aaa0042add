//! Which learning rate to begin with: the range test of Smith 2017, *Cyclical Learning Rates*, section 3.3.

use super::epoch::Staged;
use super::{Trainer, is_bad_number};
use crate::data::loader::Loader;
use crate::device::Device;
use crate::training::TrainingError;
use serde::Serialize;

/// The rates that are tried, from the first to the last, each so many times the one before it.
const RATES: [f64; 2] = [1e-7, 1.0];
/// Steps, one a rate.
const STEPS: u32 = 100;
/// The weight of the losses before in the smoothed one.
const SMOOTHING: f64 = 0.9;
/// How many times the least smoothed loss so far is the end: what follows only gets worse.
const TOO_LARGE: f64 = 4.0;
/// The first steps say nothing yet of what a rate does to the loss.
const FIRST: usize = 10;

/// A step at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// The learning rate.
    pub rate: f64,
    /// The loss of the step's posters, before it moves anything.
    pub loss: f64,
    /// The moving average of the losses so far.
    pub smoothed: f64,
}

impl<D: Device> Trainer<D> {
    /// Trains at rates that rise from step to step, and tells `watch` of each, until the loss runs away. Nothing is written anywhere, and
    /// the trainer is used up: its weights are good for nothing else.
    ///
    /// # Errors
    /// The loader's and the device's. A number that is none is no error, but the end.
    pub fn find_rate(mut self, mut watch: impl FnMut(&Tried)) -> Result<Vec<Tried>, TrainingError> {
        let mut tried: Vec<Tried> = Vec::new();
        let mut average = 0.0;
        while tried.len() < STEPS as usize {
            let mut batches = self.batches(0)?;
            for _ in 0..self.steps_per_epoch() {
                let share = tried.len() as f64 / f64::from(STEPS - 1);
                let rate = RATES[0] * (RATES[1] / RATES[0]).powf(share);
                let loss = match self.try_rate(&mut batches, rate) {
                    Ok(loss) => loss,
                    Err(error) if is_bad_number(&error) => return Ok(tried),
                    Err(error) => return Err(error),
                };
                average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
                // An average that begins at 0 is too small by what it has not seen yet.
                let smoothed = average / (1.0 - SMOOTHING.powi(tried.len() as i32 + 1));
                tried.push(Tried { rate, loss, smoothed });
                watch(&tried[tried.len() - 1]);
                let least = tried.iter().map(|tried| tried.smoothed).fold(f64::INFINITY, f64::min);
                if tried.len() == STEPS as usize || tried.len() > FIRST && smoothed > TOO_LARGE * least {
                    return Ok(tried);
                }
            }
            self.progress.epoch += 1;
        }
        Ok(tried)
    }

    /// A step at a rate: its loss.
    fn try_rate(&mut self, batches: &mut Loader, rate: f64) -> Result<f64, TrainingError> {
        let (batch, format) = (self.config.batch, self.config.pixels.format());
        while let Some(Staged { others, own, pixels }) = self.stage(batches)? {
            let (labels, weights) = (&own.labels, &self.class_weights);
            let is_step = self.learner.submit_beside(others, pixels, batch, &format, labels, weights, rate)?;
            batches.recycle(own);
            if is_step {
                break;
            }
        }
        Ok(self.learner.outcome()?.loss)
    }
}

/// The rate to begin with: a tenth of that at which the smoothed loss was least, where the loss is still falling fast. None where it never
/// fell, or where it was least at once.
pub fn suggested(tried: &[Tried]) -> Option<f64> {
    let least = tried.iter().skip(FIRST).min_by(|a, b| a.smoothed.total_cmp(&b.smoothed))?;
    (least.smoothed < tried[FIRST - 1].smoothed).then_some(least.rate / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(smoothed: impl Fn(usize) -> f64) -> Vec<Tried> {
        (0..60)
            .map(|at| Tried { rate: 10f64.powf(-6.0 + at as f64 / 10.0), loss: 0.0, smoothed: smoothed(at) })
            .collect()
    }

    #[test]
    fn a_tenth_of_the_rate_of_the_least_loss_is_suggested() {
        let valley = suggested(&tried(|at| 1.0 + (at as f64 - 40.0).abs())).unwrap();
        assert!((valley - 1e-3).abs() < 1e-12, "{valley}");
        assert_eq!(suggested(&tried(|at| 1.0 + at as f64)), None, "it never fell");
        assert_eq!(suggested(&tried(|_| 1.0)[..5]), None, "too short to say");
    }
}
