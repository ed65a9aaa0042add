//! One step of a plan.

use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;
use crate::ops::pool::Pooling;
use crate::parameters::Span;

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
    /// So many zeros on each side.
    Pad(usize),
    /// A convolution; it pads as a padding layer in front would, if there was one.
    Conv {
        /// The convolution.
        conv: Conv,
        /// Its bias.
        bias: Option<Span>,
    },
    /// A batch norm.
    Norm(BatchNorm),
    /// A ReLU.
    Relu,
    /// A sum of two values.
    Add,
    /// A convolution, its output's statistics, and the batch norm that they are for, whose scale and shift are left to whoever reads
    /// the value; a ReLU likewise.
    ConvNorm {
        /// The convolution, whose bias the batch norm takes over.
        conv: Conv,
        /// The batch norm.
        norm: BatchNorm,
        /// Whether a ReLU follows.
        relu: bool,
        /// Where convolution and batch norm stand among the layers.
        layers: [usize; 2],
    },
    /// A maximum over windows.
    MaxPool {
        /// Height and width of a window.
        window: usize,
        /// Step between windows.
        stride: usize,
        /// Zeros on each side.
        pad: usize,
    },
    /// Where a residual block ends: its batch norm, the way around, their sum and the ReLU.
    Junction,
    /// One value per channel.
    GlobalPool(Pooling),
    /// A dense layer.
    Dense(Dense),
}
