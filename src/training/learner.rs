//! A model and its optimiser: one training step, and the way into a checkpoint and back.

mod files;
mod seat;

pub use files::{Keep, load, predictor};
pub(super) use seat::{Seat, Told};

use super::recipe::Recipe;
use super::replicas::{Opener, Replicas, Replicated};
use super::{TrainingError, numerics};
use crate::checks::NonFinite;
use crate::data::loader;
use crate::device::adam::OUTCOME;
use crate::device::{Device, DeviceError, PixelFormat, Storage};
use crate::model::{Batch, Model, Outcome};
use crate::network::ModelConfig;
use crate::optim::{Adam, NO_RATES, WeightAverage};
use crate::tensor::Tensor;
use std::collections::VecDeque;
use std::rc::Rc;

/// The batches of a step.
struct Parts<D: Device> {
    of: usize,
    done: usize,
    /// The sum of their losses so far, each divided by their number: `[1]`.
    loss: Tensor<D>,
}

/// A model that learns.
pub struct Learner<D: Device> {
    model: Model<D>,
    adam: Adam<D>,
    /// What answers, if that is not the model as it learns.
    average: Option<WeightAverage<D>>,
    /// The step under way, where several batches make one.
    parts: Option<Parts<D>>,
    /// Other devices that compute some of them.
    replicas: Option<Replicas<D>>,
    /// The batch that steps read, and the step as the device remembers it.
    seat: Seat<D>,
    /// Steps whose outcome nobody has asked for yet, the oldest first: their numbers and their outcomes.
    submitted: VecDeque<(u64, D::Arriving)>,
}

impl<D: Device> Learner<D> {
    /// A model with initial values drawn from `seed`, and an optimiser that has taken no step.
    ///
    /// # Errors
    /// The device's.
    pub fn new(device: Rc<D>, config: ModelConfig, seed: u64) -> Result<Self, TrainingError> {
        Learner::by(&Recipe::default(), Model::new(device, config, seed)?)
    }

    /// A model as it is, and an optimiser that has taken no step, with the parts of a recipe that are theirs.
    ///
    /// # Errors
    /// The device's.
    pub fn by(recipe: &Recipe, model: Model<D>) -> Result<Self, TrainingError> {
        let (device, architecture) = (&**model.device(), model.architecture());
        let mut adam = Adam::new(device, architecture.weights)?;
        if recipe.base_rate != 1.0 {
            adam = adam.with_base_at(recipe.base_rate, architecture);
        }
        if recipe.weight_decay > 0.0 {
            adam = adam.decaying(device, recipe.weight_decay, architecture)?;
        }
        if let Some(norm) = recipe.clip_norm {
            adam = adam.clipping(norm);
        }
        let average = match recipe.ema {
            0.0 => None,
            decay => Some(WeightAverage::new(device, decay, architecture)?),
        };
        let parts = match recipe.accumulate {
            ..=1 => None,
            of => Some(Parts { of, done: 0, loss: Tensor::new(device, [1], Storage::Full)? }),
        };
        Ok(Learner { model, adam, average, parts, replicas: None, seat: Seat::new(), submitted: VecDeque::new() })
    }

    /// Has further devices compute a part of each step's batches, which must be several. `recompute` says whether they keep fewer values of
    /// a step, as the plan of this learner's model may.
    ///
    /// # Errors
    /// Those of opening the devices.
    ///
    /// # Panics
    /// If the batches of a step cannot be shared evenly.
    pub fn share(&mut self, openers: Vec<Opener<D>>, recompute: bool) -> Result<(), TrainingError> {
        let (devices, of) = (openers.len() + 1, self.parts.as_ref().map_or(1, |parts| parts.of));
        assert!(of.is_multiple_of(devices), "{of} batches a step are shared evenly by {devices} devices");
        let replicated = Replicated { config: self.model.config().clone(), recompute };
        let replicas = Replicas::open(&**self.model.device(), self.model.parameters(), &replicated, openers)?;
        self.replicas = Some(replicas);
        Ok(())
    }

    /// Batches that are computed at the same time, one a device.
    pub fn at_a_time(&self) -> usize {
        1 + self.replicas.as_ref().map_or(0, Replicas::count)
    }

    /// The model.
    pub fn model(&self) -> &Model<D> {
        &self.model
    }

    /// The model, to write weights into it.
    pub fn model_mut(&mut self) -> &mut Model<D> {
        &mut self.model
    }

    /// Starts a step on a batch of `images` at learning rate `rate`, or one part of it where several batches make a step. Whether that
    /// was the last part. [`outcome`](Self::outcome) waits for a step's end; until then the next batch's pixels may be uploaded, and the
    /// next step submitted.
    ///
    /// # Errors
    /// The device's.
    pub fn submit(
        &mut self,
        pixels: D::Pixels,
        images: usize,
        format: &PixelFormat,
        labels: &[u8],
        class_weights: &[f32],
        rate: f64,
    ) -> Result<bool, TrainingError> {
        self.submit_beside(Vec::new(), pixels, images, format, labels, class_weights, rate)
    }

