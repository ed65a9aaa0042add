//! The matrix product whose right operand is packed once and read many times, as weights are: `c [M, N] = a [M, K]·b [K, N]`.
//!
//! b lies in *panels* of 16 columns, row behind row, so that a block of c reads it in one stream. A block, 6×16 or with AVX-512 12×32, stays
//! in registers while it is summed over a slice of K, and a slice of a panel stays in the first-level cache while all of a goes by. Sums are
//! taken in the order of K, slice by slice, whatever the block, so a product has the same bits wherever it is cut into rows or columns.

use super::matmul::Matrix;
#[cfg(target_arch = "x86_64")]
use super::simd::{Level, level};
use super::vector::Vector;
use rayon::prelude::*;
use std::ops::Range;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;

/// Rows of c that every instruction set has whole blocks of: operands are cut into multiples of it.
pub(super) const ROWS: usize = 12;

/// Most of K that all blocks are summed over before the next part of it. Sums of slices are added: a longer chain would be less exact.
const SLICE: usize = 512;

/// A packed `b [K, N]`.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    panels: &'a [f32],
    depth: usize,
    width: usize,
    /// How far it is from one panel to the next.
    stride: usize,
}

/// Floats of a packed `b [K, N]`: the last panel is filled up with zeros.
pub(super) fn packed_len([depth, width]: [usize; 2]) -> usize {
    depth * width.next_multiple_of(COLUMNS)
}

/// Packs `b` into `out`, on all threads.
pub(super) fn pack(out: &mut [f32], b: Matrix) {
    let panels = out.par_chunks_exact_mut(b.extents()[0] * COLUMNS).enumerate();
    panels.for_each(|(panel, out)| b.columns(panel * COLUMNS..(panel + 1) * COLUMNS, out));
}

/// Packs `b` into `out`, on the calling thread.
pub(super) fn pack_here(out: &mut [f32], b: Matrix) {
    let panels = out.chunks_exact_mut(b.extents()[0] * COLUMNS).enumerate();
    panels.for_each(|(panel, out)| b.columns(panel * COLUMNS..(panel + 1) * COLUMNS, out));
}

impl<'a> Panels<'a> {
    /// What [`pack`] filled.
    pub(super) fn new(panels: &'a [f32], [depth, width]: [usize; 2]) -> Self {
        Panels::spaced(panels, [depth, width], depth * COLUMNS)
    }

    /// The same with a panel every `stride` floats.
    pub(super) fn spaced(panels: &'a [f32], [depth, width]: [usize; 2], stride: usize) -> Self {
        Panels { panels, depth, width, stride }
    }

    /// `c = a·b`, or `c += a·b` with `accumulate`, on the calling thread, where `c [a.rows, N]` is contiguous; of b only `rows` are
    /// multiplied, which are as many as a has columns.
    pub(super) fn multiply(&self, c: &mut [f32], accumulate: bool, a: Matrix, rows: Range<usize>) {
        let [m, k] = a.extents();
        let Panels { depth, width, .. } = *self;
        assert!(
            k == rows.len() && rows.end <= depth && c.len() == m * width,
            "{m}x{k} times rows {rows:?} of {depth}x{width} into {} floats",
            c.len()
        );
        let product = Product { a, b: *self, first: rows.start };
        #[cfg(target_arch = "x86_64")]
        match level() {
            // SAFETY: `level` saw that the processor has AVX-512.
            Level::Avx512 => return unsafe { product.avx512(c, accumulate) },
            // SAFETY: `level` saw AVX2, and the other instruction is asked for here.
            Level::Avx2 if is_x86_feature_detected!("fma") => return unsafe { product.avx2(c, accumulate) },
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: all processors of this kind have NEON.
        unsafe {
            product.all::<std::arch::aarch64::float32x4_t, 4, 6, 1>(c, accumulate)
        }
        #[cfg(not(target_arch = "aarch64"))]
        // SAFETY: arrays ask for no instruction set.
        unsafe {
            product.all::<[f32; 4], 4, 2, 1>(c, accumulate)
        }
    }
}

/// A product whose extents have been checked.
struct Product<'a> {
    a: Matrix<'a>,
    b: Panels<'a>,
    /// The row of b that belongs to a's first column.
    first: usize,
}

