//! The forward pass, written so that every batch norm and ReLU is paid for by the kernel behind it.

use super::architecture::{Architecture, Block, ConvNorm, Layer};
use crate::autograd::{Slot, Tape};
use crate::device::{Device, DeviceError};
use crate::ops::batch_norm::{self, Normalised};
use crate::ops::conv::{self, Activation};
use crate::ops::dense;
use crate::ops::pool::{self, Pooling};
use crate::ops::residual::{self, Shortcut};
use crate::parameters::Parameters;
use crate::tensor::Tensor;

/// Whose statistics batch norm takes.
pub enum Statistics<'a, D: Device> {
    /// Training: the batch's, which also move the running averages. A frozen batch norm keeps to its averages.
    Batch(&'a mut Parameters<D>),
    /// Inference: the running averages.
    Running(&'a Parameters<D>),
}

impl<D: Device> Statistics<'_, D> {
    fn parameters(&self) -> &Parameters<D> {
        match self {
            Statistics::Batch(parameters) => parameters,
            Statistics::Running(parameters) => parameters,
        }
    }
}

/// From images `[N, H, W, 3]` to logits `[N, genres]`, with the slot from which a backward pass starts.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the images do not fit.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    architecture: &Architecture,
    pooling: Pooling,
    images: &Activation<D>,
) -> Result<(Tensor<D>, Option<Slot>), DeviceError> {
    let layers = &architecture.layers;
    let stem = conv_norm(tape, statistics, images, architecture.stem, layers)?.relu();
    tape.enter(&layers[architecture.max_pool].name);
    let mut x = pool::max(tape, &stem, 3, 2, 1)?;
    drop(stem);
    for block in &architecture.blocks {
        x = bottleneck(tape, statistics, x, block, layers)?;
    }
    tape.enter(&layers[architecture.base_layers - 1].name);
    let mut features = pool::global(tape, &x, pooling)?;
    for (&layer, Layer { name, .. }) in architecture.head.iter().zip(&layers[architecture.base_layers..]) {
        tape.enter(name);
        features = dense::forward(tape, statistics.parameters(), features, layer)?;
    }
    Ok(features)
}

/// A bottleneck block. The projection comes first: its backward then runs last and finds the gradient of the shared input
/// already there, to add to while storing.
fn bottleneck<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    x: Activation<D>,
    block: &Block,
    layers: &[Layer],
) -> Result<Activation<D>, DeviceError> {
    let projection = match block.projection {
        Some(projection) => Some(conv_norm(tape, statistics, &x, projection, layers)?),
        None => None,
    };
    let reduced = conv_norm(tape, statistics, &x, block.reduce, layers)?.relu();
    let spatial = conv_norm(tape, statistics, &reduced, block.spatial, layers)?.relu();
    let expanded = conv_norm(tape, statistics, &spatial, block.expand, layers)?;
    let shortcut = match projection {
        Some(projection) => Shortcut::Projection(projection),
        None => Shortcut::Identity(x),
    };
    tape.enter(&layers[block.output].name);
    residual::join(tape, expanded, shortcut)
}

fn conv_norm<D: Device>(
    tape: &mut Tape<D>,
    statistics: &mut Statistics<'_, D>,
    x: &Activation<D>,
    ConvNorm { conv, norm, layers: [at, behind] }: ConvNorm,
    layers: &[Layer],
) -> Result<Normalised<D>, DeviceError> {
    tape.enter(&layers[at].name);
    match statistics {
        Statistics::Batch(parameters) if parameters.is_trainable(norm.gamma) => {
            let y = conv::forward(tape, parameters, x, conv, true)?;
            tape.enter(&layers[behind].name);
            batch_norm::train(tape, parameters, y, norm)
        }
        _ => {
            let y = conv::forward(tape, statistics.parameters(), x, conv, false)?;
            tape.enter(&layers[behind].name);
            batch_norm::infer(tape, statistics.parameters(), y, norm)
        }
    }
}
