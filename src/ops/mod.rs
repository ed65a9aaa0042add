//! One file a layer family: the forward call and its gradient rule, for every device at once.
//!
//! The caller decides what is computed together. What flows between the calls are [`Value`](crate::value::Value)s, which carry what
//! is left to do: batch norm touches no pixel (it only computes a scale and a shift per channel), and the next convolution or pooling
//! applies them while it loads.

pub mod activation;
pub mod batch_norm;
pub mod conv;
pub mod dense;
pub mod depthwise;
pub mod loss;
pub mod pool;
pub mod residual;
pub mod separable;
