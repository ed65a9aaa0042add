//! Dense layers: three products of one shape, and the gradient of their ReLU.

use super::Cuda;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use super::scratch::TICKETS;
use crate::device::{DenseKernels, DenseShape, DeviceError, Work, check_lengths};
use cudarc::driver::DeviceRepr;

/// Rows and columns of a block's result.
const TILE: usize = 64;
/// The depth that a block takes in one step.
const STEP: usize = 32;
/// A block that takes fewer steps than this spends its time on filling and emptying its pipeline.
const FEWEST_STEPS: usize = 4;
/// Dynamic shared memory of a product.
const SHARED: u32 = 55_296;

/// Arguments of `dense_forward`, `dense_backward_data` and `dense_backward_weights` in `kernels/dense/dense.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct DenseProduct {
    out: u64,
    a: u64,
    b: u64,
    bias: u64,
    bias_gradient: u64,
    workspace: u64,
    tickets: u64,
    rows: i32,
    columns: i32,
    depth: i32,
    span: i32,
    relu: i32,
    wide_a: i32,
    wide_b: i32,
    wide_out: i32,
}

/// Arguments of `relu_backward` there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ReluBackward {
    dz: u64,
    dy: u64,
    y: u64,
    count: i32,
    quads: i32,
}

// SAFETY: plain numbers, laid out as the kernels declare them.
unsafe impl DeviceRepr for DenseProduct {}
// SAFETY: likewise.
unsafe impl DeviceRepr for ReluBackward {}

/// `out [rows, columns]`, a product summed over `depth`.
#[derive(Clone, Copy, Debug)]
struct Extents {
    rows: usize,
    columns: usize,
    depth: usize,
}

impl Extents {
    fn tiles(self) -> usize {
        self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE)
    }

    /// The depth of a split and the number of splits: two blocks a multiprocessor, where there is depth enough for them.
    fn splits(self, multiprocessors: u32) -> (usize, usize) {
        let wanted = (2 * multiprocessors as usize / self.tiles()).min(self.depth / (FEWEST_STEPS * STEP));
        let wanted = if self.tiles() > TICKETS { 1 } else { wanted.max(1) };
        let span = self.depth.div_ceil(wanted).next_multiple_of(STEP);
        (span, self.depth.div_ceil(span))
    }
}

/// Whether rows of `length` floats from `address` on can be moved by 16 bytes.
fn wide(address: u64, length: usize) -> i32 {
    i32::from(address.is_multiple_of(16) && length.is_multiple_of(4))
}

impl Cuda {
    /// Launches a product. Beside its three matrices it reads and writes `extra` floats.
    fn dense_product(
        &self,
        kernel: &'static str,
        flops: u64,
        extents: Extents,
        (span, splits): (usize, usize),
        extra: [usize; 2],
        operands: DenseProduct,
    ) -> Result<(), DeviceError> {
        let Extents { rows, columns, depth } = extents;
        let largest = (rows * columns).max(rows * depth).max(columns * depth);
        if rows == 0 || columns == 0 || depth == 0 || largest > i32::MAX as usize {
            let reason = format!("extents {rows}, {columns}, {depth}; none may be 0, no matrix have 2³¹ elements");
            return Err(DeviceError::Shape { kernel, reason });
        }
        let partials = if splits == 1 { 0 } else { splits * rows * columns };
        let workspace = if splits == 1 { None } else { Some(self.workspace(partials * size_of::<f32>())?) };
        let work = Work {
            reads: 4 * (rows * depth + columns * depth + extra[0]) as u64,
            writes: 4 * (rows * columns + partials + extra[1]) as u64,
            flops,
        };
        let arguments = DenseProduct {
            workspace: workspace.as_ref().map_or(0, |workspace| workspace.address()),
            tickets: self.tickets(kernel, if splits == 1 { 0 } else { extents.tiles() })?,
            rows: rows as i32,
            columns: columns as i32,
            depth: depth as i32,
            span: span as i32,
            ..operands
        };
        let grid = [columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, splits as u32];
        self.launch(Module::Dense, kernel, Launch { grid, block: 256, shared: SHARED, work }, &arguments)
    }
}

