//! Batch norm's running averages, formed anew: *PreciseBN* (Wu and Johnson 2021, *Rethinking "Batch" in BatchNorm*, section 3).
//!
//! In training they follow the batches of a moving network, and of distorted posters where there are any. What answers is another network:
//! the last step's, or a moving average of the weights, and it is asked about posters as they are. So their averages are taken for that
//! network over such posters.

use super::{Model, Posters};
use crate::autograd::Tape;
use crate::device::{Device, DeviceError};
use crate::plan::{self, Plan, Statistics};
use std::rc::Rc;

impl<D: Device> Model<D> {
    /// Takes batch `number`, counted from 0, into the running averages of those before it:
    /// `average ← (number · average + batch's) / (number + 1)`, so that each counts the same, and what was there before the first is
    /// forgotten. A frozen batch norm keeps its own.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images do not fit the network.
    pub fn average(&mut self, posters: Posters<'_>, number: usize) -> Result<(), DeviceError> {
        // A training step's running average with this momentum.
        let momentum = number as f64 / (number + 1) as f64;
        let plan = Plan::new(&self.architecture, momentum)?;
        self.predictor.take();
        let pixels = self.device.upload_pixels(posters.pixels, posters.placements)?;
        let images = self.images(&pixels, posters.placements.len(), posters.format)?;
        let mut tape = Tape::inference(Rc::clone(&self.device));
        plan::forward(&mut tape, &mut Statistics::Batch(&mut self.parameters), &plan, images)?;
        Ok(())
    }
}
