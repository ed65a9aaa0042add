//! Onesheet: a from-scratch deep-learning engine for one model, the ResNet-50 that names a film's genres from its poster.

pub mod data;
pub mod device;
