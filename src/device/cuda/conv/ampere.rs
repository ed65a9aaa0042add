//! Convolution on tensor cores (`kernels/conv/ampere/`), and what the kernels of the forward pass and the data gradient ask of
//! their operands.
//!
//! - [`forward`] and [`backward_data`] share a main loop and its [`tiles`].
//! - [`backward_weights`] has tiles of its own.

pub(super) mod backward_data;
mod backward_weights;
mod forward;
mod tiles;

use super::geometry::extent;
use crate::device::cuda::memory::{Element, View, ViewMut};
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError};

/// Addresses of the operands of the matrix product, and the bytes of their elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    pub(super) out: u64,
    pub(super) input: u64,
    pub(super) w: u64,
    pub(super) bytes: usize,
}

const KERNEL: &str = "convolution";

/// Columns that a tile may have more than there are, and channels that a slice may.
const OVERHANG: usize = 128;

impl Cuda {
    /// The operands as the tensor cores read them: 16 bytes of channels or filters at once, weights in bf16 from their
    /// narrow copy. What lies at the addresses `beside`, 0 for nothing, they read so as well. `None` if they can't, and the
    /// CUDA cores must.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach, and for activations stored in another
    /// width than this precision's.
    pub(super) fn tensor_operands(
        &self,
        out: &ViewMut<'_>,
        input: &View<'_>,
        w: &View<'_>,
        beside: [u64; 2],
        shape: &ConvShape,
    ) -> Result<Option<Operands>, DeviceError> {
        let (w, element) = match self.precision() {
            Precision::F32 => return Ok(None),
            Precision::Tf32 => (Some(w.address()), Element::F32),
            Precision::Bf16 => (w.narrow(), Element::Bf16),
        };
        if [out.element(), input.element()] != [element; 2] {
            let reason =
                format!("reads {:?} and writes {:?}; both must be {element:?}", input.element(), out.element());
            return Err(DeviceError::Shape { kernel: KERNEL, reason });
        }
        let bytes = element.bytes();
        let Some(w) = w else { return Ok(None) };
        let operands = Operands { out: out.address(), input: input.address(), w, bytes };
        let aligned = [operands.out, operands.input, w].iter().chain(&beside).all(|address| address % 16 == 0);
        let whole = [shape.c, shape.k].iter().all(|extent| (extent * bytes).is_multiple_of(16));
        // A pixel's taps are bits of a word, 15 in each direction.
        if !aligned || !whole || shape.r > 15 || shape.s > 15 {
            return Ok(None);
        }
        // Addresses are computed past the ends, of what is then not read.
        for [lines, width, channels] in [[shape.n * shape.h, shape.w, shape.c], [shape.n * shape.p, shape.q, shape.k]] {
            extent(KERNEL, (lines + 16) * (width + 16) * (channels + OVERHANG))?;
        }
        extent(KERNEL, (shape.k + OVERHANG) * shape.r * shape.s * (shape.c + OVERHANG))?;
        Ok(Some(operands))
    }
}
