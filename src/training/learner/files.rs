//! A learner's way into a checkpoint and back.

use super::Learner;
use crate::device::{Device, DeviceError, Real};
use crate::files::Disk;
use crate::model::{Model, Predictor};
use crate::network::{Architecture, NamedShape, NamedTensor, Place};
use crate::parameters::{Arena, Span};
use crate::training::TrainingError;
use crate::training::checkpoint::{self, Checkpoint, Metadata, first_moment, learning, second_moment};
use std::collections::BTreeMap;
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

/// Where a checkpoint's tensor lives in memory.
#[derive(Clone, Copy)]
enum Source {
    /// What answers: the model's own, or its moving average.
    Answering(Place),
    /// What learns, where that is something else.
    Learning(Place),
    FirstMoment(Span),
    SecondMoment(Span),
}

impl<D: Device> Learner<D> {
    /// About how many bytes a checkpoint has.
    pub fn saved_bytes(&self, keep: Keep) -> u64 {
        let sources = sources(self.model.architecture(), keep, self.average.is_some());
        let values: usize = sources.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
        // A digest, a name and extents a tensor; and the settings.
        (4 * values + 256 * sources.len() + 8192) as u64
    }

    /// Writes a checkpoint to `path`, one tensor in host memory at a time.
    ///
    /// # Errors
    /// The device's and the disk's; what `path` held before is then still there.
    pub fn save(&self, path: &Path, metadata: &Metadata, keep: Keep) -> Result<(), TrainingError> {
        let sources = sources(self.model.architecture(), keep, self.average.is_some());
        let shapes: Vec<NamedShape> = sources.iter().map(|(name, shape, _)| (name.clone(), shape.to_vec())).collect();
        let by_name: BTreeMap<&str, Source> =
            sources.iter().map(|(name, _, source)| (name.as_str(), *source)).collect();
        let parameters = self.model.parameters();
        let own = [&parameters.weights, &parameters.averages];
        let [answering, moved] = match &self.average {
            Some(average) => average.answering_and_learning(parameters),
            None => [own, own],
        };
        let read = |[weights, averages]: [&Arena<D>; 2], place| match place {
            Place::Weights(span) => self.download(weights, span),
            Place::Averages(span) => self.download(averages, span),
        };
        checkpoint::write(&Disk, path, metadata, &shapes, |name| match by_name[name] {
            Source::Answering(place) => read(answering, place),
            Source::Learning(place) => read(moved, place),
            Source::FirstMoment(span) => self.download(&self.adam.m, span),
            Source::SecondMoment(span) => self.download(&self.adam.v, span),
        })
    }

    /// Puts everything in `checkpoint` back where it was.
    ///
    /// # Errors
    /// The checkpoint's, before anything is copied, and the device's.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainingError> {
        let sources = sources(self.model.architecture(), Keep::Everything, self.average.is_some());
        let shapes: Vec<NamedShape> = sources.iter().map(|(name, shape, _)| (name.clone(), shape.to_vec())).collect();
        checkpoint.check(&shapes)?;
        for (name, _, source) in &sources {
            let values = checkpoint.values(name)?;
            let device = Rc::clone(self.model.device());
            match *source {
                Source::Answering(place) => {
                    if let Some(average) = &mut self.average {
                        upload(&*device, average.restoring(place), &values)?;
                    }
                    // What learns is the same if the file has nothing else; if it has, that comes behind.
                    self.put(place, &values)?;
                }
                Source::Learning(place) => self.put(place, &values)?,
                Source::FirstMoment(span) => upload(&*device, self.adam.m.view_mut(span), &values)?,
                Source::SecondMoment(span) => upload(&*device, self.adam.v.view_mut(span), &values)?,
            }
        }
        self.adam.t = checkpoint.metadata().progress.total_steps;
        Ok(())
    }

    /// Sets a tensor of what learns.
    fn put(&mut self, place: Place, values: &[f32]) -> Result<(), TrainingError> {
        let device = Rc::clone(self.model.device());
        let parameters = self.model.parameters_mut();
        let to = match place {
            Place::Weights(span) => parameters.weights.view_mut(span),
            Place::Averages(span) => parameters.averages.view_mut(span),
        };
        upload(&*device, to, values)
    }

    fn download(&self, arena: &Arena<D>, span: Span) -> Result<Vec<f32>, TrainingError> {
        let values = self.model.device().download(arena.view(span))?;
        Ok(values.into_iter().map(|value| value.into() as f32).collect())
    }
}

fn upload<D: Device>(device: &D, to: D::ViewMut<'_>, values: &[f32]) -> Result<(), TrainingError> {
    let values: Vec<D::Real> = values.iter().map(|&value| D::Real::from_f64(f64::from(value))).collect();
    Ok(device.upload(to, &values)?)
}

/// The model in `checkpoint`, ready to answer.
///
/// # Errors
/// The checkpoint's, if it is of another model, and the device's.
pub fn load<D: Device>(device: Rc<D>, checkpoint: &Checkpoint) -> Result<Model<D>, TrainingError> {
    let Metadata { config, genres, .. } = checkpoint.metadata();
    let mut model = Model::zeros(device, config.model(genres.len()))?;
    let tensors = model.architecture().tensors.clone();
    checkpoint.check(&model.architecture().named_shapes())?;
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
    checkpoint.check(&architecture.named_shapes())?;
    Predictor::new(device, &architecture, &config, |place| {
        let mut tensors = architecture.tensors.iter();
        let tensor = tensors.find(|tensor| tensor.place == place).expect("a plan's tensors are its network's");
        Ok(checkpoint.values_in_place(&tensor.name)?)
    })
}

/// The tensors of a checkpoint in file order: those that answer; of what learns those that are others, where an average answers; and
/// both moments of what is trainable.
fn sources(architecture: &Architecture, keep: Keep, has_average: bool) -> Vec<(String, Vec<usize>, Source)> {
    let mut sources = Vec::new();
    let mut add = |name: String, tensor: &NamedTensor, source| sources.push((name, tensor.shape.clone(), source));
    for tensor in &architecture.tensors {
        add(tensor.name.clone(), tensor, Source::Answering(tensor.place));
    }
    if keep == Keep::Everything {
        let moving = || architecture.tensors.iter().filter(|tensor| !architecture.is_frozen(tensor));
        if has_average {
            for tensor in moving() {
                add(learning(&tensor.name), tensor, Source::Learning(tensor.place));
            }
        }
        for tensor in moving() {
            if let Place::Weights(span) = tensor.place {
                add(first_moment(&tensor.name), tensor, Source::FirstMoment(span));
                add(second_moment(&tensor.name), tensor, Source::SecondMoment(span));
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;
    use crate::network::{Network, Trainable, resnet50};
    use crate::training::config::RunConfig;

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
            tuned: None,
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
}
