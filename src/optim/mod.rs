//! The optimiser, its learning rate, and the average of what it makes.

pub mod adam;
pub mod average;
pub mod schedule;

pub use adam::{Adam, NO_RATES, StepRates};
pub use average::WeightAverage;
pub use schedule::{Curve, Schedule};
