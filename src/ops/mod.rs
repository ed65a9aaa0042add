//! One file a layer family: the forward call and its gradient rule, for every device at once.
//!
//! The caller decides what is computed together; the values that flow between the calls carry what is left to do. A
//! convolution leaves a [`conv::ConvOutput`], batch norm turns it into a [`batch_norm::Normalised`] without touching a pixel
//! (it only computes a scale and a shift per channel), and a [`conv::Activation`] may still be *pending*: raw values together
//! with the scale, shift and ReLU owed to them, which the next convolution or pooling applies while it loads.

pub mod batch_norm;
pub mod conv;
pub mod dense;
pub mod loss;
pub mod pool;
pub mod residual;
