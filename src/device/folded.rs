//! Convolutions of a network that only answers: the batch norm behind each is folded into its filters and a bias, once, and the filters
//! lie as the device multiplies them.

use super::{Activation, ConvShape, DepthwiseShape, DeviceError, Elements, Memory, Real, Storage, check_lengths};

/// The geometry of either kind of convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldedShape {
    /// Each filter sees all channels. A dense layer is one of 1×1 over images of one pixel.
    Full(ConvShape),
    /// Each channel has a filter of its own.
    Depthwise(DepthwiseShape),
}

impl FoldedShape {
    /// The same over so many images.
    pub fn of(self, images: usize) -> Self {
        match self {
            FoldedShape::Full(shape) => FoldedShape::Full(ConvShape { n: images, ..shape }),
            FoldedShape::Depthwise(shape) => FoldedShape::Depthwise(DepthwiseShape { n: images, ..shape }),
        }
    }

    /// Channels of `y`: K, or C where each has its own filter.
    pub fn channels(&self) -> usize {
        match self {
            FoldedShape::Full(shape) => shape.k,
            FoldedShape::Depthwise(shape) => shape.c,
        }
    }

    /// Elements of `x`.
    pub fn input_len(&self) -> usize {
        match self {
            FoldedShape::Full(shape) => shape.input_len(),
            FoldedShape::Depthwise(shape) => shape.input_len(),
        }
    }

    /// Elements of `y`.
    pub fn output_len(&self) -> usize {
        match self {
            FoldedShape::Full(shape) => shape.output_len(),
            FoldedShape::Depthwise(shape) => shape.output_len(),
        }
    }

    /// Elements of `x` that the filters see.
    pub fn seen(&self) -> usize {
        match self {
            FoldedShape::Full(shape) => shape.seen(),
            FoldedShape::Depthwise(shape) => shape.seen(),
        }
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> u64 {
        match self {
            FoldedShape::Full(shape) => shape.flops(),
            FoldedShape::Depthwise(shape) => shape.flops(),
        }
    }

    /// Elements of `w`.
    pub fn weights_len(&self) -> usize {
        match self {
            FoldedShape::Full(shape) => shape.weights_len(),
            FoldedShape::Depthwise(shape) => shape.weights_len(),
        }
    }
}

/// Filters as they were trained, and what the batch norm makes of them: `w·scale`, and a `bias` behind, per output channel.
#[derive(Clone, Copy, Debug)]
pub struct Foldable<'a, R> {
    /// `w [K, R, S, C]`, or `[R, S, C]` where each channel has its own filter.
    pub w: &'a [R],
    /// `scale [K]`.
    pub scale: &'a [f64],
    /// `bias [K]`.
    pub bias: &'a [f64],
    /// How the convolution's input and output are stored.
    pub storage: Storage,
}

impl<R: Real> Foldable<'_, R> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &FoldedShape) -> Result<(), DeviceError> {
        let operands = [
            ("w", self.w.len(), shape.weights_len()),
            ("scale", self.scale.len(), shape.channels()),
            ("bias", self.bias.len(), shape.channels()),
        ];
        check_lengths("fold", &operands)
    }
}

/// Operands of [`FoldedKernels::folded_forward`].
pub struct FoldedForward<'a, F, V, M> {
    /// `y [N, P, Q, K]`, written.
    pub y: M,
    /// Whether `y` holds the other way of a residual block, to which the convolution is added in front of the activation.
    pub accumulate: bool,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What [`FoldedKernels::fold`] made of the filters.
    pub filters: &'a F,
    /// What is done last.
    pub activation: Activation,
}

impl<F, V: Elements, M: Elements> FoldedForward<'_, F, V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &FoldedShape) -> Result<(), DeviceError> {
        let operands = [("y", self.y.count(), shape.output_len()), ("x", self.x.count(), shape.input_len())];
        check_lengths("folded_forward", &operands)
    }
}

/// What a device needs to answer without batch norms.
pub trait FoldedKernels: Memory {
    /// Filters and bias of a convolution, made ready.
    type Folded;

    /// Whether it answers with these kernels. One that does not answers with those it trains with, and is not asked to fold.
    fn folds(&self) -> bool;

    /// Makes filters ready for convolutions of this `shape`, over any number of images.
    fn fold<R: Real>(&self, filters: Foldable<'_, R>, shape: &FoldedShape) -> Result<Self::Folded, DeviceError>;

    /// `y = activation(conv(x, w·scale) + bias)`, or with `accumulate` `y = activation(y + conv(x, w·scale) + bias)`.
    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Self::Folded, Self::View<'_>, Self::ViewMut<'_>>,
        shape: &FoldedShape,
    ) -> Result<(), DeviceError>;
}
