//! Depthwise convolution: geometry, operands, and the kernels.
//!
//! Each channel has a filter of its own and sees no other channel. MobileNet and Xception put it in front of a 1×1
//! convolution, which then mixes the channels.
//!
//! The operands of each kernel are one struct with named fields, over `V`, a shared view, and `M`, an exclusive one, and
//! check themselves against the geometry.

use super::check_lengths;
use super::{ConvShape, DeviceError, Elements, InputTransform, Memory, OutputGradient, Padding, ReduceEpilogue};

/// The geometry of a depthwise convolution (cross-correlation) with square stride and padding.
///
/// `y[n,p,q,c] = Σ_{r,s} x[n, p·stride − pad + r, q·stride − pad + s, c] · w[r,s,c]`, where `x` outside the image is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DepthwiseShape {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Channels, of the input and of the output.
    pub c: usize,
    /// Filter height.
    pub r: usize,
    /// Filter width.
    pub s: usize,
    /// Step between output pixels, both ways.
    pub stride: usize,
    /// Zero pixels above the image and to its left. How many there are below and to its right shows in P and Q alone.
    pub pad: usize,
    /// Output height.
    pub p: usize,
    /// Output width.
    pub q: usize,
}

impl DepthwiseShape {
    /// The geometry of a filter of `r`×`s` for each channel of `n` images of `h`×`w`×`c`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] when an extent is zero or the filter is larger than the padded image.
    pub fn new(
        [n, h, w, c]: [usize; 4],
        [r, s]: [usize; 2],
        stride: usize,
        pad: impl Into<Padding>,
    ) -> Result<Self, DeviceError> {
        // As many filters as channels, placed as any convolution places them.
        let ConvShape { pad, p, q, .. } = ConvShape::new([n, h, w, c], c, [r, s], stride, pad)?;
        Ok(DepthwiseShape { n, h, w, c, r, s, stride, pad, p, q })
    }

    /// Elements of `x`: N·H·W·C.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of `y`: N·P·Q·C.
    pub fn output_len(&self) -> usize {
        self.n * self.p * self.q * self.c
    }

    /// Elements of `w`: R·S·C.
    pub fn weights_len(&self) -> usize {
        self.r * self.s * self.c
    }

    /// Elements of `x` that the filters see: a stride that is longer than they are skips rows and pixels.
    pub fn seen(&self) -> usize {
        self.n * self.h.min(self.p * self.r) * self.w.min(self.q * self.s) * self.c
    }

    /// Multiplications and additions of one pass.
    pub fn flops(&self) -> u64 {
        2 * (self.output_len() * self.r * self.s) as u64
    }
}

/// Operands of [`DepthwiseKernels::depthwise_forward`].
pub struct DepthwiseForward<V, M> {
    /// `y [N, P, Q, C]`, written.
    pub y: M,
    /// `stats [2, C]`, written: mean and biased variance over N·P·Q of each channel of the stored `y`.
    pub stats: Option<M>,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
    /// `w [R, S, C]`.
    pub w: V,
}

impl<V: Elements, M: Elements> DepthwiseForward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &DepthwiseShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_forward";
        let operands = [
            ("y", self.y.count(), shape.output_len()),
            ("x", self.x.count(), shape.input_len()),
            ("w", self.w.count(), shape.weights_len()),
        ];
        check_lengths(KERNEL, &operands)?;
        let stats = self.stats.as_ref().map(|stats| ("stats", stats.count(), 2 * shape.c));
        check_lengths(KERNEL, stats.as_slice())?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// Operands of [`DepthwiseKernels::depthwise_backward_data`].
pub struct DepthwiseBackwardData<V, M> {
    /// `dx [N, H, W, C]`, written.
    pub dx: M,
    /// Whether the gradient is added to what `dx` holds.
    pub accumulate: bool,
    /// What is done with the total before it is stored.
    pub epilogue: Option<ReduceEpilogue<V, M>>,
    /// `dy [N, P, Q, C]`.
    pub dy: OutputGradient<V>,
    /// `w [R, S, C]`.
    pub w: V,
}

impl<V: Elements, M: Elements> DepthwiseBackwardData<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &DepthwiseShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_backward_data";
        let operands = [("dx", self.dx.count(), shape.input_len()), ("w", self.w.count(), shape.weights_len())];
        check_lengths(KERNEL, &operands)?;
        self.dy.check(KERNEL, shape.output_len(), shape.c)?;
        self.epilogue.as_ref().map_or(Ok(()), |epilogue| epilogue.check(KERNEL, shape.input_len(), shape.c))
    }
}

/// Operands of [`DepthwiseKernels::depthwise_backward_weights`].
pub struct DepthwiseBackwardWeights<V, M> {
    /// `dw [R, S, C]`, added to.
    pub dw: M,
    /// `dy [N, P, Q, C]`.
    pub dy: OutputGradient<V>,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
}

impl<V: Elements, M: Elements> DepthwiseBackwardWeights<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &DepthwiseShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_backward_weights";
        let operands = [("dw", self.dw.count(), shape.weights_len()), ("x", self.x.count(), shape.input_len())];
        check_lengths(KERNEL, &operands)?;
        self.dy.check(KERNEL, shape.output_len(), shape.c)?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// The depthwise convolution's three passes. There is no bias: no network here has one, be it that a batch norm follows or a 1×1
/// convolution and then a batch norm.
pub trait DepthwiseKernels: Memory {
    /// `y = depthwise(transform(x), w)`, and its `stats`. Padding is zero after the transform.
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError>;

    /// `dx = depthwiseᵀ(dy, w)`, or `dx += …` with `accumulate`; then the epilogue on the total.
    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError>;

    /// `dw += Σ_{n,p,q} dy · transform(x)`, tap by tap and channel by channel.
    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError>;
}
