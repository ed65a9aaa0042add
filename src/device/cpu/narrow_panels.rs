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
mod target;
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
pub(super) use target::Then;
use target::{Block, Target};

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;

/// Rows of c that every kind of instruction has whole blocks of: 12 with AVX-512, 32 on tile registers.
pub(super) const ROWS: usize = 96;

/// What K is filled up to a multiple of: the bfloat16 numbers in a row of a tile register.
pub(super) const DEPTH: usize = 32;

/// Most of K that a tile is summed over before it goes back to memory: that much of a panel fills half of a first-level cache.
const SLICE: usize = 512;

/// A left operand inside a slice, by pairs along K: elements (i, 2p) and (i, 2p + 1) are neighbours, the first of them at
/// `i·row_stride + p·pair_stride`, and with several runs of columns p counts from the beginning of a run, of which one comes every
/// `run_stride`.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    data: &'a [bf16],
    rows: usize,
    cols: usize,
    row_stride: usize,
    pair_stride: usize,
    /// Columns of a run: all, if there is one.
    run: usize,
    run_stride: usize,
}

impl<'a> Pairs<'a> {
    /// `rows` × `cols` elements, a row every `row_stride` numbers.
    pub(super) fn by_rows(data: &'a [bf16], rows: usize, cols: usize, row_stride: usize) -> Self {
        let last = rows.saturating_sub(1) * row_stride + cols;
        assert!(rows == 0 || last <= data.len(), "{rows}x{cols} by {row_stride} leaves {} numbers", data.len());
        Pairs { data, rows, cols, row_stride, pair_stride: 2, run: cols.max(1), run_stride: 0 }
    }

    /// `rows` rows of so many runs of so many columns, whole rows of a tile register; a row every `row_stride` numbers, a run every
    /// `run_stride`. Rows and runs may overlap.
    pub(super) fn by_runs(
        data: &'a [bf16],
        rows: usize,
        row_stride: usize,
        [runs, run]: [usize; 2],
        run_stride: usize,
    ) -> Self {
        assert!(runs > 0 && run > 0 && run.is_multiple_of(DEPTH), "{runs} runs of {run} columns");
        let last = rows.saturating_sub(1) * row_stride + (runs - 1) * run_stride + run;
        assert!(last <= data.len(), "{rows}x{runs}x{run} leaves {} numbers", data.len());
        Pairs { data, rows, cols: runs * run, row_stride, pair_stride: 2, run, run_stride }
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
        Pairs { data, rows, cols, row_stride: 2, pair_stride: 2 * rows, run: cols.max(1), run_stride: 0 }
    }

