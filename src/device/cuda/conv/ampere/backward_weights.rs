//! The weight gradient on tensor cores: which tile, how many splits, and the launches
//! (`kernels/conv/ampere/weights.cuh`).

use crate::device::cuda::conv::geometry::{Divisor, Geometry, extent};
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{Buffer, View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError, InputTransform, Work};
use cudarc::driver::DeviceRepr;

const KERNEL: &str = "conv_backward_weights";

/// Argument of the kernels `conv_backward_weights_TILE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvBackwardWeights {
    dw: u64,
    partials: u64,
    dy: u64,
    x: u64,
    norm: u64,
    shape: Geometry,
    by_p: Divisor,
    by_q: Divisor,
    pixels_per_split: i32,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvBackwardWeights {}

/// Argument of `conv_backward_weights_sum`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvBackwardWeightsSum {
    dw: u64,
    partials: u64,
    quads: i32,
    splits: i32,
    groups: i32,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvBackwardWeightsSum {}

/// A block's share of dw: filters by columns, a column being a tap and a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    filters: usize,
    columns: usize,
}

/// What `kernels/conv/conv.cu` instantiates.
const TILES: [Tile; 4] = [
    Tile { kernel: "conv_backward_weights_128x128", filters: 128, columns: 128 },
    Tile { kernel: "conv_backward_weights_128x64", filters: 128, columns: 64 },
    Tile { kernel: "conv_backward_weights_64x128", filters: 64, columns: 128 },
    Tile { kernel: "conv_backward_weights_64x64", filters: 64, columns: 64 },
];

impl Tile {
    /// Tiles that cover a sum.
    fn count(self, sum: &Sum) -> usize {
        sum.filters.div_ceil(self.filters) * sum.columns.div_ceil(self.columns)
    }

    /// A warp takes 64 x 64.
    fn threads(self) -> u32 {
        (self.filters / 64 * self.columns / 64 * 32) as u32
    }

    /// Bytes of dynamic shared memory: a ring of three slices, and the pixels of four, eight bytes each.
    fn shared(self, slice: usize) -> u32 {
        (3 * SLICE_BYTES * (self.filters + self.columns) + 4 * 8 * slice) as u32
    }
}

/// Blocks that a multiprocessor is given at most, if a sum is split.
const BLOCKS: usize = 4;

/// Bytes of a slice for each of its filters or columns: 32 pixels in bfloat16, 16 in `f32`.
const SLICE_BYTES: usize = 64;

/// The matrix product: filters by columns, summed over pixels, of operands of `channels` a pixel.
#[derive(Clone, Copy, Debug)]
struct Sum {
    filters: usize,
    columns: usize,
    pixels: usize,
    channels: usize,
    /// Bytes of an element.
    bytes: usize,
}

/// What a multiprocessor does in a clock, somewhat below an A100's peaks: multiply-adds of a slice's pixels (half as many
/// pixels in TF32, for half as many multiply-adds), bytes from the L2 cache, bytes of DRAM traffic. Other GPUs differ, their
/// ratios less.
const SLICE_MULTIPLY_ADDS: f64 = 32.0;
const CACHE_BYTES: f64 = 40.0;
const MEMORY_BYTES: f64 = 12.0;

/// Clocks in which a block multiplies nothing: at each slice's barrier; before its first and after its last slice; and for the
/// second launch of a split sum.
const BARRIER: f64 = 300.0;
const ENDS: f64 = 3000.0;
const SECOND_LAUNCH: f64 = 2000.0;

/// How a sum is shared out.
#[derive(Clone, Copy, Debug)]
struct Plan {
    tile: Tile,
    splits: usize,
    pixels_per_split: usize,
    clocks: f64,
}

impl Sum {
    fn of(shape: &ConvShape, precision: Precision) -> Self {
        Sum {
            filters: shape.k,
            columns: shape.r * shape.s * shape.c,
            pixels: shape.n * shape.p * shape.q,
            channels: shape.k + shape.c,
            bytes: if precision == Precision::Bf16 { 2 } else { 4 },
        }
    }

