//! Dense layers: three matrix products, each over all threads.

use super::batch_norm::rectify_all;
use super::matmul::{Matrix, Threads, matmul};
use super::memory::Cpu;
use super::rows;
use crate::device::{DenseKernels, DenseShape, DeviceError, check_lengths};

impl DenseKernels for Cpu {
    fn dense_forward(
        &self,
        y: &mut [f32],
        x: &[f32],
        w: &[f32],
        b: &[f32],
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
        let _clock = self.clock("dense_forward", shape.flops(), x.len() + w.len() + b.len(), y.len());
        let weights = Matrix::new(w, outputs, inputs, inputs).transposed();
        matmul(y, false, Matrix::new(x, n, inputs, inputs), weights, Threads::All);
        rows::add_bias(y, b);
        if relu {
            y.iter_mut().for_each(|y| *y = rows::relu(*y));
        }
        Ok(())
    }

    fn dense_backward_data(
        &self,
        dx: &mut [f32],
        dz: &[f32],
        w: &[f32],
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let DenseShape { n, inputs, outputs } = *shape;
        check_lengths(
            "dense_backward_data",
            &[("dx", dx.len(), n * inputs), ("dz", dz.len(), n * outputs), ("w", w.len(), outputs * inputs)],
        )?;
        let _clock = self.clock("dense_backward_data", shape.flops(), dz.len() + w.len(), dx.len());
        let weights = Matrix::new(w, outputs, inputs, inputs);
        matmul(dx, false, Matrix::new(dz, n, outputs, outputs), weights, Threads::All);
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        dw: &mut [f32],
        db: &mut [f32],
        dz: &[f32],
        x: &[f32],
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
        let gradients = dw.len() + db.len();
        let _clock = self.clock("dense_backward_weights", shape.flops(), dz.len() + x.len() + gradients, gradients);
        let gradient = Matrix::new(dz, n, outputs, outputs).transposed();
        matmul(dw, true, gradient, Matrix::new(x, n, inputs, inputs), Threads::All);
        let mut sums = vec![0.0; outputs];
        rows::column_sums(dz, &mut sums);
        for (db, sum) in db.iter_mut().zip(sums) {
            *db += sum as f32;
        }
        Ok(())
    }

    fn relu_backward(&self, dz: &mut [f32], dy: &[f32], y: &[f32]) -> Result<(), DeviceError> {
        check_lengths("relu_backward", &[("dy", dy.len(), dz.len()), ("y", y.len(), dz.len())])?;
        let _clock = self.clock("relu_backward", 0, 2 * dz.len(), dz.len());
        rectify_all(dz, dy, y);
        Ok(())
    }
}
