//! Bad numbers in a training step: each is caught in its step, which leaves the model as it was, and the layer is named.

#[path = "support/faulty.rs"]
mod faulty;

use faulty::Faulty;
use onesheet::checks::NonFinite;
use onesheet::device::adam::OUTCOME;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Device, Memory, Pass, PixelFormat, Placement, Real, Storage};
use onesheet::model::{Batch, Model, Outcome};
use onesheet::network::{KernelInit, ModelConfig, NamedTensor, Place, Trainable, resnet50};
use onesheet::ops::pool::Pooling;
use onesheet::optim::Adam;
use onesheet::plan::Work;
use onesheet::tensor::Tensor;
use onesheet::training::TrainingError;
use onesheet::training::learner::Learner;
use onesheet::training::numerics::first_non_finite;
use std::rc::Rc;

const GENRES: usize = 4;
const IMAGES: usize = 3;
const SIDE: usize = 21;
const FORMAT: PixelFormat = PixelFormat { order: [2, 1, 0], scale: 1.0 / 255.0, shift: [0.0; 3] };

fn config() -> ModelConfig {
    let (pooling, trainable) = (Pooling::Average, Trainable::All);
    let (network, image_size, genres) = (resnet50::MINIATURE, SIDE, GENRES);
    ModelConfig {
        network,
        image_size,
        genres,
        pooling,
        trainable,
        momentum: 0.9,
        zero_init_residual: false,
        init: KernelInit::Glorot,
    }
}

fn pixels<D: Device>(device: &D) -> D::Pixels {
    let pixels: Vec<u8> = (0..IMAGES * SIDE * SIDE * 3).map(|i| (i * i % 251) as u8).collect();
    device.upload_pixels(&pixels, &[Placement::default(); IMAGES]).unwrap()
}

fn labels() -> Vec<u8> {
    (0..IMAGES * GENRES).map(|i| u8::from(i % 3 == 0)).collect()
}

/// A network that has learnt for a step, and its batch.
struct Network<D: Device> {
    device: Rc<D>,
    model: Model<D>,
    adam: Adam<D>,
    batch: Batch<D>,
}

impl<D: Device<Real = f32>> Network<D> {
    fn new(device: D, config: ModelConfig) -> Self {
        let device = Rc::new(device);
        let model = Model::new(Rc::clone(&device), config, 5).unwrap();
        let adam = Adam::new(&*device, model.architecture().weights).unwrap();
        let batch = Batch::new(&*device, pixels(&*device), IMAGES, &FORMAT, &labels(), &[1.0; GENRES]).unwrap();
        let mut network = Network { device, model, adam, batch };
        let before = network.state();
        let outcome = network.step();
        assert_eq!(outcome.fault(), None, "{outcome:?}");
        assert!(network.state() != before && network.is_finite());
        network
    }

    /// A training step and what it said of itself.
    fn step(&mut self) -> Outcome {
        self.model.gradients(&mut self.batch).unwrap();
        self.batch.set_rates(&self.device, self.adam.begin_step(1e-3)).unwrap();
        let (outcome, rate) = (self.batch.outcome_view(), self.batch.rates());
        self.adam.step(&self.device, self.model.parameters_mut(), outcome, rate).unwrap();
        self.batch.outcome(&self.device).unwrap()
    }

    /// Weights, both moments and running averages.
    fn numbers(&self) -> Vec<f32> {
        let parameters = self.model.parameters();
        let arenas = [&parameters.weights, &self.adam.m, &self.adam.v, &parameters.averages];
        arenas.into_iter().flat_map(|arena| self.device.download(arena.from_offset(0)).unwrap()).collect()
    }

    fn state(&self) -> Vec<u32> {
        self.numbers().into_iter().map(f32::to_bits).collect()
    }

    fn is_finite(&self) -> bool {
        self.numbers().into_iter().all(f32::is_finite)
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        self.model.architecture().tensors.clone()
    }

    /// Writes `bad` over one element of a tensor, and returns what the tensor held.
    fn plant(&mut self, tensor: &NamedTensor, bad: f32) -> Vec<f32> {
        let sound = self.model.read(tensor).unwrap();
        let mut values = sound.clone();
        values[sound.len() / 2] = bad;
        self.model.write(tensor, &values).unwrap();
        sound
    }
}

