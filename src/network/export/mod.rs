//! Networks for other programs, derived from their lists of layers.
//!
//! Layouts become those of the format: a kernel, which the engine keeps as `[K, R, S, C]`, is `[K, C, R, S]` in ONNX and `[R, S, C, K]`
//! in Keras.

pub mod keras;
pub mod onnx;
