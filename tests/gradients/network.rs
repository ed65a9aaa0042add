//! The tape: a whole small ResNet from images to loss, with every prefix of it frozen, and an activation with many readers.

use crate::case::{check_vector, dot};
use crate::networks::SUMS;
use crate::support::{assert_close, seeded};
use onesheet::autograd::Tape;
use onesheet::device::Storage;
use onesheet::device::reference::Reference;
use onesheet::device::{Activation, BatchNormConstants, DeviceError, Memory, Outside};
use onesheet::network::{
    self, Architecture, Convolution, KernelInit, ModelConfig, NamedTensor, Place, Trainable, resnet50,
};
use onesheet::ops::batch_norm::{self, BatchNorm};
use onesheet::ops::conv::{self, Conv};
use onesheet::ops::dense::{self, Dense};
use onesheet::ops::loss::forward_backward;
use onesheet::ops::pool::{self, Pooling};
use onesheet::ops::residual;
use onesheet::parameters::{Layout, Parameters, Span};
use onesheet::plan::fuse::RULES;
use onesheet::plan::{self, Plan, Statistics};
use onesheet::tensor::Tensor;
use onesheet::value::Value;
use std::rc::Rc;

const POSTERS: usize = 3;
const SIZE: usize = 21;
const GENRES: usize = 4;

/// The miniature of each network, and what none of them has.
fn small() -> impl Iterator<Item = network::Network> {
    network::MINIATURES.into_iter().chain([SUMS, BIASED])
}

/// Convolutions whose biases no batch norm takes over, a ReLU6 behind one, none behind the other, and a sum without a ReLU.
const BIASED: network::Network = network::Network {
    name: "biased",
    title: "a network with biases",
    base: |net| {
        let pad = net.same(net.input(), 3, 2);
        let x = net.conv("first", net.input(), Convolution { filters: 3, window: 3, stride: 2, pad, bias: true })?;
        let x = net.relu6("first_relu", x)?;
        let y = net.conv("second", x, Convolution { filters: 3, window: 1, stride: 1, pad: 0.into(), bias: true })?;
        net.add("sum", [x, y])
    },
    ..resnet50::MINIATURE
};

/// A small network, where it is looked at, and what it should say.
struct Network {
    config: ModelConfig,
    architecture: Architecture,
    weights: Vec<f64>,
    averages: Vec<f64>,
    images: Vec<f64>,
    /// Rules that its plan leaves out.
    without: Vec<&'static str>,
}

/// What one backward pass leaves.
struct Gradients {
    weights: Vec<f64>,
    /// None where nobody asked for it.
    images: Option<Vec<f64>>,
}

impl Network {
    /// One of [`small`].
    fn draw(network: network::Network, pooling: Pooling, trainable: Trainable) -> Self {
        let config = ModelConfig {
            network,
            image_size: SIZE,
            genres: GENRES,
            pooling,
            trainable,
            momentum: 0.9,
            zero_init_residual: false,
            init: KernelInit::Glorot,
        };
        let architecture = Architecture::new(&config).unwrap();
        let weights = seeded(1, architecture.weights.len(), -0.8, 0.8);
        let mut averages = seeded(2, architecture.averages.len(), -0.5, 0.5);
        for tensor in &architecture.tensors {
            if let (Place::Averages(span), true) = (tensor.place, tensor.name.ends_with("variance")) {
                averages[span.range()].iter_mut().for_each(|variance| *variance += 1.0);
            }
        }
        let images = seeded(3, POSTERS * SIZE * SIZE * 3, -1.0, 1.0);
        Network { config, architecture, weights, averages, images, without: Vec::new() }
    }

    fn parameters(&self, weights: &[f64]) -> Parameters<Reference> {
        let Architecture { weights: layout, averages, trainable_from, .. } = self.architecture;
        let mut parameters = Parameters::new(&Reference::EXACT, layout, averages, trainable_from).unwrap();
        parameters.weights.from_offset_mut(0).copy_from_slice(weights);
        parameters.averages.from_offset_mut(0).copy_from_slice(&self.averages);
        parameters
    }

