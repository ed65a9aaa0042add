//! The tiles of the convolutions on CUDA cores (`kernels/conv/cuda_core/`).

use crate::device::ConvShape;
use crate::device::Work;
use crate::device::cuda::Precision;
use crate::device::cuda::choose::{Refusal, Target};
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::scratch::TICKETS;

/// A block's share of the results, as `kernels/conv/conv.cu` instantiates it; 64 for each of its threads.
#[derive(Debug, PartialEq)]
pub struct FfmaTile {
    /// The forward kernel of it.
    pub forward: &'static str,
    /// The data gradient's.
    pub backward_data: &'static str,
    /// The weight gradient's.
    pub backward_weights: &'static str,
    /// Rows of a block.
    pub rows: usize,
    /// Columns of a block.
    pub columns: usize,
    /// Blocks that a multiprocessor holds.
    resident: usize,
    /// How much of the large tile's speed it reaches, for it loads more for what it multiplies.
    efficiency: f64,
}

static LARGE: FfmaTile = FfmaTile {
    forward: "conv_ffma_forward_128x64_vector",
    backward_data: "conv_ffma_backward_data_128x64_vector",
    backward_weights: "conv_ffma_backward_weights_128x64_vector",
    rows: 128,
    columns: 64,
    resident: 3,
    efficiency: 1.0,
};
static SMALL: FfmaTile = FfmaTile {
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
static SCALAR: FfmaTile = FfmaTile {
    forward: "conv_ffma_forward_128x64_scalar",
    backward_data: "conv_ffma_backward_data_128x64_scalar",
    backward_weights: "conv_ffma_backward_weights_128x64_scalar",
    rows: 128,
    columns: 64,
    resident: 3,
    efficiency: 1.0,
};

impl FfmaTile {
    /// The tile for `rows` × `columns` results: by the work of the multiprocessor that gets most of it, if `fills` says that the
    /// tiles alone must fill the GPU, or else by all of it. The others are `refused`, under the name that they have in this pass.
    pub(super) fn choose(
        target: &Target,
        shape: &ConvShape,
        aligned: bool,
        [rows, columns]: [usize; 2],
        fills: Option<usize>,
        name: impl Fn(&'static Self) -> &'static str,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> &'static Self {
        let scalar = if target.precision != Precision::F32 {
            Some(Refusal::OnlyForF32)
        } else if !shape.c.is_multiple_of(4) {
            Some(Refusal::Channels { channels: shape.c, multiple: 4 })
        } else if !shape.k.is_multiple_of(4) {
            Some(Refusal::Filters { filters: shape.k, multiple: 4 })
        } else {
            (!aligned).then_some(Refusal::Unaligned)
        };
        if let Some(refusal) = scalar {
            refused.extend([&LARGE, &SMALL].map(|tile| (name(tile), refusal)));
            return &SCALAR;
        }
        let work = |tile: &Self| {
            let tiles = tile.count(rows, columns);
            let most = fills.map_or(tiles, |multiprocessors| tiles.div_ceil(multiprocessors));
            (most * tile.rows * tile.columns) as f64 / tile.efficiency
        };
        let (tile, other) = if work(&SMALL) < work(&LARGE) { (&SMALL, &LARGE) } else { (&LARGE, &SMALL) };
        refused.push((name(other), Refusal::slower(work(other), work(tile))));
        tile
    }

    /// Tiles that cover so many results.
    pub(in crate::device::cuda) fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    pub(in crate::device::cuda) fn launch(&self, blocks: usize, work: Work) -> Launch {
        let grid = [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1];
        Launch { grid, block: (self.rows * self.columns / 64) as u32, shared: 0, work }
    }
}

/// How a weight gradient is shared out.
#[derive(Clone, Debug, PartialEq)]
pub struct FfmaSplits {
    /// The tile.
    pub tile: &'static FfmaTile,
    /// Parts of the sum over pixels.
    pub splits: usize,
}

impl FfmaSplits {
    /// Splits fill the GPU where tiles do not.
    pub(super) fn new(
        target: &Target,
        shape: &ConvShape,
        aligned: bool,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> Self {
        let columns = shape.r * shape.s * shape.c;
        let name = |tile: &'static FfmaTile| tile.backward_weights;
        let tile = FfmaTile::choose(target, shape, aligned, [shape.k, columns], None, name, refused);
        let resident = tile.resident * target.multiprocessors;
        let splits = splits(shape.n * shape.p * shape.q, tile.count(shape.k, columns), resident);
        FfmaSplits { tile, splits }
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
        let choose_in = |precision, shape: &ConvShape, aligned| {
            let target = Target { capability: (8, 0), multiprocessors: 108, precision };
            let results = [shape.n * shape.p * shape.q, shape.k];
            FfmaTile::choose(&target, shape, aligned, results, Some(108), |tile| tile.forward, &mut Vec::new()).forward
        };
        let choose = |shape: &ConvShape, aligned| choose_in(Precision::F32, shape, aligned);
        // Many pixels, few pixels, and what no four elements make up.
        assert_eq!(choose(&shape(128, 38, 64, 256), true), LARGE.forward);
        assert_eq!(choose(&shape(8, 2, 512, 2048), true), SMALL.forward);
        assert_eq!(choose(&shape(8, 2, 512, 2048), false), SCALAR.forward);
        assert_eq!(choose(&shape(8, 2, 3, 64), true), SCALAR.forward);
        assert_eq!(choose(&shape(8, 2, 64, 6), true), SCALAR.forward);
        assert_eq!(choose_in(Precision::Bf16, &shape(128, 38, 64, 256), true), SCALAR.forward);
    }
}
