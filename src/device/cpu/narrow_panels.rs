//! The matrix product of bfloat16 numbers, summed in `f32`: `c [M, N] = a [M, K]·b [K, N]`, where b is packed once and read many times.
//!
//! b lies in panels of 16 columns, as it does in [`panels`](super::panels), but by pairs of rows: `b[2p, j]` and `b[2p + 1, j]` are
//! neighbours, as the instructions want them that multiply two pairs at once and add both products to an `f32`. K is filled up with
//! zeros to whole rows of a tile register.
//!
//! Sums are taken in an order that only K decides, which is not the same on all processors: AVX-512 adds the second product of a
//! pair and then the first ([`Sums`]), as the loop in plain Rust does, and AMX adds up sixteen pairs before it adds them to c
//! ([`amx`]). Both take denormal numbers for zeros and store none. A product of bfloat16 numbers fits an `f32`, so what they leave out
//! is at most 2⁻¹²⁶ of every term and every sum.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod widened;

use super::scratch::Scratch;
use super::simd::{Products, products};
use half::bf16;
pub(super) use pack::{pack, pack_here, packed_len};
use std::ops::Range;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;

/// Rows of c that every kind of instruction has whole blocks of: 12 with AVX-512, 32 on tile registers.
pub(super) const ROWS: usize = 96;

/// What K is filled up to a multiple of: the bfloat16 numbers in a row of a tile register.
pub(super) const DEPTH: usize = 32;

/// Most of K that a tile is summed over before it goes back to memory: that much of a panel fills half of a first-level cache.
const SLICE: usize = 512;

/// A left operand inside a slice, by pairs along K: elements (i, 2p) and (i, 2p + 1) are neighbours, the first of them at
/// `i·row_stride + p·pair_stride`.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    data: &'a [bf16],
    rows: usize,
    cols: usize,
    row_stride: usize,
    pair_stride: usize,
}

impl<'a> Pairs<'a> {
    /// `rows` × `cols` elements, a row every `row_stride` numbers.
    pub(super) fn by_rows(data: &'a [bf16], rows: usize, cols: usize, row_stride: usize) -> Self {
        let last = rows.saturating_sub(1) * row_stride + cols;
        assert!(rows == 0 || last <= data.len(), "{rows}x{cols} by {row_stride} leaves {} numbers", data.len());
        Pairs { data, rows, cols, row_stride, pair_stride: 2 }
    }

    /// The transpose of `x [rows, cols]`, a row of which comes every `stride` numbers, formed in `scratch` as this processor wants it.
    pub(super) fn transposed(
        x: &[bf16],
        rows: usize,
        cols: usize,
        stride: usize,
        scratch: &'a mut Scratch<bf16>,
    ) -> Self {
        #[cfg(target_arch = "x86_64")]
        if products().are_tiles() {
            let long = rows.next_multiple_of(DEPTH);
            scratch.resize(long * cols);
            // SAFETY: a processor with tile registers has AVX-512.
            unsafe { transpose::transpose(scratch, x, [rows, cols], stride) };
            return Pairs::by_rows(scratch, cols, rows, long);
        }
        scratch.resize(rows.next_multiple_of(2) * cols);
        interleave(scratch, x, cols, stride);
        Pairs::by_columns(scratch, cols, rows)
    }

    /// `[rows, cols]` from the interleaved rows of its transpose, which [`interleave`] makes.
    fn by_columns(data: &'a [bf16], rows: usize, cols: usize) -> Self {
        let cols = cols.next_multiple_of(2);
        assert!(cols * rows <= data.len(), "{rows}x{cols} leaves {} numbers", data.len());
        Pairs { data, rows, cols, row_stride: 2, pair_stride: 2 * rows }
    }

    /// The numbers from the first to the last of so many rows, and of those of the columns that begin with a pair.
    fn from(&self, row: usize, rows: usize, cols: &Range<usize>) -> &'a [bf16] {
        let last = (rows - 1) * self.row_stride + (cols.len() - 1) / 2 * self.pair_stride + (cols.len() - 1) % 2;
        &self.data[row * self.row_stride + cols.start / 2 * self.pair_stride..][..=last]
    }
}

/// `out [⌈rows / 2⌉, width, 2]`: row 2p of `x [rows, width]` and row 2p + 1 element by element, the row after the last one zeros. A row of
/// `x` comes every `stride` numbers.
fn interleave(out: &mut [bf16], x: &[bf16], width: usize, stride: usize) {
    for (out, rows) in out.chunks_exact_mut(2 * width).zip(x.chunks(2 * stride)) {
        let (first, second) = (&rows[..width], rows.get(stride..).unwrap_or_default());
        if second.is_empty() {
            out.as_chunks_mut().0.iter_mut().zip(first).for_each(|(pair, x)| *pair = [*x, bf16::ZERO]);
        } else {
            out.as_chunks_mut().0.iter_mut().zip(first.iter().zip(second)).for_each(|(pair, (x, y))| *pair = [*x, *y]);
        }
    }
}