    /// Pixels of a slice.
    fn slice(&self) -> usize {
        SLICE_BYTES / self.bytes
    }

    /// The fastest plan: tiles in each size, whole or split to give every multiprocessor one to four blocks. It depends on the
    /// shape and the GPU only, so results repeat.
    fn plan(&self, multiprocessors: usize) -> Plan {
        let mut best = self.split(TILES[0], 1, multiprocessors);
        for tile in TILES {
            for rounds in 0..=BLOCKS {
                let splits = (rounds * multiprocessors / tile.count(self)).max(1);
                let plan = self.split(tile, splits, multiprocessors);
                if plan.clocks < best.clocks {
                    best = plan;
                }
            }
        }
        best
    }

    /// A sum in at most `splits` parts of whole slices.
    fn split(&self, tile: Tile, splits: usize, multiprocessors: usize) -> Plan {
        let slices = self.pixels.div_ceil(self.slice());
        let slices_per_split = slices.div_ceil(splits);
        let splits = slices.div_ceil(slices_per_split);

        // Blocks that share a multiprocessor fill one another's pauses.
        let blocks = (tile.count(self) * splits).div_ceil(multiprocessors) as f64;
        let products = (tile.filters * tile.columns) as f64 / SLICE_MULTIPLY_ADDS;
        let loads = ((tile.filters + tile.columns) * SLICE_BYTES) as f64 / CACHE_BYTES;
        let work = products.max(loads);
        let slices = slices_per_split as f64 * (blocks * work).max(work + BARRIER);

        let memory = MEMORY_BYTES * multiprocessors as f64;
        let operands = (self.pixels * self.channels * self.bytes) as f64 / memory;
        let parts = match splits {
            1 => 0.0,
            _ => 2.0 * self.workspace(splits) as f64 / memory + SECOND_LAUNCH,
        };
        let pixels_per_split = slices_per_split * self.slice();
        Plan { tile, splits, pixels_per_split, clocks: slices.max(operands) + parts + ENDS }
    }

    /// Bytes of the partial sums of several splits.
    fn workspace(&self, splits: usize) -> usize {
        splits * self.filters * self.columns * size_of::<f32>()
    }
}

impl Cuda {
    /// Whether the tensor cores take a weight gradient. What they do not is for the CUDA cores.
    pub(in super::super) fn takes_backward_weights(
        &self,
        dw: &ViewMut<'_>,
        dy: &View<'_>,
        x: &View<'_>,
        shape: &ConvShape,
    ) -> bool {
        let lane = match self.precision() {
            Precision::F32 => return false,
            Precision::Tf32 => 4,
            Precision::Bf16 => 8,
        };
        let aligned = [dw.address(), dy.address(), x.address()].iter().all(|address| address.is_multiple_of(16));
        // A pixel's taps are bits of a word, 15 in each direction.
        aligned && shape.c.is_multiple_of(lane) && shape.k.is_multiple_of(lane) && shape.r <= 15 && shape.s <= 15
    }