    /// The mean loss of these images under these weights, and, on a recording tape, the gradients.
    fn run(
        &self,
        mut tape: Tape<Reference>,
        weights: &[f64],
        images: &[f64],
        want_images: bool,
    ) -> Result<(f64, Option<Gradients>), DeviceError> {
        let mut parameters = self.parameters(weights);
        let image_slot = if want_images { tape.input_slot() } else { None };
        let images = Tensor::from_host(&Reference::EXACT, [POSTERS, SIZE, SIZE, 3], images)?;
        let images = Value::ready(images, image_slot);
        let mut statistics = Statistics::Batch(&mut parameters);
        let plan = Plan::without(&self.architecture, self.config.momentum, &self.without)?;
        let logits = plan::forward(&mut tape, &mut statistics, &plan, images)?;
        let (logits, slot) = (logits.values(&Reference::EXACT)?, logits.slot());
        let targets: Vec<f64> = seeded(4, POSTERS * GENRES, 0.0, 1.0).iter().map(|&u| f64::from(u < 0.4)).collect();
        let targets = Tensor::from_host(&Reference::EXACT, [POSTERS, GENRES], &targets)?;
        let class_weights = Tensor::from_host(&Reference::EXACT, [GENRES], &seeded(5, GENRES, 0.5, 2.0))?;
        let mut loss = Tensor::new(&Reference::EXACT, [1], Storage::Full)?;
        let dlogits = forward_backward(&Reference::EXACT, &mut loss, &logits, targets.view(), class_weights.view())?;
        let loss = loss.to_host(&Reference::EXACT)?[0];
        let Some(slot) = slot else { return Ok((loss, None)) };
        tape.backward(slot, dlogits, &mut parameters)?;
        let images = match image_slot.map(|slot| tape.gradient(slot)).transpose()?.flatten() {
            Some(dx) => Some(dx.to_host(&Reference::EXACT)?),
            None => None,
        };
        Ok((loss, Some(Gradients { weights: parameters.gradients.from_offset(0).to_vec(), images })))
    }

    fn loss(&self, weights: &[f64], images: &[f64]) -> f64 {
        self.run(Tape::inference(Rc::new(Reference::EXACT)), weights, images, false).unwrap().0
    }

    fn gradients(&self, want_images: bool) -> Gradients {
        let tape = Tape::recording(Rc::new(Reference::EXACT));
        self.run(tape, &self.weights, &self.images, want_images).unwrap().1.expect("the head always trains")
    }

    /// Checks one tensor's gradient.
    fn check(&self, tensor: &NamedTensor, span: Span, gradient: &[f64]) -> Result<(), String> {
        check_vector(&tensor.name, &self.weights[span.range()], gradient, |values| {
            let mut weights = self.weights.clone();
            weights[span.range()].copy_from_slice(values);
            self.loss(&weights, &self.images)
        })
    }

    /// The parameters' tensors and their spans.
    fn tensors(&self) -> impl Iterator<Item = (&NamedTensor, Span)> {
        self.architecture.tensors.iter().filter_map(|tensor| match tensor.place {
            Place::Weights(span) => Some((tensor, span)),
            Place::Averages(_) => None,
        })
    }
}

#[test]
fn every_tensor_of_a_small_network_of_every_kind() {
    let averages = small().map(|network| (network, Pooling::Average));
    for (network, pooling) in averages.chain([(resnet50::MINIATURE, Pooling::Max)]) {
        let network = Network::draw(network, pooling, Trainable::All);
        let gradients = network.gradients(true);
        for (tensor, span) in network.tensors() {
            network.check(tensor, span, &gradients.weights[span.range()]).unwrap();
        }
        let images = gradients.images.unwrap();
        check_vector("images", &network.images, &images, |images| network.loss(&network.weights, images)).unwrap();
    }
}

