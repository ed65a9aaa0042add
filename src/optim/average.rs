//! A moving average of everything that a model answers with.

use crate::device::{Average, Device, DeviceError, Elements, Pass, Storage};
use crate::network::{Architecture, Place};
use crate::parameters::{Arena, Parameters};
use std::mem::swap;

/// An exponential moving average of the weights, and of batch norm's running averages at the same pace: so the two belong together,
/// and nothing is estimated again (Polyak and Juditsky 1992, in the form of Tarvainen and Valpola 2017, section 3).
pub struct WeightAverage<D: Device> {
    decay: f64,
    weights: Arena<D>,
    averages: Arena<D>,
    /// Whether there is anything in it: it begins where the model does, which somebody may write weights into first.
    begun: bool,
    /// Whether the model has it in the place of what it learns with.
    exchanged: bool,
}

impl<D: Device> WeightAverage<D> {
    /// An average in which, in the end, the old value has the weight `decay`.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: &D, decay: f64, architecture: &Architecture) -> Result<Self, DeviceError> {
        Ok(WeightAverage {
            decay,
            weights: Arena::zeros(device, architecture.weights, Storage::Weights)?,
            averages: Arena::zeros(device, architecture.averages, Storage::Full)?,
            begun: false,
            exchanged: false,
        })
    }

    /// Begins where the model is, unless it has begun.
    ///
    /// # Errors
    /// The device's.
    pub fn begin(&mut self, device: &D, parameters: &Parameters<D>) -> Result<(), DeviceError> {
        if !self.begun {
            device.enter("average", Pass::Update);
            device.copy(self.weights.from_offset_mut(0), parameters.weights.from_offset(0))?;
            device.copy(self.averages.from_offset_mut(0), parameters.averages.from_offset(0))?;
            self.begun = true;
        }
        Ok(())
    }

    /// How far step `t`, counted from 1, takes the average towards the weights: 1 − min(decay, (1 + t)/(10 + t)). So the first steps do not
    /// hang on to where the weights began.
    pub fn towards(&self, t: u64) -> f64 {
        let t = t as f64;
        1.0 - self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// Moves behind a step of the optimiser, by what [`towards`](Self::towards) said: `towards [1]` on the device. A bad step, which
    /// `outcome [3]` shows, moves nothing.
    ///
    /// # Errors
    /// The device's.
    pub fn step<'a>(
        &mut self,
        device: &D,
        parameters: &'a Parameters<D>,
        outcome: D::View<'a>,
        towards: D::View<'a>,
    ) -> Result<(), DeviceError> {
        device.enter("average", Pass::Update);
        let from = parameters.trainable_from;
        let (weights, to) = (parameters.weights.from_offset(from), self.weights.from_offset_mut(from));
        device.average(Average { to, from: weights, outcome, towards })?;
        let (averages, to) = (parameters.averages.from_offset(0), self.averages.from_offset_mut(0));
        // A network without batch norms has none.
        if to.count() == 0 {
            return Ok(());
        }
        device.average(Average { to, from: averages, outcome, towards })
    }

    /// Puts the average in the place of what a model learns with, and at the next call back. No step may lie in between. The memory
    /// changes hands, not its content: so a step that a device has captured finds its own where it was.
    pub fn exchange(&mut self, parameters: &mut Parameters<D>) {
        if self.begun {
            swap(&mut self.weights, &mut parameters.weights);
            swap(&mut self.averages, &mut parameters.averages);
            self.exchanged = !self.exchanged;
        }
    }

    /// The weights and running averages to answer with, and behind them those that learn, of a model with these `parameters`.
    pub fn answering_and_learning<'a>(&'a self, parameters: &'a Parameters<D>) -> [[&'a Arena<D>; 2]; 2] {
        let (own, models) = ([&self.weights, &self.averages], [&parameters.weights, &parameters.averages]);
        match (self.begun, self.exchanged) {
            (false, _) => [models, models],
            (true, false) => [own, models],
            (true, true) => [models, own],
        }
    }

    /// A tensor of the average, to be written from a checkpoint.
    pub fn restoring(&mut self, place: Place) -> D::ViewMut<'_> {
        self.begun = true;
        match place {
            Place::Weights(span) => self.weights.view_mut(span),
            Place::Averages(span) => self.averages.view_mut(span),
        }
    }
}
