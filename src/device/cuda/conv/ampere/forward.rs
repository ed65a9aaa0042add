//! The forward pass on tensor cores (`conv_forward_*` in `kernels/conv/conv.cu`).

use super::check_extents;
use crate::device;
use crate::device::cuda::Cuda;
use crate::device::cuda::activation::Bounds;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::choose::conv::Tiling;
use crate::device::cuda::conv::geometry::{ConvGeometry, Divisor};
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvShape, DeviceError, Work};

const KERNEL: &str = "conv_forward";

arguments! {
    /// Argument of the kernels `conv_forward_*`.
    struct ConvForward {
        y: u64,
        x: u64,
        norm: u64,
        w: u64,
        bias: u64,
        stats: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        image: Divisor,
        line: Divisor,
        tiles: i32,
        column_tiles: i32,
        group: i32,
        bounds: Bounds,
        activation: Bounds,
    }
}

impl Cuda {
    /// `y = activation(conv(transform(x), w) + bias)` and its `stats`, of operands that these kernels take.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(in crate::device::cuda::conv) fn tensor_forward(
        &self,
        tiling: Tiling,
        operands: device::ConvForward<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let device::ConvForward { y, stats, x, transform, w, bias, activation } = operands;
        check_extents(KERNEL, shape)?;
        let partials = if stats.is_some() { tiling.partials } else { 0 };
        let workspace = self.workspace(partials * size_of::<f32>())?;
        let arguments = ConvForward {
            y: y.address(),
            x: x.address(),
            norm: transform.as_ref().map_or(0, |transform| transform.norm.address()),
            w: self.tensor_weights(&w),
            bias: bias.as_ref().map_or(0, View::address),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, tiling.tickets)?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            image: Divisor::new((shape.p * shape.q) as u32),
            line: Divisor::new(shape.q as u32),
            tiles: tiling.tiles,
            column_tiles: tiling.column_tiles,
            group: tiling.group,
            bounds: Bounds::of(transform),
            activation: activation.into(),
        };
        let kernel = tiling.tile.forward_of(transform.map(|transform| transform.activation));
        let channels = transform.map_or(0, |_| 2 * shape.c) + bias.map_or(0, |_| shape.k);
        let results = partials + stats.map_or(0, |_| 2 * shape.k);
        let bytes = x.element().bytes();
        let work = Work {
            reads: ((shape.seen() + shape.weights_len()) * bytes + channels * size_of::<f32>()) as u64,
            writes: (shape.output_len() * bytes + results * size_of::<f32>()) as u64,
            flops: shape.flops(),
        };
        self.launch(Module::Conv, kernel, tiling.launch(work), &arguments)
    }
}
