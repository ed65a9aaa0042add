//! What the kernels of `kernels/pool/pool.cu` are told.

use crate::device::cuda::activation::Bounds;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::conv::{Divisor, extent};
use crate::device::cuda::rows::WalkShape;
use crate::device::{DeviceError, Outside, PoolShape};

arguments! {
    /// A pooling as the kernels see it.
    struct PoolGeometry {
        h: i32,
        w: i32,
        window: i32,
        stride: i32,
        pad: i32,
        zeros: i32,
        p: i32,
        q: i32,
    }

    /// Argument of `max_pool_forward` and `max_pool_winners`.
    struct MaxPoolWindows {
        y: u64,
        winners: u64,
        x: u64,
        norm: u64,
        bounds: Bounds,
        shape: WalkShape,
        geometry: PoolGeometry,
        by_p: Divisor,
        by_q: Divisor,
    }

    /// Argument of `max_pool_backward` and `max_pool_backward_3x3_stride2`.
    struct MaxPoolBackward {
        dx: u64,
        dy: u64,
        winners: u64,
        shape: WalkShape,
        geometry: PoolGeometry,
        by_height: Divisor,
        by_width: Divisor,
        by_stride: Divisor,
        reach: i32,
    }

    /// Argument of `global_average_pool_forward` and `global_max_pool_forward`.
    struct GlobalPoolForward {
        y: u64,
        x: u64,
        shape: WalkShape,
    }

    /// Argument of `global_average_pool_backward`.
    struct GlobalAverageBackward {
        dx: u64,
        dy: u64,
        shape: WalkShape,
    }

    /// Argument of `global_max_pool_backward`.
    struct GlobalMaxBackward {
        dx: u64,
        dy: u64,
        x: u64,
        shape: WalkShape,
    }
}

impl PoolGeometry {
    pub(super) fn new(kernel: &'static str, shape: &PoolShape) -> Result<Self, DeviceError> {
        let of = |count| extent(kernel, count);
        // Pixels are numbered from the padding's first, taps from a window's first.
        let last = (shape.p.max(shape.q) * shape.stride).max(shape.h.max(shape.w));
        of(last + 2 * shape.pad + shape.window + shape.stride)?;
        Ok(PoolGeometry {
            h: of(shape.h)?,
            w: of(shape.w)?,
            window: of(shape.window)?,
            stride: of(shape.stride)?,
            pad: of(shape.pad)?,
            zeros: i32::from(shape.outside == Outside::Zeros),
            p: of(shape.p)?,
            q: of(shape.q)?,
        })
    }
}
