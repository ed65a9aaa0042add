//! Adam in Keras's form, over the arenas.

use crate::device::{AdamStep, Device, DeviceError};
use crate::parameters::{Arena, Layout, Parameters};

/// Adam's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the raw second moment.
    pub epsilon: f64,
}

impl Default for AdamConfig {
    /// Keras's.
    fn default() -> Self {
        AdamConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-7 }
    }
}

/// Both moments of every parameter, and the number of steps taken.
pub struct Adam<D: Device> {
    config: AdamConfig,
    /// First moments, at the spans of the weights.
    pub m: Arena<D>,
    /// Second moments, at the spans of the weights.
    pub v: Arena<D>,
    /// Steps taken, which the bias corrections count.
    pub t: u64,
}

impl<D: Device> Adam<D> {
    /// An optimiser for arenas of `layout` that has taken no step.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: &D, layout: Layout, config: AdamConfig) -> Result<Self, DeviceError> {
        Ok(Adam { config, m: Arena::zeros(device, layout)?, v: Arena::zeros(device, layout)?, t: 0 })
    }

    /// Moves the trainable weights against their gradients at learning rate `rate`.
    ///
    /// # Errors
    /// The device's.
    pub fn step(&mut self, device: &D, parameters: &mut Parameters<D>, rate: f64) -> Result<(), DeviceError> {
        self.t += 1;
        let AdamConfig { beta1, beta2, epsilon } = self.config;
        let from = parameters.trainable_from;
        device.adam(
            parameters.weights.from_offset_mut(from),
            self.m.from_offset_mut(from),
            self.v.from_offset_mut(from),
            parameters.gradients.from_offset(from),
            &AdamStep { rate, beta1, beta2, epsilon, t: self.t },
        )
    }
}
