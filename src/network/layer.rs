//! What a network is made of: Keras's layers, as data.

use super::initialisers::{Initialiser, KernelInit};
use crate::device::{Activation, ConvShape, DeviceError, Outside, Padding, PoolShape};
use crate::ops::pool::Pooling;
use std::ops::Range;

/// What a layer computes, with what Keras's constructor is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The images `[H, W, 3]`.
    Input,
    /// Rows and columns of zeros.
    ZeroPad(Padding),
    /// A convolution, and the ReLU that Keras calls the layer's activation.
    Conv {
        /// The convolution.
        convolution: Convolution,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// A convolution of each channel by itself.
    DepthwiseConv(Depthwise),
    /// A convolution of each channel by itself and a 1×1 convolution across them, without a bias.
    SeparableConv {
        /// The convolution of each channel.
        depthwise: Depthwise,
        /// K of the one across.
        filters: usize,
    },
    /// Batch norm over the channels.
    BatchNorm {
        /// Added to the variance.
        epsilon: f64,
        /// Whether it is the last of a residual block's branch.
        ends_block: bool,
    },
    /// A ReLU or its like.
    Activation(Activation),
    /// The maximum over windows.
    MaxPool {
        /// Height and width of a window.
        window: usize,
        /// Step between windows.
        stride: usize,
        /// By how much windows reach over the image's edges, where they see nothing: Keras's `padding="same"`.
        pad: Padding,
    },
    /// The sum of two values of one shape.
    Add,
    /// One value per channel.
    GlobalPool(Pooling),
    /// A matrix product and a bias, and the ReLU that Keras calls the layer's activation.
    Dense {
        /// Columns of the output.
        outputs: usize,
        /// Whether a ReLU follows.
        relu: bool,
    },
}

/// What Keras's `Conv2D` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// K.
    pub filters: usize,
    /// R and S.
    pub window: usize,
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros that it adds around the image by itself: Keras's `padding="same"`.
    pub pad: Padding,
    /// Whether a bias is added.
    pub bias: bool,
}

/// What Keras's `DepthwiseConv2D` is told; of each channel it makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// R and S.
    pub window: usize,
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros that it adds around the image by itself.
    pub pad: Padding,
}

/// One of Keras's layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Keras's name.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The layers whose values it reads, by their place in the list, in Keras's order.
    pub inputs: Vec<usize>,
    /// Extents of the output without the batch: `[H, W, C]` or `[C]`.
    pub output: Vec<usize>,
    /// Which of the network's tensors are its own.
    pub tensors: Range<usize>,
}

impl Layer {
    /// Keras's class, as `train --summary` prints it.
    pub fn kind(&self) -> &'static str {
        match self.op {
            Op::Input => "InputLayer",
            Op::ZeroPad(_) => "ZeroPadding2D",
            Op::Conv { .. } => "Conv2D",
            Op::DepthwiseConv(_) => "DepthwiseConv2D",
            Op::SeparableConv { .. } => "SeparableConv2D",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::Activation(Activation::Relu6) => "ReLU",
            Op::Activation(_) => "Activation",
            Op::MaxPool { .. } => "MaxPooling2D",
            Op::Add => "Add",
            Op::GlobalPool(Pooling::Average) => "GlobalAveragePooling2D",
            Op::GlobalPool(Pooling::Max) => "GlobalMaxPooling2D",
            Op::Dense { .. } => "Dense",
        }
    }
}

