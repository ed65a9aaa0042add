//! What the kernels of `kernels/depthwise/` are told.

use crate::device::cuda::activation::{Bounds, Stops};
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::conv::Divisor;
use crate::device::cuda::memory::View;
use crate::device::cuda::rows::WalkShape;
use crate::device::{InputTransform, OutputGradient};

arguments! {
    /// An input, and what it owes.
    struct InputArguments {
        x: u64,
        norm: u64,
        bounds: Bounds,
    }

    /// The gradient of the output: `dz`, or `k₀·dz + k₁·y + k₂`.
    struct GradientArguments {
        dz: u64,
        y: u64,
        k: u64,
    }

    /// The output and its statistics.
    struct OutputArguments {
        y: u64,
        stats: u64,
        partials: u64,
        tickets: u64,
    }

    /// The gradient of the input, and what the batch norm in front wants of it.
    struct InputGradientArguments {
        dx: u64,
        sums: u64,
        y: u64,
        norm: u64,
        partials: u64,
        tickets: u64,
        stops: Stops,
        accumulate: i32,
    }

    /// Columns of pixels that threads slide down.
    struct Columns {
        shape: WalkShape,
        height: i32,
        width: i32,
        out_height: i32,
        out_width: i32,
        pad: i32,
        length: i32,
        by_width: Divisor,
        by_strips: Divisor,
    }

    /// The geometry of a filter that looks for its taps.
    struct Filter {
        h: i32,
        w: i32,
        r: i32,
        s: i32,
        stride: i32,
        pad: i32,
        p: i32,
        q: i32,
        by_height: Divisor,
        by_width: Divisor,
        by_stride: Divisor,
    }

    /// Argument of `depthwise_forward_3x3*`.
    struct DepthwiseForward {
        output: OutputArguments,
        input: InputArguments,
        w: u64,
        columns: Columns,
    }

    /// Argument of `depthwise_backward_data_3x3*`.
    struct DepthwiseBackwardData {
        output: InputGradientArguments,
        dy: GradientArguments,
        w: u64,
        columns: Columns,
    }

    /// Argument of `depthwise_backward_weights_3x3*`.
    struct DepthwiseBackwardWeights {
        dw: u64,
        dy: GradientArguments,
        input: InputArguments,
        partials: u64,
        tickets: u64,
        columns: Columns,
    }

    /// Argument of `depthwise_forward_scalar`.
    struct DepthwiseForwardScalar {
        output: OutputArguments,
        input: InputArguments,
        w: u64,
        shape: WalkShape,
        filter: Filter,
    }

    /// Argument of `depthwise_backward_data_scalar`.
    struct DepthwiseBackwardDataScalar {
        output: InputGradientArguments,
        dy: GradientArguments,
        w: u64,
        shape: WalkShape,
        filter: Filter,
    }

    /// Argument of `depthwise_backward_weights_scalar`.
    struct DepthwiseBackwardWeightsScalar {
        dw: u64,
        dy: GradientArguments,
        input: InputArguments,
        partials: u64,
        tickets: u64,
        shape: WalkShape,
        filter: Filter,
    }
}

impl InputArguments {
    pub(super) fn new(x: View<'_>, transform: Option<InputTransform<View<'_>>>) -> Self {
        let norm = transform.map_or(0, |transform| transform.norm.address());
        InputArguments { x: x.address(), norm, bounds: Bounds::of(transform) }
    }
}

impl GradientArguments {
    pub(super) fn new(dy: OutputGradient<View<'_>>) -> Self {
        match dy.map(|view| view.address()) {
            OutputGradient::Ready(dz) => GradientArguments { dz, y: 0, k: 0 },
            OutputGradient::Owed { dz, y, k } => GradientArguments { dz, y, k },
        }
    }
}