#[test]
fn each_rule_off_and_all_of_them_give_the_same_loss_and_gradients() {
    let frozen = small().map(|network| (network, Trainable::Last(6)));
    for (network, trainable) in small().map(|network| (network, Trainable::All)).chain(frozen) {
        let mut network = Network::draw(network, Pooling::Max, trainable);
        let loss = network.loss(&network.weights, &network.images);
        let fused = network.gradients(true);
        let eager = RULES.map(|rule| rule.name).to_vec();
        for without in RULES.map(|rule| vec![rule.name]).into_iter().chain([eager, vec!["norm", "debt"]]) {
            network.without = without;
            let what = format!("{} {trainable:?} without {:?}", network.config.network, network.without);
            let other = network.gradients(true);
            assert_close(&what, &[network.loss(&network.weights, &network.images)], &[loss], 1e-12, 1e-12);
            assert_close(&what, &other.weights, &fused.weights, 1e-10, 1e-10);
            assert_close(&what, &other.images.unwrap(), fused.images.as_ref().unwrap(), 1e-10, 1e-10);
        }
    }
}

#[test]
fn a_wrong_gradient_of_any_tensor_is_caught() {
    let network = Network::draw(resnet50::MINIATURE, Pooling::Average, Trainable::All);
    let gradients = network.gradients(false);
    for (tensor, span) in network.tensors() {
        let mut wrong = gradients.weights[span.range()].to_vec();
        *wrong.last_mut().unwrap() += 1e-3;
        assert!(network.check(tensor, span, &wrong).is_err(), "{}", tensor.name);
    }
}

#[test]
fn a_bias_in_front_of_a_training_batch_norm_has_no_gradient() {
    let network = Network::draw(resnet50::MINIATURE, Pooling::Average, Trainable::All);
    let gradients = network.gradients(false).weights;
    let biases: Vec<_> = network.tensors().filter(|(tensor, _)| tensor.name.ends_with("conv/bias")).collect();
    assert_eq!(biases.len(), 1 + 3 * 3 + 2);
    for (tensor, span) in biases {
        assert!(gradients[span.range()].iter().all(|&g| g == 0.0), "{}", tensor.name);
    }
}

#[test]
fn every_frozen_prefix() {
    let layers = Network::draw(resnet50::MINIATURE, Pooling::Average, Trainable::All).architecture.base_layers;
    for last in 0..=layers {
        let network = Network::draw(resnet50::MINIATURE, Pooling::Average, Trainable::Last(last));
        let from = network.architecture.trainable_from;
        let gradients = network.gradients(true);
        assert!(gradients.weights[..from].iter().all(|&g| g == 0.0), "last:{last}: a frozen tensor has a gradient");
        // One direction through all trainable tensors, one through the images: frozen layers pass gradients on.
        let slope = |at: &[f64], direction: &[f64], loss: &dyn Fn(&[f64]) -> f64| {
            let moved = |by: f64| at.iter().zip(direction).map(|(at, d)| at + by * d).collect::<Vec<_>>();
            (loss(&moved(1e-6)) - loss(&moved(-1e-6))) / 2e-6
        };
        let mut along = seeded(6, network.weights.len(), -1.0, 1.0);
        along[..from].fill(0.0);
        let across = seeded(7, network.images.len(), -1.0, 1.0);
        let images = gradients.images.as_ref().unwrap();
        let claims = [dot(&gradients.weights, &along), dot(images, &across)];
        let slopes = [
            slope(&network.weights, &along, &|weights| network.loss(weights, &network.images)),
            slope(&network.images, &across, &|images| network.loss(&network.weights, images)),
        ];
        assert_close(&format!("last:{last}"), &claims, &slopes, 1e-6, 1e-5);
        // Not recording what is frozen changes no bit of the rest.
        assert_eq!(network.gradients(false).weights, gradients.weights, "last:{last}");
    }
}

/// A pending activation with four readers: two convolutions, a max pool and a shortcut. Its gradient arrives masked and
/// unmasked, and each part must be added to the last.
struct ManyReaders {
    weights: Layout,
    averages: Layout,
    stem: (Conv, BatchNorm),
    branches: [(Conv, BatchNorm); 3],
    head: Dense,
}

impl ManyReaders {
    const EXTENTS: [usize; 4] = [2, 6, 5, 2];
    const CHANNELS: usize = 3;

