//! What the settings in a file may be. A checkpoint can come from anywhere, and a number in it decides how much memory is
//! taken or how often a loop turns; so each is looked at before it is used.
//!
//! Nothing is refused that `train` can run with: the bounds are those of its flags and of `prepare`'s.

use super::checkpoint::{Metadata, Progress};
use super::config::RunConfig;
use super::tuning::Tuned;
use crate::metrics::calibration::TEMPERATURES;
use crate::network::{Architecture, LayoutError};
use std::borrow::Cow;
use std::fmt::Debug;

/// The sides that posters may have, in pixels: what `prepare --image-size` takes.
const SIDES: std::ops::RangeInclusive<usize> = 8..=1024;
/// More genres than any table names, and a longer name than any of them has, in bytes.
const MOST_GENRES: usize = 10_000;
const LONGEST_NAME: usize = 1000;
/// More GPUs than any machine has.
const MOST_GPUS: usize = 64;
/// Steps that no run comes to.
const MOST_STEPS: u64 = 1 << 53;

/// A setting that no run can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {found}; it must be {allowed}")]
pub struct OutOfBounds {
    /// Its name in the file.
    pub setting: &'static str,
    /// Its value there.
    pub found: String,
    /// What it may be.
    pub allowed: Cow<'static, str>,
}

pub(super) fn within(
    holds: bool,
    setting: &'static str,
    found: impl Debug,
    allowed: &'static str,
) -> Result<(), OutOfBounds> {
    if holds { Ok(()) } else { Err(OutOfBounds { setting, found: format!("{found:?}"), allowed: allowed.into() }) }
}

impl RunConfig {
    /// Looks at every number.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let RunConfig { image_size, batch, learning_rate, warmup_epochs, momentum, threshold, save_every, .. } = *self;
        within(SIDES.contains(&image_size), "image_size", image_size, "from 8 to 1024")?;
        within(batch > 0, "batch", batch, "1 or more")?;
        within((1..=MOST_GPUS).contains(&self.gpus), "gpus", self.gpus, "from 1 to 64")?;
        within(learning_rate > 0.0 && learning_rate.is_finite(), "learning_rate", learning_rate, "a number above 0")?;
        within((0.0..1e6).contains(&warmup_epochs), "warmup_epochs", warmup_epochs, "from 0 to below a million")?;
        within((0.0..1.0).contains(&momentum), "momentum", momentum, "from 0 to below 1")?;
        within((0.0..1e6).contains(&save_every), "save_every", save_every, "from 0 to below a million")?;
        within((1..=1000).contains(&self.keep_best), "keep_best", self.keep_best, "from 1 to 1000")?;
        within((0.0..=1.0).contains(&threshold), "threshold", threshold, "from 0 to 1")?;
        within(self.patience != Some(0), "patience", self.patience, "1 or more")?;
        let is_limit = |minutes: f64| minutes > 0.0 && minutes.is_finite();
        within(self.time_limit.is_none_or(is_limit), "time_limit", self.time_limit, "a number above 0")?;
        self.recipe.check()?;
        let is_even = self.recipe.accumulate.is_multiple_of(self.gpus);
        within(is_even, "gpus", self.gpus, "a divisor of accumulate, for each takes as many batches of a step")?;
        self.check_network()
    }

    /// Looks at what the network says to.
    ///
    /// # Errors
    /// An image size that is too small for it, and more layers to train than it has.
    pub fn check_network(&self) -> Result<(), OutOfBounds> {
        let (setting, found, allowed) = match Architecture::new(&self.model(1)) {
            Err(LayoutError::TooSmall { network, size, smallest }) => {
                ("image_size", size.to_string(), format!("{smallest} or more for {network}"))
            }
            Err(LayoutError::TooFewLayers { network, layers, .. }) => {
                let allowed = format!("all, or last:N with N up to {layers}, the layers of {network}'s base");
                ("trainable", self.trainable.to_string(), allowed)
            }
            // A list of layers that works nowhere is no setting's fault.
            Ok(_) | Err(LayoutError::Layers(_)) => return Ok(()),
        };
        Err(OutOfBounds { setting, found, allowed: allowed.into() })
    }
}

impl Progress {
    /// Looks at every number, in a run of so many `epochs`.
    fn check(&self, epochs: u32) -> Result<(), OutOfBounds> {
        let Progress { epoch, step, total_steps, loss_sum, left_out, best, stale } = *self;
        within(epoch <= epochs, "progress.epoch", epoch, "at most the number of epochs")?;
        within(total_steps <= MOST_STEPS, "progress.total_steps", total_steps, "at most 2^53")?;
        within(step <= total_steps, "progress.step", step, "at most progress.total_steps")?;
        within(stale <= epoch, "progress.stale", stale, "at most progress.epoch")?;
        within(left_out <= step, "progress.left_out", left_out, "at most progress.step")?;
        within(loss_sum.is_finite() && loss_sum >= 0.0, "progress.loss_sum", loss_sum, "a number from 0 on")?;
        within(best.is_none_or(|best| (0.0..=1.0).contains(&best)), "progress.best", best, "from 0 to 1")
    }
}

impl Tuned {
    /// Looks at every number, of a model of so many `genres`.
    fn check(&self, genres: usize) -> Result<(), OutOfBounds> {
        let Tuned { thresholds, temperature, .. } = self;
        let found = thresholds.len();
        within(found == genres, "the number of tuned thresholds", found, "the number of genres")?;
        let stray = thresholds.iter().find(|threshold| !(0.0..=1.0).contains(*threshold));
        within(stray.is_none(), "a tuned threshold", stray, "from 0 to 1")?;
        within(TEMPERATURES.contains(temperature), "tuned.temperature", temperature, "from 0.01 to 100")
    }
}

impl Metadata {
    /// Looks at every number and every list.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let (genres, thresholds) = (self.genres.len(), self.thresholds.len());
        within((1..=MOST_GENRES).contains(&genres), "the number of genres", genres, "from 1 to 10000")?;
        within(thresholds == genres, "the number of thresholds", thresholds, "the number of genres")?;
        let longest = self.genres.iter().map(String::len).max().unwrap_or_default();
        within(longest <= LONGEST_NAME, "the longest genre's length", longest, "at most 1000 bytes")?;
        let stray = self.thresholds.iter().find(|threshold| !(0.0..=1.0).contains(*threshold));
        within(stray.is_none(), "a threshold", stray, "from 0 to 1")?;
        if let Some(tuned) = &self.tuned {
            tuned.check(genres)?;
        }
        self.progress.check(self.config.epochs)?;
        self.config.check()
    }
}
