//! The operands of a convolution's products, as wide as activations are stored: `f32`, or bfloat16 with sums in `f32`.

use super::matmul::Matrix;
use super::memory::Cpu;
use super::narrow_panels::{self, NarrowPanels, Pairs, Then};
use super::panels::{self, Panels};
use super::pooled::Pooled;
use super::scratch::Scratch;
use super::simd::products;
use super::view::Number;
use crate::device::DeviceError;
use half::bf16;
use std::ops::Range;

/// What blocks of a left operand's columns are multiples of, but for the last one.
pub(super) const BLOCK: usize = narrow_panels::DEPTH;

/// A number as products take it: the weights are rounded to it when they are packed, what is owed to an activation or a gradient is
/// paid in `f32` and the result rounded to it. Sums are `f32`.
pub(super) trait Factor: Number {
    /// Rows of c that the products have whole blocks of, whatever the processor.
    const ROWS: usize;

    /// A left operand. Its rows may overlap.
    type Left<'a>: Copy;

    /// Whether Winograd's form of a convolution pays, which multiplies in `f32`.
    fn multiplies_less() -> bool;

    /// Room for `len` numbers, with unspecified content.
    fn room(device: &Cpu, len: usize) -> Result<Pooled<Self>, DeviceError>;

    /// `rows` × `cols` numbers, a row every `stride`.
    fn left(data: &[Self], rows: usize, cols: usize, stride: usize) -> Self::Left<'_>;

    /// How many columns a block of a left operand has for its product to be fastest, if those behind the first `cols` hold zeros.
    fn filled(cols: usize) -> usize;

    /// The transpose of that; it may be formed in `scratch`.
    fn transposed<'s>(
        data: &'s [Self],
        rows: usize,
        cols: usize,
        stride: usize,
        scratch: &'s mut Scratch<Self>,
    ) -> Self::Left<'s>;

    /// Numbers of a packed right operand `[K, N]`. Each panel of 16 columns has as many.
    fn packed_len(extents: [usize; 2]) -> usize;

    /// Where an element of a packed panel lies in it.
    fn place(row: usize, column: usize) -> usize;

    /// Packs weights, on all threads.
    fn pack(out: &mut [Self], b: Matrix);

    /// Packs `b [K, N]`, a row of which comes every `stride` numbers, on the calling thread.
    fn pack_here(out: &mut [Self], b: &[Self], extents: [usize; 2], stride: usize);

    /// `c = a·b`, or `c += a·b` with `accumulate`, on the calling thread, of these rows of a packed `b [K, N]`, which begin with a
    /// multiple of [`BLOCK`] and end with one or with K. Of a there are as many columns, or as many as [`filled`](Self::filled) says. If there
    /// is a `then`, it gets what c would, some rows at a time, and what is in c afterwards is unspecified.
    fn multiply(
        c: &mut [f32],
        accumulate: bool,
        a: Self::Left<'_>,
        packed: &[Self],
        extents: [usize; 2],
        rows: Range<usize>,
        then: Option<&Then<'_>>,
    );
}

impl Factor for f32 {
    const ROWS: usize = panels::ROWS;

    type Left<'a> = Matrix<'a>;

    fn multiplies_less() -> bool {
        true
    }

    fn room(device: &Cpu, len: usize) -> Result<Pooled<f32>, DeviceError> {
        device.room(len)
    }

    fn left(data: &[f32], rows: usize, cols: usize, stride: usize) -> Matrix<'_> {
        Matrix::new(data, rows, cols, stride)
    }

    fn filled(cols: usize) -> usize {
        cols
    }

    fn transposed<'s>(data: &'s [f32], rows: usize, cols: usize, stride: usize, _: &'s mut Scratch<f32>) -> Matrix<'s> {
        Matrix::new(data, rows, cols, stride).transposed()
    }

    fn packed_len(extents: [usize; 2]) -> usize {
        panels::packed_len(extents)
    }

    #[inline(always)]
    fn place(row: usize, column: usize) -> usize {
        row * panels::COLUMNS + column
    }

    fn pack(out: &mut [f32], b: Matrix) {
        panels::pack(out, b);
    }

    fn pack_here(out: &mut [f32], b: &[f32], [depth, width]: [usize; 2], stride: usize) {
        panels::pack_here(out, Matrix::new(b, depth, width, stride));
    }

    fn multiply(
        c: &mut [f32],
        accumulate: bool,
        a: Matrix,
        packed: &[f32],
        extents: [usize; 2],
        rows: Range<usize>,
        then: Option<&Then<'_>>,
    ) {
        Panels::new(packed, extents).multiply(c, accumulate, a, rows);
        // All rows are multiplied by a panel before the next one, so they are all whole at the same time.
        if let Some(then) = then {
            then(0..a.extents()[0], c);
        }
    }
}

impl Factor for bf16 {
    const ROWS: usize = narrow_panels::ROWS;

    type Left<'a> = Pairs<'a>;

    fn multiplies_less() -> bool {
        // Winograd multiplies 2.25 to 4 times less; `vdpbf16ps` is twice as fast as `f32`, tile registers are sixteen times.
        !products().are_tiles()
    }

    fn room(device: &Cpu, len: usize) -> Result<Pooled<bf16>, DeviceError> {
        device.narrow_room(len)
    }

    fn left(data: &[bf16], rows: usize, cols: usize, stride: usize) -> Pairs<'_> {
        Pairs::by_rows(data, rows, cols, stride)
    }

    fn filled(cols: usize) -> usize {
        cols.next_multiple_of(narrow_panels::DEPTH)
    }

    fn transposed<'s>(
        data: &'s [bf16],
        rows: usize,
        cols: usize,
        stride: usize,
        scratch: &'s mut Scratch<bf16>,
    ) -> Pairs<'s> {
        Pairs::transposed(data, rows, cols, stride, scratch)
    }

    fn packed_len(extents: [usize; 2]) -> usize {
        narrow_panels::packed_len(extents)
    }

    #[inline(always)]
    fn place(row: usize, column: usize) -> usize {
        row / 2 * 2 * narrow_panels::COLUMNS + 2 * column + row % 2
    }

    fn pack(out: &mut [bf16], b: Matrix) {
        narrow_panels::pack(out, b);
    }

    fn pack_here(out: &mut [bf16], b: &[bf16], extents: [usize; 2], stride: usize) {
        narrow_panels::pack_here(out, b, extents, stride);
    }

    fn multiply(
        c: &mut [f32],
        accumulate: bool,
        a: Pairs,
        packed: &[bf16],
        extents: [usize; 2],
        rows: Range<usize>,
        then: Option<&Then<'_>>,
    ) {
        NarrowPanels::new(packed, extents).multiply(c, accumulate, a, rows, then);
    }
}
