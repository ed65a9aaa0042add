//! The weight gradient on tensor cores: which tile, and into how many parts the sum over pixels is split
//! (`kernels/conv/ampere/weights.cuh`).

use crate::device::cuda::choose::{Refusal, Target};
use crate::device::cuda::kernels::Launch;
use crate::device::{Activation, ConvShape, Work};

/// A block's share of dw, as `kernels/conv/conv.cu` instantiates it: filters by columns, a column being a tap and a channel.
#[derive(Debug, PartialEq)]
pub struct WeightsTile {
    /// The kernel of it, for an input that owes nothing, or a batch norm and a ReLU.
    pub kernel: &'static str,
    /// The one for an input that owes a batch norm and another activation.
    pub bounded: &'static str,
    /// Filters of a block.
    pub filters: usize,
    /// Columns of a block.
    pub columns: usize,
}

/// The largest first, which wins a tie.
static TILES: [WeightsTile; 4] = [
    WeightsTile {
        kernel: "conv_backward_weights_128x128",
        bounded: "conv_backward_weights_bounded_128x128",
        filters: 128,
        columns: 128,
    },
    WeightsTile {
        kernel: "conv_backward_weights_128x64",
        bounded: "conv_backward_weights_bounded_128x64",
        filters: 128,
        columns: 64,
    },
    WeightsTile {
        kernel: "conv_backward_weights_64x128",
        bounded: "conv_backward_weights_bounded_64x128",
        filters: 64,
        columns: 128,
    },
    WeightsTile {
        kernel: "conv_backward_weights_64x64",
        bounded: "conv_backward_weights_bounded_64x64",
        filters: 64,
        columns: 64,
    },
];

impl WeightsTile {
    /// The kernel for an input that owes a batch norm and this activation, or nothing.
    pub fn kernel_of(&self, owed: Option<Activation>) -> &'static str {
        match owed {
            None | Some(Activation::Relu) => self.kernel,
            Some(Activation::Linear | Activation::Relu6) => self.bounded,
        }
    }

    /// Tiles that cover a sum.
    fn count(&self, sum: &Sum) -> usize {
        sum.filters.div_ceil(self.filters) * sum.columns.div_ceil(self.columns)
    }
}

/// Blocks that a multiprocessor is given at most, if a sum is split.
const BLOCKS: usize = 4;

/// Bytes of a slice for each of its filters or columns: 32 pixels in bfloat16, 16 in `f32`.
const SLICE_BYTES: usize = 64;

/// The matrix product: filters by columns, summed over pixels, of operands of `channels` a pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct PixelSplits {
    /// The tile.
    pub tile: &'static WeightsTile,
    /// Parts of the sum over pixels.
    pub splits: usize,
    /// Pixels of a part, in whole slices.
    pub pixels_per_split: usize,
    sum: Sum,
    clocks: f64,
}

impl PixelSplits {
    /// The fastest: tiles in each size, whole or split to give every multiprocessor one to four blocks. The other tiles are
    /// `refused`.
    pub(super) fn new(
        shape: &ConvShape,
        target: &Target,
        owed: Option<Activation>,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> Self {
        let sum = Sum::of(shape, target);
        let best = TILES.iter().map(|tile| sum.fastest(tile, target.multiprocessors));
        let best = best.reduce(|best, other| if other.clocks < best.clocks { other } else { best });
        let best = best.expect("there are tiles");
        let others = TILES.iter().filter(|tile| *tile != best.tile);
        let clocks = |tile| sum.fastest(tile, target.multiprocessors).clocks;
        refused.extend(others.map(|tile| (tile.kernel_of(owed), Refusal::slower(clocks(tile), best.clocks))));
        best
    }

    /// Bytes of the parts' partial sums; none of one part.
    pub(in crate::device::cuda) fn workspace(&self) -> Option<usize> {
        (self.splits > 1).then(|| self.sum.workspace(self.splits))
    }

    /// The launch, which does `work` at least.
    pub(in crate::device::cuda) fn launch(&self, work: Work) -> Launch {
        let WeightsTile { filters, columns, .. } = *self.tile;
        // A ring of three slices, and the pixels of four, eight bytes each.
        let shared = 3 * SLICE_BYTES * (filters + columns) + 4 * 8 * self.sum.slice();
        let grid = [self.sum.columns.div_ceil(columns), self.sum.filters.div_ceil(filters), self.splits];
        // A warp takes 64 x 64.
        let block = filters / 64 * columns / 64 * 32;
        Launch { grid: grid.map(|blocks| blocks as u32), block: block as u32, shared: shared as u32, work }
    }
}

impl Sum {
    fn of(shape: &ConvShape, target: &Target) -> Self {
        Sum {
            filters: shape.k,
            columns: shape.r * shape.s * shape.c,
            pixels: shape.n * shape.p * shape.q,
            channels: shape.k + shape.c,
            bytes: target.element_bytes(),
        }
    }

