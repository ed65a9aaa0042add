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

use super::{Activation, DeviceError, Elements, Memory, check_lengths};

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

/// Keras's two constants.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct BatchNormConstants {
    /// Weight of the *old* running average (Keras's convention; PyTorch's momentum is one minus this).
    pub momentum: f64,
    /// Added to the variance under the root.
    pub epsilon: f64,
}

/// Operands of [`BatchNormKernels::batch_norm_finalise`].
pub struct BatchNormFinalise<V, M> {
    /// `norm [4, C]`, written.
    pub norm: M,
    /// `running_mean [C]`, updated.
    pub running_mean: M,
    /// `running_variance [C]`, updated.
    pub running_variance: M,
    /// `stats [2, C]`, of the batch.
    pub stats: V,
    /// `gamma [C]`.
    pub gamma: V,
    /// `beta [C]`.
    pub beta: V,
    /// `bias [C]`, where the convolution in front has one. It was left out of `stats`.
    pub bias: Option<V>,
}

impl<V: Elements, M: Elements> BatchNormFinalise<V, M> {
    /// Refuses operands that contradict the number of channels.
    pub fn check(&self, channels: usize) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_finalise";
        let operands = [
            ("norm", self.norm.count(), 4 * channels),
            ("running_mean", self.running_mean.count(), channels),
            ("running_variance", self.running_variance.count(), channels),
            ("stats", self.stats.count(), 2 * channels),
            ("gamma", self.gamma.count(), channels),
            ("beta", self.beta.count(), channels),
        ];
        check_lengths(KERNEL, &operands)?;
        let bias = self.bias.as_ref().map(|bias| ("bias", bias.count(), channels));
        check_lengths(KERNEL, bias.as_slice())
    }
}

/// Operands of [`BatchNormKernels::batch_norm_fold`].
pub struct BatchNormFold<V, M> {
    /// `norm [4, C]`, written.
    pub norm: M,
    /// `running_mean [C]`.
    pub running_mean: V,
    /// `running_variance [C]`.
    pub running_variance: V,
    /// `gamma [C]`.
    pub gamma: V,
    /// `beta [C]`.
    pub beta: V,
    /// `bias [C]`, where the convolution in front has one. It is left out of `y`.
    pub bias: Option<V>,
}

impl<V: Elements, M: Elements> BatchNormFold<V, M> {
    /// Refuses operands that contradict the number of channels.
    pub fn check(&self, channels: usize) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_fold";
        let operands = [
            ("norm", self.norm.count(), 4 * channels),
            ("running_mean", self.running_mean.count(), channels),
            ("running_variance", self.running_variance.count(), channels),
            ("gamma", self.gamma.count(), channels),
            ("beta", self.beta.count(), channels),
        ];
        check_lengths(KERNEL, &operands)?;
        let bias = self.bias.as_ref().map(|bias| ("bias", bias.count(), channels));
        check_lengths(KERNEL, bias.as_slice())
    }
}

/// Operands of [`BatchNormKernels::batch_norm_statistics`].
pub struct BatchNormStatistics<V, M> {
    /// `stats [2, C]`, written.
    pub stats: M,
    /// `y [N, H, W, C]`.
    pub y: V,
}

impl<V: Elements, M: Elements> BatchNormStatistics<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        let operands = [("stats", self.stats.count(), 2 * shape.channels), ("y", self.y.count(), shape.len())];
        check_lengths("batch_norm_statistics", &operands)
    }
}

/// Operands of [`BatchNormKernels::batch_norm_apply`].
pub struct BatchNormApply<V, M> {
    /// `a [N, H, W, C]`, written.
    pub a: M,
    /// `y [N, H, W, C]`.
    pub y: V,
    /// `norm [4, C]`.
    pub norm: V,
    /// What follows the shift.
    pub activation: Activation,
}

