//! Convolution: geometry, the fused ends of its three passes, and the kernels.

use super::{Activation, DeviceError, Elements, Memory, check_lengths};

/// Zeros around an image: so many rows above it and columns to its left, and so many below and to its right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Above and to the left.
    pub before: usize,
    /// Below and to the right.
    pub after: usize,
}

impl Padding {
    /// Of both sides together.
    pub fn total(self) -> usize {
        self.before + self.after
    }
}

/// As many on each of the four sides.
impl From<usize> for Padding {
    fn from(zeros: usize) -> Self {
        Padding { before: zeros, after: zeros }
    }
}

/// One padding around the other.
impl std::ops::Add for Padding {
    type Output = Padding;

    fn add(self, other: Padding) -> Padding {
        Padding { before: self.before + other.before, after: self.after + other.after }
    }
}

impl std::fmt::Display for Padding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.before == self.after {
            true => write!(f, "{}", self.before),
            false => write!(f, "{} before and {} after", self.before, self.after),
        }
    }
}

/// The geometry of a 2-D convolution (cross-correlation, as everywhere in deep learning) with square stride and padding.
///
/// `y[n,p,q,k] = Σ_{r,s,c} x[n, p·stride − pad + r, q·stride − pad + s, c] · w[k,r,s,c]`, where `x` outside the image
/// is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Input channels.
    pub c: usize,
    /// Filters, which are the output channels.
    pub k: usize,
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

impl ConvShape {
    /// The geometry of `k` filters of `r`×`s`×`c` over `n` images of `h`×`w`×`c`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] when an extent is zero or the filter is larger than the padded image.
    pub fn new(
        [n, h, w, c]: [usize; 4],
        k: usize,
        [r, s]: [usize; 2],
        stride: usize,
        pad: impl Into<Padding>,
    ) -> Result<Self, DeviceError> {
        let pad = pad.into();
        if [n, h, w, c, k, r, s, stride].contains(&0) || h + pad.total() < r || w + pad.total() < s {
            let reason = format!("{k} filters of {r}x{s} do not fit {n} images of {h}x{w}x{c} padded by {pad}");
            return Err(DeviceError::Shape { kernel: "convolution", reason });
        }
        let p = (h + pad.total() - r) / stride + 1;
        let q = (w + pad.total() - s) / stride + 1;
        Ok(ConvShape { n, h, w, c, k, r, s, stride, pad: pad.before, p, q })
    }

    /// Elements of `x`: N·H·W·C.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of `y`: N·P·Q·K.
    pub fn output_len(&self) -> usize {
        self.n * self.p * self.q * self.k
    }

    /// Elements of `w`: K·R·S·C.
    pub fn weights_len(&self) -> usize {
        self.k * self.r * self.s * self.c
    }

    /// Elements of `x` that the filters see: a stride that is longer than they are skips rows and pixels.
    pub fn seen(&self) -> usize {
        self.n * self.h.min(self.p * self.r) * self.w.min(self.q * self.s) * self.c
    }

    /// Multiply-adds of one pass.
    pub fn macs(&self) -> usize {
        self.output_len() * self.r * self.s * self.c
    }

    /// Multiplications and additions of one pass.
    pub fn flops(&self) -> u64 {
        2 * self.macs() as u64
    }

    /// Whether the pass is a plain matrix product over pixels: a 1×1 filter that skips none and pads none.
    pub fn is_pointwise(&self) -> bool {
        self.r == 1 && self.s == 1 && self.stride == 1 && [self.p, self.q] == [self.h, self.w]
    }
}

/// What the batch norm in front still owes the input, paid while loading: `activation(scale[c]·x + shift[c])`.
/// Padding is zero *after* the transform.
#[derive(Clone, Copy, Debug)]
pub struct InputTransform<V> {
    /// `norm [4, C]`; rows 0 and 1, scale and shift, are read.
    pub norm: V,
    /// What follows the batch norm.
    pub activation: Activation,
}

