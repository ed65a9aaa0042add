//! The model: a network's parameters on a device, the batch that a step reads, and what an answer comes from.

mod averages;
mod batch;
mod explanation;
mod predictor;
mod views;

pub use batch::{Batch, Outcome};
pub use explanation::HeatMap;
pub use predictor::Predictor;
pub use views::{mirrored_mean, on_host, probabilities};

use crate::autograd::Tape;
use crate::checks::NonFinite;
use crate::device::{Device, DeviceError, ImageShape, Pass, PixelFormat, Placement, Real, Storage};
use crate::network::{Architecture, ModelConfig, NamedTensor, Place};
use crate::ops::loss;
use crate::parameters::Parameters;
use crate::plan::{self, Plan, Statistics};
use crate::tensor::Tensor;
use crate::value::Value;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

/// Posters as the data set stores them.
#[derive(Clone, Copy, Debug)]
pub struct Posters<'a> {
    /// `[N, size, size, 3]`, RGB.
    pub pixels: &'a [u8],
    /// How each poster is mirrored and moved.
    pub placements: &'a [Placement],
    /// How bytes become numbers.
    pub format: &'a PixelFormat,
}

/// What a model says about posters whose labels are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Mean loss over posters and genres.
    pub loss: f64,
    /// `[N, C]`.
    pub logits: Vec<f32>,
    /// `[N, C]`.
    pub probabilities: Vec<f32>,
}

/// A network and its parameters on one device.
pub struct Model<D: Device> {
    device: Rc<D>,
    architecture: Architecture,
    config: ModelConfig,
    plan: Plan,
    parameters: Parameters<D>,
    /// What answers, made when it is asked for and gone when a parameter changes.
    predictor: RefCell<Option<Predictor<D>>>,
}

impl<D: Device> Model<D> {
    /// A model with Keras's initial values, drawn from `seed`.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images are too small for the network.
    pub fn new(device: Rc<D>, config: ModelConfig, seed: u64) -> Result<Self, DeviceError> {
        let mut model = Model::zeros(device, config)?;
        for (number, tensor) in model.architecture.tensors.clone().iter().enumerate() {
            let len = tensor.shape.iter().product();
            model.write(tensor, &tensor.initialiser.values(seed, number as u32, len))?;
        }
        Ok(model)
    }