/// The layer of a tensor, and the tensor's own name.
fn parts(tensor: &NamedTensor) -> (&str, &str) {
    tensor.name.rsplit_once('/').unwrap()
}

#[test]
fn a_nan_in_any_tensor_is_caught_in_its_step_and_moves_nothing() {
    let mut network = Network::new(Cpu::new(), config());
    let tensors = network.tensors();
    assert_eq!(tensors.len(), 6 * (1 + 3 * 3 + 2) + 4);
    for tensor in &tensors {
        let sound = network.plant(tensor, f32::NAN);
        let before = network.state();
        let outcome = network.step();
        assert!(outcome.fault().is_some(), "{}: {outcome:?}", tensor.name);
        assert!(network.state() == before, "{}", tensor.name);
        network.model.write(tensor, &sound).unwrap();
    }
    // And what is sound again goes on.
    let before = network.state();
    assert_eq!(network.step().fault(), None);
    assert!(network.state() != before && network.is_finite());
}

/// An infinity may end at a ReLU, and what is merely large may be sound: then the step is taken. Either way no other number is
/// spoilt.
#[test]
fn no_large_number_spoils_another() {
    let mut network = Network::new(Cpu::new(), config());
    let (mut caught, mut taken) = (0, 0);
    for tensor in network.tensors() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 1e15] {
            let mut network = Network::new(Cpu::new(), config());
            network.plant(&tensor, bad);
            let before = network.state();
            let outcome = network.step();
            match outcome.fault() {
                Some(_) => assert!(network.state() == before, "{bad} in {}: {outcome:?}", tensor.name),
                None => {
                    let spoilt = network.numbers().into_iter().filter(|number| !number.is_finite()).count();
                    assert!(spoilt <= usize::from(bad.is_infinite()), "{bad} in {}: {outcome:?}", tensor.name);
                }
            }
            let counter = if outcome.fault().is_some() { &mut caught } else { &mut taken };
            *counter += 1;
        }
    }
    assert!(caught > 100 && taken > 20, "{caught} caught, {taken} taken");
    assert_eq!(network.step().fault(), None);
}

/// Where the gradient alone is bad.
#[test]
fn a_bad_gradient_of_any_tensor_is_caught_and_moves_nothing() {
    for trainable in [Trainable::All, Trainable::Last(9)] {
        let mut network = Network::new(Cpu::new(), ModelConfig { trainable, ..config() });
        let device = Rc::clone(&network.device);
        let from = network.model.architecture().trainable_from;
        let spans = network.tensors().into_iter().filter_map(|tensor| match tensor.place {
            Place::Weights(span) if span.range().start >= from => Some((tensor.name, span)),
            _ => None,
        });
        let spans: Vec<_> = spans.collect();
        assert!(spans.len() >= 8, "{spans:?}");
        for (name, span) in spans {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e20] {
                network.model.gradients(&mut network.batch).unwrap();
                // The running averages have moved by now, and a step that is taken keeps them so: this one is not.
                network.model.parameters_mut().take_averages_back(&device).unwrap();
                let before = network.state();
                let mut values = device.download(network.model.parameters().gradients.view(span)).unwrap();
                *values.last_mut().unwrap() = bad;
                device.upload(network.model.parameters_mut().gradients.view_mut(span), &values).unwrap();
                let mut numbers = Tensor::new(&*device, [OUTCOME], Storage::Full).unwrap();
                device.upload(numbers.view_mut(), &[0.5; OUTCOME]).unwrap();
                let (_, norms) = Cpu::split_mut(numbers.view_mut(), 1);
                let (gradients, averages) = Cpu::split_mut(norms, 1);
                network.model.parameters().norms(&device, gradients, averages).unwrap();
                let outcome = Outcome::new(&numbers.to_host(&device).unwrap());
                assert_eq!(outcome.fault().map(|(what, _)| what), Some("the gradient norm"), "{bad} in {name}");
                let parameters = network.model.parameters_mut();
                network.adam.step(&device, parameters, numbers.view(), network.batch.rates()).unwrap();
                assert!(network.state() == before, "{bad} in {name}");
            }
        }
    }
}

