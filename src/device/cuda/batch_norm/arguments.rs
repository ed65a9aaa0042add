//! What the kernels of `kernels/norm/batch_norm.cu` are told.

use crate::device::cuda::activation::{Bounds, Stops};
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::rows::WalkShape;

arguments! {
    /// Argument of `batch_norm_finalise`.
    struct BatchNormFinalise {
        norm: u64,
        running_mean: u64,
        running_variance: u64,
        stats: u64,
        gamma: u64,
        beta: u64,
        bias: u64,
        channels: i32,
        momentum: f32,
        complement: f32,
        epsilon: f32,
    }

    /// Argument of `batch_norm_fold`.
    struct BatchNormFold {
        norm: u64,
        running_mean: u64,
        running_variance: u64,
        gamma: u64,
        beta: u64,
        bias: u64,
        channels: i32,
        epsilon: f32,
    }

    /// Argument of `batch_norm_backward_finalise`.
    struct BatchNormBackwardFinalise {
        k: u64,
        dgamma: u64,
        dbeta: u64,
        sums: u64,
        gamma: u64,
        norm: u64,
        channels: i32,
        rows: f32,
    }

    /// Argument of `batch_norm_statistics`.
    struct BatchNormStatistics {
        stats: u64,
        y: u64,
        partials: u64,
        tickets: u64,
        shape: WalkShape,
    }

    /// Argument of `batch_norm_apply`.
    struct BatchNormApply {
        a: u64,
        y: u64,
        norm: u64,
        shape: WalkShape,
        bounds: Bounds,
    }

    /// Argument of `batch_norm_backward_reduce`.
    struct BatchNormBackwardReduce {
        dz: u64,
        sums: u64,
        da: u64,
        y: u64,
        norm: u64,
        partials: u64,
        tickets: u64,
        shape: WalkShape,
        stops: Stops,
    }

    /// Argument of `residual_forward` and `residual_forward_projected`.
    struct ResidualForward {
        out: u64,
        y: u64,
        norm: u64,
        shortcut: u64,
        shortcut_norm: u64,
        shape: WalkShape,
        low: f32,
    }

    /// Argument of `residual_backward`, `residual_backward_unmasked`, and these two with `_projected`.
    struct ResidualBackward {
        dz: u64,
        sums: u64,
        dout: u64,
        out: u64,
        y: u64,
        norm: u64,
        projection_sums: u64,
        projection_y: u64,
        projection_norm: u64,
        partials: u64,
        tickets: u64,
        shape: WalkShape,
    }
}
