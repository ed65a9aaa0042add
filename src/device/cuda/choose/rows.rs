//! Passes over a matrix of rows of channels, one row per pixel (`kernels/primitives/rows.cuh`): batch norm, junctions, pooling, and the
//! gradient of a convolution's output. Their kernels load groups of 16 bytes or, where these do not fit, single elements.

use super::{Choice, Refusal, Target};

/// Threads a block.
pub const THREADS: usize = 256;
/// Groups of channels across a block, at most.
const COLUMNS: usize = 16;
/// Rows that a thread has under way at once, and the fewest that it is given.
pub const UNROLL: usize = 2;

/// How blocks lie across a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBlocks {
    /// A group is 16 bytes; or else an element.
    pub wide: bool,
    /// Groups across a block.
    pub columns: usize,
    /// Blocks across the matrix.
    pub slices: usize,
    /// Rows that a block takes at once.
    pub lines: usize,
}

/// How to walk a matrix of so many channels, whose activations are all aligned to 16 bytes or are not.
pub fn walk(target: &Target, channels: usize, aligned: bool) -> Choice<RowBlocks> {
    let multiple = target.lane();
    let refusal = match aligned {
        _ if !channels.is_multiple_of(multiple) => Some(Refusal::Channels { channels, multiple }),
        true => None,
        false => Some(Refusal::Unaligned),
    };
    let groups = if refusal.is_none() { channels / multiple } else { channels };
    Choice {
        kernel: RowBlocks::of_groups(groups, refusal.is_none()),
        reason: if refusal.is_none() { "16 bytes at once" } else { "element by element, which fits everything" },
        refused: refusal.map(|refusal| ("16 bytes at once", refusal)).into_iter().collect(),
    }
}

impl RowBlocks {
    /// Across so many groups of 16 bytes, or of single elements.
    pub fn of_groups(groups: usize, wide: bool) -> Self {
        // Slices of equal width: the last of unequal ones would leave most of its block idle.
        let columns = groups.div_ceil(groups.div_ceil(COLUMNS));
        RowBlocks { wide, columns, slices: groups.div_ceil(columns), lines: THREADS / columns }
    }

    /// The same in blocks of other threads, for a family that sets `ROWS_THREADS`.
    pub fn in_blocks_of(self, threads: usize) -> Self {
        RowBlocks { lines: threads / self.columns, ..self }
    }

    /// Blocks that share the rows of each slice: as many as `resident` a multiprocessor allow, unless a thread would have fewer
    /// than `each` rows.
    pub fn sharing(&self, target: &Target, rows: usize, resident: usize, each: usize) -> usize {
        let wanted = rows.div_ceil(each * self.lines);
        wanted.min(resident * target.multiprocessors / self.slices).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::Precision;

    #[test]
    fn groups_of_16_bytes_where_they_fit() {
        let of = |precision, channels, aligned| {
            walk(&Target { capability: (8, 0), multiprocessors: 108, precision }, channels, aligned)
        };
        let choice = of(Precision::Bf16, 256, true);
        assert_eq!(choice.kernel, RowBlocks { wide: true, columns: 16, slices: 2, lines: 16 });
        assert_eq!(choice.refused, []);
        // 36 bytes per row are no whole groups in bf16, but nine in f32.
        assert_eq!(of(Precision::F32, 36, true).kernel, RowBlocks { wide: true, columns: 9, slices: 1, lines: 28 });
        let narrow = of(Precision::Bf16, 36, true);
        assert_eq!(narrow.kernel, RowBlocks { wide: false, columns: 12, slices: 3, lines: 21 });
        assert_eq!(narrow.refused, [("16 bytes at once", Refusal::Channels { channels: 36, multiple: 8 })]);
        assert_eq!(of(Precision::Bf16, 256, false).refused, [("16 bytes at once", Refusal::Unaligned)]);
    }

    #[test]
    fn blocks_fill_the_gpu_but_leave_rows_for_each_thread() {
        let target = Target { capability: (8, 0), multiprocessors: 108, precision: Precision::Bf16 };
        let blocks = walk(&target, 256, true).kernel;
        assert_eq!(blocks.sharing(&target, 1_000_000, 4, UNROLL), 216);
        assert_eq!(blocks.sharing(&target, 320, 4, UNROLL), 10);
        assert_eq!(blocks.sharing(&target, 1, 4, UNROLL), 1);
    }
}
