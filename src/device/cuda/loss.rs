//! The loss and the probabilities.

use super::Cuda;
use super::arguments::arguments;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{DeviceError, LossKernels, LossShape, Work, check_lengths};

arguments! {
    /// Arguments of `bce_forward_backward` in `kernels/loss/loss.cu`.
    struct BceForwardBackward {
        loss: u64,
        dlogits: u64,
        logits: u64,
        targets: u64,
        weights: u64,
        count: i32,
        classes: i32,
    }

    /// Arguments of `sigmoid` there.
    struct Sigmoid {
        p: u64,
        z: u64,
        count: i32,
    }
}

/// A number of logits as the kernels count them.
fn count(kernel: &'static str, logits: usize) -> Result<i32, DeviceError> {
    i32::try_from(logits).map_err(|_| DeviceError::Shape { kernel, reason: format!("{logits} logits, at most 2³¹") })
}

impl LossKernels for Cuda {
    fn bce_forward_backward(
        &self,
        loss: ViewMut<'_>,
        dlogits: ViewMut<'_>,
        logits: View<'_>,
        targets: View<'_>,
        weights: View<'_>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        let terms = shape.n * shape.classes;
        check_lengths(
            "bce_forward_backward",
            &[
                ("loss", loss.len(), 1),
                ("dlogits", dlogits.len(), terms),
                ("logits", logits.len(), terms),
                ("targets", targets.len(), terms),
                ("weights", weights.len(), shape.classes),
            ],
        )?;
        let arguments = BceForwardBackward {
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

    fn sigmoid(&self, p: ViewMut<'_>, z: View<'_>) -> Result<(), DeviceError> {
        check_lengths("sigmoid", &[("z", z.len(), p.len())])?;
        let count = count("sigmoid", p.len())?;
        if count == 0 {
            return Ok(());
        }
        let work = Work { reads: 4 * count as u64, writes: 4 * count as u64, flops: SIGMOID_FLOPS * count as u64 };
        let launch = Launch { grid: [(count as u32).div_ceil(256), 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Loss, "sigmoid", launch, &Sigmoid { p: p.address(), z: z.address(), count })
    }
}
