//! Training as a whole: what a run is, where it is kept, and how it survives being stopped.
//!
//! A run is a [`config`] (everything needed to repeat it) and a [`run_folder`] that holds it: logs, and [`checkpoint`]s
//! written through the small I/O trait of [`files`].

pub mod checkpoint;
pub mod config;
pub mod files;
pub mod run_folder;
