//! How the tensor-core convolutions cut their matrix product into tiles, and what their reductions need
//! (`kernels/conv/ampere/main_loop.cuh`).

use crate::device::cuda::choose::{Refusal, Target};
use crate::device::cuda::conv::extent;
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::scratch::TICKETS;
use crate::device::{Activation, DeviceError, Work};

/// One of the tiles that `kernels/conv/conv.cu` instantiates: pixels × columns, which are filters or, in the data
/// gradient, channels.
#[derive(Debug, PartialEq)]
pub struct ProductTile {
    /// The forward kernel of it.
    pub forward: &'static str,
    /// The one for an input that owes a batch norm and a ReLU.
    pub transformed: &'static str,
    /// The one for an input that owes a batch norm and another activation.
    pub bounded: &'static str,
    /// The data gradient's.
    pub backward_data: &'static str,
    /// Pixels of a block.
    pub pixels: usize,
    /// Columns of a block.
    pub columns: usize,
    /// Clocks of the tensor cores for each that shared memory needs to feed them, on an A100: how much of their speed
    /// the tile can reach.
    efficiency: f64,
}

/// Four warps in each.
const THREADS: u32 = 128;

/// Of shared memory for a pixel or a column: 64 bytes in each of three stages.
const SHARED_BYTES: usize = 64 * 3;

/// Tiles of a reduction's first level at the least.
const GROUP: usize = 32;

/// The largest first, which wins a tie.
static TILES: [ProductTile; 3] = [
    ProductTile {
        forward: "conv_forward_128x128",
        transformed: "conv_forward_transformed_128x128",
        bounded: "conv_forward_bounded_128x128",
        backward_data: "conv_backward_data_128x128",
        pixels: 128,
        columns: 128,
        efficiency: 1.0,
    },
    ProductTile {
        forward: "conv_forward_128x64",
        transformed: "conv_forward_transformed_128x64",
        bounded: "conv_forward_bounded_128x64",
        backward_data: "conv_backward_data_128x64",
        pixels: 128,
        columns: 64,
        efficiency: 0.89,
    },
    ProductTile {
        forward: "conv_forward_64x64",
        transformed: "conv_forward_transformed_64x64",
        bounded: "conv_forward_bounded_64x64",
        backward_data: "conv_backward_data_64x64",
        pixels: 64,
        columns: 64,
        efficiency: 0.67,
    },
];

impl ProductTile {
    /// The forward kernel for an input that owes a batch norm and this activation, or nothing.
    pub fn forward_of(&self, owed: Option<Activation>) -> &'static str {
        match owed {
            None => self.forward,
            Some(Activation::Relu) => self.transformed,
            Some(Activation::Linear | Activation::Relu6) => self.bounded,
        }
    }

    /// Work of the multiprocessor that gets the most tiles, in results at full speed.
    fn cost(&self, pixels: usize, columns: usize, multiprocessors: usize) -> f64 {
        let blocks = pixels.div_ceil(self.pixels) * columns.div_ceil(self.columns);
        (blocks.div_ceil(multiprocessors) * self.pixels * self.columns) as f64 / self.efficiency
    }
}

/// A product of `pixels` × `columns` cut into tiles, and these into groups for a reduction over pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    /// The tile.
    pub tile: &'static ProductTile,
    /// Tiles of pixels.
    pub tiles: i32,
    /// Tiles of columns.
    pub column_tiles: i32,
    /// Tiles that the first level of a reduction merges.
    pub group: i32,
    /// `f32`s of the reduction's workspace.
    pub partials: usize,
    /// Tickets that it draws.
    pub tickets: usize,
    blocks: i32,
}

impl Tiling {
    /// With the tile that is fastest on a GPU of so many multiprocessors; the others are `refused`, under the name that they
    /// have in this pass.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for more blocks or partial results than the kernels count.
    pub(super) fn new(
        kernel: &'static str,
        pixels: usize,
        columns: usize,
        target: &Target,
        name: impl Fn(&'static ProductTile) -> &'static str,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> Result<Self, DeviceError> {
        let cost = |tile: &ProductTile| tile.cost(pixels, columns, target.multiprocessors);
        let first = &TILES[0];
        let tile = TILES[1..].iter().fold(first, |best, tile| if cost(tile) < cost(best) { tile } else { best });
        let others = TILES.iter().filter(|other| *other != tile);
        refused.extend(others.map(|other| (name(other), Refusal::slower(cost(other), cost(tile)))));
        let (tiles, column_tiles) = (pixels.div_ceil(tile.pixels), columns.div_ceil(tile.columns));
        // Two levels of about equal length; each group and each column draws tickets.
        let mut group = GROUP.max(tiles.isqrt());
        while group < tiles && column_tiles * (tiles.div_ceil(group) + 1) > TICKETS {
            group *= 2;
        }
        let groups = tiles.div_ceil(group);
        let partials = (tiles + groups) * 2 * columns;
        // Pixels are counted past the last one, to the end of a tile.
        extent(kernel, pixels + tile.pixels)?;
        extent(kernel, partials)?;
        Ok(Tiling {
            tile,
            tiles: extent(kernel, tiles)?,
            column_tiles: extent(kernel, column_tiles)?,
            group: extent(kernel, group)?,
            partials,
            tickets: column_tiles * (groups + 1),
            blocks: extent(kernel, tiles * column_tiles)?,
        })
    }

    /// The launch, which does `work` at least.
    pub(in crate::device::cuda) fn launch(&self, work: Work) -> Launch {
        let shared = SHARED_BYTES * (self.tile.pixels + self.tile.columns);
        Launch { grid: [self.blocks as u32, 1, 1], block: THREADS, shared: shared as u32, work }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::Precision;

    fn tiling(pixels: usize, columns: usize, multiprocessors: usize) -> Tiling {
        let target = Target { capability: (8, 0), multiprocessors, precision: Precision::Bf16 };
        Tiling::new("test", pixels, columns, &target, |tile| tile.forward, &mut Vec::new()).unwrap()
    }

    #[test]
    fn the_tile_follows_the_shape_and_the_gpu() {
        let kernel = |pixels, columns, gpu| tiling(pixels, columns, gpu).tile.forward;
        // Stage 2 at batch 128 has work for all; 64 filters fill no wider tile.
        assert_eq!(kernel(184_832, 256, 108), "conv_forward_128x128");
        assert_eq!(kernel(184_832, 64, 108), "conv_forward_128x64");
        // The shapes that the agreement tests run in large tiles, on an A100 and an H100.
        for gpu in [108, 132] {
            assert_eq!(kernel(2 * 66 * 67, 120, gpu), "conv_forward_128x128");
            assert_eq!(kernel(2 * 66 * 67, 64, gpu), "conv_forward_128x64");
        }
        // One image of stage 5: as many blocks as there are.
        assert_eq!(kernel(25, 512, 108), "conv_forward_64x64");
    }

    #[test]
    fn a_reduction_has_the_tickets_it_draws() {
        let drawn = |pixels, columns| {
            let tiling = tiling(pixels, columns, 132);
            let groups = (tiling.tiles as usize).div_ceil(tiling.group as usize);
            assert_eq!(tiling.tickets, tiling.column_tiles as usize * (groups + 1));
            tiling.tickets
        };
        for (pixels, columns) in [(1, 8), (184_832, 256), (12_800, 2048), (10_000_000, 64), (100_000, 64_000)] {
            assert!(drawn(pixels, columns) <= TICKETS, "{pixels} x {columns}");
        }
        // More columns than that no grouping helps; the launch refuses them.
        assert!(drawn(1, 1_000_000) > TICKETS);
    }
}
