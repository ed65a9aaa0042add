use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

impl ImageKernels for Cuda {
    fn image_forward(
        &self,
        x: ViewMut<'_>,
        pixels: &super::pixels::Pixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
