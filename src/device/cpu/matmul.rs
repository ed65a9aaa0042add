//! The matrix product, checked: a safe face on the crate `gemm`.

use gemm::Parallelism;

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

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// All. Each element is summed in the same order either way.
    All,
}

/// `c = a·b`, or `c += a·b` with `accumulate`, where `c [a.rows, b.cols]` is contiguous.
pub(super) fn matmul(c: &mut [f32], accumulate: bool, a: Matrix, b: Matrix, threads: Threads) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(k == b.rows && c.len() == m * n, "{m}x{k} times {}x{n} into {} floats", b.rows, c.len());
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
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
            parallelism,
        );
    }
}
