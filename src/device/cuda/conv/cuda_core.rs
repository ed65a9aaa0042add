//! Convolution on CUDA cores (`kernels/conv/cuda_core/`): all of `f32`, and of the other precisions what tensor cores
//! do not take.

use super::geometry::{ConvGeometry, Divisor, extent};
use crate::device::cuda::Cuda;
use crate::device::cuda::activation::{Bounds, Stops};
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::choose::conv::{FfmaSplits, FfmaTile};
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::{ConvForward, ConvShape, DeviceError, InputTransform, ReduceEpilogue, Work};

arguments! {
    /// Argument of the kernels `conv_ffma_forward_*`.
    struct ConvFfmaForward {
        y: u64,
        stats: u64,
        x: u64,
        norm: u64,
        w: u64,
        bias: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        p: Divisor,
        q: Divisor,
        bounds: Bounds,
        activation: Bounds,
    }

    /// Argument of the kernels `conv_ffma_backward_data_*`.
    struct ConvFfmaBackwardData {
        dx: u64,
        sums: u64,
        y: u64,
        norm: u64,
        dy: u64,
        w: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        class_height: Divisor,
        class_width: Divisor,
        accumulate: i32,
        stops: Stops,
    }

    /// Argument of the kernels `conv_ffma_backward_weights_*`.
    struct ConvFfmaBackwardWeights {
        dw: u64,
        dy: u64,
        x: u64,
        norm: u64,
        partials: u64,
        tickets: u64,
        shape: ConvGeometry,
        p: Divisor,
        q: Divisor,
        splits: i32,
        bounds: Bounds,
    }
}

/// Rows of the largest tile.
const ROWS: usize = 128;

/// Refuses tensors whose indices, or those computed a tile past their ends, leave 31 bits.
fn check(kernel: &'static str, shape: &ConvShape) -> Result<(), DeviceError> {
    let &ConvShape { n, h, w, c, k, r, s, stride, pad, p, q } = shape;
    let images = n + ROWS;
    // The filter's last place may lie in the padding below and to the right.
    let [height, width] = [h.max(p * stride), w.max(q * stride)];
    extent(kernel, images * (height + 2 * pad + r) * (width + 2 * pad + s) * c)?;
    extent(kernel, images * (p + r) * (q + s) * k)?;
    extent(kernel, (k + ROWS) * (r + 1) * s * c)?;
    Ok(())
}

impl Cuda {
    /// `y = activation(conv(transform(x), w) + bias)` and its `stats`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn ffma_forward(
        &self,
        tile: &FfmaTile,
        operands: ConvForward<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let ConvForward { y, stats, x, transform, w, bias, activation } = operands;
        const KERNEL: &str = "conv_forward";
        check(KERNEL, shape)?;
        let norm = transform.map_or(0, |transform| transform.norm.address());
        let bias_address = bias.map_or(0, |bias| bias.address());
        let pixels = shape.n * shape.p * shape.q;
        let partials = if stats.is_some() { pixels.div_ceil(tile.rows) * 2 * shape.k * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvFfmaForward {
            y: y.address(),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            x: x.address(),
            norm,
            w: w.address(),
            bias: bias_address,
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, shape.k.div_ceil(tile.columns))?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            p: Divisor::new(shape.p as u32),
            q: Divisor::new(shape.q as u32),
            bounds: Bounds::of(transform),
            activation: activation.into(),
        };
        let channels = transform.map_or(0, |_| 2 * shape.c) + bias.map_or(0, |_| shape.k);
        let results = stats.map_or(0, |_| 2 * shape.k);
        let work = Work {
            reads: (shape.seen() * x.element().bytes() + (shape.weights_len() + channels) * size_of::<f32>()) as u64,
            writes: (shape.output_len() * y.element().bytes() + results * size_of::<f32>() + partials) as u64,
            flops: shape.flops(),
        };
        self.launch(Module::Conv, tile.forward, tile.launch(tile.count(pixels, shape.k), work), &arguments)
    }

    /// `dx (+)= convᵀ(dy, w)` and its epilogue.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn ffma_backward_data(
        &self,
        tile: &FfmaTile,
        dx: ViewMut<'_>,
        accumulate: bool,
        epilogue: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        dy: View<'_>,
        w: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_data";
        check(KERNEL, shape)?;
        let of = |address: fn(&ReduceEpilogue<View<'_>, ViewMut<'_>>) -> u64| epilogue.as_ref().map_or(0, address);
        let (y, norm) = (of(|epilogue| epilogue.y.address()), of(|epilogue| epilogue.norm.address()));
        // A class of pixels sees the same taps; a tile has pixels of one class.
        let [height, width] = [shape.h, shape.w].map(|extent| extent.div_ceil(shape.stride));
        let (classes, pixels) = (shape.stride * shape.stride, shape.n * height * width);
        let tiles = classes * pixels.div_ceil(tile.rows);
        let partials = if epilogue.is_some() { tiles * 2 * shape.c * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvFfmaBackwardData {
            dx: dx.address(),
            sums: of(|epilogue| epilogue.sums.address()),
            y,
            norm,
            dy: dy.address(),
            w: w.address(),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, shape.c.div_ceil(tile.columns))?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            class_height: Divisor::new(height as u32),
            class_width: Divisor::new(width as u32),
            accumulate: accumulate.into(),
            stops: Stops::of(&epilogue),
        };
        // Without an epilogue, pixels that no tap reaches stay as they are, or get zeros.
        let touched = if accumulate && epilogue.is_none() { shape.seen() } else { shape.input_len() };
        let masked = epilogue.as_ref().map_or(0, |_| shape.input_len());
        let channels = epilogue.as_ref().map_or(0, |_| shape.c);
        let (input, output) = (dx.element().bytes(), dy.element().bytes());
        let old = if accumulate { touched } else { 0 };
        let work = Work {
            reads: (shape.output_len() * output
                + (shape.weights_len() + 3 * channels) * size_of::<f32>()
                + (old + masked) * input) as u64,
            writes: (touched * input + 2 * channels * size_of::<f32>() + partials) as u64,
            flops: shape.flops(),
        };
        let blocks = tiles * shape.c.div_ceil(tile.columns);
        self.launch(Module::Conv, tile.backward_data, tile.launch(blocks, work), &arguments)
    }

    /// `dw += Σ dy ⊗ transform(x)`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn ffma_backward_weights(
        &self,
        FfmaSplits { tile, splits }: FfmaSplits,
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_weights";
        check(KERNEL, shape)?;
        let norm = transform.map_or(0, |transform| transform.norm.address());
        let tiles = tile.count(shape.k, shape.r * shape.s * shape.c);
        let partials = if splits > 1 { tiles * splits * tile.rows * tile.columns * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvFfmaBackwardWeights {
            dw: dw.address(),
            dy: dy.address(),
            x: x.address(),
            norm,
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, if splits > 1 { tiles } else { 0 })?,
            shape: ConvGeometry::new(KERNEL, shape)?,
            p: Divisor::new(shape.p as u32),
            q: Divisor::new(shape.q as u32),
            splits: splits as i32,
            bounds: Bounds::of(transform),
        };
        let channels = transform.map_or(0, |_| 2 * shape.c);
        let weights = shape.weights_len() * size_of::<f32>();
        let work = Work {
            reads: (shape.output_len() * dy.element().bytes()
                + shape.seen() * x.element().bytes()
                + channels * size_of::<f32>()
                + weights) as u64,
            writes: (weights + partials) as u64,
            flops: shape.flops(),
        };
        self.launch(Module::Conv, tile.backward_weights, tile.launch(tiles * splits, work), &arguments)
    }
}