impl Op {
    /// The output's extents over an `input`, both without the batch.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the input is smaller than a window.
    pub(super) fn output(self, input: &[usize]) -> Result<Vec<usize>, DeviceError> {
        let image = || match *input {
            [h, w, c] => Ok([1, h, w, c]),
            _ => Err(DeviceError::Shape { kernel: "network", reason: format!("{input:?} is not [H, W, C]") }),
        };
        Ok(match self {
            Op::Input | Op::BatchNorm { .. } | Op::Activation(_) | Op::Add => input.to_vec(),
            Op::ZeroPad(pad) => {
                let [_, h, w, c] = image()?;
                vec![h + pad.total(), w + pad.total(), c]
            }
            Op::Conv { convolution: Convolution { filters, window, stride, pad, .. }, .. } => {
                let shape = ConvShape::new(image()?, filters, [window; 2], stride, pad)?;
                vec![shape.p, shape.q, filters]
            }
            Op::DepthwiseConv(Depthwise { window, stride, pad }) => {
                let shape = ConvShape::new(image()?, image()?[3], [window; 2], stride, pad)?;
                vec![shape.p, shape.q, shape.c]
            }
            Op::SeparableConv { depthwise, filters } => {
                let mut output = Op::DepthwiseConv(depthwise).output(input)?;
                output[2] = filters;
                output
            }
            Op::MaxPool { window, stride, pad } => {
                let shape = PoolShape::new(image()?, window, stride, pad, Outside::Nothing)?;
                vec![shape.p, shape.q, shape.c]
            }
            Op::GlobalPool(_) => vec![image()?[3]],
            Op::Dense { outputs, .. } => vec![outputs],
        })
    }

    /// The tensors of a layer that reads values of so many `channels`, in the order in which Keras lists them.
    pub(super) fn tensors(self, channels: usize, init: KernelInit, zero_init_residual: bool) -> Vec<LayerTensor> {
        let tensor = |name, shape: &[usize], initialiser| LayerTensor { name, shape: shape.to_vec(), initialiser };
        match self {
            Op::Conv { convolution: Convolution { filters, window, bias, .. }, .. } => {
                let taps = window * window;
                let start = init.of(taps * channels, taps * filters);
                let kernel = tensor("kernel", &[filters, window, window, channels], start);
                let bias = bias.then(|| tensor("bias", &[filters], Initialiser::Zeros));
                [Some(kernel), bias].into_iter().flatten().collect()
            }
            Op::DepthwiseConv(Depthwise { window, .. }) => {
                // Keras counts the one filter per channel as one output channel, and all channels as its inputs. He's rule is for what
                // an output sums, which is the taps of its own channel.
                let taps = window * window;
                let start = match init {
                    KernelInit::Glorot => Initialiser::glorot(taps * channels, taps),
                    KernelInit::He => Initialiser::he(taps),
                };
                vec![tensor("depthwise_kernel", &[window, window, channels], start)]
            }
            Op::SeparableConv { depthwise, filters } => {
                let across = init.of(channels, filters);
                let mut tensors = Op::DepthwiseConv(depthwise).tensors(channels, init, zero_init_residual);
                tensors.push(tensor("pointwise_kernel", &[filters, 1, 1, channels], across));
                tensors
            }
            Op::BatchNorm { ends_block, .. } => {
                let gamma = if ends_block && zero_init_residual { Initialiser::Zeros } else { Initialiser::Ones };
                vec![
                    tensor("gamma", &[channels], gamma),
                    tensor("beta", &[channels], Initialiser::Zeros),
                    tensor("moving_mean", &[channels], Initialiser::Zeros),
                    tensor("moving_variance", &[channels], Initialiser::Ones),
                ]
            }
            Op::Dense { outputs, .. } => vec![
                tensor("kernel", &[outputs, channels], init.of(channels, outputs)),
                tensor("bias", &[outputs], Initialiser::Zeros),
            ],
            Op::Input | Op::ZeroPad(_) | Op::Activation(_) | Op::MaxPool { .. } | Op::Add | Op::GlobalPool(_) => {
                Vec::new()
            }
        }
    }
}

/// A tensor that a layer has.
pub(super) struct LayerTensor {
    /// `kernel`, `depthwise_kernel`, `pointwise_kernel`, `bias`, `gamma`, `beta`, `moving_mean` or `moving_variance`.
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub initialiser: Initialiser,
}

impl LayerTensor {
    /// Whether it is a running average, which no optimiser moves.
    pub fn is_average(&self) -> bool {
        self.name.starts_with("moving_")
    }
}
