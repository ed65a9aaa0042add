//! Whole networks against independent engines in float64: Keras's on TensorFlow, torchvision's on PyTorch.
//!
//! `golden/make_golden_*.py` say what was computed and how; both sides make weights, pixels and labels by the same integer
//! hash. The processor is compared in float32, with tolerances a few times what those engines' own float32 needs. The reference
//! device, which computes in float64 too, must agree to nine digits: the first training step always, everything else, which takes
//! minutes, with `cargo test --release --test golden -- --ignored`.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, Placement};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{
    Architecture, ModelConfig, NETWORKS, NamedShape, NamedTensor, Network, Place, Trainable, mobilenet, resnet50,
    resnet50_v1_5, shallow, vgg16,
};
use onesheet::ops::pool::Pooling;
use onesheet::optim::Adam;
use onesheet::training::config::Pixels;
use safetensors::SafeTensors;
use serde::Deserialize;
use support::{assert_close, compare};

const BATCH: usize = 3;
const GENRES: usize = 7;
const SAMPLES: usize = 16;
/// Hash streams beyond any tensor's number.
const PIXELS: u32 = 1_000_000;
const LABELS: u32 = 1_000_001;
const POSITIONS: u32 = 2_000_000;

/// MurmurHash3's 32-bit finaliser.
fn fmix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// The first `len` hashes of a stream.
fn hashes(stream: u32, len: usize) -> impl Iterator<Item = u32> {
    let seed = fmix32(stream);
    (0..len as u32).map(move |i| fmix32(i.wrapping_mul(0x9E37_79B9) ^ seed))
}

/// What the script fills tensor `number` with, step by step in f32.
fn initial(number: usize, name: &str, shape: &[usize]) -> Vec<f32> {
    let (layer, kind) = name.split_once('/').expect("a layer and a kind");
    let fan_in: usize = match kind {
        "depthwise_kernel" => shape[0] * shape[1],
        _ => shape[1..].iter().product(),
    };
    let limit = (6.0 / fan_in as f64).sqrt() as f32;
    let uniform = hashes(number as u32, shape.iter().product()).map(|h| (h >> 8) as f32 / 8_388_608.0 - 1.0);
    uniform
        .map(|u| match kind {
            "kernel" if layer == "genres" => 0.25 * (limit * u),
            "kernel" if layer == "block1_conv1" => limit * u / 256.0,
            "kernel" | "depthwise_kernel" => limit * u,
            "gamma" if layer.ends_with("_3_bn") => 0.25 * (1.0 + 0.25 * u),
            "gamma" => 1.0 + 0.25 * u,
            "moving_variance" if layer == "conv1_bn" => 8192.0 * (1.0 + 0.5 * u),
            "moving_variance" => 1.0 + 0.5 * u,
            _ => 0.1 * u,
        })
        .collect()
}

/// `resnet50_layers.json` and its like.
#[derive(Deserialize)]
struct LayerTable {
    base_layers: usize,
    parameters: ParameterCounts,
    layers: Vec<LayerRow>,
}

#[derive(Deserialize)]
struct ParameterCounts {
    total: usize,
    trainable: usize,
    trainable_in_transfer: usize,
}

