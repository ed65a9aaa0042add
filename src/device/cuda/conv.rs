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
        let _ = (dz, y, k, shape);
        Ok(None)
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
        unimplemented!()
    }
    fn conv_backward_bias(
        &self,
        dbias: ViewMut<'_>,
        dy: OutputGradient<View<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
