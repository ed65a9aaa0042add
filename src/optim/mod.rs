//! The optimiser.

pub mod adam;

pub use adam::Adam;
