//! The matrix product, checked: a safe face on the crate `gemm`.

use gemm::Parallelism;
use std::ops::Range;

/// A matrix inside a slice: element (i, j) is at `i·row_stride + j·col_stride`. Rows may overlap.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` × `cols` elements, a row every `row_stride` floats.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let matrix = Matrix { data, rows, cols, row_stride, col_stride: 1 };
        assert!(matrix.extent() <= data.len(), "{rows}x{cols} by {row_stride} leaves {} floats", data.len());
        matrix
    }

    /// Rows and columns.
    pub(super) fn extents(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// How far it is from one row to the next, and from one column to the next.
    pub(super) fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.col_stride]
    }

    /// The floats from the first to the last of the part of so many `rows` and `cols` that begins at a `row` and a `col`.
    #[inline(always)]
    pub(super) fn from(&self, [row, col]: [usize; 2], [rows, cols]: [usize; 2]) -> &'a [f32] {
        let part = Matrix { rows, cols, ..*self };
        &self.data[row * self.row_stride + col * self.col_stride..][..part.extent()]
    }

    /// Copies some columns to `out`, row behind row; zeros for those behind the last.
    pub(super) fn columns(&self, cols: Range<usize>, out: &mut [f32]) {
        let there = self.cols.min(cols.end) - cols.start;
        let first = cols.start * self.col_stride;
        for (row, out) in out.chunks_exact_mut(cols.len()).enumerate() {
            let from = &self.data[row * self.row_stride + first..];
            if self.col_stride == 1 {
                out[..there].copy_from_slice(&from[..there]);
            } else {
                out[..there].iter_mut().enumerate().for_each(|(col, out)| *out = from[col * self.col_stride]);
            }
            out[there..].fill(0.0);
        }
    }

    /// Rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// One past the largest index.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// `c = a·b`, or `c += a·b` with `accumulate`, where `c [a.rows, b.cols]` is contiguous, on all threads. Each element is summed in the
/// same order whatever their number.
pub(super) fn matmul(c: &mut [f32], accumulate: bool, a: Matrix, b: Matrix) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(k == b.rows && c.len() == m * n, "{m}x{k} times {}x{n} into {} floats", b.rows, c.len());
    let accumulator_factor = 1.0;
    let product_factor = 1.0;
    // SAFETY: the largest index into each operand was checked against its slice, here for `c` and in `Matrix` for `a`
    // and `b` (transposing moves no index), and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            accumulator_factor,
            product_factor,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