/// A packed `b [K, N]`.
#[derive(Clone, Copy)]
pub(super) struct NarrowPanels<'a> {
    panels: &'a [bf16],
    depth: usize,
    width: usize,
}

impl<'a> NarrowPanels<'a> {
    /// What [`pack`] or [`pack_here`] filled.
    pub(super) fn new(panels: &'a [bf16], [depth, width]: [usize; 2]) -> Self {
        assert_eq!(panels.len(), packed_len([depth, width]), "a packed matrix of {depth}x{width}");
        NarrowPanels { panels, depth, width }
    }

    /// `c = a·b`, or `c += a·b` with `accumulate`, on the calling thread, where `c [M, N]` is contiguous; of b only `rows` are
    /// multiplied, which are as many as a has columns, begin with a multiple of [`DEPTH`] and end with one or with K. Behind its last column
    /// a may have zeros, up to such a multiple.
    pub(super) fn multiply(&self, c: &mut [f32], accumulate: bool, a: Pairs, rows: Range<usize>) {
        let NarrowPanels { depth, width, .. } = *self;
        let (m, k) = (a.rows, a.cols);
        let is_aligned = rows.start.is_multiple_of(DEPTH) && (rows.end.is_multiple_of(DEPTH) || rows.end == depth);
        assert!(
            [2, DEPTH].map(|of| rows.len().next_multiple_of(of)).contains(&k.next_multiple_of(2))
                && is_aligned
                && rows.end <= depth
                && c.len() == m * width,
            "{m}x{k} times rows {rows:?} of {depth}x{width} into {} floats",
            c.len()
        );
        if rows.is_empty() && !accumulate {
            c.fill(0.0);
        }
        let product = Product { a, b: *self, first: rows.start };
        match products() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `products` saw that the processor has tiles, and was given leave to use them.
            Products::Amx => unsafe { amx::multiply(&product, c, accumulate) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `products` saw that the processor has these instructions.
            Products::Avx512Bf16 => unsafe { avx512::multiply(&product, c, accumulate) },
            Products::Widened => widened::multiply(&product, c, accumulate),
        }
    }

    /// Whole pairs of rows, filled up.
    #[inline(always)]
    fn panel(&self, panel: usize) -> &'a [bf16] {
        let len = self.depth.next_multiple_of(DEPTH) * COLUMNS;
        &self.panels[panel * len..][..len]
    }
}

/// Sums in a register, and what is added to them.
///
/// The functions are unsafe to call for what they have in common: the processor must have the instruction set, and the caller must have been
/// compiled for it (`target_feature`), or they become calls.
trait Sums: Copy {
    /// How many sums.
    const LANES: usize;

    /// Pairs of b, a pair for each sum.
    type Factors: Copy;

    /// No sum yet.
    unsafe fn zero() -> Self;

    /// The sums from `from` on, all of which must be readable.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes to `to` and behind it; all of that must be writable.
    unsafe fn store(self, to: *mut f32);

    /// The pairs from `from` on, all of which must be readable.
    unsafe fn factors(from: *const bf16) -> Self::Factors;

    /// Adds `a₁·b₁` and then `a₀·b₀` to each sum.
    unsafe fn plus_products(self, a: [bf16; 2], b: Self::Factors) -> Self;
}

/// A product whose extents have been checked.
struct Product<'a> {
    a: Pairs<'a>,
    b: NarrowPanels<'a>,
    /// The row of b that belongs to a's first column.
    first: usize,
}

