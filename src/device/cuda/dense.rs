//! Dense layers: three products of one shape, and the gradient of their ReLU.

pub(super) mod arguments;

use super::Cuda;
use super::choose::dense::{DepthSplits, Product, TILE, split_product, whole_product};
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use crate::device::{
    DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, DeviceError, ReluBackward, Work,
};
use arguments::DenseProduct;

/// Dynamic shared memory of a product.
const SHARED: u32 = 55_296;

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
        product: Product,
        DepthSplits { span, splits }: DepthSplits,
        extra: [usize; 2],
        matrices: DenseProduct,
    ) -> Result<(), DeviceError> {
        let Product { rows, columns, depth } = product;
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
            tickets: self.tickets(kernel, if splits == 1 { 0 } else { product.tiles() })?,
            rows: rows as i32,
            columns: columns as i32,
            depth: depth as i32,
            span: span as i32,
            ..matrices
        };
        let grid = [columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, splits as u32];
        self.launch(Module::Dense, kernel, Launch { grid, block: 256, shared: SHARED, work }, &arguments)
    }
}

impl DenseKernels for Cuda {
    fn dense_forward(
        &self,
        operands: DenseForward<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseForward { y, relu, x, w, b } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let product = Product { rows: n, columns: outputs, depth: inputs };
        let matrices = DenseProduct {
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
            product,
            split_product(&self.target(), product).kernel,
            [outputs, 0],
            matrices,
        )
    }

    fn dense_backward_data(
        &self,
        operands: DenseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardData { dx, dz, w } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let product = Product { rows: n, columns: inputs, depth: outputs };
        let matrices = DenseProduct {
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
            product,
            split_product(&self.target(), product).kernel,
            [0, 0],
            matrices,
        )
    }

    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardWeights { dw, db, dz, x } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let product = Product { rows: outputs, columns: inputs, depth: n };
        let matrices = DenseProduct {
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
            product,
            whole_product(&self.target(), product).kernel,
            [outputs * inputs + outputs, outputs],
            matrices,
        )
    }

    fn relu_backward(&self, operands: ReluBackward<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        operands.check()?;
        let ReluBackward { dz, dy, y } = operands;
        let Ok(count) = i32::try_from(dz.len()) else {
            let reason = format!("{} elements, at most 2³¹", dz.len());
            return Err(DeviceError::Shape { kernel: "relu_backward", reason });
        };
        if count == 0 {
            return Ok(());
        }
        let addresses = [dz.address(), dy.address(), y.address()];
        let quads = if addresses.iter().all(|address| address.is_multiple_of(16)) { count / 4 } else { 0 };
        let arguments = arguments::ReluBackward { dz: addresses[0], dy: addresses[1], y: addresses[2], count, quads };
        let grid = [((count - 3 * quads) as u32).div_ceil(256), 1, 1];
        let work = Work { reads: 8 * count as u64, writes: 4 * count as u64, flops: 0 };
        self.launch(Module::Dense, "relu_backward", Launch { grid, block: 256, shared: 0, work }, &arguments)
    }
}