impl Product<'_> {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(&self, c: &mut [f32], accumulate: bool) {
        // SAFETY: compiled for these instructions.
        unsafe { self.all::<std::arch::x86_64::__m256, 2, 6, 1>(c, accumulate) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
    fn avx512(&self, c: &mut [f32], accumulate: bool) {
        // SAFETY: compiled for these instructions.
        unsafe { self.all::<std::arch::x86_64::__m512, 1, 12, 2>(c, accumulate) }
    }

    /// All blocks, of `ROWS` rows and `PANELS` panels but for what is left over, one slice of K after another. A panel is `VECTORS`
    /// registers wide.
    ///
    /// # Safety
    ///
    /// That of [`Vector`].
    #[inline(always)]
    unsafe fn all<V: Vector, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        accumulate: bool,
    ) {
        const { assert!(VECTORS * V::LANES == COLUMNS) };
        let [_, depth] = self.a.extents();
        let panels = self.b.width.div_ceil(COLUMNS);
        for from in (0..depth).step_by(SLICE) {
            let slice = from..(from + SLICE).min(depth);
            let keep = accumulate || from > 0;
            let mut panel = 0;
            // SAFETY: as the caller's.
            unsafe {
                while panel + PANELS <= panels {
                    self.down::<V, VECTORS, ROWS, PANELS>(c, panel, slice.clone(), keep);
                    panel += PANELS;
                }
                while panel < panels {
                    self.down::<V, VECTORS, ROWS, 1>(c, panel, slice.clone(), keep);
                    panel += 1;
                }
            }
        }
    }

    /// The blocks below each other, from the top of `panel` and the next ones.
    #[inline(always)]
    unsafe fn down<V: Vector, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        panel: usize,
        slice: Range<usize>,
        keep: bool,
    ) {
        let [m, _] = self.a.extents();
        let mut row = 0;
        // SAFETY: as the caller's.
        unsafe {
            while row + ROWS <= m {
                self.block::<V, VECTORS, ROWS, PANELS>(c, row, panel, slice.clone(), keep);
                row += ROWS;
            }
            while row + 4 <= m {
                self.block::<V, VECTORS, 4, PANELS>(c, row, panel, slice.clone(), keep);
                row += 4;
            }
            while row < m {
                self.block::<V, VECTORS, 1, PANELS>(c, row, panel, slice.clone(), keep);
                row += 1;
            }
        }
    }

    /// One block of c, from `row` and `panel` on, summed over a slice of a's columns; added to what is there if `keep` is set.
    #[inline(always)]
    unsafe fn block<V: Vector, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        row: usize,
        panel: usize,
        slice: Range<usize>,
        keep: bool,
    ) {
        let width = self.b.width;
        let column = panel * COLUMNS;
        let a = self.a.from([row, slice.start], [ROWS, slice.len()]);
        let b: [*const f32; PANELS] = std::array::from_fn(|panel_of_block| {
            let start = (panel + panel_of_block) * self.b.stride + (self.first + slice.start) * COLUMNS;
            self.b.panels[start..][..slice.len() * COLUMNS].as_ptr()
        });
        let strides = self.a.strides();
        if column + PANELS * COLUMNS <= width {
            let c = &mut c[row * width + column..][..(ROWS - 1) * width + PANELS * COLUMNS];
            // SAFETY: `a`, `b` and `c` were just cut to what the block reads and writes.
            unsafe {
                sum::<V, VECTORS, ROWS, PANELS>(c.as_mut_ptr(), width, a.as_ptr(), strides, b, slice.len(), keep)
            };
            return;
        }
        // The last panel has columns that c has not: the block is computed beside it.
        let mut whole = [[[0.0f32; COLUMNS]; PANELS]; ROWS];
        let columns = width - column;
        let row_of = |i: usize| (row + i) * width + column..(row + i) * width + width;
        if keep {
            for (i, whole) in whole.iter_mut().enumerate() {
                whole.as_flattened_mut()[..columns].copy_from_slice(&c[row_of(i)]);
            }
        }
        let to = whole.as_mut_ptr().cast();
        // SAFETY: as above; `whole` is a block.
        unsafe { sum::<V, VECTORS, ROWS, PANELS>(to, PANELS * COLUMNS, a.as_ptr(), strides, b, slice.len(), keep) };
        for (i, whole) in whole.iter().enumerate() {
            c[row_of(i)].copy_from_slice(&whole.as_flattened()[..columns]);
        }
    }
}

