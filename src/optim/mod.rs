//! The optimiser and its learning rate.

pub mod adam;
pub mod schedule;

pub use adam::Adam;
pub use schedule::{Curve, Schedule};
