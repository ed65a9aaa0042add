//! `mma` in every form that is supported, and `ldmatrix`, `stmatrix` and `movmatrix`, against plain Rust.
//!
//! Where an element of a matrix lives is written here as the PTX ISA writes it, element by element ("Matrix fragments
//! for mma.m16n8k…"), which is not how the interpreter computes it.

mod layout;
mod moves;
mod products;
mod sums;
