//! Where the batches of training steps sit: at the same addresses from step to step, so that the device may remember a step.

use crate::device::adam::RATES;
use crate::device::{Device, DeviceError, PixelFormat};
use crate::model::Batch;
use crate::optim::StepRates;

/// A batch as a step is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// How bytes become numbers.
    pub format: &'a PixelFormat,
    /// `[N, C]`, 0 or 1.
    pub labels: &'a [u8],
    /// `[C]`.
    pub class_weights: &'a [f32],
    /// The optimiser's rates.
    pub rates: StepRates<[f64; RATES]>,
    /// How far a moving average goes towards the weights.
    pub towards: f64,
}

/// The batch that steps read, and the step as the device remembers it.
pub struct Seat<D: Device> {
    taken: Option<(Batch<D>, D::Plan)>,
}

impl<D: Device> Seat<D> {
    /// Nobody sits there yet.
    pub fn new() -> Self {
        Seat { taken: None }
    }

    /// Puts N `images` there: in the place of those before where they are as many in the same format, so that what the device remembers
    /// holds for them, too.
    ///
    /// # Errors
    /// The device's.
    pub fn put(
        &mut self,
        device: &D,
        pixels: D::Pixels,
        images: usize,
        told: Told<'_>,
    ) -> Result<(&mut Batch<D>, &mut D::Plan), DeviceError> {
        let Told { format, labels, class_weights, rates, towards } = told;
        let fits = |batch: &Batch<D>| batch.images() == images && batch.format() == format;
        let taken = match self.taken.take_if(|(batch, _)| fits(batch)) {
            Some((mut batch, plan)) => {
                batch.replace(device, pixels, labels, class_weights, rates, towards)?;
                (batch, plan)
            }
            None => {
                let mut batch = Batch::new(device, pixels, images, format, labels, class_weights)?;
                batch.set_rates(device, rates)?;
                batch.set_towards(device, towards)?;
                (batch, D::Plan::default())
            }
        };
        let (batch, plan) = self.taken.insert(taken);
        Ok((batch, plan))
    }

    /// The batch there.
    pub fn batch(&mut self) -> Option<&mut Batch<D>> {
        self.taken.as_mut().map(|(batch, _)| batch)
    }
}
