//! The data gradient on tensor cores (`conv_backward_data_*` in `kernels/conv/conv.cu`).

use super::check_extents;
use crate::device::cuda::Cuda;
use crate::device::cuda::activation::Stops;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::choose::conv::{Tiling, computed_pixels};
use crate::device::cuda::conv::geometry::{ConvGeometry, Divisor};
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvShape, DeviceError, ReduceEpilogue, Work};

const KERNEL: &str = "conv_backward_data";

arguments! {
    /// Argument of the kernels `conv_backward_data_*`.
    struct ConvBackwardData {
        dx: u64,
        dy: u64,
        w: u64,
        y: u64,
        norm: u64,
        sums: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        image: Divisor,
        line: Divisor,
        tiles: i32,
        column_tiles: i32,
        group: i32,
        stops: Stops,
        accumulate: i32,
    }
}

impl Cuda {
    /// `dx (+)= convᵀ(dy, w)` and its epilogue, of operands that these kernels take.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(in crate::device::cuda::conv) fn tensor_backward_data(
        &self,
        tiling: Tiling,
        dx: ViewMut<'_>,
        accumulate: bool,
        epilogue: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        dy: View<'_>,
        w: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        check_extents(KERNEL, shape)?;
        let computed = computed_pixels(shape) * shape.c;
        let [height, width] = if shape.stride > 1 { [shape.p, shape.q] } else { [shape.h, shape.w] };
        let partials = if epilogue.is_some() { tiling.partials } else { 0 };
        let workspace = self.workspace(partials * size_of::<f32>())?;
        let of = |address: fn(&ReduceEpilogue<View<'_>, ViewMut<'_>>) -> u64| epilogue.as_ref().map_or(0, address);
        let arguments = ConvBackwardData {
            dx: dx.address(),
            dy: dy.address(),
            w: self.tensor_weights(&w),
            y: of(|epilogue| epilogue.y.address()),
            norm: of(|epilogue| epilogue.norm.address()),
            sums: of(|epilogue| epilogue.sums.address()),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, tiling.tickets)?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            image: Divisor::new((height * width) as u32),
            line: Divisor::new(width as u32),
            tiles: tiling.tiles,
            column_tiles: tiling.column_tiles,
            group: tiling.group,
            stops: Stops::of(&epilogue),
            accumulate: accumulate.into(),
        };
        let bytes = dx.element().bytes();
        let (read, written) = if accumulate { (computed, computed) } else { (0, shape.input_len()) };
        let masks = epilogue.as_ref().map_or(0, |_| computed);
        let (channels, results) = epilogue.map_or((0, 0), |_| (3 * shape.c, partials + 2 * shape.c));
        let operand_len = shape.output_len() + shape.weights_len();
        let work = Work {
            reads: ((operand_len + read + masks) * bytes + channels * size_of::<f32>()) as u64,
            writes: (written * bytes + results * size_of::<f32>()) as u64,
            flops: shape.flops(),
        };
        self.launch(Module::Conv, tiling.tile.backward_data, tiling.launch(work), &arguments)
    }
}