impl<V: Elements> InputTransform<V> {
    /// Refuses a `norm` of another number of channels.
    pub(super) fn check(&self, kernel: &'static str, channels: usize) -> Result<(), DeviceError> {
        check_lengths(kernel, &[("transform.norm", self.norm.count(), 4 * channels)])
    }
}

/// The gradient of a convolution's output, in one of two forms.
#[derive(Clone, Copy, Debug)]
pub enum OutputGradient<V> {
    /// `dy` itself.
    Ready(V),
    /// Behind a batch norm, `dy = k₀[c]·dz + k₁[c]·y + k₂[c]`, formed while loading.
    Owed {
        /// Gradient of the batch norm's output, ReLU already undone.
        dz: V,
        /// The convolution's output.
        y: V,
        /// `k [3, K]`.
        k: V,
    },
}

impl<V> OutputGradient<V> {
    /// The same form, with what `f` makes of each view in its place, such as its address.
    pub fn map<T>(self, f: impl Fn(V) -> T) -> OutputGradient<T> {
        match self {
            OutputGradient::Ready(dy) => OutputGradient::Ready(f(dy)),
            OutputGradient::Owed { dz, y, k } => OutputGradient::Owed { dz: f(dz), y: f(y), k: f(k) },
        }
    }
}

impl<V: Elements> OutputGradient<V> {
    /// Refuses operands that contradict an output of `len` elements in so many channels.
    pub(super) fn check(&self, kernel: &'static str, len: usize, channels: usize) -> Result<(), DeviceError> {
        match self {
            OutputGradient::Ready(dy) => check_lengths(kernel, &[("dy", dy.count(), len)]),
            OutputGradient::Owed { dz, y, k } => check_lengths(
                kernel,
                &[("dy.dz", dz.count(), len), ("dy.y", y.count(), len), ("dy.k", k.count(), 3 * channels)],
            ),
        }
    }
}

/// What the data gradient does before storing when its input was `a = activation(scale·y + shift)`, which a batch norm owed:
/// store `dz = da·activation′(scale·y + shift)`, and reduce what that batch norm's backward pass needs. The same undoes an activation
/// that a convolution applied itself: its output `a` as `y`, with scale 1, shift 0 and mean 0, since `a` lies strictly between the bounds
/// exactly where the gradient passes.
pub struct ReduceEpilogue<V, M> {
    /// `sums [2, C]`, written: Σ dz and Σ dz·(y − mean).
    pub sums: M,
    /// The raw activation in front of the batch norm, shaped like `dx`.
    pub y: V,
    /// `norm [4, C]`.
    pub norm: V,
    /// What follows the batch norm.
    pub activation: Activation,
}

impl<V: Elements, M: Elements> ReduceEpilogue<V, M> {
    /// Refuses operands that contradict an input of `len` elements in so many channels.
    pub(super) fn check(&self, kernel: &'static str, len: usize, channels: usize) -> Result<(), DeviceError> {
        let operands = [
            ("epilogue.sums", self.sums.count(), 2 * channels),
            ("epilogue.y", self.y.count(), len),
            ("epilogue.norm", self.norm.count(), 4 * channels),
        ];
        check_lengths(kernel, &operands)
    }
}

/// Operands of [`ConvKernels::conv_forward`].
pub struct ConvForward<V, M> {
    /// `y [N, P, Q, K]`, written.
    pub y: M,
    /// `stats [2, K]`, written: mean and biased variance over N·P·Q of each channel of the stored `y`.
    pub stats: Option<M>,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
    /// `w [K, R, S, C]`.
    pub w: V,
    /// `bias [K]`.
    pub bias: Option<V>,
    /// What follows the bias; `y` and `stats` are of its result.
    pub activation: Activation,
}

