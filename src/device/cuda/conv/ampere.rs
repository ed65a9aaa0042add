//! Convolution on tensor cores (`kernels/conv/ampere/`). The forward pass and the data gradient share a main loop.

pub(in crate::device::cuda) mod backward_data;
pub(in crate::device::cuda) mod backward_weights;
pub(in crate::device::cuda) mod forward;

use super::geometry::extent;
use crate::device::cuda::memory::View;
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError};

/// Columns that a tile may have more than there are, and channels that a slice may.
const OVERHANG: usize = 128;

/// Refuses tensors larger than the indices of the main loop reach. Addresses are computed past the ends, of what is then not
/// read.
fn check_extents(kernel: &'static str, shape: &ConvShape) -> Result<(), DeviceError> {
    for [lines, width, channels] in [[shape.n * shape.h, shape.w, shape.c], [shape.n * shape.p, shape.q, shape.k]] {
        extent(kernel, (lines + 16) * (width + 16) * (channels + OVERHANG))?;
    }
    extent(kernel, (shape.k + OVERHANG) * shape.r * shape.s * (shape.c + OVERHANG))?;
    Ok(())
}

impl Cuda {
    /// The weights as the tensor cores read them: in bf16 their narrow copy.
    fn tensor_weights(&self, w: &View<'_>) -> u64 {
        match (self.precision(), w.narrow()) {
            (Precision::Bf16, Some(narrow)) => narrow,
            _ => w.address(),
        }
    }
}