#[derive(Deserialize)]
struct LayerRow {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    output: Vec<usize>,
    parameters: usize,
    tensors: Vec<(String, Vec<usize>)>,
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

impl LayerTable {
    fn read(network: Network) -> LayerTable {
        let file = golden_file(&format!("{}_layers.json", network.name));
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }
}

/// The file of one network.
struct Golden {
    values: HashMap<String, Vec<f64>>,
    facts: Facts,
}

/// What the file says about itself; the lists name the rows of the tensors that have a row a tensor.
#[derive(Deserialize)]
struct Facts {
    class_weights: Vec<f32>,
    learning_rate: f64,
    trained: Vec<String>,
    moving: Vec<String>,
    /// How many of the base's last layers are trained in transfer learning.
    transfer_layers: usize,
    transfer: Vec<String>,
    /// Every tensor, where no table of layers says it.
    #[serde(default)]
    tensors: Vec<NamedShape>,
}

impl Golden {
    fn read(network: Network) -> Golden {
        let file = format!("{}.safetensors", network.name.replace(['-', '.'], "_"));
        let bytes = fs::read(golden_file(&file)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let facts = serde_json::from_str(&header.metadata().as_ref().unwrap()["golden"]).unwrap();
        let doubles = |data: &[u8]| data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Golden { values: file.iter().map(|(name, view)| (name.to_owned(), doubles(view.data()))).collect(), facts }
    }
}

/// How far a device may be from the other engine in float64.
struct Tolerance {
    /// Logits, absolutely.
    output: f64,
    /// Losses, absolutely.
    loss: f64,
    /// Norms of gradients, relatively.
    norm: f64,
    /// Any sampled gradient, relative to the norm of its tensor. Where a pre-activation is zero up to rounding, float32
    /// and float64 disagree about the ReLU, and one sample can be far off; so the root mean square is bounded too.
    sample: f64,
    /// Root mean square of all sampled gradients' errors, relative to the norms of their tensors.
    sample_rms: f64,
    /// Running averages, relative to the tensor's norm.
    moving: f64,
    /// Norms of three steps' changes, relatively.
    change_norm: f64,
    /// Root mean square of the errors of all sampled changes, in units of the learning rate. Adam's step depends on little
    /// more than the gradient's sign, so single elements mean nothing in float32.
    change_rms: f64,
}

const FLOAT32: Tolerance = Tolerance {
    output: 1e-4,
    loss: 1e-5,
    norm: 1e-3,
    sample: 1e-2,
    sample_rms: 1e-3,
    moving: 1e-5,
    change_norm: 1e-2,
    change_rms: 0.1,
};

/// MobileNet's ReLUs have a second edge, and Keras's own float32 is as much farther off.
const MOBILENET_FLOAT32: Tolerance = Tolerance {
    output: 1e-5,
    loss: 5e-5,
    norm: 1e-2,
    sample: 3e-2,
    sample_rms: 2e-3,
    change_norm: 5e-2,
    change_rms: 0.3,
    ..FLOAT32
};

fn float32(network: Network) -> Tolerance {
    if network == mobilenet::NETWORK { MOBILENET_FLOAT32 } else { FLOAT32 }
}

const FLOAT64: Tolerance = Tolerance {
    output: 1e-9,
    loss: 1e-9,
    norm: 1e-9,
    sample: 1e-9,
    sample_rms: 1e-9,
    moving: 1e-9,
    change_norm: 1e-9,
    change_rms: 1e-9,
};

/// One device at work on the script's network and batch.
struct Subject<D: Device> {
    model: Model<D>,
    pixels: Vec<u8>,
    golden: Golden,
    tolerance: Tolerance,
}

impl<D: Device> Subject<D> {
    fn new(device: D, config: ModelConfig, tolerance: Tolerance) -> Self {
        let golden = Golden::read(config.network);
        let mut model = Model::new(Rc::new(device), config, 0).unwrap();
        for (number, tensor) in model.architecture().tensors.clone().iter().enumerate() {
            model.write(tensor, &initial(number, &tensor.name, &tensor.shape)).unwrap();
        }
        let pixels = hashes(PIXELS, BATCH * 150 * 150 * 3).map(|h| (h >> 24) as u8).collect();
        Subject { model, pixels, golden, tolerance }
    }