/// `c [ROWS, PANELS·16] = a·b`, or `+=` with `keep`, where a row of `c` comes every `width` floats and an element of `a` every `strides`.
///
/// # Safety
///
/// That of [`Vector`]; and `depth` columns of `a`, `depth` rows of each panel and all of `c` are there.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "sums, panels and places in memory are counted by the same three indices"
)]
unsafe fn sum<V: Vector, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
    c: *mut f32,
    width: usize,
    a: *const f32,
    [a_row, a_column]: [usize; 2],
    b: [*const f32; PANELS],
    depth: usize,
    keep: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        let place = |i: usize, j: usize, v: usize| c.add(i * width + j * COLUMNS + v * V::LANES);
        let mut sums = [[[V::splat(0.0); VECTORS]; PANELS]; ROWS];
        for k in 0..depth {
            let mut row = [[V::splat(0.0); VECTORS]; PANELS];
            for j in 0..PANELS {
                for v in 0..VECTORS {
                    row[j][v] = V::load(b[j].add(k * COLUMNS + v * V::LANES));
                }
            }
            for i in 0..ROWS {
                let x = V::splat(*a.add(i * a_row + k * a_column));
                for j in 0..PANELS {
                    for v in 0..VECTORS {
                        sums[i][j][v] = sums[i][j][v].plus_product(x, row[j][v]);
                    }
                }
            }
        }
        for i in 0..ROWS {
            for j in 0..PANELS {
                for v in 0..VECTORS {
                    let (to, sum) = (place(i, j, v), sums[i][j][v]);
                    (if keep { V::load(to).plus(sum) } else { sum }).store(to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::tests::{numbers, on_each_level};

    /// Rows and columns that are and are not whole tiles, several slices of K, rows of b from the middle, a wide a.
    #[test]
    fn a_product_is_its_definition() {
        for (m, n, k, rows) in [(1, 1, 1, 0..1), (6, 16, 5, 0..5), (13, 40, 300, 7..300), (29, 33, 600, 0..599)] {
            let count = rows.len();
            let stride = count + 3;
            let (a, b, before) = (numbers(1, m * stride), numbers(2, k * n), numbers(3, m * n));
            let mut panels = vec![f32::NAN; packed_len([k, n])];
            pack(&mut panels, Matrix::new(&b, k, n, n));
            for accumulate in [false, true] {
                let found = on_each_level(|| {
                    let mut c = before.clone();
                    let a = Matrix::new(&a, m, count, stride);
                    Panels::new(&panels, [k, n]).multiply(&mut c, accumulate, a, rows.clone());
                    c
                });
                for c in found {
                    for (at, c) in c.iter().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let term = |l: usize| f64::from(a[i * stride + l]) * f64::from(b[(rows.start + l) * n + j]);
                        let start = if accumulate { f64::from(before[at]) } else { 0.0 };
                        let sum = start + (0..count).map(term).sum::<f64>();
                        let size = start.abs() + (0..count).map(|l| term(l).abs()).sum::<f64>();
                        assert!((f64::from(*c) - sum).abs() <= 1e-5 * size, "{m}x{n}x{k} {rows:?}: {c} for {sum}");
                    }
                }
            }
        }
    }
}