    /// The numbers from the first to the last of so many rows, and of those of the columns, which begin with a pair and lie in one run.
    fn from(&self, row: usize, rows: usize, cols: &Range<usize>) -> &'a [bf16] {
        let last = (rows - 1) * self.row_stride + (cols.len() - 1) / 2 * self.pair_stride + (cols.len() - 1) % 2;
        &self.data[self.place(row, cols.start)..][..=last]
    }

    /// Where an element of a column that begins a pair lies.
    fn place(&self, row: usize, col: usize) -> usize {
        row * self.row_stride + col / self.run * self.run_stride + col % self.run / 2 * self.pair_stride
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
    /// a may have zeros, up to such a multiple. If there is a `then`, it gets what c would, some rows at a time, and what is in c afterwards is
    /// unspecified.
    pub(super) fn multiply(
        &self,
        c: &mut [f32],
        accumulate: bool,
        a: Pairs,
        rows: Range<usize>,
        then: Option<&Then<'_>>,
    ) {
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
        let product = Product { a, b: *self, first: rows.start, accumulate, then };
        let target = &mut Target::new(c, width);
        match products() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `products` saw that the processor has tiles, and was given leave to use them.
            Products::Amx => unsafe { amx::multiply(&product, target) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `products` saw that the processor has these instructions.
            Products::Avx512Bf16 => unsafe { avx512::multiply(&product, target) },
            Products::Widened => widened::multiply(&product, target),
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
    accumulate: bool,
    then: Option<&'a Then<'a>>,
}

/// Rows of a over a slice of its columns, and whether their sums are added to what is in c.
#[derive(Clone)]
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
    keep: bool,
}

impl Product<'_> {
    /// What is multiplied by all of b's columns before the next: all rows, so that each panel is fetched once a slice; or, where rows are
    /// handed on, `most` of them, slice by slice. Several runs are a slice together if they have no more than `most_of_runs` columns.
    fn parts(&self, most: usize, most_of_runs: usize) -> impl Iterator<Item = Part> + use<> {
        let (rows, depth, run, accumulate) = (self.a.rows, self.a.cols, self.a.run, self.accumulate);
        let most = if self.then.is_some() { most } else { rows.max(1) };
        let runs = if run <= SLICE { (most_of_runs / run).max(1) } else { 1 };
        let slice = if run <= SLICE { runs * run } else { SLICE };
        let slices = move |first: usize| {
            let end = (first + runs * run).min(depth);
            (first..end).step_by(slice).map(move |from| from..(from + slice).min(end))
        };
        (0..rows).step_by(most).flat_map(move |row| {
            (0..depth).step_by(runs * run).flat_map(slices).map(move |columns| Part {
                rows: row..(row + most).min(rows),
                keep: accumulate || columns.start > 0,
                columns,
            })
        })
    }

    /// Has c begin with a part's rows if they are handed on.
    fn begin(&self, target: &mut Target, part: &Part) {
        if self.then.is_some() && !self.accumulate {
            target.begin_with(part.rows.start);
        }
    }

    /// Hands a part's rows on if they are whole.
    fn end(&self, target: &Target, part: Part) {
        if let Some(then) = self.then.filter(|_| part.columns.end == self.a.cols) {
            then(part.rows.clone(), target.rows(part.rows));
        }
    }

    /// All blocks, of `ROWS` rows and `PANELS` panels but for what is left over. A panel is `VECTORS` registers wide.
    ///
    /// # Safety
    ///
    /// That of [`Sums`].
    #[inline(always)]
    unsafe fn all<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(&self, target: &mut Target) {
        const { assert!(VECTORS * S::LANES == COLUMNS) };
        let panels = self.b.width.div_ceil(COLUMNS);
        for part in self.parts(ROWS, 0) {
            self.begin(target, &part);
            let mut panel = 0;
            // SAFETY: as the caller's.
            unsafe {
                while panel + PANELS <= panels {
                    self.down::<S, VECTORS, ROWS, PANELS>(target, panel, &part);
                    panel += PANELS;
                }
                while panel < panels {
                    self.down::<S, VECTORS, ROWS, 1>(target, panel, &part);
                    panel += 1;
                }
            }
            self.end(target, part);
        }
    }

    /// The blocks below each other, from the top of `panel` and the next ones.
    #[inline(always)]
    unsafe fn down<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        target: &mut Target,
        panel: usize,
        part: &Part,
    ) {
        let (mut row, end) = (part.rows.start, part.rows.end);
        // SAFETY: as the caller's.
        unsafe {
            while row + ROWS <= end {
                self.block::<S, VECTORS, ROWS, PANELS>(target, row, panel, part);
                row += ROWS;
            }
            while row + 4 <= end {
                self.block::<S, VECTORS, 4, PANELS>(target, row, panel, part);
                row += 4;
            }
            while row < end {
                self.block::<S, VECTORS, 1, PANELS>(target, row, panel, part);
                row += 1;
            }
        }
    }

    /// One block of c, from `row` and `panel` on.
    #[inline(always)]
    unsafe fn block<S: Sums, const VECTORS: usize, const ROWS: usize, const PANELS: usize>(
        &self,
        target: &mut Target,
        row: usize,
        panel: usize,
        part: &Part,
    ) {
        let depth = part.columns.len();
        let a = self.a.from(row, ROWS, &part.columns);
        let b = std::array::from_fn(|of_block| {
            let pairs = depth.next_multiple_of(2);
            self.b.panel(panel + of_block)[(self.first + part.columns.start) * COLUMNS..][..pairs * COLUMNS].as_ptr()
        });
        let strides = [self.a.row_stride, self.a.pair_stride];
        let block = part.block(row..row + ROWS, panel, PANELS * COLUMNS);
        let (c, stride) = target.open(&block);
        assert!(c.len() >= (ROWS - 1) * stride + PANELS * COLUMNS);
        // SAFETY: `a`, `b` and `c` were just found long enough for what the block reads and writes.
        unsafe { sum::<S, VECTORS, ROWS, PANELS>(c.as_mut_ptr(), stride, a.as_ptr(), strides, b, depth, part.keep) };
        target.close(&block);
    }
}

impl Part {
    /// The block of its sums with these rows and with `wide` columns from `panel` on.
    fn block(&self, rows: Range<usize>, panel: usize, wide: usize) -> Block {
        Block { rows, column: panel * COLUMNS, wide, keep: self.keep }
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
