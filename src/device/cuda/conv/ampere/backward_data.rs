//! The data gradient on tensor cores (`conv_backward_data_*` in `kernels/conv/conv.cu`).

use super::Operands;
use super::tiles::Tiling;
use crate::device::cuda::Cuda;
use crate::device::cuda::conv::geometry::{Divisor, Geometry};
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvShape, DeviceError, ReduceEpilogue, Work};
use cudarc::driver::DeviceRepr;

const KERNEL: &str = "conv_backward_data";

/// Argument of the kernels `conv_backward_data_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvBackwardData {
    dx: u64,
    dy: u64,
    w: u64,
    y: u64,
    norm: u64,
    sums: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
    image: Divisor,
    line: Divisor,
    tiles: i32,
    column_tiles: i32,
    group: i32,
    accumulate: i32,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for ConvBackwardData {}

/// Whether the kernels know this geometry: every stride-1 convolution, and strides over single pixels, which are
/// computed without the pixels in between, and without an epilogue.
pub(in super::super) fn takes(shape: &ConvShape, epilogue: bool) -> bool {
    shape.stride == 1 || (shape.r == 1 && shape.s == 1 && shape.pad == 0 && !epilogue)
}

impl Cuda {
    /// `dx (+)= convᵀ(dy, w)` and its epilogue, of a geometry that [`takes`] and `operands` that
    /// [`Cuda::tensor_operands`] has let through: the addresses of `dx`, `dy` and `w`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(in super::super) fn tensor_backward_data(
        &self,
        operands: Operands,
        accumulate: bool,
        epilogue: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        // The pixels that get anything but zero: with a stride one for each output.
        let [height, width] = if shape.stride > 1 { [shape.p, shape.q] } else { [shape.h, shape.w] };
        let pixels = shape.n * height * width;
        let tiling = Tiling::new(KERNEL, pixels, shape.c, self.multiprocessors())?;
        let partials = if epilogue.is_some() { tiling.partials } else { 0 };
        let workspace = self.workspace(partials * size_of::<f32>())?;
        let of = |address: fn(&ReduceEpilogue<View<'_>, ViewMut<'_>>) -> u64| epilogue.as_ref().map_or(0, address);
        let arguments = ConvBackwardData {
            dx: operands.out,
            dy: operands.input,
            w: operands.w,
            y: of(|epilogue| epilogue.y.address()),
            norm: of(|epilogue| epilogue.norm.address()),
            sums: of(|epilogue| epilogue.sums.address()),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, tiling.tickets)?,
            shape: Geometry::new(KERNEL, shape)?,
            image: Divisor::new((height * width) as u32),
            line: Divisor::new(width as u32),
            tiles: tiling.tiles,
            column_tiles: tiling.column_tiles,
            group: tiling.group,
            accumulate: accumulate.into(),
        };
        let computed = pixels * shape.c;
        let (read, written) = if accumulate { (computed, computed) } else { (0, shape.input_len()) };
        let masks = epilogue.as_ref().map_or(0, |_| computed);
        let (channels, results) = epilogue.map_or((0, 0), |_| (3 * shape.c, partials + 2 * shape.c));
        let operand_len = shape.output_len() + shape.weights_len();
        let work = Work {
            reads: ((operand_len + read + masks) * operands.bytes + channels * size_of::<f32>()) as u64,
            writes: (written * operands.bytes + results * size_of::<f32>()) as u64,
            flops: shape.flops(),
        };
        self.launch(Module::Conv, tiling.tile.backward_data, tiling.launch(work), &arguments)
    }
}
