//! Where the sums of a product go: to a matrix, or some rows at a time to whoever needs them only once, while they are still in the first-level
//! cache.

use std::ops::Range;

/// Gets rows of a product as soon as they are whole: which they are, and their sums `[rows, N]`.
pub(in crate::device::cpu) type Then<'a> = dyn Fn(Range<usize>, &[f32]) + 'a;

/// Sums of the largest block: two tile registers each way.
const MOST: usize = 32 * 32;

/// The sums `c [M, N]` of a product.
pub(super) struct Target<'a> {
    c: &'a mut [f32],
    width: usize,
    /// The row that c begins with.
    first: usize,
    /// A block that is wider than what is left of c.
    beside: Beside,
}

/// Begins with a cache line, so that no vector lies on two.
#[repr(align(64))]
struct Beside([f32; MOST]);

/// A block of sums over a slice of K.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) rows: Range<usize>,
    /// The first column, and how many are computed: more than there are at the right edge.
    pub(super) column: usize,
    pub(super) wide: usize,
    /// Whether there are sums already, to which these are added.
    pub(super) keep: bool,
}

impl<'a> Target<'a> {
    pub(super) fn new(c: &'a mut [f32], width: usize) -> Self {
        Target { c, width, first: 0, beside: Beside([0.0; MOST]) }
    }

    /// Begins with this row from now on. What is there belongs to no row any more.
    pub(super) fn begin_with(&mut self, row: usize) {
        self.first = row;
    }

    /// Room for a block, with the sums that are there already if it is to keep them; a row comes every so many floats.
    #[inline(always)]
    pub(super) fn open(&mut self, block: &Block) -> (&mut [f32], usize) {
        let columns = self.columns(block);
        if columns == block.wide {
            let (start, rows) = (self.start(block), block.rows.len());
            return (&mut self.c[start..][..(rows - 1) * self.width + columns], self.width);
        }
        if block.keep {
            let rows = self.c[self.start(block)..].chunks(self.width).take(block.rows.len());
            for (beside, row) in self.beside.0.chunks_exact_mut(block.wide).zip(rows) {
                beside[..columns].copy_from_slice(&row[..columns]);
            }
        }
        (&mut self.beside.0[..block.rows.len() * block.wide], block.wide)
    }

    /// Takes a block that was computed in the room for it.
    #[inline(always)]
    pub(super) fn close(&mut self, block: &Block) {
        let columns = self.columns(block);
        if columns == block.wide {
            return;
        }
        let start = self.start(block);
        let rows = self.c[start..].chunks_mut(self.width).take(block.rows.len());
        for (beside, row) in self.beside.0.chunks_exact(block.wide).zip(rows) {
            row[..columns].copy_from_slice(&beside[..columns]);
        }
    }

    /// The sums of these rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> &[f32] {
        &self.c[(rows.start - self.first) * self.width..(rows.end - self.first) * self.width]
    }

    /// How many columns of a block there are.
    fn columns(&self, block: &Block) -> usize {
        block.wide.min(self.width - block.column)
    }

    /// Where a block begins in c.
    fn start(&self, block: &Block) -> usize {
        (block.rows.start - self.first) * self.width + block.column
    }
}
