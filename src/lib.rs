//! Onesheet: a from-scratch deep-learning engine for one job, convolutional networks that name a film's genres from its poster.

pub mod autograd;
pub mod checks;
pub mod data;
pub mod device;
pub mod files;
pub mod formats;
pub mod metrics;
pub mod model;
pub mod network;
pub mod ops;
pub mod optim;
pub mod parameters;
pub mod pictures;
pub mod plan;
pub mod profile;
mod protobuf;
pub mod random;
pub mod report;
pub mod tensor;
pub mod training;
pub mod value;
