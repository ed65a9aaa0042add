//! The weight gradient on tensor cores: its launch, and that which adds up the parts of a split sum
//! (`kernels/conv/ampere/weights.cuh`).

use crate::device::cuda::Cuda;
use crate::device::cuda::activation::Bounds;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::choose::conv::PixelSplits;
use crate::device::cuda::conv::geometry::{ConvGeometry, Divisor, extent};
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{Buffer, View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvShape, DeviceError, InputTransform, Work};

const KERNEL: &str = "conv_backward_weights";

/// Pixels past a split's end at the most that its last slices look for.
const OVERHANG: usize = 512;

arguments! {
    /// Argument of the kernels `conv_backward_weights_TILE`.
    struct ConvBackwardWeights {
        dw: u64,
        partials: u64,
        dy: u64,
        x: u64,
        norm: u64,
        shape: ConvGeometry,
        by_p: Divisor,
        by_q: Divisor,
        pixels_per_split: i32,
        bounds: Bounds,
    }

    /// Argument of `conv_backward_weights_sum`.
    struct ConvBackwardWeightsSum {
        dw: u64,
        partials: u64,
        quads: i32,
        splits: i32,
        groups: i32,
    }
}

impl Cuda {
    /// `dw += Σ dy ⊗ transform(x)`, of operands that these kernels take.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for more pixels, elements of `dy` or weights than 32 bits count.
    pub(in crate::device::cuda::conv) fn tensor_backward_weights(
        &self,
        split: PixelSplits,
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        extent(KERNEL, (shape.n * shape.p * shape.q + OVERHANG) * shape.k)?;
        extent(KERNEL, shape.n * shape.h * shape.w)?;
        extent(KERNEL, shape.weights_len())?;

        let workspace = split.workspace().map(|bytes| self.workspace(bytes)).transpose()?;
        let partials = workspace.as_ref().map_or(0, Buffer::address);
        let arguments = ConvBackwardWeights {
            dw: dw.address(),
            partials,
            dy: dy.address(),
            x: x.address(),
            norm: transform.map_or(0, |transform| transform.norm.address()),
            shape: ConvGeometry::new(KERNEL, shape)?,
            by_p: Divisor::new(shape.p as u32),
            by_q: Divisor::new(shape.q as u32),
            pixels_per_split: extent(KERNEL, split.pixels_per_split)?,
            bounds: Bounds::of(transform),
        };
        let parts = 4 * (split.splits * shape.weights_len()) as u64;
        let work = Work {
            reads: (shape.output_len() * dy.element().bytes() + shape.seen() * x.element().bytes()) as u64
                + 4 * transform.map_or(0, |_| 2 * shape.c as u64)
                + if split.splits == 1 { parts } else { 0 },
            writes: parts,
            flops: shape.flops(),
        };
        let kernel = split.tile.kernel_of(transform.map(|transform| transform.activation));
        self.launch(Module::Conv, kernel, split.launch(work), &arguments)?;
        match workspace {
            Some(partials) => self.sum_weight_gradients(&dw, &partials, split.splits),
            None => Ok(()),
        }
    }

    /// `dw += Σ partials`, of which there are `splits`, each shaped like `dw`, whose length is a multiple of four.
    pub(in crate::device::cuda::conv) fn sum_weight_gradients(
        &self,
        dw: &ViewMut<'_>,
        partials: &Buffer,
        splits: usize,
    ) -> Result<(), DeviceError> {
        // Four splits a thread at least.
        let groups = [8, 4, 2].into_iter().find(|groups| 4 * groups <= splits).unwrap_or(1);
        let quads = extent(KERNEL, dw.len())? / 4;
        let arguments = ConvBackwardWeightsSum {
            dw: dw.address(),
            partials: partials.address(),
            quads,
            splits: splits as i32,
            groups: groups as i32,
        };
        let grid = [(quads as u32).div_ceil(256 / groups as u32), 1, 1];
        let (weights, parts) = (4 * dw.len() as u64, 4 * (splits * dw.len()) as u64);
        let work = Work { reads: parts + weights, writes: weights, flops: parts / 4 };
        self.launch(Module::Conv, "conv_backward_weights_sum", Launch { grid, block: 256, shared: 0, work }, &arguments)
    }
}
