//! A device at work on a script's network and batch, compared with what the script wrote down.

use super::rows::Rows;
use super::support::assert_close;
use super::values::{BATCH, GENRES, Golden, LABELS, PIXELS, POSITIONS, SAMPLES, hashes, initial};
use onesheet::device::{Device, Placement};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{ModelConfig, NamedTensor, Place};
use onesheet::optim::Adam;
use onesheet::training::config::Pixels;
use std::rc::Rc;

/// How far a device may be from the other engine in float64.
pub struct Tolerance {
    /// Logits, absolutely.
    pub output: f64,
    /// Losses, absolutely.
    pub loss: f64,
    /// Norms of gradients, relatively.
    pub norm: f64,
    /// Any sampled gradient, relative to the norm of its tensor. Where a pre-activation is zero up to rounding, float32
    /// and float64 disagree about the ReLU, and one sample can be far off; so the root mean square is bounded too.
    pub sample: f64,
    /// Root mean square of all sampled gradients' errors, relative to the norms of their tensors.
    pub sample_rms: f64,
    /// Running averages, relative to the tensor's norm.
    pub moving: f64,
    /// Norms of three steps' changes, relatively.
    pub change_norm: f64,
    /// Root mean square of the errors of all sampled changes, in units of the learning rate. Adam's step depends on little
    /// more than the gradient's sign, so single elements mean nothing in float32.
    pub change_rms: f64,
}

/// One device at work on the script's network and batch.
pub struct Subject<D: Device> {
    pub model: Model<D>,
    pixels: Vec<u8>,
    pub golden: Golden,
    tolerance: Tolerance,
}

impl<D: Device> Subject<D> {
    pub fn new(device: D, config: ModelConfig, tolerance: Tolerance) -> Self {
        let golden = Golden::read(config.network);
        let mut model = Model::new(Rc::new(device), config, 0).unwrap();
        for (number, tensor) in model.architecture().tensors.clone().iter().enumerate() {
            model.write(tensor, &initial(number, &tensor.name, &tensor.shape)).unwrap();
        }
        let pixels = hashes(PIXELS, BATCH * golden.facts.size.pow(2) * 3).map(|h| (h >> 24) as u8).collect();
        Subject { model, pixels, golden, tolerance }
    }

    pub fn logits(&self) -> Vec<f64> {
        let format = Pixels::Imagenet.format();
        let posters = Posters { pixels: &self.pixels, placements: &[Placement::default(); BATCH], format: &format };
        let logits = self.model.logits(posters).unwrap().to_host(self.model.device()).unwrap();
        logits.into_iter().map(Into::into).collect()
    }

    /// What the model sees of each genre, `[genres, posters, height, width]`.
    pub fn heat_maps(&mut self) -> Vec<f64> {
        let format = Pixels::Imagenet.format();
        let posters = Posters { pixels: &self.pixels, placements: &[Placement::default(); BATCH], format: &format };
        let maps = self.model.explain(posters, &Vec::from_iter(0..GENRES)).unwrap();
        maps.into_iter().flatten().flat_map(|map| map.values).map(f64::from).collect()
    }

    /// Forward and backward with the labels of a step.
    fn gradients(&mut self, step: u32) -> Batch<D> {
        let device = Rc::clone(self.model.device());
        let pixels = device.upload_pixels(&self.pixels, &[Placement::default(); BATCH]).unwrap();
        let labels: Vec<u8> = hashes(LABELS + step, BATCH * GENRES).map(|h| (h >> 31) as u8).collect();
        let (format, weights) = (Pixels::Imagenet.format(), &self.golden.facts.class_weights);
        let mut batch = Batch::new(&*device, pixels, BATCH, &format, &labels, weights).unwrap();
        self.model.gradients(&mut batch).unwrap();
        batch
    }

