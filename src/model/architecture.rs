//! Keras's ResNet-50 v1, layer by layer: names, order, geometry, and where every tensor lies.
//!
//! Source of names, order, paddings, biases and epsilon: `ResNet50` of Keras Applications (`include_top=False`). Three
//! of its habits matter here: convolutions have biases although batch norms follow, a stage's stride sits on its first
//! 1×1 convolution, and padding is a layer of its own, so that 176 base layers are counted where 107 compute.

use super::initialisers::Initialiser;
use super::layout::Builder;
use crate::device::DeviceError;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;
use crate::ops::pool::Pooling;
use crate::parameters::{Layout, Span};

/// Which of Keras's base layers the optimiser moves. The head always trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Trainable {
    /// Every layer.
    #[default]
    All,
    /// The last so many of the base's layers (176 in ResNet-50), the paddings, ReLUs, additions and the pooling counted.
    Last(usize),
}

/// The extents of a residual network: ResNet-50's, or smaller ones for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Filters of the 7×7 stem.
    pub stem: usize,
    /// (filters of the 3×3, blocks) of each stage; a block's last 1×1 has four times as many filters.
    pub stages: Vec<(usize, usize)>,
    /// Widths of the hidden dense layers.
    pub head: Vec<usize>,
}

impl Extents {
    /// ResNet-50 with the paper's 1024-128 head.
    pub fn resnet50() -> Self {
        Extents { stem: 64, stages: vec![(64, 3), (128, 4), (256, 6), (512, 3)], head: vec![1024, 128] }
    }

    /// Two stages of one block each: every kind of layer and junction in about a thousand parameters.
    pub fn miniature() -> Self {
        Extents { stem: 4, stages: vec![(2, 2), (3, 1)], head: vec![6] }
    }
}

/// What a model is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The network's extents.
    pub extents: Extents,
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
}

impl ModelConfig {
    /// ResNet-50 over 150×150 posters, with Keras's constants, everything trainable.
    pub fn resnet50(genres: usize) -> Self {
        ModelConfig {
            extents: Extents::resnet50(),
            image_size: 150,
            genres,
            pooling: Pooling::Average,
            trainable: Trainable::All,
            momentum: 0.99,
            zero_init_residual: false,
        }
    }
}

/// A convolution and the batch norm behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNorm {
    /// The convolution, without its bias.
    pub conv: Conv,
    /// The batch norm, which knows of the bias.
    pub norm: BatchNorm,
    /// Where the two stand in [`Architecture::layers`].
    pub layers: [usize; 2],
}

/// A bottleneck block: 1×1, 3×3, 1×1, and a way around.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// 1×1 down to the stage's filters, with the stride.
    pub reduce: ConvNorm,
    /// 3×3.
    pub spatial: ConvNorm,
    /// 1×1 up to four times the filters.
    pub expand: ConvNorm,
    /// The 1×1 of the way around, in a stage's first block.
    pub projection: Option<ConvNorm>,
    /// Where its output stands in [`Architecture::layers`].
    pub output: usize,
}

/// One of Keras's layers, as `train --summary` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Keras's name.
    pub name: String,
    /// Keras's class.
    pub kind: &'static str,
    /// Extents of the output without the batch.
    pub output: Vec<usize>,
    /// Elements in the parameters' arena.
    pub weights: usize,
    /// Elements in the averages' arena.
    pub averages: usize,
}

/// Which arena a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The parameters'.
    Weights(Span),
    /// The running averages'.
    Averages(Span),
}

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

/// The network laid out: what to compute, and where the tensors lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The 7×7 convolution.
    pub stem: ConvNorm,
    /// Where the max pool behind it stands in `layers`.
    pub max_pool: usize,
    /// The bottleneck blocks of all stages.
    pub blocks: Vec<Block>,
    /// The dense layers; the last one gives the logits.
    pub head: Vec<Dense>,
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

impl Architecture {
    /// Lays out a network.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the images are too small for the strides, or `Last(n)` names more layers than there are.
    pub fn new(config: &ModelConfig) -> Result<Self, DeviceError> {
        let mut builder = Builder::new(config);
        let stem = builder.stem(config.extents.stem)?;
        let max_pool = builder.last();
        let mut blocks = Vec::new();
        for (stage, &(filters, count)) in config.extents.stages.iter().enumerate() {
            for block in 0..count {
                // Keras numbers the stages from 2: the stem is stage 1.
                let name = format!("conv{}_block{}", stage + 2, block + 1);
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                blocks.push(builder.block(&name, filters, stride, block == 0)?);
            }
        }
        let channels = builder.image[2];
        let (pooling, kind) = match config.pooling {
            Pooling::Average => ("avg_pool", "GlobalAveragePooling2D"),
            Pooling::Max => ("max_pool", "GlobalMaxPooling2D"),
        };
        builder.push(pooling, kind, vec![channels]);
        let base_layers = builder.layers.len();

        let mut head = Vec::new();
        let mut inputs = channels;
        for &width in &config.extents.head {
            head.push(builder.dense(&format!("head_{width}"), inputs, width, true));
            inputs = width;
        }
        head.push(builder.dense("genres", inputs, config.genres, false));

        let trainable_from = match config.trainable {
            Trainable::All => 0,
            Trainable::Last(count) if count <= base_layers => builder.first_weight[base_layers - count],
            Trainable::Last(count) => {
                let reason = format!("last:{count} asks for more than the base's {base_layers} layers");
                return Err(DeviceError::Shape { kernel: "trainable", reason });
            }
        };
        let Builder { layers, tensors, weights, averages, .. } = builder;
        Ok(Architecture {
            stem,
            max_pool,
            blocks,
            head,
            layers,
            tensors,
            base_layers,
            weights,
            averages,
            trainable_from,
        })
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

    #[test]
    fn only_a_blocks_last_gamma_starts_from_zero_and_only_if_asked() {
        for zero_init_residual in [false, true] {
            let config = ModelConfig { zero_init_residual, ..ModelConfig::resnet50(7) };
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