    /// Pixels of a slice.
    fn slice(&self) -> usize {
        SLICE_BYTES / self.bytes
    }

    /// The best number of splits for a tile, the fewest of equals.
    fn fastest(&self, tile: &'static WeightsTile, multiprocessors: usize) -> PixelSplits {
        let mut best = self.split(tile, 1, multiprocessors);
        for rounds in 0..=BLOCKS {
            let splits = (rounds * multiprocessors / tile.count(self)).max(1);
            let split = self.split(tile, splits, multiprocessors);
            if split.clocks < best.clocks {
                best = split;
            }
        }
        best
    }

    /// A sum in at most `splits` parts of whole slices.
    fn split(&self, tile: &'static WeightsTile, splits: usize, multiprocessors: usize) -> PixelSplits {
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
        PixelSplits { tile, splits, pixels_per_split, sum: *self, clocks: slices.max(operands) + parts + ENDS }
    }

    /// Bytes of the partial sums of several splits.
    fn workspace(&self, splits: usize) -> usize {
        splits * self.filters * self.columns * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::Precision;
    use crate::network::{Architecture, Convolution, Layer, ModelConfig, NETWORKS, Network, Op};

    /// Every network's convolutions but the stem, for images of 150x150.
    fn layers(images: usize) -> Vec<ConvShape> {
        NETWORKS.into_iter().flat_map(|network| layers_of(network, images)).collect()
    }

    fn layers_of(network: Network, images: usize) -> Vec<ConvShape> {
        let layers = Architecture::new(&ModelConfig::new(network, 7)).unwrap().layers;
        let shape = |layer: &Layer| match (layer.op, &layers[*layer.inputs.first()?].output[..]) {
            (Op::Conv { convolution, .. }, &[h, w, c]) if c > 3 => {
                let Convolution { filters, window, stride, pad, .. } = convolution;
                Some(ConvShape::new([images, h, w, c], filters, [window; 2], stride, pad).unwrap())
            }
            (Op::SeparableConv { filters, .. }, &[_, _, c]) => {
                Some(ConvShape::new([images, layer.output[0], layer.output[1], c], filters, [1; 2], 1, 0).unwrap())
            }
            _ => None,
        };
        layers.iter().filter_map(shape).collect()
    }

    fn target(precision: Precision, multiprocessors: usize) -> Target {
        Target { capability: (8, 0), multiprocessors, precision }
    }

    #[test]
    fn splits_share_out_every_pixel_in_whole_slices() {
        let odd = ConvShape::new([3, 7, 5, 8], 16, [3, 3], 2, 1).unwrap();
        for precision in [Precision::Bf16, Precision::Tf32] {
            for shape in layers(1).into_iter().chain(layers(32)).chain([odd]) {
                for multiprocessors in [1, 2, 36, 108, 132, 170] {
                    let split = PixelSplits::new(&shape, &target(precision, multiprocessors), None, &mut Vec::new());
                    let PixelSplits { tile, splits, pixels_per_split, sum, .. } = split;
                    assert_eq!(pixels_per_split % sum.slice(), 0, "{shape:?}");
                    assert!(splits * pixels_per_split >= sum.pixels, "{shape:?}");
                    assert!((splits - 1) * pixels_per_split < sum.pixels, "{shape:?}");
                    assert!(splits == 1 || splits * tile.count(&sum) <= BLOCKS * multiprocessors, "{shape:?}");
                    let work = Work { reads: 0, writes: 0, flops: 0 };
                    assert!(split.launch(work).shared <= 99 * 1024);
                }
            }
        }
    }

    /// The partial sums of a whole backward pass, written and read, beside the gigabytes of its activations.
    #[test]
    fn partial_sums_stay_small() {
        let limits = [(32, 108, 0.5e9), (32, 132, 0.5e9), (128, 108, 1e9), (128, 132, 1e9)];
        for (network, (images, multiprocessors, most)) in
            NETWORKS.into_iter().flat_map(|n| limits.map(|limit| (n, limit)))
        {
            let mut traffic = 0.0;
            for shape in layers_of(network, images) {
                let split = PixelSplits::new(&shape, &target(Precision::Bf16, multiprocessors), None, &mut Vec::new());
                traffic += 2.0 * split.workspace().unwrap_or(0) as f64;
            }
            let what = format!("{network}, {images} images on {multiprocessors} multiprocessors");
            assert!(traffic <= most, "{what}: {traffic} bytes");
        }
    }
}
