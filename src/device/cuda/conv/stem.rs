//! The stem's own path (`kernels/conv/stem/`): 7×7 taps over three channels, stride 2, padding 3, on tensor cores.

use super::geometry::{ConvGeometry, extent};
use crate::device::cuda::Cuda;
use crate::device::cuda::activation::Bounds;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::choose::conv::StemGrid;
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvForward, ConvShape, DeviceError, Work};

arguments! {
    /// Argument of `conv_stem_forward`.
    struct ConvStemForward {
        y: u64,
        stats: u64,
        x: u64,
        w: u64,
        bias: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        activation: Bounds,
    }

    /// Argument of `conv_stem_backward_weights`.
    struct ConvStemBackwardWeights {
        partials: u64,
        dy: u64,
        x: u64,
        shape: ConvGeometry,
    }
}

/// Refuses tensors whose indices, or those computed a patch past their ends, leave 31 bits.
fn check(kernel: &'static str, shape: &ConvShape) -> Result<(), DeviceError> {
    // The last patch may lie in the padding below and to the right.
    let [height, width] = [shape.h.max(2 * shape.p), shape.w.max(2 * shape.q)];
    extent(kernel, (shape.n + 1) * (height + 32) * (width + 64) * 3)?;
    extent(kernel, (shape.n + 1) * (shape.p + 8) * (shape.q + 16) * (shape.k + 64))?;
    Ok(())
}

impl Cuda {
    /// `y = activation(conv(x, w) + bias)` and its `stats`, of operands that these kernels take.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn stem_forward(
        &self,
        StemGrid { blocks, groups, shared }: StemGrid,
        operands: ConvForward<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let ConvForward { y, stats, x, w, bias, activation, .. } = operands;
        const KERNEL: &str = "conv_stem_forward";
        check(KERNEL, shape)?;
        let partials = if stats.is_some() { (2 * shape.k + groups) * blocks * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvStemForward {
            y: y.address(),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            x: x.address(),
            w: w.address(),
            bias: bias.map_or(0, |bias| bias.address()),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, shape.k.div_ceil(64))?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            activation: activation.into(),
        };
        let results = stats.map_or(0, |_| 2 * shape.k);
        let floats = shape.weights_len() + bias.map_or(0, |_| shape.k);
        let work = Work {
            reads: (shape.input_len() * x.element().bytes() + floats * size_of::<f32>()) as u64,
            writes: (shape.output_len() * y.element().bytes() + results * size_of::<f32>() + partials) as u64,
            flops: shape.flops(),
        };
        let grid = [blocks as u32, groups as u32, 1];
        let launch = Launch { grid, block: 128, shared: shared as u32, work };
        self.launch(Module::Conv, KERNEL, launch, &arguments)
    }

    /// `dw += Σ dy ⊗ x`, of operands that these kernels take.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn stem_backward_weights(
        &self,
        StemGrid { blocks, groups, shared }: StemGrid,
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_stem_backward_weights";
        check(KERNEL, shape)?;
        let partials = blocks * shape.weights_len() * size_of::<f32>();
        let workspace = self.workspace(partials)?;
        let arguments = ConvStemBackwardWeights {
            partials: workspace.address(),
            dy: dy.address(),
            x: x.address(),
            shape: ConvGeometry::new(KERNEL, shape)?,
        };
        let work = Work {
            reads: (shape.output_len() * dy.element().bytes() + shape.input_len() * x.element().bytes()) as u64,
            writes: partials as u64,
            flops: shape.flops(),
        };
        let grid = [blocks as u32, groups as u32, 1];
        let launch = Launch { grid, block: 224, shared: shared as u32, work };
        self.launch(Module::Conv, KERNEL, launch, &arguments)?;
        self.sum_weight_gradients(&dw, &workspace, blocks)
    }
}
