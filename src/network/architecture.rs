//! A network laid out: its layers over images of one size, with the head, and where each tensor lies.

use super::Network;
use super::builder::Builder;
use super::initialisers::{Initialiser, KernelInit};
use super::layer::Layer;
use crate::device::DeviceError;
use crate::ops::pool::Pooling;
use crate::parameters::{Layout, Span};

/// Which of the base's layers the optimiser moves. The head always trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Trainable {
    /// Every layer.
    #[default]
    All,
    /// The last so many of the base's layers, the paddings, ReLUs, additions and the pooling counted.
    Last(usize),
}

/// What a model is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which network.
    pub network: Network,
    /// Height and width of the posters.
    pub image_size: usize,
    /// Classes, Other included.
    pub genres: usize,
    /// The pooling before the head.
    pub pooling: Pooling,
    /// What the optimiser moves.
    pub trainable: Trainable,
    /// Weight of the old running average in batch norm; 0.99 in Keras.
    pub momentum: f64,
    /// Whether the last batch norm of each block starts from gamma 0, not Keras's 1: the block then starts as the identity, and a
    /// fresh network is as shallow as its projections (Goyal et al. 2017, section 5.1).
    pub zero_init_residual: bool,
    /// What kernels start from.
    pub init: KernelInit,
}

impl ModelConfig {
    /// A network over 150×150 posters, with Keras's constants, everything trainable.
    pub fn new(network: Network, genres: usize) -> Self {
        ModelConfig {
            network,
            image_size: 150,
            genres,
            pooling: Pooling::Average,
            trainable: Trainable::All,
            momentum: 0.99,
            zero_init_residual: false,
            init: KernelInit::Glorot,
        }
    }
}

/// Which arena a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The parameters'.
    Weights(Span),
    /// The running averages'.
    Averages(Span),
}

/// A tensor's name and extents.
pub type NamedShape = (String, Vec<usize>);

/// One tensor of the model under the name that files give it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Keras's layer name, a slash, and `kernel`, `bias`, `gamma`, `beta`, `moving_mean` or `moving_variance`.
    pub name: String,
    /// Extents: kernels `[K, R, S, C]` or `[outputs, inputs]`, everything else `[C]`.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub place: Place,
    /// What it starts from.
    pub initialiser: Initialiser,
}

/// The network laid out: its layers, and where the tensors lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Which network it is.
    pub network: Network,
    /// Keras's layers in Keras's order, the head's behind them.
    pub layers: Vec<Layer>,
    /// Every tensor, in the same order.
    pub tensors: Vec<NamedTensor>,
    /// How many of `layers` are the base's: the last of them is the global pooling, and the head's follow.
    pub base_layers: usize,
    /// The parameters' arena.
    pub weights: Layout,
    /// The averages' arena.
    pub averages: Layout,
    /// The first trainable element of the parameters' arena.
    pub trainable_from: usize,
}

/// Up to which side a size is looked for that a network takes.
const LARGEST_IMAGE: usize = 1024;

/// Why a network cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Somewhere the images are smaller than a window.
    #[error(
        "images of {size}×{size} are too small for {network}; the smallest that it takes are {smallest}×{smallest}"
    )]
    TooSmall {
        /// The network's title.
        network: &'static str,
        /// Height and width of the images.
        size: usize,
        /// The smallest that work.
        smallest: usize,
    },
    /// More layers are to be trained than the base has.
    #[error("last:{asked} asks for more layers than the base of {network} has: {layers}")]
    TooFewLayers {
        /// The network's title.
        network: &'static str,
        /// How many are to be trained.
        asked: usize,
        /// How many there are.
        layers: usize,
    },
    /// The list of layers contradicts itself at every size.
    #[error(transparent)]
    Layers(#[from] DeviceError),
}

impl From<LayoutError> for DeviceError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Layers(error) => error,
            error => DeviceError::Shape { kernel: "network", reason: error.to_string() },
        }
    }
}

