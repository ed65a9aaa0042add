//! Batch norm as one scale and one shift per channel, its two-pass backward, and the residual junction.
//!
//! Forward: the convolution's epilogue leaves `stats`; [`finalise`](BatchNormKernels::batch_norm_finalise) turns them into
//! `norm [4, C]`; whoever loads the activation next applies rows 0 and 1.
//!
//! Backward: with `dz` the gradient behind the ReLU, M rows and ŷ = (y − mean)·istd,
//!
//! ```text
//! dbeta = Σ dz     dgamma = Σ dz·ŷ     dy = gamma·istd·(dz − dbeta/M − ŷ·dgamma/M) = k₀·dz + k₁·y + k₂
//! ```
//!
//! so one reduction (`sums`) and three numbers per channel (`k`) are all that the convolution's backward pass needs.

use super::{Activation, DeviceError, Memory, check_lengths};

/// A matrix view of an NHWC activation: one row per pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rows {
    /// N·H·W.
    pub rows: usize,
    /// C.
    pub channels: usize,
}

impl Rows {
    /// Elements of the activation.
    pub fn len(&self) -> usize {
        self.rows * self.channels
    }

    /// Whether there is no element at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Refuses operands of [`BatchNormKernels::batch_norm_finalise`], or of [`BatchNormKernels::batch_norm_fold`], which has no
/// `stats`, by their lengths.
pub fn check_channels(
    norm: usize,
    running_mean: usize,
    running_variance: usize,
    stats: Option<usize>,
    gamma: usize,
    beta: usize,
    bias: Option<usize>,
    channels: usize,
) -> Result<(), DeviceError> {
    let operands = [
        ("norm", norm, 4 * channels),
        ("running_mean", running_mean, channels),
        ("running_variance", running_variance, channels),
        ("stats", stats.unwrap_or(2 * channels), 2 * channels),
        ("gamma", gamma, channels),
        ("beta", beta, channels),
        ("bias", bias.unwrap_or(channels), channels),
    ];
    check_lengths(if stats.is_some() { "batch_norm_finalise" } else { "batch_norm_fold" }, &operands)
}

/// Multiplications and additions, a count for each kernel that goes over an activation.
impl Rows {
    /// Of [`BatchNormKernels::batch_norm_statistics`].
    pub fn statistics_flops(&self) -> u64 {
        3 * self.len() as u64
    }

    /// Of [`BatchNormKernels::batch_norm_apply`].
    pub fn apply_flops(&self) -> u64 {
        2 * self.len() as u64
    }

    /// Of [`BatchNormKernels::batch_norm_backward_reduce`].
    pub fn backward_reduce_flops(&self) -> u64 {
        6 * self.len() as u64
    }

    /// Of [`BatchNormKernels::residual_forward`].
    pub fn residual_forward_flops(&self, projected: bool) -> u64 {
        (if projected { 5 } else { 3 }) * self.len() as u64
    }

    /// Of [`BatchNormKernels::residual_backward`].
    pub fn residual_backward_flops(&self, projected: bool) -> u64 {
        (if projected { 7 } else { 4 }) * self.len() as u64
    }
}

/// One check a kernel, of the operands' lengths in the order of its signature.
impl Rows {
    /// Refuses operands of [`BatchNormKernels::batch_norm_statistics`] that contradict this shape.
    pub fn check_statistics(&self, stats: usize, y: usize) -> Result<(), DeviceError> {
        check_lengths("batch_norm_statistics", &[("stats", stats, 2 * self.channels), ("y", y, self.len())])
    }

    /// Refuses operands of [`BatchNormKernels::batch_norm_apply`] that contradict this shape.
    pub fn check_apply(&self, a: usize, y: usize, norm: usize) -> Result<(), DeviceError> {
        let operands = [("a", a, self.len()), ("y", y, self.len()), ("norm", norm, 4 * self.channels)];
        check_lengths("batch_norm_apply", &operands)
    }

    /// Refuses operands of [`BatchNormKernels::batch_norm_backward_reduce`] that contradict this shape.
    pub fn check_backward_reduce(
        &self,
        dz: usize,
        sums: usize,
        da: usize,
        y: usize,
        norm: usize,
    ) -> Result<(), DeviceError> {
        let operands = [
            ("dz", dz, self.len()),
            ("sums", sums, 2 * self.channels),
            ("da", da, self.len()),
            ("y", y, self.len()),
            ("norm", norm, 4 * self.channels),
        ];
        check_lengths("batch_norm_backward_reduce", &operands)
    }

    /// Refuses operands of [`BatchNormKernels::batch_norm_backward_finalise`] that contradict this shape.
    pub fn check_backward_finalise(
        &self,
        k: usize,
        dgamma: usize,
        dbeta: usize,
        sums: usize,
        gamma: usize,
        norm: usize,
    ) -> Result<(), DeviceError> {
        let operands = [
            ("k", k, 3 * self.channels),
            ("dgamma", dgamma, self.channels),
            ("dbeta", dbeta, self.channels),
            ("sums", sums, 2 * self.channels),
            ("gamma", gamma, self.channels),
            ("norm", norm, 4 * self.channels),
        ];
        check_lengths("batch_norm_backward_finalise", &operands)
    }

    /// Refuses operands of [`BatchNormKernels::residual_forward`] that contradict this shape.
    pub fn check_residual_forward(
        &self,
        out: usize,
        y: usize,
        norm: usize,
        shortcut: usize,
        shortcut_norm: Option<usize>,
    ) -> Result<(), DeviceError> {
        let operands = [
            ("out", out, self.len()),
            ("y", y, self.len()),
            ("norm", norm, 4 * self.channels),
            ("shortcut", shortcut, self.len()),
            ("shortcut_norm", shortcut_norm.unwrap_or(4 * self.channels), 4 * self.channels),
        ];
        check_lengths("residual_forward", &operands)
    }

