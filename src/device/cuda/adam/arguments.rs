//! What the kernels of `kernels/adam/adam.cu` are told.

use crate::device::cuda::arguments::arguments;

arguments! {
    /// Argument of `adam`.
    struct Adam {
        w: u64,
        m: u64,
        v: u64,
        narrow: u64,
        gradients: u64,
        decaying: u64,
        outcome: u64,
        rates: u64,
        count: i32,
        head: i32,
        quads: i32,
        towards_g: f32,
        towards_g_square: f32,
        epsilon: f32,
        clip_norm: f32,
    }

    /// Argument of `average`.
    struct Average {
        to: u64,
        narrow: u64,
        from: u64,
        outcome: u64,
        towards: u64,
        count: i32,
        head: i32,
        quads: i32,
    }

    /// Argument of `squared_norm`.
    struct SquaredNorm {
        sum: u64,
        x: u64,
        partials: u64,
        ticket: u64,
        count: i32,
        head: i32,
        quads: i32,
    }

    /// Argument of `restore`.
    struct Restore {
        to: u64,
        from: u64,
        outcome: u64,
        count: i32,
    }
}