    /// A model whose tensors are all zero, for whoever writes them.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn zeros(device: Rc<D>, config: ModelConfig) -> Result<Self, DeviceError> {
        let architecture = Architecture::new(&config)?;
        let plan = Plan::new(&architecture, config.momentum)?;
        let parameters =
            Parameters::new(&*device, architecture.weights, architecture.averages, architecture.trainable_from)?;
        Ok(Model { device, architecture, config, plan, parameters, predictor: RefCell::default() })
    }

    /// The layers and tensors.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// What is computed, step by step.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Computes by another plan of the same network.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// What the model was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that holds the parameters.
    pub fn device(&self) -> &Rc<D> {
        &self.device
    }

    /// The parameters and their gradients.
    pub fn parameters(&self) -> &Parameters<D> {
        &self.parameters
    }

    /// The parameters and their gradients, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut Parameters<D> {
        self.predictor.take();
        &mut self.parameters
    }

    /// A tensor's values on the host.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, tensor: &NamedTensor) -> Result<Vec<f32>, DeviceError> {
        let view = match tensor.place {
            Place::Weights(span) => self.parameters.weights.view(span),
            Place::Averages(span) => self.parameters.averages.view(span),
        };
        Ok(self.device.download(view)?.into_iter().map(|value| value.into() as f32).collect())
    }

    /// Sets a tensor's values.
    ///
    /// # Errors
    /// [`DeviceError::Length`] if there are not as many values as elements.
    pub fn write(&mut self, tensor: &NamedTensor, values: &[f32]) -> Result<(), DeviceError> {
        self.predictor.take();
        let values: Vec<D::Real> = values.iter().map(|&value| D::Real::from_f64(f64::from(value))).collect();
        let view = match tensor.place {
            Place::Weights(span) => self.parameters.weights.view_mut(span),
            Place::Averages(span) => self.parameters.averages.view_mut(span),
        };
        self.device.upload(view, &values)
    }

    /// Forward and backward over one batch with the batch's own statistics: replaces the gradients, moves the running
    /// averages and leaves the mean loss in the batch, and behind it what shows whether all numbers were finite.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the batch does not fit the network.
    pub fn gradients(&mut self, batch: &mut Batch<D>) -> Result<(), DeviceError> {
        self.passes(batch, &mut Tape::recording(Rc::clone(&self.device)), true)?;
        batch.take_norms(&self.device, &self.parameters)
    }

    /// Begins a step of several batches, whose gradients are added up: remembers the running averages, and clears the gradients.
    ///
    /// # Errors
    /// The device's.
    pub fn begin_gradients(&mut self) -> Result<(), DeviceError> {
        self.parameters.keep_averages(&self.device)?;
        self.parameters.clear_gradients(&self.device)
    }

    /// Adds the gradients of one batch of several, moves the running averages by its statistics, which are those of this batch alone,
    /// and leaves its loss in it.
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients).
    pub fn add_gradients(&mut self, batch: &mut Batch<D>) -> Result<(), DeviceError> {
        self.passes(batch, &mut Tape::recording(Rc::clone(&self.device)), false)
    }

    /// The first result of [`gradients`](Self::gradients) over the same batch that is not finite, if there is one. Replaces the
    /// gradients; weights and running averages are then as before. Each result is looked at on the host, so it takes much
    /// longer than a step.
    ///
    /// # Errors
    /// As for [`gradients`](Self::gradients).
    pub fn first_non_finite(&mut self, batch: &mut Batch<D>) -> Result<Option<NonFinite>, DeviceError> {
        let mut tape = Tape::checking(Rc::clone(&self.device));
        self.passes(batch, &mut tape, true)?;
        self.parameters.take_averages_back(&self.device)?;
        Ok(tape.first_non_finite())
    }

    /// Forward and backward over one batch, which is all of a step if it `begins` one.
    fn passes(&mut self, batch: &mut Batch<D>, tape: &mut Tape<D>, begins: bool) -> Result<(), DeviceError> {
        self.predictor.take();
        tape.enter(&self.architecture.layers[0].name);
        let images = self.images(&batch.pixels, batch.images, &batch.format)?;
        tape.check("its output", images.raw.view())?;
        if begins {
            self.begin_gradients()?;
        }
        let mut statistics = Statistics::Batch(&mut self.parameters);
        let logits = plan::forward(tape, &mut statistics, &self.plan, images)?;
        tape.enter("loss");
        let dlogits = batch.take_loss(&*self.device, &logits.raw)?;
        tape.check("its value", batch.loss_view())?;
        tape.check("the gradient of the logits", dlogits.view())?;
        let slot = logits.slot().expect("the head always trains, so the logits have a gradient");
        tape.backward(slot, dlogits, &mut self.parameters)
    }

    /// Inference: the probabilities `[N, C]`.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images do not fit.
    pub fn predict(&self, posters: Posters<'_>) -> Result<Vec<f32>, DeviceError> {
        self.probabilities(&self.logits(posters)?)
    }

    /// Inference against labels.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if images, labels and weights do not match.
    pub fn score(&self, posters: Posters<'_>, labels: &[u8], class_weights: &[f32]) -> Result<Scored, DeviceError> {
        let Posters { pixels, placements, format } = posters;
        let uploaded = self.device.upload_pixels(pixels, placements)?;
        let mut batch = Batch::new(&*self.device, uploaded, placements.len(), format, labels, class_weights)?;
        let logits = match self.device.folds() {
            true => self.logits(posters)?,
            false => self.infer(&batch.pixels, batch.images, &batch.format)?,
        };
        batch.take_loss(&*self.device, &logits)?;
        Ok(Scored {
            loss: batch.loss(&self.device)?,
            probabilities: self.probabilities(&logits)?,
            logits: on_host(&*self.device, &logits)?,
        })
    }

    /// Inference: the logits `[N, C]`. A device that folds does so on the first call after a change of the parameters.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images do not fit.
    pub fn logits(&self, posters: Posters<'_>) -> Result<Tensor<D>, DeviceError> {
        if !self.device.folds() {
            let pixels = self.device.upload_pixels(posters.pixels, posters.placements)?;
            return self.infer(&pixels, posters.placements.len(), posters.format);
        }
        let mut predictor = self.predictor.borrow_mut();
        match &mut *predictor {
            Some(predictor) => predictor.logits(posters),
            none => none.insert(self.fold()?).logits(posters),
        }
    }

    fn fold(&self) -> Result<Predictor<D>, DeviceError> {
        let Model { device, architecture, config, parameters, .. } = self;
        Predictor::new(Rc::clone(device), architecture, config, |place| {
            let view = match place {
                Place::Weights(span) => parameters.weights.view(span),
                Place::Averages(span) => parameters.averages.view(span),
            };
            Ok::<_, DeviceError>(Cow::Owned(device.download(view)?))
        })
    }

    fn infer(&self, pixels: &D::Pixels, images: usize, format: &PixelFormat) -> Result<Tensor<D>, DeviceError> {
        let images = self.images(pixels, images, format)?;
        let mut tape = Tape::inference(Rc::clone(&self.device));
        let mut statistics = Statistics::Running(&self.parameters);
        Ok(plan::forward(&mut tape, &mut statistics, &self.plan, images)?.raw)
    }

    fn images(&self, pixels: &D::Pixels, n: usize, format: &PixelFormat) -> Result<Value<D>, DeviceError> {
        let shape = ImageShape { n, size: self.config.image_size };
        self.device.enter(&self.architecture.layers[0].name, Pass::Forward);
        let mut images = Tensor::new(&*self.device, [shape.n, shape.size, shape.size, 3], Storage::Activation)?;
        self.device.image_forward(images.view_mut(), pixels, format, &shape)?;
        Ok(Value::ready(images, None))
    }

    fn probabilities(&self, logits: &Tensor<D>) -> Result<Vec<f32>, DeviceError> {
        let genres = &self.architecture.layers[self.architecture.layers.len() - 1];
        self.device.enter(&genres.name, Pass::Forward);
        on_host(&*self.device, &loss::sigmoid(&*self.device, logits)?)
    }
}