impl<V: Elements, M: Elements> ConvForward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_forward";
        let operands = [
            ("y", self.y.count(), shape.output_len()),
            ("x", self.x.count(), shape.input_len()),
            ("w", self.w.count(), shape.weights_len()),
        ];
        check_lengths(KERNEL, &operands)?;
        let stats = self.stats.as_ref().map(|stats| ("stats", stats.count(), 2 * shape.k));
        check_lengths(KERNEL, stats.as_slice())?;
        let bias = self.bias.as_ref().map(|bias| ("bias", bias.count(), shape.k));
        check_lengths(KERNEL, bias.as_slice())?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// Operands of [`ConvKernels::conv_backward_data`].
pub struct ConvBackwardData<V, M> {
    /// `dx [N, H, W, C]`, written.
    pub dx: M,
    /// Whether the gradient is added to what `dx` holds.
    pub accumulate: bool,
    /// What is done with the total before it is stored.
    pub epilogue: Option<ReduceEpilogue<V, M>>,
    /// `dy [N, P, Q, K]`.
    pub dy: OutputGradient<V>,
    /// `w [K, R, S, C]`.
    pub w: V,
}

impl<V: Elements, M: Elements> ConvBackwardData<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_data";
        let operands = [("dx", self.dx.count(), shape.input_len()), ("w", self.w.count(), shape.weights_len())];
        check_lengths(KERNEL, &operands)?;
        self.dy.check(KERNEL, shape.output_len(), shape.k)?;
        self.epilogue.as_ref().map_or(Ok(()), |epilogue| epilogue.check(KERNEL, shape.input_len(), shape.c))
    }
}

/// Operands of [`ConvKernels::conv_backward_weights`].
pub struct ConvBackwardWeights<V, M> {
    /// `dw [K, R, S, C]`, added to.
    pub dw: M,
    /// `dy [N, P, Q, K]`.
    pub dy: OutputGradient<V>,
    /// `x [N, H, W, C]`.
    pub x: V,
    /// What is still owed to `x`.
    pub transform: Option<InputTransform<V>>,
}

impl<V: Elements, M: Elements> ConvBackwardWeights<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_weights";
        let operands = [("dw", self.dw.count(), shape.weights_len()), ("x", self.x.count(), shape.input_len())];
        check_lengths(KERNEL, &operands)?;
        self.dy.check(KERNEL, shape.output_len(), shape.k)?;
        self.transform.as_ref().map_or(Ok(()), |transform| transform.check(KERNEL, shape.c))
    }
}

/// Operands of [`ConvKernels::conv_backward_bias`].
pub struct ConvBackwardBias<V, M> {
    /// `dbias [K]`, added to.
    pub dbias: M,
    /// `dy [N, P, Q, K]`.
    pub dy: OutputGradient<V>,
}

impl<V: Elements, M: Elements> ConvBackwardBias<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_bias";
        check_lengths(KERNEL, &[("dbias", self.dbias.count(), shape.k)])?;
        self.dy.check(KERNEL, shape.output_len(), shape.k)
    }
}

/// The convolution's three passes.
pub trait ConvKernels: Memory {
    /// `y = activation(conv(transform(x), w) + bias)`, and its `stats`. Padding is zero after the transform.
    fn conv_forward(
        &self,
        operands: ConvForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError>;

    /// Forms a gradient that is owed ahead of the backward passes, on a device whose kernels for them load it so often that this
    /// costs less. Elsewhere `None`, and it stays as it is.
    fn conv_form_gradient(
        &self,
        dy: OutputGradient<Self::View<'_>>,
        shape: &ConvShape,
    ) -> Result<Option<Self::Buffer>, DeviceError> {
        let _ = (dy, shape);
        Ok(None)
    }

    /// `dx = convᵀ(dy, w)`, or `dx += …` with `accumulate`; then the epilogue on the total.
    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError>;

    /// `dw += Σ_{n,p,q} dy ⊗ transform(x)`.
    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError>;

    /// `dbias[k] += Σ_{n,p,q} dy`. Only for a convolution that no batch norm follows: behind one it is exactly zero.
    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError>;
}
