//! How the stem's kernels share out its pixels and filters (`kernels/conv/stem/`).

use crate::device::ConvShape;
use crate::device::cuda::choose::Target;

/// Blocks that share the tiles, each with as many as any other or fewer, for each group of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StemGrid {
    /// Blocks that share the tiles.
    pub blocks: usize,
    /// Groups of 64 filters.
    pub groups: usize,
    /// Bytes of shared memory a block.
    pub shared: usize,
}

/// Blocks of the forward kernel that a multiprocessor holds.
const FORWARD_RESIDENT: usize = 3;

/// Bytes of a patch: 21 rows of 114 numbers, wherever in 16 bytes a row begins.
fn patch(target: &Target) -> usize {
    21 * (114 + 2 * target.lane() - 2).div_euclid(target.lane()) * 16
}

impl StemGrid {
    /// Of the forward pass.
    pub(super) fn forward(shape: &ConvShape, target: &Target) -> Self {
        // A filter: seven rows of 24 slots, in whole steps of 32 bytes; 16 more keep filters in different banks.
        let filter = (7 * 24 * target.element_bytes()).next_multiple_of(32) + 16;
        StemGrid::new(shape, target, FORWARD_RESIDENT, 64 * filter + 2 * patch(target))
    }

    /// Of the weight gradient.
    pub(super) fn backward(shape: &ConvShape, target: &Target) -> Self {
        let bytes = target.element_bytes();
        let gradients = 8 * 16 * (64 + 8) * bytes;
        StemGrid::new(shape, target, 4 / bytes, 2 * (patch(target) + gradients))
    }

    /// With at most `resident` blocks a multiprocessor.
    fn new(shape: &ConvShape, target: &Target, resident: usize, shared: usize) -> Self {
        let (tiles, groups) = (tiles(shape), shape.k.div_ceil(64));
        let most = (resident * target.multiprocessors / groups).max(1);
        StemGrid { blocks: tiles.div_ceil(tiles.div_ceil(most)), groups, shared }
    }
}

/// Tiles of 8×16 output pixels.
fn tiles(shape: &ConvShape) -> usize {
    shape.n * shape.p.div_ceil(8) * shape.q.div_ceil(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::Precision;

    #[test]
    fn blocks_share_all_tiles() {
        for (n, side, k) in [(1, 1, 8), (8, 64, 64), (128, 150, 64), (3, 33, 200)] {
            let shape = ConvShape::new([n, side, side, 3], k, [7, 7], 2, 3).unwrap();
            for multiprocessors in [1, 36, 108, 132] {
                let target = Target { capability: (8, 0), multiprocessors, precision: Precision::Bf16 };
                let StemGrid { blocks, groups, .. } = StemGrid::forward(&shape, &target);
                let share = tiles(&shape).div_ceil(blocks);
                assert!((blocks - 1) * share < tiles(&shape) && blocks * share >= tiles(&shape));
                assert!(blocks * groups <= (FORWARD_RESIDENT * multiprocessors).max(groups));
            }
        }
    }
}
