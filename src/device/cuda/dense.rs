use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

impl DenseKernels for Cuda {
    fn dense_forward(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        w: View<'_>,
        b: View<'_>,
        relu: bool,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn dense_backward_data(
        &self,
        dx: ViewMut<'_>,
        dz: View<'_>,
        w: View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn dense_backward_weights(
        &self,
        dw: ViewMut<'_>,
        db: ViewMut<'_>,
        dz: View<'_>,
        x: View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn relu_backward(&self, dz: ViewMut<'_>, dy: View<'_>, y: View<'_>) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
