//! What the loss and the probabilities must read and write: every operand once.

use super::{Counting, View};
use crate::device::loss::{ASYMMETRIC_FLOPS, SIGMOID_FLOPS};
use crate::device::{BceForwardBackward, DeviceError, Focus, LossKernels, LossShape, Sigmoid};

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

    fn asymmetric_forward_backward(
        &self,
        operands: BceForwardBackward<View, View>,
        _: &Focus,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let reads = self.all([logits, targets, weights]);
        let flops = ASYMMETRIC_FLOPS * logits.len as u64;
        self.launch("asymmetric_forward_backward", reads, self.all([loss, dlogits]), flops);
        Ok(())
    }

    fn sigmoid(&self, operands: Sigmoid<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        let Sigmoid { p, z } = operands;
        self.launch("sigmoid", self.bytes(z), self.bytes(p), SIGMOID_FLOPS * z.len as u64);
        Ok(())
    }
}