impl DenseKernels for Cuda {
    fn dense_forward(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        w: View<'_>,
        b: View<'_>,
        relu: bool,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let DenseShape { n, inputs, outputs } = *shape;
        check_lengths(
            "dense_forward",
            &[
                ("y", y.len(), n * outputs),
                ("x", x.len(), n * inputs),
                ("w", w.len(), outputs * inputs),
                ("b", b.len(), outputs),
            ],
        )?;
        let extents = Extents { rows: n, columns: outputs, depth: inputs };
        let operands = DenseProduct {
            out: y.address(),
            a: x.address(),
            b: w.address(),
            bias: b.address(),
            relu: i32::from(relu),
            wide_a: wide(x.address(), inputs),
            wide_b: wide(w.address(), inputs),
            wide_out: wide(y.address(), outputs),
            ..DenseProduct::default()
        };
        self.dense_product(
            "dense_forward",
            shape.flops(),
            extents,
            extents.splits(self.multiprocessors()),
            [outputs, 0],
            operands,
        )
    }

    fn dense_backward_data(
        &self,
        dx: ViewMut<'_>,
        dz: View<'_>,
        w: View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let DenseShape { n, inputs, outputs } = *shape;
        check_lengths(
            "dense_backward_data",
            &[("dx", dx.len(), n * inputs), ("dz", dz.len(), n * outputs), ("w", w.len(), outputs * inputs)],
        )?;
        let extents = Extents { rows: n, columns: inputs, depth: outputs };
        let operands = DenseProduct {
            out: dx.address(),
            a: dz.address(),
            b: w.address(),
            wide_a: wide(dz.address(), outputs),
            wide_b: wide(w.address(), inputs),
            wide_out: wide(dx.address(), inputs),
            ..DenseProduct::default()
        };
        self.dense_product(
            "dense_backward_data",
            shape.flops(),
            extents,
            extents.splits(self.multiprocessors()),
            [0, 0],
            operands,
        )
    }

    fn dense_backward_weights(
        &self,
        dw: ViewMut<'_>,
        db: ViewMut<'_>,
        dz: View<'_>,
        x: View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let DenseShape { n, inputs, outputs } = *shape;
        check_lengths(
            "dense_backward_weights",
            &[
                ("dw", dw.len(), outputs * inputs),
                ("db", db.len(), outputs),
                ("dz", dz.len(), n * outputs),
                ("x", x.len(), n * inputs),
            ],
        )?;
        let extents = Extents { rows: outputs, columns: inputs, depth: n };
        let operands = DenseProduct {
            out: dw.address(),
            a: dz.address(),
            b: x.address(),
            bias_gradient: db.address(),
            wide_a: wide(dz.address(), outputs),
            wide_b: wide(x.address(), inputs),
            wide_out: wide(dw.address(), inputs),
            ..DenseProduct::default()
        };
        // The bias's gradient is the sum of one block over the whole depth; both gradients grow, so they are read, too.
        self.dense_product(
            "dense_backward_weights",
            shape.flops(),
            extents,
            (n, 1),
            [outputs * inputs + outputs, outputs],
            operands,
        )
    }

    fn relu_backward(&self, dz: ViewMut<'_>, dy: View<'_>, y: View<'_>) -> Result<(), DeviceError> {
        check_lengths("relu_backward", &[("dy", dy.len(), dz.len()), ("y", y.len(), dz.len())])?;
        let Ok(count) = i32::try_from(dz.len()) else {
            let reason = format!("{} elements, at most 2³¹", dz.len());
            return Err(DeviceError::Shape { kernel: "relu_backward", reason });
        };
        if count == 0 {
            return Ok(());
        }
        let addresses = [dz.address(), dy.address(), y.address()];
        let quads = if addresses.iter().all(|address| address.is_multiple_of(16)) { count / 4 } else { 0 };
        let arguments = ReluBackward { dz: addresses[0], dy: addresses[1], y: addresses[2], count, quads };
        let grid = [((count - 3 * quads) as u32).div_ceil(256), 1, 1];
        let work = Work { reads: 8 * count as u64, writes: 4 * count as u64, flops: 0 };
        self.launch(Module::Dense, "relu_backward", Launch { grid, block: 256, shared: 0, work }, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_the_depth_and_fill_the_gpu() {
        for (rows, columns, depth) in [(8, 1024, 2048), (128, 1024, 2048), (128, 128, 1024), (128, 7, 128), (1, 1, 1)] {
            let extents = Extents { rows, columns, depth };
            let (span, splits) = extents.splits(108);
            assert!(span.is_multiple_of(STEP) && span * splits >= depth && span * (splits - 1) < depth);
            assert!(splits == 1 || extents.tiles() * splits <= 2 * 108);
        }
        assert_eq!(Extents { rows: 8, columns: 1024, depth: 2048 }.splits(108), (160, 13));
        assert_eq!(Extents { rows: 128, columns: 1024, depth: 2048 }.splits(108), (352, 6));
        assert_eq!(Extents { rows: 64 * (TICKETS + 1), columns: 1, depth: 4096 }.splits(8192), (4096, 1));
    }
}
