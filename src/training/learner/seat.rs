//! Where the batches of training steps sit: at the same addresses from step to step, so that the device may remember a step.

use crate::device::adam::RATES;
use crate::device::{Device, DeviceError, PixelFormat};
use crate::model::Batch;
use crate::ops::loss::Objective;
use crate::optim::StepRates;

/// A batch as a step is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a, L> {
    /// How bytes become numbers.
    pub format: &'a PixelFormat,
    /// `[N, C]`, from 0 to 1.
    pub labels: &'a [L],
    /// `[C]`.
    pub class_weights: &'a [f32],
    /// The optimiser's rates.
    pub rates: StepRates<[f64; RATES]>,
    /// How far a moving average goes towards the weights.
    pub towards: f64,
}

/// The batch that steps read, and the step as the device remembers it.
pub struct Seat<D: Device> {
    objective: Objective,
    taken: Option<(Batch<D>, D::Plan)>,
}

impl<D: Device> Seat<D> {
    /// Nobody sits there yet.
    pub fn new(objective: Objective) -> Self {
        Seat { objective, taken: None }
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
        told: Told<'_, impl Copy + Into<f64>>,
    ) -> Result<(&mut Batch<D>, &mut D::Plan), DeviceError> {
        let Told { format, labels, class_weights, rates, towards } = told;
        let fits = |batch: &Batch<D>| batch.images() == images && batch.format() == format;
        let taken = match self.taken.take_if(|(batch, _)| fits(batch)) {
            Some((mut batch, plan)) => {
                batch.replace(device, pixels, labels, class_weights, rates, towards)?;
                (batch, plan)
            }
            None => {
                let objective = self.objective;
                let mut batch =
                    Batch::with_objective(objective, device, pixels, images, format, labels, class_weights)?;
                batch.set_rates(device, rates)?;
                batch.set_towards(device, towards)?;
                (batch, D::Plan::default())
            }
        };
        let (batch, plan) = self.taken.insert(taken);
        Ok((batch, plan))
    }

    /// What is minimised there.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// The batch there.
    pub fn batch(&mut self) -> Option<&mut Batch<D>> {
        self.taken.as_mut().map(|(batch, _)| batch)
    }
}
