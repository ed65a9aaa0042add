//! Convolution. Which kernels take which shapes is decided in [`choose::conv`](super::choose::conv); their launches are here.
//!
//! - [`ampere`]: tensor cores take channels and filters in multiples of 16 bytes, in bf16 and tf32.
//! - [`stem`]: three channels have kernels of their own there.
//! - [`cuda_core`]: CUDA cores take everything else, and everything in f32.
//! - [`output_gradient`]: forming the gradient that a batch norm owes, and summing it into the bias's.
//! - [`geometry`]: what all of them are told of the shape.

pub(super) mod ampere;
pub(super) mod cuda_core;
pub(super) mod geometry;
pub(super) mod output_gradient;
pub(super) mod stem;

pub(super) use geometry::{Divisor, extent};

use super::Cuda;
use super::choose::conv::{self as choose, Aligned, BackwardData, BackwardWeights, Forward};
use super::memory::{Element, View, ViewMut};
use crate::device::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError,
    OutputGradient, ReduceEpilogue,
};

/// Whether what lies at these addresses can be loaded by 16 bytes; 0 is nothing.
fn aligned<const N: usize>(addresses: [u64; N]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(16))
}

impl Cuda {
    /// Refuses activations that are stored in another width than this precision's: the kernels would misread them.
    fn check_elements(&self, kernel: &'static str, activations: [Element; 2]) -> Result<(), DeviceError> {
        let element = self.activation_element();
        if activations != [element; 2] {
            let reason = format!("activations are stored as {element:?} here, not as {activations:?}");
            return Err(DeviceError::Shape { kernel, reason });
        }
        Ok(())
    }
}

impl ConvKernels for Cuda {
    fn conv_forward(&self, operands: ConvForward<View<'_>, ViewMut<'_>>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvForward { y, x, transform, w, bias, .. } = &operands;
        self.check_elements("conv_forward", [y.element(), x.element()])?;
        let addresses = Aligned {
            tensors: aligned([y.address(), x.address()]),
            norm: aligned([transform.map_or(0, |transform| transform.norm.address())]),
            weights: aligned([w.address()]),
            narrow: w.narrow().map(|w| aligned([w])),
            bias: aligned([bias.map_or(0, |bias| bias.address())]),
        };
        let owed = transform.map(|transform| transform.activation);
        let choice = choose::forward(&self.target(), shape, owed, addresses)?;
        match choice.kernel {
            Forward::Ampere(tiling) => self.tensor_forward(tiling, operands, shape),
            Forward::Stem(grid) => self.stem_forward(grid, operands, shape),
            Forward::CudaCore(tile) => self.ffma_forward(tile, operands, shape),
        }
    }

    fn conv_form_gradient(
        &self,
        dy: OutputGradient<View<'_>>,
        shape: &ConvShape,
    ) -> Result<Option<Self::Buffer>, DeviceError> {
        dy.check("conv_form_gradient", shape.output_len(), shape.k)?;
        match dy {
            OutputGradient::Ready(_) => Ok(None),
            OutputGradient::Owed { dz, y, k } => self.form_gradient(dz, y, k, shape).map(Some),
        }
    }

    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        self.check_elements("conv_backward_data", [dx.element(), dy.element()])?;
        let of = |address: fn(&ReduceEpilogue<View<'_>, ViewMut<'_>>) -> u64| epilogue.as_ref().map_or(0, address);
        let addresses = Aligned {
            tensors: aligned([dx.address(), dy.address(), of(|epilogue| epilogue.y.address())]),
            norm: aligned([of(|epilogue| epilogue.norm.address())]),
            weights: aligned([w.address()]),
            narrow: w.narrow().map(|w| aligned([w])),
            bias: true,
        };
        let choice = choose::backward_data(&self.target(), shape, epilogue.is_some(), addresses)?;
        match choice.kernel {
            BackwardData::Ampere(tiling) => self.tensor_backward_data(tiling, dx, accumulate, epilogue, dy, w, shape),
            BackwardData::CudaCore(tile) => self.ffma_backward_data(tile, dx, accumulate, epilogue, dy, w, shape),
        }
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        self.check_elements("conv_backward_weights", [dy.element(), x.element()])?;
        let addresses = Aligned {
            tensors: aligned([dw.address(), dy.address(), x.address()]),
            norm: aligned([transform.map_or(0, |transform| transform.norm.address())]),
            ..Aligned::ALL
        };
        let owed = transform.map(|transform| transform.activation);
        let choice = choose::backward_weights(&self.target(), shape, owed, addresses);
        match choice.kernel {
            BackwardWeights::Ampere(split) => self.tensor_backward_weights(split, dw, dy, x, transform, shape),
            BackwardWeights::Stem(grid) => self.stem_backward_weights(grid, dw, dy, x, shape),
            BackwardWeights::CudaCore(splits) => self.ffma_backward_weights(splits, dw, dy, x, transform, shape),
        }
    }

    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardBias { dbias, dy } = operands;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        self.backward_bias(dbias, dy, shape)
    }
}
