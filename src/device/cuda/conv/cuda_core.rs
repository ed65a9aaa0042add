//! Convolution on CUDA cores (`kernels/conv/cuda_core/`): all of `f32`, and of the other precisions what tensor cores
//! do not take.

use super::geometry::{Divisor, Geometry, extent};
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::cuda::scratch::TICKETS;
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError, InputTransform, ReduceEpilogue, Work};
use cudarc::driver::DeviceRepr;

/// Argument of the kernels `conv_ffma_forward_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvFfmaForward {
    y: u64,
    stats: u64,
    x: u64,
    norm: u64,
    w: u64,
    bias: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
    p: Divisor,
    q: Divisor,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for ConvFfmaForward {}

/// Argument of the kernels `conv_ffma_backward_data_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvFfmaBackwardData {
    dx: u64,
    sums: u64,
    y: u64,
    norm: u64,
    dy: u64,
    w: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
    class_height: Divisor,
    class_width: Divisor,
    accumulate: i32,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for ConvFfmaBackwardData {}

/// Argument of the kernels `conv_ffma_backward_weights_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvFfmaBackwardWeights {
    dw: u64,
    dy: u64,
    x: u64,
    norm: u64,
    partials: u64,
    tickets: u64,
    shape: Geometry,
    p: Divisor,
    q: Divisor,
    splits: i32,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for ConvFfmaBackwardWeights {}

/// A block's share of the results, as `kernels/conv/conv.cu` instantiates it; 64 for each of its threads.
#[derive(Debug)]
struct Tile {
    forward: &'static str,
    backward_data: &'static str,
    backward_weights: &'static str,
    rows: usize,
    columns: usize,
    /// Blocks that a multiprocessor holds.
    resident: usize,
    /// How much of the large tile's speed it reaches, for it loads more for what it multiplies.
    efficiency: f64,
}

static LARGE: Tile = Tile {
    forward: "conv_ffma_forward_128x64_vector",
    backward_data: "conv_ffma_backward_data_128x64_vector",
    backward_weights: "conv_ffma_backward_weights_128x64_vector",
    rows: 128,
    columns: 64,
    resident: 3,
    efficiency: 1.0,
};
static SMALL: Tile = Tile {
    forward: "conv_ffma_forward_32x64_vector",
    backward_data: "conv_ffma_backward_data_32x64_vector",
    backward_weights: "conv_ffma_backward_weights_32x64_vector",
    rows: 32,
    columns: 64,
    resident: 10,
    efficiency: 0.8,
};
/// Loads element by element: for channels or filters that are no multiple of four, operands that begin anywhere, and
/// everything in the narrow precisions, where what the network has for vectors goes to the tensor cores.
static SCALAR: Tile = Tile {
    forward: "conv_ffma_forward_128x64_scalar",
    backward_data: "conv_ffma_backward_data_128x64_scalar",
    backward_weights: "conv_ffma_backward_weights_128x64_scalar",
    rows: 128,
    columns: 64,
    resident: 3,
    efficiency: 1.0,
};

impl Tile {
    /// The tile for `rows` × `columns` results: by the work of the multiprocessor that gets most of it, if `fills` says that the
    /// tiles alone must fill the GPU, or else by all of it.
    fn choose(
        precision: Precision,
        shape: &ConvShape,
        addresses: &[u64],
        rows: usize,
        columns: usize,
        fills: Option<u32>,
    ) -> &'static Self {
        let vectors = precision == Precision::F32
            && shape.c.is_multiple_of(4)
            && shape.k.is_multiple_of(4)
            && addresses.iter().all(|address| address.is_multiple_of(16));
        if !vectors {
            return &SCALAR;
        }
        let work = |tile: &Self| {
            let tiles = tile.count(rows, columns);
            let most = fills.map_or(tiles, |multiprocessors| tiles.div_ceil(multiprocessors as usize));
            (most * tile.rows * tile.columns) as f64 / tile.efficiency
        };
        if work(&SMALL) < work(&LARGE) { &SMALL } else { &LARGE }
    }

    fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    fn launch(&self, blocks: usize, work: Work) -> Launch {
        let grid = [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1];
        Launch { grid, block: (self.rows * self.columns / 64) as u32, shared: 0, work }
    }
}

/// Pixels of the summed range that a weight gradient's kernel takes at once.
const DEPTH: usize = 8;

/// Such steps that a split is worth at the least.
const STEPS: usize = 16;

/// Splits of a weight gradient's sum over pixels: as many as make the GPU full.
fn splits(pixels: usize, tiles: usize, resident: usize) -> usize {
    let steps = pixels.div_ceil(DEPTH);
    let wanted = if tiles > TICKETS { 1 } else { (resident / tiles).clamp(1, steps.div_ceil(STEPS)) };
    // None without steps: the kernel rounds a split's share of them up.
    steps.div_ceil(steps.div_ceil(wanted))
}

