use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

impl AdamKernels for Cuda {
    fn adam(
        &self,
        w: ViewMut<'_>,
        m: ViewMut<'_>,
        v: ViewMut<'_>,
        gradients: View<'_>,
        loss: View<'_>,
        rate: View<'_>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