/// The layers over images of this `size`, the head's behind the base's, and how many are the base's.
fn layers(config: &ModelConfig, size: usize) -> Result<(Vec<Layer>, usize), DeviceError> {
    let Network { base, head, .. } = config.network;
    let mut net = Builder::new(size);
    let features = base(&mut net)?;
    let mut x = net.global_pool(features, config.pooling)?;
    let base_layers = net.len();
    for &width in head {
        x = net.dense(&format!("head_{width}"), x, width, true)?;
    }
    net.dense("genres", x, config.genres, false)?;
    Ok((net.into_layers(), base_layers))
}

impl Architecture {
    /// Lays out a network.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(config: &ModelConfig) -> Result<Self, LayoutError> {
        let ModelConfig { network, image_size: size, .. } = *config;
        let (layers, base_layers) = layers(config, size).map_err(|error| {
            let smallest = (size + 1..=LARGEST_IMAGE).find(|&size| layers(config, size).is_ok());
            match smallest {
                Some(smallest) => LayoutError::TooSmall { network: network.title, size, smallest },
                None => error.into(),
            }
        })?;

        let (weights, averages) = (Layout::default(), Layout::default());
        let tensors = Vec::new();
        let mut architecture =
            Architecture { network, layers, tensors, base_layers, weights, averages, trainable_from: 0 };
        let first_weights: Vec<usize> =
            (0..architecture.layers.len()).map(|layer| architecture.place(layer, config)).collect();
        architecture.trainable_from = match config.trainable {
            Trainable::All => 0,
            Trainable::Last(count) if count <= base_layers => first_weights[base_layers - count],
            Trainable::Last(asked) => {
                return Err(LayoutError::TooFewLayers { network: network.title, asked, layers: base_layers });
            }
        };
        Ok(architecture)
    }

    /// Gives a layer's tensors their places behind those before them, and returns where the parameters among them begin.
    fn place(&mut self, layer: usize, config: &ModelConfig) -> usize {
        let first_weight = self.weights.len();
        let channels = self.layers[layer].inputs.first().map_or(0, |&input| self.channels(input));
        let Layer { name, op, .. } = &self.layers[layer];
        let first = self.tensors.len();
        for tensor in op.tensors(channels, config.init, config.zero_init_residual) {
            let len = tensor.shape.iter().product();
            let place = match tensor.is_average() {
                true => Place::Averages(self.averages.span(len)),
                false => Place::Weights(self.weights.span(len)),
            };
            let name = format!("{name}/{}", tensor.name);
            self.tensors.push(NamedTensor { name, shape: tensor.shape, place, initialiser: tensor.initialiser });
        }
        self.layers[layer].tensors = first..self.tensors.len();
        first_weight
    }

    /// C of a layer's output.
    fn channels(&self, layer: usize) -> usize {
        self.layers[layer].output.last().copied().unwrap_or(0)
    }

    /// The tensors of a layer.
    pub fn tensors_of(&self, layer: &Layer) -> &[NamedTensor] {
        &self.tensors[layer.tensors.clone()]
    }

    /// The names and extents of all tensors.
    pub fn named_shapes(&self) -> Vec<NamedShape> {
        self.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    /// The tensors of the base, and behind them those of the head.
    pub fn base_and_head(&self) -> (&[NamedTensor], &[NamedTensor]) {
        self.tensors.split_at(self.layers[self.base_layers - 1].tensors.end)
    }

    /// Where the head's weights begin in the arena of weights.
    pub fn head_from(&self) -> usize {
        let (_, head) = self.base_and_head();
        let begins = |tensor: &NamedTensor| match tensor.place {
            Place::Weights(span) => Some(span.range().start),
            Place::Averages(_) => None,
        };
        head.iter().find_map(begins).unwrap_or(self.weights.len())
    }

    /// How many parameters a layer has, the running averages among them.
    pub fn parameters_of(&self, layer: &Layer) -> usize {
        self.tensors_of(layer).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// Where the tensor lies that the layer calls by this name, in the arena that such a tensor lies in.
    ///
    /// # Panics
    /// If the layer has none of that name.
    pub(crate) fn span(&self, layer: &Layer, name: &str) -> Span {
        let mut own = self.tensors_of(layer).iter();
        let tensor = own.find(|tensor| tensor.name.strip_prefix(&layer.name).is_some_and(|rest| rest[1..] == *name));
        match tensor.expect("its op names its tensors").place {
            Place::Weights(span) | Place::Averages(span) => span,
        }
    }

    /// Whether it is a parameter that the optimiser leaves alone.
    pub fn is_frozen(&self, tensor: &NamedTensor) -> bool {
        match tensor.place {
            Place::Weights(span) => span.range().start < self.trainable_from,
            Place::Averages(_) => false,
        }
    }

    /// All parameters, the running averages among them: Keras's "total params".
    pub fn total_parameters(&self) -> usize {
        self.weights.len() + self.averages.len()
    }

    /// The parameters that the optimiser moves: Keras's "trainable params".
    pub fn trainable_parameters(&self) -> usize {
        self.weights.len() - self.trainable_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Convolution, NETWORKS, Value, resnet50};

    /// A convolution without padding over every second pixel, three times.
    fn shrinking() -> Network {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let convolution = Convolution { filters: 2, window: 5, stride: 2, pad: 0.into(), bias: true };
            (0..3).try_fold(net.input(), |x, layer| net.conv(&format!("conv{layer}"), x, convolution))
        }
        Network { name: "shrinking", title: "a network that shrinks", base, head: &[], ..resnet50::NETWORK }
    }

    #[test]
    fn images_too_small_are_told_the_smallest_size_that_works() {
        let laid_out = |image_size| Architecture::new(&ModelConfig { image_size, ..ModelConfig::new(shrinking(), 7) });
        // 29, 13, 5, 1.
        assert_eq!(laid_out(29).unwrap().layers[3].output, [1, 1, 2]);
        for size in [0, 4, 28] {
            let error = laid_out(size).unwrap_err();
            let why = format!(
                "images of {size}×{size} are too small for a network that shrinks; the smallest that it takes are 29×29"
            );
            assert_eq!(error.to_string(), why);
            assert!(DeviceError::from(error).to_string().ends_with(&why));
        }
        for network in NETWORKS {
            let smallest = ModelConfig { image_size: 32, ..ModelConfig::new(network, 7) };
            assert!(Architecture::new(&smallest).is_ok(), "what --image-size takes, {network} takes");
        }
    }

    #[test]
    fn base_and_head_are_told_apart_by_the_layers() {
        for network in NETWORKS {
            let architecture = Architecture::new(&ModelConfig::new(network, 7)).unwrap();
            let (base, head) = architecture.base_and_head();
            let names: Vec<&str> = head.iter().map(|tensor| &*tensor.name).collect();
            let layers = ["head_1024", "head_128", "genres"];
            assert_eq!(names, layers.map(|layer| ["kernel", "bias"].map(|kind| format!("{layer}/{kind}"))).concat());
            assert_eq!(base.len() + head.len(), architecture.tensors.len());
        }
    }

    #[test]
    fn only_a_blocks_last_gamma_starts_from_zero_and_only_if_asked() {
        for zero_init_residual in [false, true] {
            let config = ModelConfig { zero_init_residual, ..ModelConfig::new(resnet50::NETWORK, 7) };
            let architecture = Architecture::new(&config).unwrap();
            let gammas = architecture.tensors.iter().filter(|tensor| tensor.name.ends_with("/gamma"));
            let (last, others): (Vec<_>, Vec<_>) = gammas.partition(|tensor| tensor.name.ends_with("_3_bn/gamma"));
            assert_eq!((last.len(), others.len()), (16, 37));
            let start = if zero_init_residual { Initialiser::Zeros } else { Initialiser::Ones };
            assert!(last.iter().all(|tensor| tensor.initialiser == start));
            assert!(others.iter().all(|tensor| tensor.initialiser == Initialiser::Ones));
        }
    }
}
