//! What the loss and the probabilities must read and write: every operand once.

use super::{Counting, View};
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{BceForwardBackward, DeviceError, LossKernels, LossShape, Sigmoid};

impl LossKernels for Counting {
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<View, View>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let reads = self.all([logits, targets, weights]);
        self.launch("bce_forward_backward", reads, self.all([loss, dlogits]), shape.flops());
        Ok(())
    }

    fn sigmoid(&self, operands: Sigmoid<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        let Sigmoid { p, z } = operands;
        self.launch("sigmoid", self.bytes(z), self.bytes(p), SIGMOID_FLOPS * z.len as u64);
        Ok(())
    }
}
