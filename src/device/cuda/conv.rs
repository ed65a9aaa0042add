//! The convolution: which kernels take which shapes.

mod backward_weights;
mod geometry;
mod output_gradient;

use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

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
        unimplemented!()
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

    /// `dx = convᵀ(dy, w)`, or `dx += …` with `accumulate`; then the epilogue on the total.
    fn conv_backward_data(
        &self,
        dx: ViewMut<'_>,
        accumulate: bool,
        epilogue: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        dy: OutputGradient<View<'_>>,
        w: View<'_>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
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
        let mut formed = None;
        let dy = self.ready(dy, shape, &mut formed)?;
        if self.takes_backward_weights(&dw, &dy, &x, shape) {
            return self.backward_weights(dw, dy, x, transform, shape);
        }
        unimplemented!()
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
