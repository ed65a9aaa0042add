//! The stem's own path (`kernels/conv/stem/`): 7×7 taps over three channels, stride 2, padding 3, on tensor cores.

use super::geometry::{Geometry, extent};
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError, Work};
use cudarc::driver::DeviceRepr;

/// Argument of `conv_stem_forward`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvStemForward {
    y: u64,
    stats: u64,
    x: u64,
    w: u64,
    bias: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvStemForward {}

/// Argument of `conv_stem_backward_weights`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvStemBackwardWeights {
    partials: u64,
    dy: u64,
    x: u64,
    shape: Geometry,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvStemBackwardWeights {}

/// Whether `shape` is a stem's, of operands at these addresses.
fn takes(shape: &ConvShape, addresses: &[u64]) -> bool {
    let &ConvShape { c, k, r, s, stride, pad, .. } = shape;
    [c, r, s, stride, pad] == [3, 7, 7, 2, 3]
        && k.is_multiple_of(8)
        && addresses.iter().all(|address| address.is_multiple_of(16))
}

/// How a stem's pixels and filters are shared out, and the shared memory of a block.
#[derive(Debug)]
struct Plan {
    /// 8×16 output pixels each.
    tiles: usize,
    /// 64 filters each.
    groups: usize,
    forward_shared: usize,
    backward_shared: usize,
    /// Blocks of the weight gradient that a multiprocessor holds.
    backward_resident: usize,
}

impl Plan {
    fn new(shape: &ConvShape, element: usize) -> Self {
        let tiles = shape.n * shape.p.div_ceil(8) * shape.q.div_ceil(16);
        // A patch: 21 rows of 114 numbers, wherever in 16 bytes a row begins.
        let lane = 16 / element;
        let patch = 21 * (114 + 2 * lane - 2).div_euclid(lane) * 16;
        // A filter: seven rows of 24 slots, in whole steps of 32 bytes; 16 more keep filters in different banks.
        let filter = (7 * 24 * element).next_multiple_of(32) + 16;
        let gradients = 8 * 16 * (64 + 8) * element;
        Plan {
            tiles,
            groups: shape.k.div_ceil(64),
            forward_shared: 64 * filter + 2 * patch,
            backward_shared: 2 * (patch + gradients),
            backward_resident: 4 / element,
        }
    }

    /// Blocks that share the tiles, `resident` of them a multiprocessor, each with as many as any other or fewer.
    fn blocks(&self, multiprocessors: u32, resident: usize) -> usize {
        let most = (resident * multiprocessors as usize / self.groups).max(1);
        self.tiles.div_ceil(self.tiles.div_ceil(most))
    }
}

/// Refuses tensors whose indices, or those computed a patch past their ends, leave 31 bits.
fn check(kernel: &'static str, shape: &ConvShape) -> Result<(), DeviceError> {
    extent(kernel, (shape.n + 1) * (shape.h + 32) * (shape.w + 64) * 3)?;
    extent(kernel, (shape.n + 1) * (shape.p + 8) * (shape.q + 16) * (shape.k + 64))?;
    Ok(())
}

impl Cuda {
    /// Whether the stem's kernels take these operands. The data gradient of an image has no kernel here: nobody asks for it.
    pub(super) fn takes_stem(&self, shape: &ConvShape, addresses: &[u64]) -> bool {
        self.precision() != Precision::F32 && takes(shape, addresses)
    }

    /// `y = conv(x, w) + bias` and its `stats`, of operands that [`Cuda::takes_stem`].
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn stem_forward(
        &self,
        y: ViewMut<'_>,
        stats: Option<ViewMut<'_>>,
        x: View<'_>,
        w: View<'_>,
        bias: Option<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_stem_forward";
        check(KERNEL, shape)?;
        let plan = Plan::new(shape, x.element().bytes());
        let blocks = plan.blocks(self.multiprocessors(), 3);
        let partials = if stats.is_some() { (2 * shape.k + plan.groups) * blocks * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvStemForward {
            y: y.address(),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            x: x.address(),
            w: w.address(),
            bias: bias.map_or(0, |bias| bias.address()),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, shape.k.div_ceil(64))?,
            shape: Geometry::new(KERNEL, shape)?,
        };
        let results = stats.map_or(0, |_| 2 * shape.k);
        let floats = shape.weights_len() + bias.map_or(0, |_| shape.k);
        let work = Work {
            reads: (shape.input_len() * x.element().bytes() + floats * size_of::<f32>()) as u64,
            writes: (shape.output_len() * y.element().bytes() + results * size_of::<f32>() + partials) as u64,
            flops: shape.flops(),
        };
        let grid = [blocks as u32, plan.groups as u32, 1];
        let launch = Launch { grid, block: 128, shared: plan.forward_shared as u32, work };
        self.launch(Module::Conv, KERNEL, launch, &arguments)
    }

    /// `dw += Σ dy ⊗ x`, of operands that [`Cuda::takes_stem`].
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn stem_backward_weights(
        &self,
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_stem_backward_weights";
        check(KERNEL, shape)?;
        let plan = Plan::new(shape, x.element().bytes());
        let blocks = plan.blocks(self.multiprocessors(), plan.backward_resident);
        let partials = blocks * shape.weights_len() * size_of::<f32>();
        let workspace = self.workspace(partials)?;
        let arguments = ConvStemBackwardWeights {
            partials: workspace.address(),
            dy: dy.address(),
            x: x.address(),
            shape: Geometry::new(KERNEL, shape)?,
        };
        let work = Work {
            reads: (shape.output_len() * dy.element().bytes() + shape.input_len() * x.element().bytes()) as u64,
            writes: partials as u64,
            flops: shape.flops(),
        };
        let grid = [blocks as u32, plan.groups as u32, 1];
        let launch = Launch { grid, block: 224, shared: plan.backward_shared as u32, work };
        self.launch(Module::Conv, KERNEL, launch, &arguments)?;
        self.sum_weight_gradients(&dw, &workspace, blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_all_tiles() {
        for (n, side, k) in [(1, 1, 8), (8, 64, 64), (128, 150, 64), (3, 33, 200)] {
            let plan = Plan::new(&ConvShape::new([n, side, side, 3], k, [7, 7], 2, 3).unwrap(), 2);
            for multiprocessors in [1, 36, 108, 132] {
                let blocks = plan.blocks(multiprocessors, 3);
                let share = plan.tiles.div_ceil(blocks);
                assert!((blocks - 1) * share < plan.tiles && blocks * share >= plan.tiles);
                assert!(blocks * plan.groups <= (3 * multiprocessors as usize).max(plan.groups));
            }
        }
    }
}
