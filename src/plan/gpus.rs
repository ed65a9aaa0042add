//! GPUs that a plan's floors can be computed for, by their data sheets.

use crate::device::cuda::choose::Target;
use crate::device::{Precision, Rates};

/// A GPU by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedGpu {
    /// As it is typed.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Gigabytes a second from and to its memory.
    pub memory: f64,
    /// Dense TFLOP/s of tensor cores in bf16, sums in `f32`; in TF32 it is half.
    pub bf16: f64,
    /// TFLOP/s of CUDA cores in `f32`.
    pub f32: f64,
}

/// All that are known.
pub const GPUS: [NamedGpu; 6] = [
    NamedGpu { name: "a100", capability: (8, 0), multiprocessors: 108, memory: 2039.0, bf16: 312.0, f32: 19.5 },
    NamedGpu { name: "rtx3090", capability: (8, 6), multiprocessors: 82, memory: 936.0, bf16: 71.0, f32: 35.6 },
    NamedGpu { name: "rtx4090", capability: (8, 9), multiprocessors: 128, memory: 1008.0, bf16: 165.2, f32: 82.6 },
    NamedGpu { name: "h100", capability: (9, 0), multiprocessors: 132, memory: 3350.0, bf16: 989.4, f32: 66.9 },
    NamedGpu { name: "h200", capability: (9, 0), multiprocessors: 132, memory: 4800.0, bf16: 989.4, f32: 66.9 },
    NamedGpu { name: "b200", capability: (10, 0), multiprocessors: 148, memory: 8000.0, bf16: 2250.0, f32: 80.0 },
];

impl NamedGpu {
    /// What its choice of kernels depends on.
    pub fn target(&self, precision: Precision) -> Target {
        Target { capability: self.capability, multiprocessors: self.multiprocessors, precision }
    }

    /// How fast it is at most.
    pub fn rates(&self, precision: Precision) -> Rates {
        let teraflops = match precision {
            Precision::Bf16 => self.bf16,
            Precision::Tf32 => self.bf16 / 2.0,
            Precision::F32 => self.f32,
        };
        let source = format!("data sheet: {} GB/s, {teraflops} TFLOP/s in {}", self.memory, precision.name());
        Rates { bytes: 1e9 * self.memory, flops: 1e12 * teraflops, source }
    }
}
