//! From stored bytes to the network's input: the launch of `kernels/image/image.cu`.

use super::Cuda;
use super::arguments::arguments;
use super::conv::Divisor;
use super::kernels::Launch;
use super::memory::ViewMut;
use super::modules::Module;
use super::pixels::Pixels;
use crate::device::{DeviceError, ImageKernels, ImageShape, PixelFormat, Placement, Work};

const KERNEL: &str = "image_forward";
/// Bytes of a `Segment` in shared memory.
const SEGMENT: usize = 20;

arguments! {
    /// Argument of `image_forward`.
    struct ImageForward {
        x: u64,
        pixels: u64,
        placements: u64,
        len: i32,
        size: i32,
        rows: i32,
        pitch: i32,
        by_row: Divisor,
        by_size: Divisor,
        order: [i32; 3],
        scale: f32,
        shift: [f32; 3],
    }
}

impl ImageKernels for Cuda {
    fn image_forward(
        &self,
        x: ViewMut<'_>,
        pixels: &Pixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        shape.check(x.len(), pixels.len(), pixels.images(), format)?;
        let element = self.activation_element();
        let (len, row) = (shape.len(), 3 * shape.size);
        if x.element() != element || !x.address().is_multiple_of(16) || len > 1 << 30 {
            let reason = format!(
                "{len} elements of {:?} at {:#x}; it makes up to 2³⁰ of {element:?} on 16 bytes",
                x.element(),
                x.address()
            );
            return Err(DeviceError::Shape { kernel: KERNEL, reason });
        }
        // What a block makes, the rows that this can touch, and the words of one that it can need: its first and its last
        // pixel whole, from a byte anywhere in a word.
        let elements = 256 * 16 / element.bytes();
        let rows = ((elements - 1) / row + 2).min(shape.n * shape.size);
        let pitch = row.min(elements + 4) / 4 + 2;
        pixels.wait(self)?;
        let arguments = ImageForward {
            x: x.address(),
            pixels: pixels.address(),
            placements: pixels.placements_address(),
            len: len as i32,
            size: shape.size as i32,
            rows: rows as i32,
            pitch: pitch as i32,
            by_row: Divisor::new(row as u32),
            by_size: Divisor::new(shape.size as u32),
            order: format.order.map(|channel| channel as i32),
            scale: format.scale as f32,
            shift: format.shift.map(|shift| shift as f32),
        };
        let work = Work {
            reads: (len + shape.n * size_of::<Placement>()) as u64,
            writes: (len * element.bytes()) as u64,
            flops: shape.flops(),
        };
        let shared = (rows * (SEGMENT + 4 * pitch)) as u32;
        let launch = Launch { grid: [len.div_ceil(elements) as u32, 1, 1], block: 256, shared, work };
        self.launch(Module::Image, KERNEL, launch, &arguments)
    }
}
