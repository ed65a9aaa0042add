//! The kernel vocabulary, and the devices that speak it.
//!
//! A [`Device`] is memory plus one method a kernel. The methods are grouped by layer family, one trait a file, and every
//! device implements a family in a file of the same name: [`conv`], [`depthwise`], [`folded`], [`batch_norm`], [`pool`], [`dense`], [`loss`],
//! [`adam`], [`image`]. The engine above is generic over `Device`; nothing in it knows which one runs.
//!
//! # Conventions
//!
//! - A kernel's operands are one struct, generic over `V`, a shared view, and `M`, an exclusive one: outputs first, then inputs,
//!   then parameters. The gradient of `x` is `dx`. Only `image_forward`, which reads bytes and not a view, takes its own
//!   one by one.
//! - Activations are NHWC, convolution weights KRSC (one row per filter), depthwise weights `[R, S, C]`, dense weights
//!   `[outputs, inputs]`.
//! - Per-channel values are rows of a small matrix: `stats [2, C]` is (mean, biased variance), `norm [4, C]` is
//!   (scale, shift, mean, inverse standard deviation), `sums [2, C]` and `k [3, C]` serve batch norm's backward pass.
//! - Gradients of parameters accumulate (`+=`). Gradients of activations overwrite, except where the
//!   operands say `accumulate`.
//! - Every reduction has a fixed order, so the same input gives the same bits.
//! - NaN goes through: a ReLU, a mask or a maximum that meets one gives one, so that a fault upstream shows.
//! - Every struct of operands has a `check` against the geometry that comes with it. Every device calls it first, and returns
//!   its [`DeviceError::Length`] rather than touch memory.

pub mod activation;
pub mod adam;
pub mod batch_norm;
pub mod conv;
pub mod counting;
pub mod cpu;
pub mod cuda;
pub mod dense;
pub mod depthwise;
pub mod folded;
pub mod image;
pub mod loss;
pub mod memory;
pub mod pool;
pub mod precision;
pub mod profiler;
pub mod reference;

pub use activation::Activation;
pub use adam::{AdamConstants, AdamKernels, AdamStep, Average, Restore, SquaredNorm};
pub use batch_norm::{
    BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormKernels, BatchNormStatistics, Masked, Projection, ResidualBackward, ResidualForward, Rows,
};
pub use conv::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, InputTransform,
    OutputGradient, Padding, ReduceEpilogue,
};
pub use dense::{DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, ReluBackward};
pub use depthwise::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape,
};
pub use folded::{Foldable, FoldedForward, FoldedKernels, FoldedShape};
pub use image::{ImageKernels, ImageShape, PixelFormat, Placement};
pub use loss::{BceForwardBackward, LossKernels, LossShape, Sigmoid};
pub use memory::{Elements, Memory, Real, Storage};
pub use pool::{
    GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape, MaxPoolBackward,
    MaxPoolForward, Outside, PoolKernels, PoolShape,
};
pub use precision::Precision;
pub use profiler::{Measured, Pass, Profiler, Rates, Scope, Work};

/// Everything the engine asks of a machine: memory and the kernels of every layer family.
pub trait Device:
    Memory
    + ConvKernels
    + DepthwiseKernels
    + FoldedKernels
    + BatchNormKernels
    + PoolKernels
    + DenseKernels
    + LossKernels
    + AdamKernels
    + ImageKernels
{
}

impl<D> Device for D where
    D: Memory
        + ConvKernels
        + DepthwiseKernels
        + FoldedKernels
        + BatchNormKernels
        + PoolKernels
        + DenseKernels
        + LossKernels
        + AdamKernels
        + ImageKernels
{
}

/// Why a device could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The allocation did not fit.
    #[error("{device} has no room for {bytes} more bytes; try a smaller --batch or --image-size")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// The size of the allocation that failed.
        bytes: usize,
    },
    /// An operand's length contradicts the geometry it came with.
    #[error("{kernel}: operand {operand} has {found} elements, its shape asks for {expected}")]
    Length {
        /// The method that refused.
        kernel: &'static str,
        /// The operand's name in the struct of that method's operands.
        operand: &'static str,
        /// Elements given.
        found: usize,
        /// Elements the geometry asks for.
        expected: usize,
    },
    /// There is no such device here, or it is not one that the kernels run on.
    #[error("{0}")]
    Unavailable(String),
    /// The driver refused a call, or reports a fault of a kernel that ran before.
    #[error("{device}: {call} failed: {reason}")]
    Driver {
        /// The device's name.
        device: String,
        /// What was asked; for a launch the kernel, its geometry and its arguments.
        call: String,
        /// The driver's answer.
        reason: String,
    },
    /// The extents contradict one another, so no kernel can be right for them.
    #[error("{kernel}: {reason}")]
    Shape {
        /// The method or geometry that refused.
        kernel: &'static str,
        /// The extents in question.
        reason: String,
    },
}

/// Refuses a launch whose operands are not as long as its geometry says. Each triple is (operand, found, expected).
pub fn check_lengths(kernel: &'static str, operands: &[(&'static str, usize, usize)]) -> Result<(), DeviceError> {
    for &(operand, found, expected) in operands {
        if found != expected {
            return Err(DeviceError::Length { kernel, operand, found, expected });
        }
    }
    Ok(())
}
