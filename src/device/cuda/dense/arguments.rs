//! What the kernels of `kernels/dense/dense.cu` are told.

use crate::device::cuda::arguments::arguments;

arguments! {
    /// Arguments of `dense_forward`, `dense_backward_data` and `dense_backward_weights`.
    #[derive(Default)]
    struct DenseProduct {
        out: u64,
        a: u64,
        b: u64,
        bias: u64,
        bias_gradient: u64,
        workspace: u64,
        tickets: u64,
        rows: i32,
        columns: i32,
        depth: i32,
        span: i32,
        relu: i32,
        wide_a: i32,
        wide_b: i32,
        wide_out: i32,
    }

    /// Arguments of `relu_backward`.
    struct ReluBackward {
        dz: u64,
        dy: u64,
        y: u64,
        count: i32,
        quads: i32,
    }
}
