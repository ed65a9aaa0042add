use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

impl PoolKernels for Cuda {
    fn max_pool_forward(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn max_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn global_average_pool_forward(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn global_average_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn global_max_pool_forward(&self, y: ViewMut<'_>, x: View<'_>, shape: &GlobalPoolShape) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn global_max_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