    /// The same where further devices compute `others` meanwhile, a batch each.
    ///
    /// # Errors
    /// Those of all devices.
    ///
    /// # Panics
    /// If there are not as many as further devices.
    pub fn submit_beside(
        &mut self,
        others: Vec<loader::Batch>,
        pixels: D::Pixels,
        images: usize,
        format: &PixelFormat,
        labels: &[u8],
        class_weights: &[f32],
        rate: f64,
    ) -> Result<bool, TrainingError> {
        let at_a_time = self.at_a_time();
        assert_eq!(others.len() + 1, at_a_time, "a batch a device");
        let device = Rc::clone(self.model.device());
        self.begin_average()?;
        let is_last = self.parts.as_ref().is_none_or(|parts| parts.done + at_a_time == parts.of);
        let class_weights = self.shares(class_weights);
        if let Some(replicas) = &mut self.replicas {
            replicas.begin(&device, self.model.parameters())?;
            replicas.hand_out(others, format, &class_weights);
        }
        let rates = if is_last { self.adam.begin_step(rate) } else { NO_RATES };
        let towards = self.average.as_ref().map_or(0.0, |average| average.towards(self.adam.t));
        let told = Told { format, labels, class_weights: &class_weights, rates, towards };
        let (batch, plan) = self.seat.put(&device, pixels, images, told)?;
        let (model, adam, average) = (&mut self.model, &mut self.adam, &mut self.average);
        let mut update = |model: &mut Model<D>, batch: &Batch<D>| -> Result<(), DeviceError> {
            adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates())?;
            match average {
                Some(average) => average.step(&device, model.parameters(), batch.outcome_view(), batch.towards()),
                None => Ok(()),
            }
        };
        match &mut self.parts {
            None => device.repeat(plan, || {
                model.gradients(batch)?;
                update(model, batch)
            })?,
            // What is the same for each batch is what the device remembers; so the memory of a step is that of one batch.
            Some(parts) => {
                if parts.done == 0 {
                    model.begin_gradients()?;
                    device.fill(parts.loss.view_mut(), D::Real::default())?;
                }
                device.repeat(plan, || -> Result<(), DeviceError> {
                    model.add_gradients(batch)?;
                    batch.add_loss_to(&device, &mut parts.loss)
                })?;
                parts.done += at_a_time;
                if !is_last {
                    return Ok(false);
                }
                parts.done = 0;
                if let Some(replicas) = &mut self.replicas {
                    replicas.add_to(&device, model.parameters_mut(), &mut parts.loss)?;
                }
                batch.end_gradients(&device, &parts.loss, model.parameters())?;
                update(model, batch)?;
            }
        }
        self.submitted.push_back((self.adam.t, device.fetch(batch.outcome_view())?));
        Ok(true)
    }

    /// Whether the next batch begins a step.
    pub fn is_between_steps(&self) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.done == 0)
    }

    /// Leaves out a step of which not all batches have come: the running averages are again as it found them.
    ///
    /// # Errors
    /// The device's.
    pub fn leave_step(&mut self) -> Result<(), TrainingError> {
        self.leave_replicas();
        if let Some(parts) = self.parts.as_mut().filter(|parts| parts.done > 0) {
            parts.done = 0;
            let device = Rc::clone(self.model.device());
            self.model.parameters_mut().take_averages_back(&device)?;
        }
        Ok(())
    }

    /// Has the moving average begin where the model is, if there is one and no step was taken yet.
    ///
    /// # Errors
    /// The device's.
    pub fn begin_average(&mut self) -> Result<(), TrainingError> {
        match &mut self.average {
            Some(average) => Ok(average.begin(self.model.device(), self.model.parameters())?),
            None => Ok(()),
        }
    }

    /// Has the model answer with the moving average, if there is one, and from the next call on with what it learns again. No step may
    /// lie in between.
    pub fn exchange_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.exchange(self.model.parameters_mut());
        }
    }

    /// Whether [`outcome`](Self::outcome) would answer without waiting.
    pub fn has_outcome(&self) -> bool {
        self.submitted.front().is_some_and(|(_, outcome)| self.model.device().is_here(outcome))
    }

    /// The outcome of the oldest step that was submitted and not yet asked for, once it is done; none of its numbers is one if
    /// there is no such step.
    ///
    /// # Errors
    /// The device's, and [`TrainingError::Diverged`] if a number of the outcome is not finite. That step has then left weights,
    /// moments and running averages as they were; steps submitted behind it have been done from there, and have outcomes of
    /// their own.
    pub fn outcome(&mut self) -> Result<Outcome, TrainingError> {
        let Some((step, outcome)) = self.submitted.pop_front() else { return Ok(Outcome::new(&[f64::NAN; OUTCOME])) };
        let outcome = Outcome::new(&self.model.device().receive(outcome)?);
        match outcome.fault() {
            Some((what, value)) => {
                Err(TrainingError::Diverged { what: format!("{what} of step {step}"), value, place: None })
            }
            None => Ok(outcome),
        }
    }

    /// The class weights of one batch of several: loss and gradient are in proportion to them. Divided by 1, they keep their bits.
    fn shares(&self, class_weights: &[f32]) -> Vec<f32> {
        let of = self.parts.as_ref().map_or(1, |parts| parts.of);
        class_weights.iter().map(|weight| weight / of as f32).collect()
    }

    /// Where the step submitted last went wrong: does it once more, looks at every result, and moves nothing. To be asked after a
    /// bad [`outcome`](Self::outcome) and before the next step is submitted, so that batch and weights are those of that step.
    /// None if every number is finite, and if no step was submitted yet. On a GPU this takes the memory of a step once more, because
    /// a captured step keeps its own.
    ///
    /// # Errors
    /// The device's.
    pub fn first_non_finite(&mut self) -> Result<Option<NonFinite>, TrainingError> {
        match self.seat.batch() {
            Some(batch) => Ok(numerics::first_non_finite(&mut self.model, batch)?),
            None => Ok(None),
        }
    }

    /// The same for a batch of that step that the device no longer holds, as where several batches make a step.
    ///
    /// # Errors
    /// The device's.
    pub fn first_non_finite_in(
        &mut self,
        pixels: D::Pixels,
        images: usize,
        format: &PixelFormat,
        labels: &[u8],
        class_weights: &[f32],
    ) -> Result<Option<NonFinite>, TrainingError> {
        let device = Rc::clone(self.model.device());
        let class_weights = self.shares(class_weights);
        let told = Told { format, labels, class_weights: &class_weights, rates: NO_RATES, towards: 0.0 };
        self.seat.put(&device, pixels, images, told)?;
        self.first_non_finite()
    }

    /// Forgets the steps whose loss nobody has asked for: the weights are about to be replaced.
    pub fn forget_submitted(&mut self) {
        self.submitted.clear();
        self.leave_replicas();
        if let Some(parts) = &mut self.parts {
            parts.done = 0;
        }
    }

    fn leave_replicas(&mut self) {
        if let Some(replicas) = &mut self.replicas {
            replicas.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;
    use crate::device::{Memory, Placement};
    use crate::network::resnet50;
    use crate::ops::pool::Pooling;
    use crate::training::config::{Pixels, RunConfig};

    /// The batch stays on the device from step to step, and is another where it does not fit.
    #[test]
    fn each_step_sees_the_batch_it_was_given() {
        let network = resnet50::MINIATURE;
        let config = RunConfig { network, image_size: 16, pooling: Pooling::Max, ..RunConfig::default() }.model(2);
        let mut learner = Learner::new(Rc::new(Cpu::new()), config.clone(), 5).unwrap();
        let mut model = Model::new(Rc::new(Cpu::new()), config, 5).unwrap();
        let device = Rc::clone(model.device());
        let mut adam = Adam::new(&*device, model.architecture().weights).unwrap();
        let steps =
            [(3, Pixels::Raw), (3, Pixels::Raw), (2, Pixels::Raw), (2, Pixels::Imagenet), (3, Pixels::Imagenet)];
        for (step, (images, pixels)) in steps.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..images * 16 * 16 * 3).map(|at| ((at * (at + step)) % 253) as u8).collect();
            let places = vec![Placement { flip: step == 1, ..Placement::default() }; images];
            let labels: Vec<u8> = (0..2 * images).map(|at| u8::from((at + step).is_multiple_of(3))).collect();
            let (format, weights) = (pixels.format(), [1.0 + step as f32, 0.5]);
            let rate = 1e-3 * (step as f64 + 1.0);
            let upload = || device.upload_pixels(&bytes, &places).unwrap();
            learner.submit(upload(), images, &format, &labels, &weights, rate).unwrap();
            let found = learner.outcome().unwrap();

            let mut batch = Batch::new(&*device, upload(), images, &format, &labels, &weights).unwrap();
            batch.set_rates(&device, adam.begin_step(rate)).unwrap();
            model.gradients(&mut batch).unwrap();
            adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates()).unwrap();
            assert_eq!(found, batch.outcome(&device).unwrap(), "step {step}");
        }
        for tensor in &model.architecture().tensors {
            assert!(learner.model().read(tensor).unwrap() == model.read(tensor).unwrap(), "{}", tensor.name);
        }
    }
}