    /// `dw += Σ dy ⊗ transform(x)`, of operands that [`Cuda::takes_backward_weights`].
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for more pixels, elements of `dy` or weights than 32 bits count.
    pub(in super::super) fn backward_weights(
        &self,
        dw: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let sum = Sum::of(shape, self.precision());
        let Plan { tile, splits, pixels_per_split, .. } = sum.plan(self.multiprocessors() as usize);
        // The last slices of a split may look for pixels a little past its end.
        extent(KERNEL, (sum.pixels + 8 * SLICE_BYTES) * shape.k)?;
        extent(KERNEL, shape.n * shape.h * shape.w)?;
        extent(KERNEL, shape.weights_len())?;

        let workspace = (splits > 1).then(|| self.workspace(sum.workspace(splits))).transpose()?;
        let partials = workspace.as_ref().map_or(0, Buffer::address);
        let arguments = ConvBackwardWeights {
            dw: dw.address(),
            partials,
            dy: dy.address(),
            x: x.address(),
            norm: transform.map_or(0, |transform| transform.norm.address()),
            shape: Geometry::new(KERNEL, shape)?,
            by_p: Divisor::new(shape.p as u32),
            by_q: Divisor::new(shape.q as u32),
            pixels_per_split: extent(KERNEL, pixels_per_split)?,
        };
        let tiles = [sum.columns.div_ceil(tile.columns), sum.filters.div_ceil(tile.filters), splits];
        let parts = 4 * (splits * shape.weights_len()) as u64;
        let work = Work {
            reads: ((shape.output_len() + shape.seen()) * sum.bytes) as u64
                + 4 * transform.map_or(0, |_| 2 * shape.c as u64)
                + if splits == 1 { parts } else { 0 },
            writes: parts,
            flops: shape.flops(),
        };
        let shared = tile.shared(sum.slice());
        let launch = Launch { grid: tiles.map(|n| n as u32), block: tile.threads(), shared, work };
        self.launch(Module::Conv, tile.kernel, launch, &arguments)?;
        match workspace {
            Some(partials) => self.sum_weight_gradients(&dw, &partials, splits),
            None => Ok(()),
        }
    }

    /// `dw += Σ partials`, of which there are `splits`, each shaped like `dw`, whose length is a multiple of four.
    pub(in super::super) fn sum_weight_gradients(
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

#[cfg(test)]
mod tests {
    use super::*;

    /// ResNet-50's convolutions but the stem, for images of 150x150.
    fn layers(images: usize) -> Vec<ConvShape> {
        let mut layers = Vec::new();
        let (mut side, mut c) = (38, 64);
        for (filters, blocks, stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                let mut layer = |side: usize, c, k, r, stride, pad| {
                    layers.push(ConvShape::new([images, side, side, c], k, [r, r], stride, pad).unwrap());
                };
                layer(side, c, filters, 1, stride, 0);
                if block == 0 {
                    layer(side, c, 4 * filters, 1, stride, 0);
                }
                side = (side - 1) / stride + 1;
                layer(side, filters, filters, 3, 1, 1);
                layer(side, filters, 4 * filters, 1, 1, 0);
                c = 4 * filters;
            }
        }
        layers
    }

    #[test]
    fn splits_share_out_every_pixel_in_whole_slices() {
        let odd = ConvShape::new([3, 7, 5, 8], 16, [3, 3], 2, 1).unwrap();
        for precision in [Precision::Bf16, Precision::Tf32] {
            for shape in layers(1).into_iter().chain(layers(32)).chain([odd]) {
                for multiprocessors in [1, 2, 36, 108, 132, 170] {
                    let sum = Sum::of(&shape, precision);
                    let Plan { tile, splits, pixels_per_split, .. } = sum.plan(multiprocessors);
                    assert_eq!(pixels_per_split % sum.slice(), 0, "{shape:?}");
                    assert!(splits * pixels_per_split >= sum.pixels, "{shape:?}");
                    assert!((splits - 1) * pixels_per_split < sum.pixels, "{shape:?}");
                    assert!(splits == 1 || splits * tile.count(&sum) <= BLOCKS * multiprocessors, "{shape:?}");
                    assert!(tile.shared(sum.slice()) <= 99 * 1024);
                }
            }
        }
    }

    /// The partial sums of a whole backward pass, written and read, beside the gigabytes of its activations.
    #[test]
    fn partial_sums_stay_small() {
        for (images, multiprocessors, most) in
            [(32, 108, 0.5e9), (32, 132, 0.5e9), (128, 108, 0.9e9), (128, 132, 0.9e9)]
        {
            let mut traffic = 0.0;
            for shape in layers(images) {
                let sum = Sum::of(&shape, Precision::Bf16);
                let splits = sum.plan(multiprocessors).splits;
                if splits > 1 {
                    traffic += 2.0 * sum.workspace(splits) as f64;
                }
            }
            assert!(traffic <= most, "{images} images on {multiprocessors} multiprocessors: {traffic} bytes");
        }
    }
}
