//! Convolution: tensor cores if they take it, else the stem's own kernels, else CUDA cores, which take everything.

mod cuda_core;
mod product;
mod stem;
mod weights;

pub use cuda_core::{FfmaSplits, FfmaTile};
pub use product::{ProductTile, Tiling};
pub use stem::StemGrid;
pub use weights::{PixelSplits, WeightsTile};

use super::{Choice, Refusal, Target};
use crate::device::cuda::Precision;
use crate::device::{Activation, ConvShape, DeviceError};

/// Which operands begin at a multiple of 16 bytes. What is not there counts as one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    /// Inputs, outputs, their gradients and the gradient of the weights.
    pub tensors: bool,
    /// The scale and shift of a batch norm that an operand owes.
    pub norm: bool,
    /// The weights in `f32`.
    pub weights: bool,
    /// Their copy in bf16; none if there is none.
    pub narrow: Option<bool>,
    /// The bias.
    pub bias: bool,
}

impl Aligned {
    /// As in a network, whose tensors have buffers of their own.
    pub const ALL: Aligned = Aligned { tensors: true, norm: true, weights: true, narrow: Some(true), bias: true };
}

/// A kernel of the forward pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Forward {
    /// On tensor cores.
    Ampere(Tiling),
    /// The stem's own.
    Stem(StemGrid),
    /// On CUDA cores.
    CudaCore(&'static FfmaTile),
}

/// A kernel of the data gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum BackwardData {
    /// On tensor cores.
    Ampere(Tiling),
    /// On CUDA cores.
    CudaCore(&'static FfmaTile),
}

/// A kernel of the weight gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum BackwardWeights {
    /// On tensor cores.
    Ampere(PixelSplits),
    /// The stem's own.
    Stem(StemGrid),
    /// On CUDA cores.
    CudaCore(FfmaSplits),
}

impl Forward {
    /// Its name, for an input that owes a batch norm and this activation, or nothing.
    pub fn name(&self, owed: Option<Activation>) -> &'static str {
        match self {
            Forward::Ampere(tiling) => tiling.tile.forward_of(owed),
            Forward::Stem(_) => "conv_stem_forward",
            Forward::CudaCore(tile) => tile.forward,
        }
    }
}

impl BackwardData {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            BackwardData::Ampere(tiling) => tiling.tile.backward_data,
            BackwardData::CudaCore(tile) => tile.backward_data,
        }
    }
}

impl BackwardWeights {
    /// Its name, for an input that owes a batch norm and this activation, or nothing.
    pub fn name(&self, owed: Option<Activation>) -> &'static str {
        match self {
            BackwardWeights::Ampere(split) => split.tile.kernel_of(owed),
            BackwardWeights::Stem(_) => "conv_stem_backward_weights",
            BackwardWeights::CudaCore(splits) => splits.tile.backward_weights,
        }
    }
}

/// What the tensor-core kernels ask of every pass: 16 bytes of channels or filters at once.
fn ampere_takes(target: &Target, shape: &ConvShape, aligned: bool) -> Result<(), Refusal> {
    let multiple = target.lane();
    if target.precision == Precision::F32 {
        return Err(Refusal::NotForF32);
    }
    if !shape.c.is_multiple_of(multiple) {
        return Err(Refusal::Channels { channels: shape.c, multiple });
    }
    if !shape.k.is_multiple_of(multiple) {
        return Err(Refusal::Filters { filters: shape.k, multiple });
    }
    if shape.r > 15 || shape.s > 15 {
        return Err(Refusal::Taps { r: shape.r, s: shape.s });
    }
    if !aligned {
        return Err(Refusal::Unaligned);
    }
    Ok(())
}

/// The same, and that the weights can be read.
fn ampere_takes_weights(target: &Target, shape: &ConvShape, aligned: Aligned) -> Result<(), Refusal> {
    let weights = match (target.precision, aligned.narrow) {
        (Precision::Bf16, None) => return Err(Refusal::NoNarrowWeights),
        (Precision::Bf16, Some(narrow)) => narrow,
        _ => aligned.weights,
    };
    ampere_takes(target, shape, aligned.tensors && aligned.norm && weights)
}

/// What the stem's kernels ask. There is none for the data gradient of an image: nobody asks for it.
fn stem_takes(target: &Target, shape: &ConvShape, transform: bool, aligned: bool) -> Result<(), Refusal> {
    let &ConvShape { c, k, r, s, stride, pad, .. } = shape;
    if target.precision == Precision::F32 {
        return Err(Refusal::NotForF32);
    }
    if [c, r, s, stride, pad] != [3, 7, 7, 2, 3] {
        return Err(Refusal::NotTheStem);
    }
    if !k.is_multiple_of(8) {
        return Err(Refusal::Filters { filters: k, multiple: 8 });
    }
    if transform {
        return Err(Refusal::OwedInput);
    }
    if !aligned {
        return Err(Refusal::Unaligned);
    }
    Ok(())
}

/// Why CUDA cores have the work, and for the tensor cores' why they have it.
const REST: &str = "it takes any shape; the faster ones do not take this one";
const TENSOR_CORES: &str = "tensor cores; of the tiles the one with the least work for the busiest multiprocessor";
const STEM: &str = "tensor cores, from patches of the image: three channels are too few for the others' loads";

