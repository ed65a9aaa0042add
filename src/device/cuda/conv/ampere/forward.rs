//! The forward pass on tensor cores (`conv_forward_*` in `kernels/conv/conv.cu`).

use super::Operands;
use super::tiles::Tiling;
use crate::device::cuda::Cuda;
use crate::device::cuda::conv::geometry::{Divisor, Geometry};
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvShape, DeviceError, InputTransform, Work};
use cudarc::driver::DeviceRepr;

const KERNEL: &str = "conv_forward";

/// Argument of the kernels `conv_forward_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvForward {
    y: u64,
    x: u64,
    norm: u64,
    w: u64,
    bias: u64,
    stats: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
    image: Divisor,
    line: Divisor,
    tiles: i32,
    column_tiles: i32,
    group: i32,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for ConvForward {}

impl Cuda {
    /// `y = conv(transform(x), w) + bias` and its `stats`, of `operands` that [`Cuda::tensor_operands`] has let
    /// through: the addresses of `y`, `x` and `w`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(in super::super) fn tensor_forward(
        &self,
        operands: Operands,
        stats: Option<ViewMut<'_>>,
        transform: Option<InputTransform<View<'_>>>,
        bias: Option<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let pixels = shape.n * shape.p * shape.q;
        let tiling = Tiling::new(KERNEL, pixels, shape.k, self.multiprocessors())?;
        let partials = if stats.is_some() { tiling.partials } else { 0 };
        let workspace = self.workspace(partials * size_of::<f32>())?;
        let arguments = ConvForward {
            y: operands.out,
            x: operands.input,
            norm: transform.as_ref().map_or(0, |transform| transform.norm.address()),
            w: operands.w,
            bias: bias.as_ref().map_or(0, View::address),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, tiling.tickets)?,
            shape: Geometry::new(KERNEL, shape)?,
            image: Divisor::new((shape.p * shape.q) as u32),
            line: Divisor::new(shape.q as u32),
            tiles: tiling.tiles,
            column_tiles: tiling.column_tiles,
            group: tiling.group,
        };
        let channels = transform.map_or(0, |_| 2 * shape.c) + bias.map_or(0, |_| shape.k);
        let results = partials + stats.map_or(0, |_| 2 * shape.k);
        let work = Work {
            reads: ((shape.seen() + shape.weights_len()) * operands.bytes + channels * size_of::<f32>()) as u64,
            writes: (shape.output_len() * operands.bytes + results * size_of::<f32>()) as u64,
            flops: shape.flops(),
        };
        let kernel = if transform.is_some() { tiling.tile.transformed } else { tiling.tile.forward };
        self.launch(Module::Conv, kernel, tiling.launch(work), &arguments)
    }
}
