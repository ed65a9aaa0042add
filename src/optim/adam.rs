//! Adam in Keras's form, over the arenas.

use crate::device::{AdamConstants, AdamStep, Device, DeviceError, Elements, Pass, Restore, Storage};
use crate::parameters::{Arena, Layout, Parameters};

/// Both moments of every parameter, and the number of steps taken.
pub struct Adam<D: Device> {
    constants: AdamConstants,
    /// First moments, at the spans of the weights.
    pub m: Arena<D>,
    /// Second moments, at the spans of the weights.
    pub v: Arena<D>,
    /// Steps begun, which the bias corrections count. One that proved bad counts too: by the time it is known to be, the next
    /// has begun. It makes the first few steps behind it a little shorter, and later ones no different.
    pub t: u64,
}

impl<D: Device> Adam<D> {
    /// An optimiser with Keras's constants for arenas of `layout` that has taken no step.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: &D, layout: Layout) -> Result<Self, DeviceError> {
        Ok(Adam {
            constants: AdamConstants::default(),
            m: Arena::zeros(device, layout, Storage::Full)?,
            v: Arena::zeros(device, layout, Storage::Full)?,
            t: 0,
        })
    }

    /// Counts a step at learning rate `rate`, and returns the corrected rate that [`step`](Self::step) is to find on the device.
    pub fn begin_step(&mut self, rate: f64) -> f64 {
        self.t += 1;
        self.constants.corrected_rate(rate, self.t)
    }

    /// Moves the trainable weights against their gradients by the corrected `rate [1]`; or, if one of the numbers of `outcome [3]`
    /// is not finite, moves nothing and puts the running averages back as they were before this step. So a model whose
    /// numbers are finite keeps them so, unless the rate itself is so large that a weight overflows.
    ///
    /// # Errors
    /// The device's.
    pub fn step<'a>(
        &mut self,
        device: &D,
        parameters: &'a mut Parameters<D>,
        outcome: D::View<'a>,
        rate: D::View<'a>,
    ) -> Result<(), DeviceError> {
        let Parameters { weights, gradients, averages, averages_before, trainable_from } = parameters;
        let from = *trainable_from;
        device.enter("adam", Pass::Update);
        let operands = AdamStep {
            w: weights.from_offset_mut(from),
            m: self.m.from_offset_mut(from),
            v: self.v.from_offset_mut(from),
            gradients: gradients.from_offset(from),
            outcome,
            rate,
        };
        device.adam(operands, &self.constants)?;
        device.enter("averages", Pass::Update);
        let restore = Restore { to: averages.from_offset_mut(0), from: averages_before.from_offset(0), outcome };
        // A network without batch norms has none.
        if restore.to.count() > 0 { device.restore(restore) } else { Ok(()) }
    }
}