    /// Refuses operands of [`BatchNormKernels::residual_backward`] that contradict this shape.
    pub fn check_residual_backward(
        &self,
        dz: usize,
        sums: usize,
        dout: usize,
        out: usize,
        y: usize,
        norm: usize,
        projection: Option<Projection<usize, usize>>,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "residual_backward";
        let operands = [
            ("dz", dz, self.len()),
            ("sums", sums, 2 * self.channels),
            ("dout", dout, self.len()),
            ("out", out, self.len()),
            ("y", y, self.len()),
            ("norm", norm, 4 * self.channels),
        ];
        check_lengths(KERNEL, &operands)?;
        let Some(Projection { sums, y, norm }) = projection else { return Ok(()) };
        let operands = [
            ("projection.sums", sums, 2 * self.channels),
            ("projection.y", y, self.len()),
            ("projection.norm", norm, 4 * self.channels),
        ];
        check_lengths(KERNEL, &operands)
    }
}

/// The batch norm of a shortcut that is a convolution, at a junction's backward pass.
pub struct Projection<V, M> {
    /// `sums [2, C]`, written: Σ dz and Σ dz·(y − mean).
    pub sums: M,
    /// The convolution's output.
    pub y: V,
    /// `norm [4, C]`.
    pub norm: V,
}

impl<V, M> Projection<V, M> {
    /// The lengths of its operands, which `read` and `written` know how to take.
    pub fn lengths(&self, read: impl Fn(&V) -> usize, written: impl Fn(&M) -> usize) -> Projection<usize, usize> {
        Projection { sums: written(&self.sums), y: read(&self.y), norm: read(&self.norm) }
    }
}

/// Keras's two constants.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BatchNormConstants {
    /// Weight of the *old* running average (Keras's convention; PyTorch's momentum is one minus this).
    pub momentum: f64,
    /// Added to the variance under the root.
    pub epsilon: f64,
}

/// Batch norm and the junction where a residual block ends.
pub trait BatchNormKernels: Memory {
    /// Training: from the batch's `stats [2, C]` to `norm [4, C]` = (gamma·istd, beta − mean·gamma·istd, mean, istd),
    /// istd = 1/√(variance + epsilon); and `running ← momentum·running + (1 − momentum)·batch`.
    ///
    /// The statistics are those of the convolution without its bias, which batch norm would take out again; `bias` enters
    /// the running mean only. The running variance takes the biased variance, as Keras 3 does.
    fn batch_norm_finalise(
        &self,
        norm: Self::ViewMut<'_>,
        running_mean: Self::ViewMut<'_>,
        running_variance: Self::ViewMut<'_>,
        stats: Self::View<'_>,
        gamma: Self::View<'_>,
        beta: Self::View<'_>,
        bias: Option<Self::View<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError>;

    /// Inference: the running averages folded into `norm [4, C]`, whose mean row is running mean − bias, so that the
    /// convolution in front need not add its bias here either.
    fn batch_norm_fold(
        &self,
        norm: Self::ViewMut<'_>,
        running_mean: Self::View<'_>,
        running_variance: Self::View<'_>,
        gamma: Self::View<'_>,
        beta: Self::View<'_>,
        bias: Option<Self::View<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError>;

    /// `stats [2, C]` = mean and biased variance over the rows of `y`, where no convolution took them while storing it.
    fn batch_norm_statistics(
        &self,
        stats: Self::ViewMut<'_>,
        y: Self::View<'_>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `a = activation(scale·y + shift)`: pays what is owed, for a consumer that cannot while loading.
    fn batch_norm_apply(
        &self,
        a: Self::ViewMut<'_>,
        y: Self::View<'_>,
        norm: Self::View<'_>,
        activation: Activation,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `dz = da·activation′(scale·y + shift)` and `sums [2, C]` = (Σ dz, Σ dz·(y − mean)), where no epilogue did it.
    fn batch_norm_backward_reduce(
        &self,
        dz: Self::ViewMut<'_>,
        sums: Self::ViewMut<'_>,
        da: Self::View<'_>,
        y: Self::View<'_>,
        norm: Self::View<'_>,
        activation: Activation,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// From `sums` to `k [3, C]`; `dgamma += sums₁·istd`, `dbeta += sums₀`.
    fn batch_norm_backward_finalise(
        &self,
        k: Self::ViewMut<'_>,
        dgamma: Self::ViewMut<'_>,
        dbeta: Self::ViewMut<'_>,
        sums: Self::View<'_>,
        gamma: Self::View<'_>,
        norm: Self::View<'_>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// The junction: `out = max(0, scale·y + shift + shortcut)`, where the shortcut is a finished activation, or the raw
    /// projection with the `norm` it owes (no ReLU).
    fn residual_forward(
        &self,
        out: Self::ViewMut<'_>,
        y: Self::View<'_>,
        norm: Self::View<'_>,
        shortcut: Self::View<'_>,
        shortcut_norm: Option<Self::View<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `dz = dout·[out > 0]`, the gradient of both branches; `sums [2, C]` = (Σ dz, Σ dz·(y − mean)) for the branch, and
    /// the same for a projected shortcut.
    fn residual_backward(
        &self,
        dz: Self::ViewMut<'_>,
        sums: Self::ViewMut<'_>,
        dout: Self::View<'_>,
        out: Self::View<'_>,
        y: Self::View<'_>,
        norm: Self::View<'_>,
        projection: Option<Projection<Self::View<'_>, Self::ViewMut<'_>>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;
}