    fn logits(&self) -> Vec<f64> {
        let format = Pixels::Imagenet.format();
        let posters = Posters { pixels: &self.pixels, placements: &[Placement::default(); BATCH], format: &format };
        let logits = self.model.logits(posters).unwrap().to_host(self.model.device()).unwrap();
        logits.into_iter().map(Into::into).collect()
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
    fn tensor(&self, name: &str) -> (usize, &NamedTensor) {
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
    fn change(&self, name: &str) -> Vec<f64> {
        let (number, tensor) = self.tensor(name);
        let before = initial(number, name, &tensor.shape);
        self.values(name).into_iter().zip(before).map(|(after, before)| after - f64::from(before)).collect()
    }

    fn gradient(&self, name: &str) -> Vec<f64> {
        let Place::Weights(span) = self.tensor(name).1.place else { panic!("{name} has no gradient") };
        let gradient = self.model.device().download(self.model.parameters().gradients.view(span)).unwrap();
        gradient.into_iter().map(Into::into).collect()
    }

    /// Norms and samples of many tensors, compared with the rows of `{key}.norms` and `{key}.samples`.
    fn compare_tensors(&self, key: &str, names: &[String], values: impl Fn(&str) -> Vec<f64>) -> Rows {
        let norms = &self.golden.values[&format!("{key}.norms")];
        let samples = &self.golden.values[&format!("{key}.samples")];
        assert_eq!((norms.len(), samples.len()), (names.len(), names.len() * SAMPLES), "{key}: rows and names");
        let mut rows = Rows::default();
        for (row, name) in names.iter().enumerate() {
            let values = values(name);
            rows.names.push(name.clone());
            rows.norms.push((values.iter().map(|v| v * v).sum::<f64>().sqrt(), norms[row]));
            let positions = hashes(POSITIONS + self.tensor(name).0 as u32, SAMPLES);
            let expected = &samples[row * SAMPLES..][..SAMPLES];
            rows.samples
                .push(positions.map(|h| values[h as usize % values.len()]).zip(expected.iter().copied()).collect());
        }
        rows
    }

    fn check_inference(&self, key: &str) {
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
    fn gradients_without_biases(&mut self, step: u32) -> Batch<D> {
        let batch = self.gradients(step);
        for name in self.base_biases() {
            assert!(self.gradient(&name).iter().all(|&g| g == 0.0), "{name} stands before a batch norm");
        }
        batch
    }

    /// The first step's loss, gradients and running averages.
    fn check_first_step(&mut self) -> Batch<D> {
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
    fn check_training(&mut self) {
        let device = Rc::clone(self.model.device());
        let mut adam = Adam::new(&*device, self.model.architecture().weights).unwrap();
        let rate = self.golden.facts.learning_rate;
        let mut losses = Vec::new();
        for step in 0..3 {
            let mut batch = if step == 0 { self.check_first_step() } else { self.gradients_without_biases(step) };
            batch.set_rate(&device, adam.begin_step(rate)).unwrap();
            adam.step(&device, self.model.parameters_mut(), batch.outcome_view(), batch.rate()).unwrap();
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
    fn check_transfer(&mut self) {
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

/// (found, expected) of many tensors.
#[derive(Default)]
struct Rows {
    names: Vec<String>,
    norms: Vec<(f64, f64)>,
    samples: Vec<Vec<(f64, f64)>>,
}

impl Rows {
    fn check_norms(&self, key: &str, tolerance: f64) {
        let mut worst = (0.0, "none");
        for (name, &(found, expected)) in self.names.iter().zip(&self.norms) {
            assert_close(&format!("{key}: norm of {name}"), &[found], &[expected], 0.0, tolerance);
            let error = (found - expected).abs() / expected;
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("{key}: norms are off by {:.1e} at worst, in {}", worst.0, worst.1);
    }

    /// Errors are in units of `unit(norm of the tensor)`.
    fn check_samples(&self, key: &str, tolerance: f64, rms_tolerance: f64, unit: impl Fn(f64) -> f64) {
        let (mut squares, mut worst) = (0.0, (0.0, "none"));
        for ((name, &(_, norm)), samples) in self.names.iter().zip(&self.norms).zip(&self.samples) {
            let unit = unit(norm);
            let (found, expected): (Vec<_>, Vec<_>) = samples.iter().map(|(f, e)| (f / unit, e / unit)).unzip();
            assert_close(&format!("{key}: samples of {name}"), &found, &expected, tolerance, 0.0);
            for (found, expected) in found.iter().zip(&expected) {
                squares += (found - expected).powi(2);
                if (found - expected).abs() > worst.0 {
                    worst = ((found - expected).abs(), name);
                }
            }
        }
        // A network without batch norms has no averages.
        let rms = (squares / (self.names.len() * SAMPLES).max(1) as f64).sqrt();
        println!("{key}: samples are off by {:.1e} at worst, in {}, {rms:.1e} rms", worst.0, worst.1);
        assert!(rms <= rms_tolerance, "{key}: samples are off by {rms:e} rms, allowed {rms_tolerance:e}");
    }
}

fn all(network: Network) -> ModelConfig {
    ModelConfig::new(network, GENRES)
}

fn max_pooling(network: Network) -> ModelConfig {
    ModelConfig { pooling: Pooling::Max, ..all(network) }
}

fn transfer(network: Network) -> ModelConfig {
    let last = Golden::read(network).facts.transfer_layers;
    ModelConfig { trainable: Trainable::Last(last), ..all(network) }
}

#[test]
fn layers_tensors_and_counts_are_kerass() {
    for network in [resnet50::NETWORK, mobilenet::NETWORK, vgg16::NETWORK, shallow::NETWORK] {
        compare_layers(network);
    }
}

fn compare_layers(network: Network) {
    let table = LayerTable::read(network);
    let architecture = Architecture::new(&all(network)).unwrap();
    assert_eq!(architecture.base_layers, table.base_layers);
    assert_eq!(architecture.layers.len(), table.layers.len());
    for (ours, keras) in architecture.layers.iter().zip(&table.layers) {
        // The pooling has no name of its own in every application.
        let name = if keras.kind.starts_with("Global") { &ours.name } else { &keras.name };
        assert_eq!((&ours.name, ours.kind(), &ours.output), (name, keras.kind.as_str(), &keras.output));
        assert_eq!(architecture.parameters_of(ours), keras.parameters, "parameters of {}", keras.name);
    }
    let tensors = |row: &LayerRow| {
        let named = row.tensors.iter().map(|(kind, shape)| (format!("{}/{kind}", row.name), shape.clone()));
        named.collect::<Vec<_>>()
    };
    let keras: Vec<_> = table.layers.iter().flat_map(tensors).collect();
    let ours_named: Vec<_> = architecture.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    assert_eq!(ours_named, keras);
    assert_eq!(architecture.total_parameters(), table.parameters.total);
    assert_eq!(architecture.trainable_parameters(), table.parameters.trainable);
    let transfer = Architecture::new(&transfer(network)).unwrap();
    assert_eq!(transfer.trainable_parameters(), table.parameters.trainable_in_transfer);
}

#[test]
fn the_tensors_of_v1_5_are_torchvisions() {
    let tensors = Architecture::new(&all(resnet50_v1_5::NETWORK)).unwrap().tensors;
    let ours: Vec<NamedShape> = tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    assert_eq!(ours, Golden::read(resnet50_v1_5::NETWORK).facts.tensors);
}

#[test]
fn the_processor_infers_as_keras_does() {
    infers(resnet50::NETWORK);
    infers(mobilenet::NETWORK);
    infers(vgg16::NETWORK);
    infers(shallow::NETWORK);
}

#[test]
fn the_processor_infers_as_pytorch_does() {
    infers(resnet50_v1_5::NETWORK);
}

fn infers(network: Network) {
    Subject::new(Cpu::new(), all(network), float32(network)).check_inference("inference.logits");
    Subject::new(Cpu::new(), max_pooling(network), float32(network)).check_inference("inference_max_pool.logits");
}

#[test]
fn the_processor_trains_as_keras_does() {
    Subject::new(Cpu::new(), all(resnet50::NETWORK), FLOAT32).check_training();
    Subject::new(Cpu::new(), all(mobilenet::NETWORK), MOBILENET_FLOAT32).check_training();
    Subject::new(Cpu::new(), all(vgg16::NETWORK), FLOAT32).check_training();
    Subject::new(Cpu::new(), all(shallow::NETWORK), FLOAT32).check_training();
}

#[test]
fn the_processor_trains_as_pytorch_does() {
    Subject::new(Cpu::new(), all(resnet50_v1_5::NETWORK), FLOAT32).check_training();
}

#[test]
fn the_processor_fine_tunes_as_keras_does() {
    Subject::new(Cpu::new(), transfer(resnet50::NETWORK), FLOAT32).check_transfer();
    Subject::new(Cpu::new(), transfer(mobilenet::NETWORK), MOBILENET_FLOAT32).check_transfer();
    Subject::new(Cpu::new(), transfer(vgg16::NETWORK), FLOAT32).check_transfer();
    Subject::new(Cpu::new(), transfer(shallow::NETWORK), FLOAT32).check_transfer();
}

#[test]
fn the_processor_fine_tunes_as_pytorch_does() {
    Subject::new(Cpu::new(), transfer(resnet50_v1_5::NETWORK), FLOAT32).check_transfer();
}

/// One bias in the middle of the network, off by a twentieth, is seen in the outputs. It is one of which the ReLU behind it lets
/// something pass.
#[test]
fn a_small_mistake_is_noticed() {
    for network in NETWORKS {
        let mut subject = Subject::new(Cpu::new(), all(network), float32(network));
        let middle = match network.name {
            "mobilenet" => "conv_pw_12_bn/beta",
            "vgg16" => "block4_conv2/bias",
            "shallow" => "conv4_1_bn/beta",
            _ => "conv3_block2_2_bn/beta",
        };
        let (number, tensor) = subject.tensor(middle);
        let tensor = tensor.clone();
        let mut values = initial(number, &tensor.name, &tensor.shape);
        values[3] += 0.05;
        subject.model.write(&tensor, &values).unwrap();
        let expected = &subject.golden.values["inference.logits"];
        compare("logits", &subject.logits(), expected, float32(network).output, 0.0)
            .expect_err("the mistake must be noticed");
    }
}

/// In double precision no ReLU decides by rounding, and every sampled gradient must agree to nine digits.
#[test]
fn the_reference_takes_the_same_first_step_as_keras_to_nine_digits() {
    Subject::new(Reference::EXACT, all(resnet50::NETWORK), FLOAT64).check_first_step();
    Subject::new(Reference::EXACT, all(mobilenet::NETWORK), FLOAT64).check_first_step();
    Subject::new(Reference::EXACT, all(shallow::NETWORK), FLOAT64).check_first_step();
}

#[test]
fn the_reference_takes_the_same_first_step_as_pytorch_to_nine_digits() {
    Subject::new(Reference::EXACT, all(resnet50_v1_5::NETWORK), FLOAT64).check_first_step();
}

#[test]
#[ignore = "plain loops over whole networks take minutes"]
fn the_reference_agrees_with_both_to_nine_digits() {
    for network in NETWORKS {
        Subject::new(Reference::EXACT, all(network), FLOAT64).check_inference("inference.logits");
        Subject::new(Reference::EXACT, max_pooling(network), FLOAT64).check_inference("inference_max_pool.logits");
        Subject::new(Reference::EXACT, transfer(network), FLOAT64).check_transfer();
        Subject::new(Reference::EXACT, all(network), FLOAT64).check_training();
    }
}
