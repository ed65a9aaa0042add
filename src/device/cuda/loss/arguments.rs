//! What the kernels of `kernels/loss/loss.cu` are told.

use crate::device::cuda::arguments::arguments;

arguments! {
    /// Arguments of `bce_forward_backward`.
    struct BceForwardBackward {
        loss: u64,
        dlogits: u64,
        logits: u64,
        targets: u64,
        weights: u64,
        count: i32,
        classes: i32,
    }

    /// Arguments of `sigmoid`.
    struct Sigmoid {
        p: u64,
        z: u64,
        count: i32,
    }
}
