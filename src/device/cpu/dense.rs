//! Dense layers: three matrix products, each over all threads.

use super::batch_norm::rectify_all;
use super::matmul::{Matrix, matmul};
use super::memory::Cpu;
use super::rows;
use super::view::{View, ViewMut, stored_as};
use crate::device::{
    DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, DeviceError, ReluBackward,
};

impl DenseKernels for Cpu {
    fn dense_forward(
        &self,
        operands: DenseForward<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "dense_forward";
        operands.check(shape)?;
        let DenseForward { y, relu, x, w, b } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let _clock = self.clock(KERNEL, shape.flops(), x.bytes() + w.bytes() + b.bytes(), y.bytes());
        stored_as!(f32, KERNEL; y, x, w, b);
        let weights = Matrix::new(w, outputs, inputs, inputs).transposed();
        matmul(y, false, Matrix::new(x, n, inputs, inputs), weights);
        rows::add_bias(y, b);
        if relu {
            y.iter_mut().for_each(|y| *y = rows::relu(*y));
        }
        Ok(())
    }

    fn dense_backward_data(
        &self,
        operands: DenseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "dense_backward_data";
        operands.check(shape)?;
        let DenseBackwardData { dx, dz, w } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let _clock = self.clock(KERNEL, shape.flops(), dz.bytes() + w.bytes(), dx.bytes());
        stored_as!(f32, KERNEL; dx, dz, w);
        let weights = Matrix::new(w, outputs, inputs, inputs);
        matmul(dx, false, Matrix::new(dz, n, outputs, outputs), weights);
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "dense_backward_weights";
        operands.check(shape)?;
        let DenseBackwardWeights { dw, db, dz, x } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let gradients = dw.bytes() + db.bytes();
        let reads = dz.bytes() + x.bytes() + gradients;
        let _clock = self.clock(KERNEL, shape.flops(), reads, gradients);
        stored_as!(f32, KERNEL; dw, db, dz, x);
        let gradient = Matrix::new(dz, n, outputs, outputs).transposed();
        matmul(dw, true, gradient, Matrix::new(x, n, inputs, inputs));
        let mut sums = vec![0.0; outputs];
        rows::column_sums(dz, &mut sums);
        for (db, sum) in db.iter_mut().zip(sums) {
            *db += sum as f32;
        }
        Ok(())
    }

    fn relu_backward(&self, operands: ReluBackward<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "relu_backward";
        operands.check()?;
        let ReluBackward { dz, dy, y } = operands;
        let _clock = self.clock(KERNEL, 0, dy.bytes() + y.bytes(), dz.bytes());
        stored_as!(f32, KERNEL; dz, dy, y);
        rectify_all(dz, dy, y);
        Ok(())
    }
}
