//! Dense layers: one kernel for each of the three products, and how its depth is split.

use super::{Choice, Target};
use crate::device::cuda::Precision;
use crate::device::cuda::scratch::TICKETS;

/// Rows and columns of a block's result.
pub const TILE: usize = 64;
/// The depth that a block takes in one step.
const STEP: usize = 32;
/// A block that takes fewer steps than this spends its time on filling and emptying its pipeline.
const FEWEST_STEPS: usize = 4;

/// `out [rows, columns]`, a product summed over `depth`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of the result.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// What is summed over.
    pub depth: usize,
}

/// How a product's depth is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthSplits {
    /// The depth of a split.
    pub span: usize,
    /// Splits.
    pub splits: usize,
}

impl Product {
    /// Blocks of one split.
    pub fn tiles(self) -> usize {
        self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE)
    }
}

/// How to compute a product that may be split: two blocks a multiprocessor, where there is depth enough for them.
pub fn split_product(target: &Target, product: Product) -> Choice<DepthSplits> {
    let tiles = product.tiles();
    let wanted = (2 * target.multiprocessors / tiles).min(product.depth / (FEWEST_STEPS * STEP));
    let wanted = if tiles > TICKETS { 1 } else { wanted.max(1) };
    let span = product.depth.div_ceil(wanted).next_multiple_of(STEP);
    choice(target, DepthSplits { span, splits: product.depth.div_ceil(span) })
}

/// How to compute one whose depth is a batch: in one piece, since another sum goes along with it.
pub fn whole_product(target: &Target, product: Product) -> Choice<DepthSplits> {
    choice(target, DepthSplits { span: product.depth, splits: 1 })
}

fn choice(target: &Target, kernel: DepthSplits) -> Choice<DepthSplits> {
    let reason = match target.precision {
        Precision::F32 => "on CUDA cores, since all of f32 is",
        Precision::Tf32 | Precision::Bf16 => "on tensor cores in TF32: dense layers are f32 in memory",
    };
    Choice { kernel, reason, refused: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits((rows, columns, depth): (usize, usize, usize), multiprocessors: usize) -> DepthSplits {
        let target = Target { capability: (8, 0), multiprocessors, precision: Precision::Bf16 };
        split_product(&target, Product { rows, columns, depth }).kernel
    }

    #[test]
    fn splits_cover_the_depth_and_fill_the_gpu() {
        for (rows, columns, depth) in [(8, 1024, 2048), (128, 1024, 2048), (128, 128, 1024), (128, 7, 128), (1, 1, 1)] {
            let product = Product { rows, columns, depth };
            let DepthSplits { span, splits } = splits((rows, columns, depth), 108);
            assert!(span.is_multiple_of(STEP) && span * splits >= depth && span * (splits - 1) < depth);
            assert!(splits == 1 || product.tiles() * splits <= 2 * 108);
        }
        assert_eq!(splits((8, 1024, 2048), 108), DepthSplits { span: 160, splits: 13 });
        assert_eq!(splits((128, 1024, 2048), 108), DepthSplits { span: 352, splits: 6 });
        assert_eq!(splits((64 * (TICKETS + 1), 1, 4096), 8192), DepthSplits { span: 4096, splits: 1 });
    }
}