/// The kernel of `y = activation(conv(x, w) + bias)`, where x may owe a batch norm and an activation of its own. The activation behind
/// the bias is two numbers to every kernel.
///
/// # Errors
/// [`DeviceError::Shape`] for more blocks than a kernel counts.
pub fn forward(
    target: &Target,
    shape: &ConvShape,
    owed: Option<Activation>,
    aligned: Aligned,
) -> Result<Choice<Forward>, DeviceError> {
    let mut refused = Vec::new();
    let pixels = shape.n * shape.p * shape.q;
    match ampere_takes_weights(target, shape, aligned) {
        Ok(()) => {
            let name = |tile: &'static ProductTile| tile.forward_of(owed);
            let tiling = Tiling::new("conv_forward", pixels, shape.k, target, name, &mut refused)?;
            return Ok(Choice { kernel: Forward::Ampere(tiling), reason: TENSOR_CORES, refused });
        }
        Err(refusal) => refused.push(("conv_forward_*", refusal)),
    }
    match stem_takes(target, shape, owed.is_some(), aligned.tensors && aligned.weights) {
        Ok(()) => {
            let grid = StemGrid::forward(shape, target);
            return Ok(Choice { kernel: Forward::Stem(grid), reason: STEM, refused });
        }
        Err(refusal) => refused.push(("conv_stem_forward", refusal)),
    }
    let aligned = aligned.tensors && aligned.norm && aligned.weights && aligned.bias;
    let fills = Some(target.multiprocessors);
    let tile = FfmaTile::choose(target, shape, aligned, [pixels, shape.k], fills, |tile| tile.forward, &mut refused);
    Ok(Choice { kernel: Forward::CudaCore(tile), reason: REST, refused })
}

/// The kernel of `dx (+)= convᵀ(dy, w)`, with or without the epilogue that masks and reduces.
///
/// # Errors
/// As for [`forward`].
pub fn backward_data(
    target: &Target,
    shape: &ConvShape,
    epilogue: bool,
    aligned: Aligned,
) -> Result<Choice<BackwardData>, DeviceError> {
    let mut refused = Vec::new();
    // Every stride-1 convolution, and strides over single pixels, which are computed without the pixels in between.
    let sampled = [shape.h, shape.w].map(|extent| extent.div_ceil(shape.stride));
    let strided = if shape.stride == 1 {
        Ok(())
    } else if [shape.r, shape.s, shape.pad] != [1, 1, 0] {
        Err(Refusal::StridedFilter)
    } else if [shape.p, shape.q] != sampled {
        Err(Refusal::StridedPadding)
    } else if epilogue {
        Err(Refusal::StridedEpilogue)
    } else {
        Ok(())
    };
    match strided.and_then(|()| ampere_takes_weights(target, shape, aligned)) {
        Ok(()) => {
            let pixels = computed_pixels(shape);
            let name = |tile: &'static ProductTile| tile.backward_data;
            let tiling = Tiling::new("conv_backward_data", pixels, shape.c, target, name, &mut refused)?;
            return Ok(Choice { kernel: BackwardData::Ampere(tiling), reason: TENSOR_CORES, refused });
        }
        Err(refusal) => refused.push(("conv_backward_data_*", refusal)),
    }
    // A class of pixels sees the same taps.
    let [height, width] = sampled;
    let pixels = shape.stride * shape.stride * shape.n * height * width;
    let aligned = aligned.tensors && aligned.norm && aligned.weights;
    let fills = Some(target.multiprocessors);
    let name = |tile: &'static FfmaTile| tile.backward_data;
    let tile = FfmaTile::choose(target, shape, aligned, [pixels, shape.c], fills, name, &mut refused);
    Ok(Choice { kernel: BackwardData::CudaCore(tile), reason: REST, refused })
}

/// The pixels of dx that the tensor cores compute: with a stride one for each of dy, the others being zero.
pub fn computed_pixels(shape: &ConvShape) -> usize {
    let [height, width] = if shape.stride > 1 { [shape.p, shape.q] } else { [shape.h, shape.w] };
    shape.n * height * width
}

/// The kernel of `dw += Σ dy ⊗ x`, where x may owe a batch norm and an activation.
pub fn backward_weights(
    target: &Target,
    shape: &ConvShape,
    owed: Option<Activation>,
    aligned: Aligned,
) -> Choice<BackwardWeights> {
    let mut refused = Vec::new();
    match ampere_takes(target, shape, aligned.tensors) {
        Ok(()) => {
            let split = PixelSplits::new(shape, target, owed, &mut refused);
            let reason = "tensor cores; of the tiles and splits of the pixels the fastest by the estimate";
            return Choice { kernel: BackwardWeights::Ampere(split), reason, refused };
        }
        Err(refusal) => refused.push(("conv_backward_weights_*", refusal)),
    }
    match stem_takes(target, shape, owed.is_some(), aligned.tensors) {
        Ok(()) => {
            let grid = StemGrid::backward(shape, target);
            return Choice { kernel: BackwardWeights::Stem(grid), reason: STEM, refused };
        }
        Err(refusal) => refused.push(("conv_stem_backward_weights", refusal)),
    }
    let splits = FfmaSplits::new(target, shape, aligned.tensors && aligned.norm, &mut refused);
    Choice { kernel: BackwardWeights::CudaCore(splits), reason: REST, refused }
}
