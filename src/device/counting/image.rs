//! What the input kernel must read and write.

use super::{Counting, View};
use crate::device::{DeviceError, ImageKernels, ImageShape, PixelFormat};

impl ImageKernels for Counting {
    fn image_forward(
        &self,
        x: View,
        pixels: &Self::Pixels,
        _: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        self.launch("image_forward", pixels.len as u64, self.bytes(x), shape.flops());
        Ok(())
    }
}
