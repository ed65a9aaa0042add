//! A model and its optimiser: one training step, and the way into a checkpoint and back.

use super::checkpoint::{self, Checkpoint, Metadata, first_moment, second_moment};
use super::recipe::Recipe;
use super::{TrainingError, numerics};
use crate::checks::NonFinite;
use crate::device::adam::OUTCOME;
use crate::device::{Device, DeviceError, PixelFormat, Real};
use crate::files::Disk;
use crate::model::{Batch, Model, Outcome, Predictor};
use crate::network::{Architecture, ModelConfig, NamedShape, NamedTensor, Place};
use crate::ops::loss::Objective;
use crate::optim::Adam;
use crate::parameters::{Arena, Span};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;

/// Whether a checkpoint keeps the optimiser's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything: training goes on from it to the same bits.
    Everything,
    /// The weights and averages: a third of the size, enough for inference.
    Weights,
}

/// A model that learns.
pub struct Learner<D: Device> {
    model: Model<D>,
    adam: Adam<D>,
    objective: Objective,
    /// The batch that steps read, and the step as the device remembers it.
    current: Option<(Batch<D>, D::Plan)>,
    /// Steps whose outcome nobody has asked for yet, the oldest first: their numbers and their outcomes.
    submitted: VecDeque<(u64, D::Arriving)>,
}

/// Where a checkpoint's tensor lives in memory.
#[derive(Clone, Copy)]
enum Source<'a> {
    Model(&'a NamedTensor),
    FirstMoment(Span),
    SecondMoment(Span),
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
        if recipe.weight_decay > 0.0 {
            adam = adam.decaying(device, recipe.weight_decay, architecture)?;
        }
        if let Some(norm) = recipe.clip_norm {
            adam = adam.clipping(norm);
        }
        Ok(Learner { model, adam, objective: recipe.objective(), current: None, submitted: VecDeque::new() })
    }

    /// The model.
    pub fn model(&self) -> &Model<D> {
        &self.model
    }

    /// The model, to write weights into it.
    pub fn model_mut(&mut self) -> &mut Model<D> {
        &mut self.model
    }

    /// Starts a step on a batch of `images` at learning rate `rate`. [`outcome`](Self::outcome) waits for its end; until then the
    /// next batch's pixels may be uploaded, and the next step submitted.
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
    ) -> Result<(), TrainingError> {
        let device = Rc::clone(self.model.device());
        let rates = self.adam.begin_step(rate);
        let fits = |batch: &Batch<D>| batch.images() == images && batch.format() == format;
        let (batch, plan) = match self.current.take_if(|(batch, _)| fits(batch)) {
            Some((mut batch, plan)) => {
                batch.replace(&device, pixels, labels, class_weights, rates)?;
                self.current.insert((batch, plan))
            }
            None => {
                let objective = self.objective;
                let mut batch =
                    Batch::towards(objective, &*device, pixels, images, format, labels, class_weights)?;
                batch.set_rates(&device, rates)?;
                self.current.insert((batch, D::Plan::default()))
            }
        };
        let (model, adam) = (&mut self.model, &mut self.adam);
        device.repeat(plan, || -> Result<(), DeviceError> {
            model.gradients(batch)?;
            adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates())
        })?;
        self.submitted.push_back((adam.t, device.fetch(batch.outcome_view())?));
        Ok(())
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

    /// Where the step submitted last went wrong: does it once more, looks at every result, and moves nothing. To be asked after a
    /// bad [`outcome`](Self::outcome) and before the next step is submitted, so that batch and weights are those of that step.
    /// None if every number is finite, and if no step was submitted yet. On a GPU this takes the memory of a step once more, because
    /// a captured step keeps its own.
    ///
    /// # Errors
    /// The device's.
    pub fn first_non_finite(&mut self) -> Result<Option<NonFinite>, TrainingError> {
        match &mut self.current {
            Some((batch, _)) => Ok(numerics::first_non_finite(&mut self.model, batch)?),
            None => Ok(None),
        }
    }

    /// Forgets the steps whose loss nobody has asked for: the weights are about to be replaced.
    pub fn forget_submitted(&mut self) {
        self.submitted.clear();
    }

    /// About how many bytes a checkpoint has.
    pub fn saved_bytes(&self, keep: Keep) -> u64 {
        let architecture = self.model.architecture();
        let sources = sources(&architecture.tensors, architecture.trainable_from, keep);
        let values: usize = sources.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
        // A digest, a name and extents a tensor; and the settings.
        (4 * values + 256 * sources.len() + 8192) as u64
    }

    /// Writes a checkpoint to `path`, one tensor in host memory at a time.
    ///
    /// # Errors
    /// The device's and the disk's; what `path` held before is then still there.
    pub fn save(&self, path: &Path, metadata: &Metadata, keep: Keep) -> Result<(), TrainingError> {
        let architecture = self.model.architecture();
        let sources = sources(&architecture.tensors, architecture.trainable_from, keep);
        let shapes: Vec<NamedShape> = sources.iter().map(|(name, shape, _)| (name.clone(), shape.to_vec())).collect();
        let by_name: BTreeMap<&str, Source<'_>> =
            sources.iter().map(|(name, _, source)| (name.as_str(), *source)).collect();
        checkpoint::write(&Disk, path, metadata, &shapes, |name| match by_name[name] {
            Source::Model(tensor) => Ok(self.model.read(tensor)?),
            Source::FirstMoment(span) => self.download(&self.adam.m, span),
            Source::SecondMoment(span) => self.download(&self.adam.v, span),
        })
    }

    /// Puts everything in `checkpoint` back where it was.
    ///
    /// # Errors
    /// The checkpoint's, before anything is copied, and the device's.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainingError> {
        let architecture = self.model.architecture();
        let (tensors, trainable_from) = (architecture.tensors.clone(), architecture.trainable_from);
        let sources = sources(&tensors, trainable_from, Keep::Everything);
        let shapes: Vec<NamedShape> = sources.iter().map(|(name, shape, _)| (name.clone(), shape.to_vec())).collect();
        checkpoint.check(&shapes)?;
        for (name, _, source) in &sources {
            let values = checkpoint.values(name)?;
            let device = Rc::clone(self.model.device());
            match *source {
                Source::Model(tensor) => self.model.write(tensor, &values)?,
                Source::FirstMoment(span) => upload(&*device, &mut self.adam.m, span, &values)?,
                Source::SecondMoment(span) => upload(&*device, &mut self.adam.v, span, &values)?,
            }
        }
        self.adam.t = checkpoint.metadata().progress.total_steps;
        Ok(())
    }

    fn download(&self, arena: &Arena<D>, span: Span) -> Result<Vec<f32>, TrainingError> {
        let values = self.model.device().download(arena.view(span))?;
        Ok(values.into_iter().map(|value| value.into() as f32).collect())
    }
}

