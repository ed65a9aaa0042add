//! From stored pixels to the network's input, augmentation included.

use super::{DeviceError, Memory};

/// How stored RGB bytes become numbers: `x[…, c] = scale·pixel[…, order[c]] + shift[c]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct PixelFormat {
    /// Which stored channel (0 red, 1 green, 2 blue) each input channel reads.
    pub order: [usize; 3],
    /// Factor, the same for all channels.
    pub scale: f64,
    /// Offset of each input channel.
    pub shift: [f64; 3],
}

/// Where one poster of a batch lands: mirrored left to right first, then moved; what enters from outside is zero *after*
/// normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Placement {
    /// Mirror left to right.
    pub flip: bool,
    /// Pixels down (negative: up).
    pub shift_y: i8,
    /// Pixels to the right (negative: to the left).
    pub shift_x: i8,
}

/// The geometry of a batch of square RGB images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ImageShape {
    /// Images.
    pub n: usize,
    /// Height and width.
    pub size: usize,
}

impl ImageShape {
    /// Elements of the batch: N·size·size·3.
    pub fn len(&self) -> usize {
        self.n * self.size * self.size * 3
    }

    /// Whether the batch has no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The input kernel.
pub trait ImageKernels: Memory {
    /// `x [N, size, size, 3]` from `pixels` of the same shape: placed, reordered, scaled and shifted in one pass.
    /// `placements` has one entry an image.
    fn image_forward(
        &self,
        x: Self::ViewMut<'_>,
        pixels: &Self::Pixels,
        placements: &[Placement],
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError>;
}