/// Refuses tensors whose indices, or those computed a tile past their ends, leave 31 bits.
fn check(kernel: &'static str, shape: &ConvShape) -> Result<(), DeviceError> {
    let &ConvShape { n, h, w, c, k, r, s, pad, p, q, .. } = shape;
    let images = n + LARGE.rows;
    extent(kernel, images * (h + 2 * pad + r) * (w + 2 * pad + s) * c)?;
    extent(kernel, images * (p + r) * (q + s) * k)?;
    extent(kernel, (k + LARGE.rows) * (r + 1) * s * c)?;
    Ok(())
}

impl Cuda {
    /// `y = conv(transform(x), w) + bias` and its `stats`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach.
    pub(super) fn ffma_forward(
        &self,
        y: ViewMut<'_>,
        stats: Option<ViewMut<'_>>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        w: View<'_>,
        bias: Option<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_forward";
        check(KERNEL, shape)?;
        let norm = transform.map_or(0, |transform| transform.norm.address());
        let bias_address = bias.map_or(0, |bias| bias.address());
        let pixels = shape.n * shape.p * shape.q;
        let addresses = [y.address(), x.address(), norm, w.address(), bias_address];
        let multiprocessors = Some(self.multiprocessors());
        let tile = Tile::choose(self.precision(), shape, &addresses, pixels, shape.k, multiprocessors);
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
            shape: Geometry::new(KERNEL, shape)?,
            p: Divisor::new(shape.p as u32),
            q: Divisor::new(shape.q as u32),
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
        let addresses = [dx.address(), y, norm, dy.address(), w.address()];
        let multiprocessors = Some(self.multiprocessors());
        let tile = Tile::choose(self.precision(), shape, &addresses, classes * pixels, shape.c, multiprocessors);
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
            shape: Geometry::new(KERNEL, shape)?,
            class_height: Divisor::new(height as u32),
            class_width: Divisor::new(width as u32),
            accumulate: accumulate.into(),
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
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_weights";
        check(KERNEL, shape)?;
        let norm = transform.map_or(0, |transform| transform.norm.address());
        let columns = shape.r * shape.s * shape.c;
        let addresses = [dw.address(), dy.address(), x.address(), norm];
        // Splits fill the GPU where tiles do not.
        let tile = Tile::choose(self.precision(), shape, &addresses, shape.k, columns, None);
        let tiles = tile.count(shape.k, columns);
        let pixels = shape.n * shape.p * shape.q;
        let splits = splits(pixels, tiles, tile.resident * self.multiprocessors() as usize);
        let partials = if splits > 1 { tiles * splits * tile.rows * tile.columns * size_of::<f32>() } else { 0 };
        let workspace = self.workspace(partials)?;
        let arguments = ConvFfmaBackwardWeights {
            dw: dw.address(),
            dy: dy.address(),
            x: x.address(),
            norm,
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, if splits > 1 { tiles } else { 0 })?,
            shape: Geometry::new(KERNEL, shape)?,
            p: Divisor::new(shape.p as u32),
            q: Divisor::new(shape.q as u32),
            splits: splits as i32,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_has_steps_and_together_they_are_all() {
        for pixels in [1, 7, 8, 9, 127, 128, 129, 1000, 184_832] {
            for tiles in [1, 3, 64, 500, TICKETS, TICKETS + 1] {
                for resident in [3, 324, 1320] {
                    let (splits, steps) = (splits(pixels, tiles, resident), pixels.div_ceil(DEPTH));
                    let share = steps.div_ceil(splits);
                    assert!((splits - 1) * share < steps && splits * share >= steps, "{pixels} {tiles} {resident}");
                    assert!(splits == 1 || (tiles <= TICKETS && splits * tiles <= resident));
                }
            }
        }
    }

    #[test]
    fn tiles_follow_the_shape() {
        let shape = |n, side, c, k| ConvShape::new([n, side, side, c], k, [1, 1], 1, 0).unwrap();
        let choose_in = |precision, shape: &ConvShape, address| {
            let pixels = shape.n * shape.p * shape.q;
            Tile::choose(precision, shape, &[0, address], pixels, shape.k, Some(108)).forward
        };
        let choose = |shape: &ConvShape, address| choose_in(Precision::F32, shape, address);
        // Many pixels, few pixels, and what no four elements make up.
        assert_eq!(choose(&shape(128, 38, 64, 256), 256), LARGE.forward);
        assert_eq!(choose(&shape(8, 2, 512, 2048), 256), SMALL.forward);
        assert_eq!(choose(&shape(8, 2, 512, 2048), 8), SCALAR.forward);
        assert_eq!(choose(&shape(8, 2, 3, 64), 256), SCALAR.forward);
        assert_eq!(choose(&shape(8, 2, 64, 6), 256), SCALAR.forward);
        assert_eq!(choose_in(Precision::Bf16, &shape(128, 38, 64, 256), 256), SCALAR.forward);
    }
}