#[test]
fn the_gradient_norm_is_that_of_what_trains() {
    for trainable in [Trainable::All, Trainable::Last(9)] {
        let mut network = Network::new(Cpu::new(), ModelConfig { trainable, ..config() });
        let from = network.model.architecture().trainable_from;
        network.model.gradients(&mut network.batch).unwrap();
        let found = network.batch.outcome(&network.device).unwrap().gradient_norm;
        let gradients = network.device.download(network.model.parameters().gradients.from_offset(from)).unwrap();
        let expected = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        assert!(expected > 1e-3 && (found / expected - 1.0).abs() <= 1e-6, "{found} for {expected}");
    }
}

/// What `first_non_finite` says of a network in which something is wrong, having left the network alone.
fn found<D: Device<Real = f32>>(network: &mut Network<D>, inside: bool) -> NonFinite {
    let before = network.state();
    let found = match inside {
        true => network.model.first_non_finite(&mut network.batch),
        false => first_non_finite(&mut network.model, &mut network.batch),
    };
    assert!(network.state() == before);
    found.unwrap().expect("something is wrong")
}

#[test]
fn the_tensor_that_was_bad_before_the_step_is_named() {
    let mut network = Network::new(Cpu::new(), config());
    for tensor in network.tensors() {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let sound = network.plant(&tensor, bad);
            let (layer, part) = parts(&tensor);
            let found = found(&mut network, false);
            assert_eq!((&*found.layer, found.pass, found.tensor), (layer, None, format!("its {part}")));
            assert_eq!((found.count, found.elements, found.first), (1, sound.len(), sound.len() / 2));
            network.model.write(&tensor, &sound).unwrap();
        }
    }
    assert_eq!(first_non_finite(&mut network.model, &mut network.batch).unwrap(), None);
}

/// As if the weights were sound and the kernels not: the layer whose result is the first to suffer is the tensor's own.
#[test]
fn the_first_layer_with_a_bad_result_is_named() {
    let mut network = Network::new(Cpu::new(), config());
    for tensor in network.tensors() {
        let sound = network.plant(&tensor, f32::NAN);
        let (layer, part) = parts(&tensor);
        let found = found(&mut network, true);
        let (layer, result) = match part {
            "kernel" => (layer.to_string(), "its output"),
            // A batch norm takes the bias in front of it out again, but for the mean.
            "bias" if layer.ends_with("_conv") => (layer.replace("_conv", "_bn"), "its moving mean"),
            "bias" => (layer.to_string(), "its output"),
            "gamma" | "beta" => (layer.to_string(), "its scale and shift"),
            "moving_mean" => (layer.to_string(), "its moving mean"),
            _ => (layer.to_string(), "its moving variance"),
        };
        assert_eq!((found.layer, found.pass, &*found.tensor), (layer, Some(Pass::Forward), result), "{}", tensor.name);
        network.model.write(&tensor, &sound).unwrap();
    }
    assert_eq!(network.model.first_non_finite(&mut network.batch).unwrap(), None);
}

/// Layers in the order in which their parameters' gradients are found, by the kernels that find them.
fn backward_order(model: &Model<impl Device>) -> Vec<(&'static str, String, &'static str)> {
    let name = |at: usize| model.architecture().layers[at].name.clone();
    let mut order = Vec::new();
    for step in model.plan().steps().iter().rev() {
        match step.work {
            Work::Dense(_) => order.push(("dense_backward_weights", name(step.output()), "the gradient of its bias")),
            Work::ConvNorm { layers: [conv, norm], .. } => {
                order.push(("batch_norm_backward_finalise", name(norm), "the gradient of its beta"));
                order.push(("conv_backward_weights", name(conv), "the gradient of its kernel"));
            }
            _ => {}
        }
    }
    order
}

/// A kernel of the backward pass that goes wrong in one layer: the gradient that it leaves is named.
#[test]
fn the_layer_whose_gradient_is_bad_is_named() {
    let device = Faulty::default();
    let mut network = Network::new(device, config());
    let order = backward_order(&network.model);
    assert_eq!(order.len(), 2 + 2 * 12);
    for (at, (kernel, layer, tensor)) in order.iter().enumerate() {
        let calls = order[..at].iter().filter(|(earlier, _, _)| earlier == kernel).count();
        network.device.spoilt.set(Some((*kernel, calls)));
        let found = found(&mut network, true);
        assert_eq!((&found.layer, found.pass, &*found.tensor), (layer, Some(Pass::Backward), *tensor));
        // A step of such a device is bad as well.
        network.device.spoilt.set(Some((*kernel, calls)));
        let before = network.state();
        assert_eq!(network.step().fault().map(|(what, _)| what), Some("the gradient norm"), "{kernel} of {layer}");
        assert!(network.state() == before, "{kernel} of {layer}");
    }
}

