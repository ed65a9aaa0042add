//! What the dense layers must read and write: every operand once, and gradients of parameters, which grow, both ways.

use super::{Counting, View};
use crate::device::{
    DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, DeviceError, ReluBackward,
};

impl DenseKernels for Counting {
    fn dense_forward(&self, operands: DenseForward<View, View>, shape: &DenseShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseForward { y, x, w, b, .. } = operands;
        self.launch("dense_forward", self.all([x, w, b]), self.bytes(y), shape.flops());
        Ok(())
    }

    fn dense_backward_data(
        &self,
        operands: DenseBackwardData<View, View>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardData { dx, dz, w } = operands;
        self.launch("dense_backward_data", self.all([dz, w]), self.bytes(dx), shape.flops());
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<View, View>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardWeights { dw, db, dz, x } = operands;
        self.launch("dense_backward_weights", self.all([dz, x, dw, db]), self.all([dw, db]), shape.flops());
        Ok(())
    }

    fn relu_backward(&self, operands: ReluBackward<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        let ReluBackward { dz, dy, y } = operands;
        self.launch("relu_backward", self.all([dy, y]), self.bytes(dz), 0);
        Ok(())
    }
}
