//! From stored pixels to the network's input, augmentation included.

use super::{DeviceError, Memory, check_lengths};

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

/// Pixels and placements where the host is the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPixels {
    /// NHWC.
    pub pixels: Vec<u8>,
    /// One an image.
    pub placements: Vec<Placement>,
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

    /// Multiplications and additions that make numbers of the bytes.
    pub fn flops(&self) -> u64 {
        2 * self.len() as u64
    }

    /// Whether the batch has no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses operands of [`ImageKernels::image_forward`], by their lengths, and formats that no RGB pixel has.
    pub fn check(&self, x: usize, pixels: usize, placements: usize, format: &PixelFormat) -> Result<(), DeviceError> {
        const KERNEL: &str = "image_forward";
        let operands = [("x", x, self.len()), ("pixels", pixels, self.len()), ("placements", placements, self.n)];
        check_lengths(KERNEL, &operands)?;
        if let Some(channel) = format.order.iter().find(|&&channel| channel > 2) {
            let reason = format!("a pixel has channels 0, 1 and 2, and the order asks for {channel}");
            return Err(DeviceError::Shape { kernel: KERNEL, reason });
        }
        Ok(())
    }
}

/// The input kernel.
pub trait ImageKernels: Memory {
    /// `x [N, size, size, 3]` from `pixels` of the same shape: placed, reordered, scaled and shifted in one pass.
    fn image_forward(
        &self,
        x: Self::ViewMut<'_>,
        pixels: &Self::Pixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError>;
}
