//! Adam in Keras's form, over the arenas.

use crate::device::{AdamConstants, Device, DeviceError, Pass, Real, Storage};
use crate::parameters::{Arena, Layout, Parameters};
use crate::tensor::Tensor;

/// Both moments of every parameter, and the number of steps taken.
pub struct Adam<D: Device> {
    constants: AdamConstants,
    /// First moments, at the spans of the weights.
    pub m: Arena<D>,
    /// Second moments, at the spans of the weights.
    pub v: Arena<D>,
    /// Steps taken, which the bias corrections count.
    pub t: u64,
    /// The next step's corrected rate, where the kernel finds it.
    rate: Tensor<D>,
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
            rate: Tensor::new(device, [1], Storage::Full)?,
        })
    }

    /// Counts a step and tells the device its rate, before [`step`](Self::step).
    ///
    /// # Errors
    /// The device's.
    pub fn prepare(&mut self, device: &D, rate: f64) -> Result<(), DeviceError> {
        self.t += 1;
        let rate = self.constants.corrected_rate(rate, self.t);
        device.upload(self.rate.view_mut(), &[D::Real::from_f64(rate)])
    }

    /// Moves the trainable weights against their gradients, unless `loss [1]` is no number.
    ///
    /// # Errors
    /// The device's.
    pub fn step(&mut self, device: &D, parameters: &mut Parameters<D>, loss: D::View<'_>) -> Result<(), DeviceError> {
        let from = parameters.trainable_from;
        device.enter("adam", Pass::Update);
        device.adam(
            parameters.weights.from_offset_mut(from),
            self.m.from_offset_mut(from),
            self.v.from_offset_mut(from),
            parameters.gradients.from_offset(from),
            loss,
            self.rate.view(),
            &self.constants,
        )
    }
}