impl<V: Elements, M: Elements> BatchNormApply<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        let operands = [
            ("a", self.a.count(), shape.len()),
            ("y", self.y.count(), shape.len()),
            ("norm", self.norm.count(), 4 * shape.channels),
        ];
        check_lengths("batch_norm_apply", &operands)
    }
}

/// Operands of [`BatchNormKernels::batch_norm_backward_reduce`].
pub struct BatchNormBackwardReduce<V, M> {
    /// `dz [N, H, W, C]`, written.
    pub dz: M,
    /// `sums [2, C]`, written.
    pub sums: M,
    /// `da [N, H, W, C]`, the gradient behind the activation.
    pub da: V,
    /// `y [N, H, W, C]`.
    pub y: V,
    /// `norm [4, C]`.
    pub norm: V,
    /// What followed the shift.
    pub activation: Activation,
}

impl<V: Elements, M: Elements> BatchNormBackwardReduce<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        let operands = [
            ("dz", self.dz.count(), shape.len()),
            ("sums", self.sums.count(), 2 * shape.channels),
            ("da", self.da.count(), shape.len()),
            ("y", self.y.count(), shape.len()),
            ("norm", self.norm.count(), 4 * shape.channels),
        ];
        check_lengths("batch_norm_backward_reduce", &operands)
    }
}

/// Operands of [`BatchNormKernels::batch_norm_backward_finalise`].
pub struct BatchNormBackwardFinalise<V, M> {
    /// `k [3, C]`, written.
    pub k: M,
    /// `dgamma [C]`, added to.
    pub dgamma: M,
    /// `dbeta [C]`, added to.
    pub dbeta: M,
    /// `sums [2, C]`.
    pub sums: V,
    /// `gamma [C]`.
    pub gamma: V,
    /// `norm [4, C]`.
    pub norm: V,
}

impl<V: Elements, M: Elements> BatchNormBackwardFinalise<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        let operands = [
            ("k", self.k.count(), 3 * shape.channels),
            ("dgamma", self.dgamma.count(), shape.channels),
            ("dbeta", self.dbeta.count(), shape.channels),
            ("sums", self.sums.count(), 2 * shape.channels),
            ("gamma", self.gamma.count(), shape.channels),
            ("norm", self.norm.count(), 4 * shape.channels),
        ];
        check_lengths("batch_norm_backward_finalise", &operands)
    }
}

/// Operands of [`BatchNormKernels::residual_forward`].
pub struct ResidualForward<V, M> {
    /// `out [N, H, W, C]`, written.
    pub out: M,
    /// The branch's `y [N, H, W, C]`.
    pub y: V,
    /// The branch's `norm [4, C]`.
    pub norm: V,
    /// `shortcut [N, H, W, C]`: a finished activation, or the raw output of a projection.
    pub shortcut: V,
    /// `norm [4, C]` that a raw projection is still owed.
    pub shortcut_norm: Option<V>,
    /// Whether a ReLU follows the sum.
    pub relu: bool,
}

impl<V: Elements, M: Elements> ResidualForward<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        const KERNEL: &str = "residual_forward";
        let operands = [
            ("out", self.out.count(), shape.len()),
            ("y", self.y.count(), shape.len()),
            ("norm", self.norm.count(), 4 * shape.channels),
            ("shortcut", self.shortcut.count(), shape.len()),
        ];
        check_lengths(KERNEL, &operands)?;
        let owed = self.shortcut_norm.as_ref().map(|norm| ("shortcut_norm", norm.count(), 4 * shape.channels));
        check_lengths(KERNEL, owed.as_slice())
    }
}

/// Operands of [`BatchNormKernels::residual_backward`].
pub struct ResidualBackward<V, M> {
    /// What a ReLU behind the sum lets pass. Without one that is all of `dout`, and no gradient is written.
    pub masked: Option<Masked<V, M>>,
    /// `sums [2, C]`, written: the branch's.
    pub sums: M,
    /// `dout [N, H, W, C]`.
    pub dout: V,
    /// The branch's `y [N, H, W, C]`.
    pub y: V,
    /// The branch's `norm [4, C]`.
    pub norm: V,
    /// The projection, where the shortcut is one.
    pub projection: Option<Projection<V, M>>,
}