impl Product<'_> {
    /// All blocks, of `ROWS` rows and `PANELS` panels but for what is left over, one slice of K after another. A panel is `VECTORS`
    /// registers wide.
    ///
    /// # Safety
    ///
    /// That of [`Sums`].
    #[inline(always)]
    unsafe fn all<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        accumulate: bool,
    ) {
        const { assert!(VECTORS * S::LANES == COLUMNS) };
        let panels = self.b.width.div_ceil(COLUMNS);
        for from in (0..self.a.cols).step_by(SLICE) {
            let slice = from..(from + SLICE).min(self.a.cols);
            let keep = accumulate || from > 0;
            let mut panel = 0;
            // SAFETY: as the caller's.
            unsafe {
                while panel + PANELS <= panels {
                    self.down::<S, VECTORS, ROWS, PANELS>(c, panel, slice.clone(), keep);
                    panel += PANELS;
                }
                while panel < panels {
                    self.down::<S, VECTORS, ROWS, 1>(c, panel, slice.clone(), keep);
                    panel += 1;
                }
            }
        }
    }

    /// The blocks below each other, from the top of `panel` and the next ones.
    #[inline(always)]
    unsafe fn down<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        panel: usize,
        slice: Range<usize>,
        keep: bool,
    ) {
        let mut row = 0;
        // SAFETY: as the caller's.
        unsafe {
            while row + ROWS <= self.a.rows {
                self.block::<S, VECTORS, ROWS, PANELS>(c, row, panel, slice.clone(), keep);
                row += ROWS;
            }
            while row + 4 <= self.a.rows {
                self.block::<S, VECTORS, 4, PANELS>(c, row, panel, slice.clone(), keep);
                row += 4;
            }
            while row < self.a.rows {
                self.block::<S, VECTORS, 1, PANELS>(c, row, panel, slice.clone(), keep);
                row += 1;
            }
        }
    }

    /// One block of c, from `row` and `panel` on, summed over a slice of a's columns; added to what is there if `keep` is set.
    #[inline(always)]
    unsafe fn block<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        c: &mut [f32],
        row: usize,
        panel: usize,
        slice: Range<usize>,
        keep: bool,
    ) {
        let width = self.b.width;
        let column = panel * COLUMNS;
        let a = self.a.from(row, ROWS, &slice);
        let b = std::array::from_fn(|of_block| {
            let pairs = slice.len().next_multiple_of(2);
            self.b.panel(panel + of_block)[(self.first + slice.start) * COLUMNS..][..pairs * COLUMNS].as_ptr()
        });
        let strides = [self.a.row_stride, self.a.pair_stride];
        if column + PANELS * COLUMNS <= width {
            let c = &mut c[row * width + column..][..(ROWS - 1) * width + PANELS * COLUMNS];
            // SAFETY: `a`, `b` and `c` were just cut to what the block reads and writes.
            unsafe {
                sum::<S, VECTORS, ROWS, PANELS>(c.as_mut_ptr(), width, a.as_ptr(), strides, b, slice.len(), keep)
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
        unsafe { sum::<S, VECTORS, ROWS, PANELS>(to, PANELS * COLUMNS, a.as_ptr(), strides, b, slice.len(), keep) };
        for (i, whole) in whole.iter().enumerate() {
            c[row_of(i)].copy_from_slice(&whole.as_flattened()[..columns]);
        }
    }
}

/// `c [ROWS, PANELS·16] (+)= a·b`, where a row of `c` comes every `width` floats, and a row and a pair of `a` every `strides`.
///
/// # Safety
///
/// That of [`Sums`]; and `depth` columns of `a`, as many rows of each panel, rounded up to pairs, and all of `c` are there.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "sums, panels and places in memory are counted by the same three indices"
)]
unsafe fn sum<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
    c: *mut f32,
    width: usize,
    a: *const bf16,
    [a_row, a_pair]: [usize; 2],
    b: [*const bf16; PANELS],
    depth: usize,
    keep: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        let place = |i: usize, j: usize, v: usize| c.add(i * width + j * COLUMNS + v * S::LANES);
        let mut sums = [[[S::zero(); VECTORS]; PANELS]; ROWS];
        if keep {
            for i in 0..ROWS {
                for j in 0..PANELS {
                    for v in 0..VECTORS {
                        sums[i][j][v] = S::load(place(i, j, v));
                    }
                }
            }
        }
        for pair in 0..depth / 2 {
            let line = factors::<S, VECTORS, PANELS>(b, pair);
            for i in 0..ROWS {
                let x = a.add(i * a_row + pair * a_pair).cast::<[bf16; 2]>().read();
                for j in 0..PANELS {
                    for v in 0..VECTORS {
                        sums[i][j][v] = sums[i][j][v].plus_products(x, line[j][v]);
                    }
                }
            }
        }
        // The last of an odd number of columns has zeros below it in b.
        if depth % 2 == 1 {
            let line = factors::<S, VECTORS, PANELS>(b, depth / 2);
            for i in 0..ROWS {
                let x = [a.add(i * a_row + depth / 2 * a_pair).read(), bf16::ZERO];
                for j in 0..PANELS {
                    for v in 0..VECTORS {
                        sums[i][j][v] = sums[i][j][v].plus_products(x, line[j][v]);
                    }
                }
            }
        }
        for i in 0..ROWS {
            for j in 0..PANELS {
                for v in 0..VECTORS {
                    sums[i][j][v].store(place(i, j, v));
                }
            }
        }
    }
}

/// A pair of rows of the panels.
///
/// # Safety
///
/// That of [`Sums`]; and each panel has that pair.
#[inline(always)]
unsafe fn factors<S: Sums, const VECTORS: usize, const PANELS: usize>(
    b: [*const bf16; PANELS],
    pair: usize,
) -> [[S::Factors; VECTORS]; PANELS] {
    // SAFETY: the caller's.
    b.map(|b| std::array::from_fn(|v| unsafe { S::factors(b.add(2 * (pair * COLUMNS + v * S::LANES))) }))
}
