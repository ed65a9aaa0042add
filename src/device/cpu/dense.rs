//! Dense layers: three matrix products, each over all threads.

use super::batch_norm::rectify_all;
use super::matmul::{Matrix, Threads, matmul};
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
        operands.check(shape)?;
        let DenseForward { y, relu, x, w, b } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let _clock = self.clock("dense_forward", shape.flops(), x.bytes() + w.bytes() + b.bytes(), y.bytes());
        stored_as!(f32, "dense_forward"; y, x, w, b);
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
        operands: DenseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardData { dx, dz, w } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let _clock = self.clock("dense_backward_data", shape.flops(), dz.bytes() + w.bytes(), dx.bytes());
        stored_as!(f32, "dense_backward_data"; dx, dz, w);
        let weights = Matrix::new(w, outputs, inputs, inputs);
        matmul(dx, false, Matrix::new(dz, n, outputs, outputs), weights, Threads::All);
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardWeights { dw, db, dz, x } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let gradients = dw.bytes() + db.bytes();
        let reads = dz.bytes() + x.bytes() + gradients;
        let _clock = self.clock("dense_backward_weights", shape.flops(), reads, gradients);
        stored_as!(f32, "dense_backward_weights"; dw, db, dz, x);
        let gradient = Matrix::new(dz, n, outputs, outputs).transposed();
        matmul(dw, true, gradient, Matrix::new(x, n, inputs, inputs), Threads::All);
        let mut sums = vec![0.0; outputs];
        rows::column_sums(dz, &mut sums);
        for (db, sum) in db.iter_mut().zip(sums) {
            *db += sum as f32;
        }
        Ok(())
    }

    fn relu_backward(&self, operands: ReluBackward<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        operands.check()?;
        let ReluBackward { dz, dy, y } = operands;
        let _clock = self.clock("relu_backward", 0, dy.bytes() + y.bytes(), dz.bytes());
        stored_as!(f32, "relu_backward"; dz, dy, y);
        rectify_all(dz, dy, y);
        Ok(())
    }
}
