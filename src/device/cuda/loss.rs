//! The loss and the probabilities.

pub(super) mod arguments;

use super::Cuda;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{BceForwardBackward, DeviceError, LossKernels, LossShape, Sigmoid, Work};

/// A number of logits as the kernels count them.
fn count(kernel: &'static str, logits: usize) -> Result<i32, DeviceError> {
    i32::try_from(logits).map_err(|_| DeviceError::Shape { kernel, reason: format!("{logits} logits, at most 2³¹") })
}

impl LossKernels for Cuda {
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<View<'_>, ViewMut<'_>>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BceForwardBackward { loss, dlogits, logits, targets, weights } = operands;
        let terms = shape.n * shape.classes;
        let arguments = arguments::BceForwardBackward {
            loss: loss.address(),
            dlogits: dlogits.address(),
            logits: logits.address(),
            targets: targets.address(),
            weights: weights.address(),
            count: count("bce_forward_backward", terms)?,
            classes: count("bce_forward_backward", shape.classes)?,
        };
        let work = Work {
            reads: 4 * (2 * terms + shape.classes) as u64,
            writes: 4 * (terms + 1) as u64,
            flops: shape.flops(),
        };
        let launch = Launch { grid: [1, 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Loss, "bce_forward_backward", launch, &arguments)
    }

    fn sigmoid(&self, operands: Sigmoid<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        operands.check()?;
        let Sigmoid { p, z } = operands;
        let count = count("sigmoid", p.len())?;
        if count == 0 {
            return Ok(());
        }
        let work = Work { reads: 4 * count as u64, writes: 4 * count as u64, flops: SIGMOID_FLOPS * count as u64 };
        let launch = Launch { grid: [(count as u32).div_ceil(256), 1, 1], block: 256, shared: 0, work };
        let arguments = arguments::Sigmoid { p: p.address(), z: z.address(), count };
        self.launch(Module::Loss, "sigmoid", launch, &arguments)
    }
}
