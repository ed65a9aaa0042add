//! A GPU in software: a CUDA driver that interprets PTX on the CPU, checks every access and counts what kernels do.
//!
//! As a shared library it *is* `libcuda.so`: open `libgpusim.so` before a program's first CUDA call, and a program that
//! loads its kernels from PTX runs on it unmodified. As a Rust library it runs single kernels, for tests of the
//! interpreter itself:
//!
//! - [`ptx`] reads PTX text into a tree with line numbers;
//! - [`program`] makes a kernel ready: names to register rows, instructions to function pointers, branches to joins;
//! - [`exec`] runs it, warps of 32 lanes in lock step, blocks over the host's threads;
//! - [`check`] knows what is allocated, initialised and raced for, and [`fault`] says what went wrong;
//! - [`tensor_map`] describes the boxes that a Hopper kernel copies;
//! - [`simulator`] puts these together for one module;
//! - [`count`] adds up what was done and models a time;
//! - [`driver`] is the CUDA driver API over all that.

pub mod check;
pub mod count;
pub mod driver;
pub mod exec;
pub mod fault;
pub mod program;
pub mod ptx;
pub mod simulator;
pub mod tensor_map;