/// A step of `learner` with other weights of its classes.
fn submit<D: Device>(learner: &mut Learner<D>, class_weights: f32) {
    let pixels = pixels(&**learner.model().device());
    learner.submit(pixels, IMAGES, &FORMAT, &labels(), &[class_weights; GENRES], 1e-3).unwrap();
}

fn refusal(learner: &mut Learner<impl Device>) -> String {
    let error = learner.outcome().unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
    error.to_string()
}

#[test]
fn the_error_says_which_number_and_the_next_step_goes_on() {
    let device = Faulty { late: true, ..Faulty::default() };
    let mut learner = Learner::new(Rc::new(device), config(), 5).unwrap();
    assert!(learner.outcome().unwrap().loss.is_nan(), "nothing was submitted");
    assert_eq!(learner.first_non_finite().unwrap(), None);
    let read = |learner: &Learner<Faulty>| {
        let tensors = learner.model().architecture().tensors.clone();
        tensors.iter().map(|tensor| learner.model().read(tensor).unwrap()).collect::<Vec<_>>()
    };
    submit(&mut learner, 1.0);
    let first = learner.outcome().unwrap();
    assert!(first.loss > 0.1 && first.gradient_norm > 0.0 && first.averages_norm > 0.0, "{first:?}");

    let before = read(&learner);
    submit(&mut learner, f32::NAN);
    assert!(refusal(&mut learner).starts_with("the loss of step 2 is NaN"));
    let found = learner.first_non_finite().unwrap().unwrap();
    assert_eq!((&*found.layer, found.pass, &*found.tensor), ("loss", Some(Pass::Forward), "its value"));
    // All numbers are finite, and their squares are not.
    submit(&mut learner, 1e25);
    assert!(refusal(&mut learner).starts_with("the gradient norm of step 3 is inf"));
    assert_eq!(learner.first_non_finite().unwrap(), None);

    let bias = learner.model().architecture().tensors[1].clone();
    assert_eq!(bias.name, "conv1_conv/bias");
    let sound = learner.model().read(&bias).unwrap();
    learner.model_mut().write(&bias, &vec![f32::NAN; sound.len()]).unwrap();
    submit(&mut learner, 1.0);
    assert!(refusal(&mut learner).starts_with("the norm of the running averages of step 4 is NaN"));
    assert!(learner.first_non_finite().unwrap().unwrap().to_string().starts_with("layer conv1_conv, before the step"));
    learner.model_mut().write(&bias, &sound).unwrap();
    assert!(read(&learner) == before);

    // Two at once, the first of them bad: the second begins where the first began.
    submit(&mut learner, f32::NAN);
    submit(&mut learner, 1.0);
    assert!(refusal(&mut learner).starts_with("the loss of step 5"));
    let loss = learner.outcome().unwrap().loss;
    let mut straight = Learner::new(Rc::new(Cpu::new()), config(), 5).unwrap();
    let losses = [(); 2].map(|()| {
        submit(&mut straight, 1.0);
        straight.outcome().unwrap().loss
    });
    assert_eq!([first.loss, loss].map(f64::to_bits), losses.map(f64::to_bits));
}

/// As many squares as the full network has parameters, all alike: a plain sum in `f32` would end at a fraction.
#[test]
fn the_norm_of_the_full_networks_gradient_keeps_its_digits() {
    use onesheet::device::cpu::{View, ViewMut};
    use onesheet::device::{AdamKernels, SquaredNorm};
    let len = 25_817_991;
    let mut sum = [0.0];
    let operands = SquaredNorm { sum: ViewMut::Full(&mut sum), x: View::Full(&vec![1e-3; len]) };
    Cpu::new().squared_norm(operands).unwrap();
    let expected = f64::from(1e-3f32).powi(2) * len as f64;
    assert!((f64::from(sum[0]) / expected - 1.0).abs() <= 1e-6, "{} for {expected}", sum[0]);
    assert_eq!(f32::from_f64(expected), sum[0], "and is the nearest f32");
}
