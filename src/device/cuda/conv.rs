//! Convolution: which kernels take which shapes.
//!
//! - [`ampere`]: tensor cores take channels and filters in multiples of 16 bytes, in bf16 and tf32.
//! - [`stem`]: three channels have kernels of their own there.
//! - [`cuda_core`]: CUDA cores take everything else, and everything in f32.
//! - [`output_gradient`]: forming the gradient that a batch norm owes, and summing it into the bias's.
//! - [`geometry`]: what all of them are told of the shape.

mod ampere;
mod cuda_core;
mod geometry;
mod output_gradient;
mod stem;

pub(super) use geometry::{Divisor, extent};

use super::Cuda;
use super::batch_norm::only_relu;
use super::memory::{View, ViewMut};
use crate::device::Activation::Relu;
use crate::device::{ConvKernels, ConvShape, DeviceError, InputTransform, OutputGradient, ReduceEpilogue};
use ampere::backward_data;

impl ConvKernels for Cuda {
    fn conv_forward(
        &self,
        y: ViewMut<'_>,
        stats: Option<ViewMut<'_>>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        w: View<'_>,
        bias: Option<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        shape.check_forward(
            y.len(),
            stats.as_ref().map(ViewMut::len),
            x.len(),
            transform.map(|transform| transform.map(|norm| norm.len())),
            w.len(),
            bias.as_ref().map(View::len),
        )?;
        only_relu("conv_forward", transform.map_or(Relu, |transform| transform.activation))?;
        let norm = transform.map_or(0, |transform| transform.norm.address());
        if let Some(operands) = self.tensor_operands(&y, &x, &w, [norm, 0], shape)? {
            return self.tensor_forward(operands, stats, transform, bias, shape);
        }
        if transform.is_none() && self.takes_stem(shape, &[y.address(), x.address(), w.address()]) {
            return self.stem_forward(y, stats, x, w, bias, shape);
        }
        self.ffma_forward(y, stats, x, transform, w, bias, shape)
    }

    fn conv_form_gradient(
        &self,
        dz: View<'_>,
        y: View<'_>,
        k: View<'_>,
        shape: &ConvShape,
    ) -> Result<Option<Self::Buffer>, DeviceError> {
        self.form_gradient(dz, y, k, shape).map(Some)
    }

    fn conv_backward_data(
        &self,
        dx: ViewMut<'_>,
        accumulate: bool,
        epilogue: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        dy: OutputGradient<View<'_>>,
        w: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let lengths = epilogue.as_ref().map(|epilogue| epilogue.lengths(View::len, ViewMut::len));
        shape.check_backward_data(dx.len(), lengths, dy.map(|dy| dy.len()), w.len())?;
        only_relu("conv_backward_data", epilogue.as_ref().map_or(Relu, |epilogue| epilogue.activation))?;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        let beside = epilogue.as_ref().map_or([0; 2], |epilogue| [epilogue.y.address(), epilogue.norm.address()]);
        if backward_data::takes(shape, epilogue.is_some())
            && let Some(operands) = self.tensor_operands(&dx, &dy, &w, beside, shape)?
        {
            return self.tensor_backward_data(operands, accumulate, epilogue, shape);
        }
        self.ffma_backward_data(dx, accumulate, epilogue, dy, w, shape)
    }

    fn conv_backward_weights(
        &self,
        dw: ViewMut<'_>,
        dy: OutputGradient<View<'_>>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let norm = transform.map(|transform| transform.map(|norm| norm.len()));
        shape.check_backward_weights(dw.len(), dy.map(|view| view.len()), x.len(), norm)?;
        only_relu("conv_backward_weights", transform.map_or(Relu, |transform| transform.activation))?;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        if self.takes_backward_weights(&dw, &dy, &x, shape) {
            return self.backward_weights(dw, dy, x, transform, shape);
        }
        if transform.is_none() && self.takes_stem(shape, &[dw.address(), dy.address(), x.address()]) {
            return self.stem_backward_weights(dw, dy, x, shape);
        }
        self.ffma_backward_weights(dw, dy, x, transform, shape)
    }

    fn conv_backward_bias(
        &self,
        dbias: ViewMut<'_>,
        dy: OutputGradient<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        shape.check_backward_bias(dbias.len(), dy.map(|view| view.len()))?;
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        self.backward_bias(dbias, dy, shape)
    }
}
