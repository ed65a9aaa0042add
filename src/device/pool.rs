//! Pooling: the maximum over windows, and the global poolings before the head.

use super::{DeviceError, Elements, InputTransform, Memory, Padding, check_lengths};

/// What lies outside the image, for windows that reach over its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Zeros that take part in the maximum, as those of Keras's `ZeroPadding2D` do.
    Zeros,
    /// Nothing: the maximum is that of the pixels inside. Keras's own `padding="same"`.
    Nothing,
}

/// The geometry of a max pool with a square window.
///
/// Ties go to the first pixel in reading order; a window won by the zeros outside passes its gradient to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Side of the window.
    pub window: usize,
    /// Step between windows.
    pub stride: usize,
    /// By how many pixels the first windows reach over the upper and the left edge. How far the last ones reach over the others
    /// shows in P and Q alone.
    pub pad: usize,
    /// What lies there.
    pub outside: Outside,
    /// Output height.
    pub p: usize,
    /// Output width.
    pub q: usize,
}

impl PoolShape {
    /// The geometry of a window over `n` images of `h`×`w`×`c`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] when an extent is zero, the window is larger than the padded image, or a window sees no pixel and
    /// there is nothing outside.
    pub fn new(
        [n, h, w, c]: [usize; 4],
        window: usize,
        stride: usize,
        pad: impl Into<Padding>,
        outside: Outside,
    ) -> Result<Self, DeviceError> {
        let pad = pad.into();
        if [n, h, w, c, window, stride].contains(&0) || h.min(w) + pad.total() < window {
            let reason =
                format!("a window of {window}x{window} does not fit {n} images of {h}x{w}x{c} padded by {pad}");
            return Err(DeviceError::Shape { kernel: "max pool", reason });
        }
        if outside == Outside::Nothing && pad.before.max(pad.after) >= window {
            let reason = format!("a window of {window}x{window} at an edge padded by {pad} sees no pixel");
            return Err(DeviceError::Shape { kernel: "max pool", reason });
        }
        let p = (h + pad.total() - window) / stride + 1;
        let q = (w + pad.total() - window) / stride + 1;
        Ok(PoolShape { n, h, w, c, window, stride, pad: pad.before, outside, p, q })
    }

    /// Elements of `x`.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of `y`.
    pub fn output_len(&self) -> usize {
        self.n * self.p * self.q * self.c
    }

    /// Comparisons that find the largest of every window.
    pub fn flops(&self) -> u64 {
        (self.output_len() * (self.window * self.window - 1)) as u64
    }
}

/// The geometry of a global pooling: `[n, pixels, c] → [n, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GlobalPoolShape {
    /// Images.
    pub n: usize,
    /// H·W.
    pub pixels: usize,
    /// Channels.
    pub c: usize,
}

impl GlobalPoolShape {
    /// Elements of `x`.
    pub fn input_len(&self) -> usize {
        self.n * self.pixels * self.c
    }

    /// Elements of `y`.
    pub fn output_len(&self) -> usize {
        self.n * self.c
    }
}

/// Operands of [`PoolKernels::max_pool_forward`].
pub struct MaxPoolForward<V, M> {
    /// `y [N, P, Q, C]`, written.
    pub y: M,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
}

impl<V: Elements, M: Elements> MaxPoolForward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &PoolShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "max_pool_forward";
        let operands = [("y", self.y.count(), shape.output_len()), ("x", self.x.count(), shape.input_len())];
        check_lengths(KERNEL, &operands)?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// Operands of [`PoolKernels::max_pool_backward`].
pub struct MaxPoolBackward<V, M> {
    /// `dx [N, H, W, C]`, written.
    pub dx: M,
    /// `dy [N, P, Q, C]`.
    pub dy: V,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
}

impl<V: Elements, M: Elements> MaxPoolBackward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &PoolShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "max_pool_backward";
        let operands = [
            ("dx", self.dx.count(), shape.input_len()),
            ("dy", self.dy.count(), shape.output_len()),
            ("x", self.x.count(), shape.input_len()),
        ];
        check_lengths(KERNEL, &operands)?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// Operands of [`PoolKernels::global_average_pool_forward`] and of [`PoolKernels::global_max_pool_forward`].
pub struct GlobalPoolForward<V, M> {
    /// `y [N, C]`, written, at full width.
    pub y: M,
    /// `x [N, pixels, C]`.
    pub x: V,
}

impl<V: Elements, M: Elements> GlobalPoolForward<V, M> {
    /// Refuses operands that contradict the geometry, in the name of one of the two kernels.
    pub fn check(&self, kernel: &'static str, shape: &GlobalPoolShape) -> Result<(), DeviceError> {
        let operands = [("y", self.y.count(), shape.output_len()), ("x", self.x.count(), shape.input_len())];
        check_lengths(kernel, &operands)
    }
}

/// Operands of [`PoolKernels::global_average_pool_backward`].
pub struct GlobalAveragePoolBackward<V, M> {
    /// `dx [N, pixels, C]`, written.
    pub dx: M,
    /// `dy [N, C]`, at full width.
    pub dy: V,
}

impl<V: Elements, M: Elements> GlobalAveragePoolBackward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &GlobalPoolShape) -> Result<(), DeviceError> {
        let operands = [("dx", self.dx.count(), shape.input_len()), ("dy", self.dy.count(), shape.output_len())];
        check_lengths("global_average_pool_backward", &operands)
    }
}

/// Operands of [`PoolKernels::global_max_pool_backward`].
pub struct GlobalMaxPoolBackward<V, M> {
    /// `dx [N, pixels, C]`, written.
    pub dx: M,
    /// `dy [N, C]`, at full width.
    pub dy: V,
    /// `x [N, pixels, C]`.
    pub x: V,
}

impl<V: Elements, M: Elements> GlobalMaxPoolBackward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &GlobalPoolShape) -> Result<(), DeviceError> {
        let operands = [
            ("dx", self.dx.count(), shape.input_len()),
            ("dy", self.dy.count(), shape.output_len()),
            ("x", self.x.count(), shape.input_len()),
        ];
        check_lengths("global_max_pool_backward", &operands)
    }
}

/// The poolings and their gradients.
pub trait PoolKernels: Memory {
    /// `y[n,p,q,c]` = the largest of the window over `transform(x)`, with what lies [outside](Outside).
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError>;

    /// `dx` = the gradient of `transform(x)`: each window's `dy` goes to the pixel that won it, found again from `x`.
    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError>;

    /// `y[n,c]` = mean over the pixels.
    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError>;

    /// `dx[n,i,c] = dy[n,c] / pixels`.
    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError>;

    /// `y[n,c]` = maximum over the pixels.
    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError>;

    /// `dx[n,i,c] = dy[n,c]` at the first pixel that holds the maximum, zero elsewhere.
    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError>;
}