impl<V: Elements, M: Elements> ResidualBackward<V, M> {
    /// Refuses operands that contradict the shape.
    pub fn check(&self, shape: Rows) -> Result<(), DeviceError> {
        const KERNEL: &str = "residual_backward";
        let operands = [
            ("sums", self.sums.count(), 2 * shape.channels),
            ("dout", self.dout.count(), shape.len()),
            ("y", self.y.count(), shape.len()),
            ("norm", self.norm.count(), 4 * shape.channels),
        ];
        check_lengths(KERNEL, &operands)?;
        if let Some(Masked { dz, out }) = &self.masked {
            let operands = [("masked.dz", dz.count(), shape.len()), ("masked.out", out.count(), shape.len())];
            check_lengths(KERNEL, &operands)?;
        }
        let Some(Projection { sums, y, norm }) = &self.projection else { return Ok(()) };
        let operands = [
            ("projection.sums", sums.count(), 2 * shape.channels),
            ("projection.y", y.count(), shape.len()),
            ("projection.norm", norm.count(), 4 * shape.channels),
        ];
        check_lengths(KERNEL, &operands)
    }
}

/// The ReLU at a junction's backward pass.
pub struct Masked<V, M> {
    /// `dz [N, H, W, C]`, written: the gradient of the branch and of the shortcut alike.
    pub dz: M,
    /// `out [N, H, W, C]`; where it is positive, the gradient passes.
    pub out: V,
}

/// The batch norm of a shortcut that is a convolution, at a junction's backward pass.
pub struct Projection<V, M> {
    /// `sums [2, C]`, written: Σ dz and Σ dz·(y − mean).
    pub sums: M,
    /// The convolution's output `[N, H, W, C]`.
    pub y: V,
    /// `norm [4, C]`.
    pub norm: V,
}

/// Batch norm and the junction where a residual block ends.
pub trait BatchNormKernels: Memory {
    /// Training: from the batch's `stats` to `norm` = (gamma·istd, beta − mean·gamma·istd, mean, istd),
    /// istd = 1/√(variance + epsilon); and `running ← momentum·running + (1 − momentum)·batch`.
    ///
    /// The statistics are those of the convolution without its bias, which batch norm would take out again; `bias` enters
    /// the running mean only. The running variance takes the biased variance, as Keras 3 does.
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<Self::View<'_>, Self::ViewMut<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError>;

    /// Inference: the running averages folded into `norm`, whose mean row is running mean − bias, so that the
    /// convolution in front need not add its bias here either.
    fn batch_norm_fold(
        &self,
        operands: BatchNormFold<Self::View<'_>, Self::ViewMut<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError>;

    /// `stats` = mean and biased variance over the rows of `y`, where no convolution took them while storing it.
    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `a = activation(scale·y + shift)`: pays what is owed, for a consumer that cannot while loading.
    fn batch_norm_apply(
        &self,
        operands: BatchNormApply<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `dz = da·activation′(scale·y + shift)` and `sums` = (Σ dz, Σ dz·(y − mean)), where no epilogue did it.
    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// From `sums` to `k`; `dgamma += sums₁·istd`, `dbeta += sums₀`.
    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// The junction: `out = scale·y + shift + shortcut`, where the shortcut is a finished activation, or the raw projection with the
    /// `norm` it is owed (no ReLU); with a `relu`, the larger of that and 0.
    fn residual_forward(
        &self,
        operands: ResidualForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;

    /// `dz = dout·[out > 0]`, or `dout` if no ReLU masks it: the gradient of the branch and of the shortcut. `sums` =
    /// (Σ dz, Σ dz·(y − mean)) for the branch, and the same for a projection.
    fn residual_backward(
        &self,
        operands: ResidualBackward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError>;
}