    /// The number and description of a tensor.
    pub fn tensor(&self, name: &str) -> (usize, &NamedTensor) {
        let mut numbered = self.model.architecture().tensors.iter().enumerate();
        numbered.find(|(_, tensor)| tensor.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// A tensor's values, in the device's own precision.
    fn values(&self, name: &str) -> Vec<f64> {
        let parameters = self.model.parameters();
        let view = match self.tensor(name).1.place {
            Place::Weights(span) => parameters.weights.view(span),
            Place::Averages(span) => parameters.averages.view(span),
        };
        self.model.device().download(view).unwrap().into_iter().map(Into::into).collect()
    }

    /// What training did to a tensor.
    pub fn change(&self, name: &str) -> Vec<f64> {
        let (number, tensor) = self.tensor(name);
        let before = initial(number, name, &tensor.shape);
        self.values(name).into_iter().zip(before).map(|(after, before)| after - f64::from(before)).collect()
    }

    pub fn gradient(&self, name: &str) -> Vec<f64> {
        let Place::Weights(span) = self.tensor(name).1.place else { panic!("{name} has no gradient") };
        let gradient = self.model.device().download(self.model.parameters().gradients.view(span)).unwrap();
        gradient.into_iter().map(Into::into).collect()
    }

    /// Where the script took a tensor's samples.
    pub fn positions(&self, name: &str) -> impl Iterator<Item = usize> {
        let (number, tensor) = self.tensor(name);
        let len: usize = tensor.shape.iter().product();
        hashes(POSITIONS + number as u32, SAMPLES).map(move |h| h as usize % len)
    }

    /// Norms and samples of many tensors, compared with the rows of `{key}.norms` and `{key}.samples`.
    pub fn compare_tensors(&self, key: &str, names: &[String], values: impl Fn(&str) -> Vec<f64>) -> Rows {
        let norms = &self.golden.values[&format!("{key}.norms")];
        let samples = &self.golden.values[&format!("{key}.samples")];
        assert_eq!((norms.len(), samples.len()), (names.len(), names.len() * SAMPLES), "{key}: rows and names");
        let mut rows = Rows::default();
        for (row, name) in names.iter().enumerate() {
            let values = values(name);
            rows.names.push(name.clone());
            rows.norms.push((values.iter().map(|v| v * v).sum::<f64>().sqrt(), norms[row]));
            let found = self.positions(name).map(|at| values[at]);
            let expected = &samples[row * SAMPLES..][..SAMPLES];
            rows.samples.push(found.zip(expected.iter().copied()).collect());
        }
        rows
    }

    pub fn check_inference(&self, key: &str) {
        assert_close(key, &self.logits(), &self.golden.values[key], self.tolerance.output, 0.0);
    }

    fn check_gradients(&self, key: &str, names: &[String]) {
        let rows = self.compare_tensors(key, names, |name| self.gradient(name));
        rows.check_norms(key, self.tolerance.norm);
        rows.check_samples(key, self.tolerance.sample, self.tolerance.sample_rms, |norm| norm);
    }

    /// The biases of the base's convolutions, each in front of a batch norm.
    fn base_biases(&self) -> Vec<String> {
        let names = self.model.architecture().tensors.iter().map(|tensor| tensor.name.clone());
        names.filter(|name| name.ends_with("_conv/bias")).collect()
    }

    /// Forward and backward of a step, whose biases in front of batch norms must come out untouched.
    pub fn gradients_without_biases(&mut self, step: u32) -> Batch<D> {
        let batch = self.gradients(step);
        for name in self.base_biases() {
            assert!(self.gradient(&name).iter().all(|&g| g == 0.0), "{name} stands before a batch norm");
        }
        batch
    }

    /// The first step's loss, gradients and running averages.
    pub fn check_first_step(&mut self) -> Batch<D> {
        let batch = self.gradients_without_biases(0);
        let loss = batch.loss(self.model.device()).unwrap();
        let first = &self.golden.values["training.losses"][..1];
        assert_close("first loss", &[loss], first, self.tolerance.loss, 0.0);
        self.check_gradients("gradient", &self.golden.facts.trained);
        let rows = self.compare_tensors("moving", &self.golden.facts.moving, |name| self.values(name));
        rows.check_norms("moving", self.tolerance.moving);
        rows.check_samples("moving", self.tolerance.moving, self.tolerance.moving, |norm| norm);
        batch
    }

    /// The first step, then the losses and the weights of three.
    pub fn check_training(&mut self) {
        let device = Rc::clone(self.model.device());
        let mut adam = Adam::new(&*device, self.model.architecture().weights).unwrap();
        let rate = self.golden.facts.learning_rate;
        let mut losses = Vec::new();
        for step in 0..3 {
            let mut batch = if step == 0 { self.check_first_step() } else { self.gradients_without_biases(step) };
            batch.set_rates(&device, adam.begin_step(rate)).unwrap();
            adam.step(&device, self.model.parameters_mut(), batch.outcome_view(), batch.rates()).unwrap();
            losses.push(batch.loss(&device).unwrap());
        }
        assert_close("losses", &losses, &self.golden.values["training.losses"], self.tolerance.loss, 0.0);

        let rows = self.compare_tensors("change", &self.golden.facts.trained, |name| self.change(name));
        rows.check_norms("change", self.tolerance.change_norm);
        // Three steps move a weight by three rates at most: no sample can be farther off than twice that.
        rows.check_samples("change", 6.0, self.tolerance.change_rms, |_| rate);
        for name in self.base_biases() {
            assert!(self.change(&name).iter().all(|&d| d == 0.0), "{name} moved");
        }
    }

    /// With all but the last base layers frozen: loss and gradients, and averages that stay or move.
    pub fn check_transfer(&mut self) {
        let loss = self.gradients(0).loss(self.model.device()).unwrap();
        assert_close("transfer.loss", &[loss], &self.golden.values["transfer.loss"], self.tolerance.loss, 0.0);
        let names = self.golden.facts.transfer.clone();
        self.check_gradients("transfer.gradient", &names);
        for name in &self.golden.facts.moving {
            let gamma = name.replace("moving_mean", "gamma").replace("moving_variance", "gamma");
            let moved = self.change(name).iter().any(|&d| d != 0.0);
            assert_eq!(moved, names.contains(&gamma), "{name}: a frozen batch norm keeps its averages, others move");
        }
    }
}
