//! One step of a plan.

use crate::device::{Activation, Outside, Padding};
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;
use crate::ops::depthwise::Depthwise;
use crate::ops::pool::Pooling;
use crate::ops::separable::Separable;

/// Some of a network's layers that are computed together.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The layers, by their place in the network's list, in the order in which they compute.
    pub layers: Vec<usize>,
    /// The layers whose values the step reads, in the order in which Keras lists them.
    pub inputs: Vec<usize>,
    /// Which of `inputs` nobody reads afterwards.
    pub frees: Vec<usize>,
    /// What is computed.
    pub work: Work,
    /// Whether what is owed to the value or to its gradient is left to whoever reads it, or computed at once.
    pub leaves_debt: bool,
}

impl Step {
    /// The layer whose value the step leaves.
    pub fn output(&self) -> usize {
        self.layers[self.layers.len() - 1]
    }
}

/// What a step computes: what one layer does, or what a [rule](super::fuse::RULES) made of several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// The images, which are there before the first step.
    Images,
    /// Zeros around an image.
    Pad(Padding),
    /// A convolution; it pads as a padding layer in front would, if there was one, and applies its activation while storing.
    Conv(Conv),
    /// A convolution that Keras gives an activation of its own, and that activation as if it were a layer of its own.
    ConvActivation {
        /// The convolution.
        conv: Conv,
        /// The activation.
        activation: Activation,
    },
    /// A convolution of each channel by itself.
    Depthwise(Depthwise),
    /// A convolution of each channel by itself, and one across them.
    Separable(Separable),
    /// A batch norm and its activation, whose statistics are taken in a pass of their own.
    Norm(BatchNorm),
    /// An activation.
    Activation(Activation),
    /// Where a residual block ends without a ReLU: the sum of two values, with the batch norms that they owe.
    Add,
    /// A convolution that takes its output's statistics while storing it, and the batch norm that they are for.
    ConvNorm {
        /// The convolution, whose bias the batch norm takes over.
        conv: Filters,
        /// The batch norm and its activation.
        norm: BatchNorm,
        /// Where convolution and batch norm stand among the layers.
        layers: [usize; 2],
    },
    /// A maximum over windows.
    MaxPool {
        /// Height and width of a window.
        window: usize,
        /// Step between windows.
        stride: usize,
        /// By how much the windows reach over the image's edges.
        pad: Padding,
        /// What lies there.
        outside: Outside,
    },
    /// Where one ends with a ReLU: the same, and the larger of the sum and 0.
    Junction,
    /// One value per channel.
    GlobalPool(Pooling),
    /// A dense layer.
    Dense(Dense),
}

/// A convolution of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    /// Each filter sees all channels.
    Full(Conv),
    /// Each channel has a filter of its own.
    Depthwise(Depthwise),
    /// The one behind the other.
    Separable(Separable),
}