fn upload<D: Device>(device: &D, arena: &mut Arena<D>, span: Span, values: &[f32]) -> Result<(), TrainingError> {
    let values: Vec<D::Real> = values.iter().map(|&value| D::Real::from_f64(f64::from(value))).collect();
    Ok(device.upload(arena.view_mut(span), &values)?)
}

/// The model in `checkpoint`, ready to answer.
///
/// # Errors
/// The checkpoint's, if it is of another model, and the device's.
pub fn load<D: Device>(device: Rc<D>, checkpoint: &Checkpoint) -> Result<Model<D>, TrainingError> {
    let Metadata { config, genres, .. } = checkpoint.metadata();
    let mut model = Model::zeros(device, config.model(genres.len()))?;
    let tensors = model.architecture().tensors.clone();
    checkpoint.check(&shapes(&tensors))?;
    for tensor in &tensors {
        model.write(tensor, &checkpoint.values(&tensor.name)?)?;
    }
    Ok(model)
}

/// The network in `checkpoint`, ready to answer on a device that folds. Nothing of it is copied on the way from the file to the form in which
/// the device multiplies it.
///
/// # Errors
/// As for [`load`].
pub fn predictor<D: Device>(device: Rc<D>, checkpoint: &Checkpoint) -> Result<Predictor<D>, TrainingError> {
    let Metadata { config, genres, .. } = checkpoint.metadata();
    let config = config.model(genres.len());
    let architecture = Architecture::new(&config).map_err(DeviceError::from)?;
    checkpoint.check(&shapes(&architecture.tensors))?;
    Predictor::new(device, &architecture, &config, |place| {
        let mut tensors = architecture.tensors.iter();
        let tensor = tensors.find(|tensor| tensor.place == place).expect("a plan's tensors are its network's");
        Ok(checkpoint.values_in_place(&tensor.name)?)
    })
}

/// The names and extents of a model's tensors.
fn shapes(tensors: &[NamedTensor]) -> Vec<NamedShape> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// The tensors of a checkpoint in file order: the model's, then both moments of what is trainable.
fn sources(tensors: &[NamedTensor], trainable_from: usize, keep: Keep) -> Vec<(String, &[usize], Source<'_>)> {
    let mut sources: Vec<(String, &[usize], Source<'_>)> =
        tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.as_slice(), Source::Model(tensor))).collect();
    if keep == Keep::Everything {
        for tensor in tensors {
            if let Place::Weights(span) = tensor.place
                && span.range().start >= trainable_from
            {
                sources.push((first_moment(&tensor.name), &tensor.shape, Source::FirstMoment(span)));
                sources.push((second_moment(&tensor.name), &tensor.shape, Source::SecondMoment(span)));
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;
    use crate::device::{Memory, Placement};
    use crate::network::{Network, Trainable, resnet50};
    use crate::ops::pool::Pooling;
    use crate::training::config::{Pixels, RunConfig};

    /// Much less would let a run begin that cannot save, much more keep one from a disk that has room for it.
    #[test]
    fn a_checkpoint_takes_about_as_many_bytes_as_is_said() {
        let network = Network { head: &[3000], ..resnet50::MINIATURE };
        let config = RunConfig { network, image_size: 16, trainable: Trainable::Last(20), ..RunConfig::default() };
        let learner = Learner::new(Rc::new(Cpu::new()), config.model(2), 5).unwrap();
        let metadata = Metadata {
            genres: vec!["Drama".into(), "Other".into()],
            thresholds: vec![0.5; 2],
            resize: "area".into(),
            exif: "ignore".into(),
            alpha: "drop".into(),
            data_digest: "of the posters".into(),
            progress: Default::default(),
            config,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        for keep in [Keep::Everything, Keep::Weights] {
            learner.save(&path, &metadata, keep).unwrap();
            let (said, is) = (learner.saved_bytes(keep), std::fs::metadata(&path).unwrap().len());
            assert!((is..is + 32_768).contains(&said), "{keep:?}: {said} said, {is} written");
            // Four bytes per value, 256 per tensor, and 8 KiB.
            let tensors = Checkpoint::open(&path).unwrap().tensors().to_vec();
            let values: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(said, 4 * values as u64 + 256 * tensors.len() as u64 + 8192, "{keep:?}");
        }
    }

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