    fn new() -> Self {
        let (mut weights, mut averages) = (Layout::default(), Layout::default());
        let mut conv_norm = |inputs: usize, window: usize| {
            let kernel = weights.span(Self::CHANNELS * window * window * inputs);
            let [gamma, beta] = [0; 2].map(|_| weights.span(Self::CHANNELS));
            let [mean, variance] = [0; 2].map(|_| averages.span(Self::CHANNELS));
            let constants = BatchNormConstants { momentum: 0.9, epsilon: 1e-3 };
            let (filters, window, pad) = (Self::CHANNELS, [window; 2], (window / 2).into());
            (
                Conv { kernel, bias: None, activation: Activation::Linear, filters, window, stride: 1, pad },
                BatchNorm { gamma, beta, mean, variance, bias: None, constants, activation: Activation::Linear },
            )
        };
        let stem = conv_norm(Self::EXTENTS[3], 3);
        let branches = [3, 1, 3].map(|window| conv_norm(Self::CHANNELS, window));
        let (kernel, bias) = (weights.span(2 * Self::CHANNELS), weights.span(2));
        let head = Dense { kernel, bias, inputs: Self::CHANNELS, outputs: 2, relu: false };
        ManyReaders { weights, averages, stem, branches, head }
    }

    /// `Σ cotangent·logits`, and its gradient on a recording tape.
    fn run(&self, mut tape: Tape<Reference>, weights: &[f64]) -> Result<(f64, Option<Vec<f64>>), DeviceError> {
        let tape = &mut tape;
        let mut parameters = Parameters::new(&Reference::EXACT, self.weights, self.averages, 0)?;
        parameters.weights.from_offset_mut(0).copy_from_slice(weights);
        let images = seeded(8, Self::EXTENTS.iter().product(), -1.0, 1.0);
        let images = Value::ready(Tensor::from_host(&Reference::EXACT, Self::EXTENTS, &images)?, None);
        let mut conv_norm = |tape: &mut Tape<_>, x: &Value<_>, (conv, norm): (Conv, BatchNorm)| {
            let (y, stats) = conv::forward(tape, &parameters, x, conv, true)?;
            batch_norm::train(tape, &mut parameters, y, &stats.unwrap(), norm)
        };
        let (conv, norm) = self.stem;
        let a = conv_norm(tape, &images, (conv, BatchNorm { activation: Activation::Relu, ..norm }))?;
        let first = conv_norm(tape, &a, self.branches[0])?;
        let first = residual::join(tape, [&a, &first], true)?;
        let pooled = pool::max(tape, &a, 3, 1, 1.into(), Outside::Zeros)?;
        let second = conv_norm(tape, &first, self.branches[1])?;
        let second = residual::join(tape, [&second, &pooled], false)?;
        let third = conv_norm(tape, &a, self.branches[2])?;
        let third = residual::join(tape, [&second, &third], true)?;
        let features = pool::global(tape, &third, Pooling::Average)?;
        let logits = dense::forward(tape, &parameters, &features, self.head)?;
        let (logits, slot) = (logits.values(&Reference::EXACT)?, logits.slot());
        let cotangent = seeded(9, logits.shape().len(), -1.0, 1.0);
        let value = dot(&logits.to_host(&Reference::EXACT)?, &cotangent);
        let Some(slot) = slot else { return Ok((value, None)) };
        let seed = Tensor::from_host(&Reference::EXACT, logits.shape(), &cotangent)?;
        tape.backward(slot, seed, &mut parameters)?;
        Ok((value, Some(Reference::EXACT.download(parameters.gradients.from_offset(0))?)))
    }
}

#[test]
fn a_pending_activation_with_many_readers() {
    let network = ManyReaders::new();
    let weights = seeded(10, network.weights.len(), -1.0, 1.0);
    let gradients = network.run(Tape::recording(Rc::new(Reference::EXACT)), &weights).unwrap().1.unwrap();
    check_vector("weights", &weights, &gradients, |weights| {
        network.run(Tape::inference(Rc::new(Reference::EXACT)), weights).unwrap().0
    })
    .unwrap();
}
