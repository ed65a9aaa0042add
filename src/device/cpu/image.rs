//! The input: bytes to floats through a table of 3·256 values.

use super::memory::Cpu;
use super::view::{Number, ViewMut, by_width, stored_as};
use crate::device::image::HostPixels;
use crate::device::{DeviceError, Elements, ImageKernels, ImageShape, PixelFormat, Placement};
use rayon::prelude::*;

impl ImageKernels for Cpu {
    fn image_forward(
        &self,
        x: ViewMut<'_>,
        pixels: &HostPixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "image_forward";
        let HostPixels { pixels, placements } = pixels;
        shape.check(x.count(), pixels.len(), placements.len(), format)?;
        let _clock = self.clock(KERNEL, shape.flops(), pixels.len(), x.bytes());
        let image = shape.size * shape.size * 3;
        let values = format
            .shift
            .map(|shift| std::array::from_fn::<f32, 256, _>(|byte| (format.scale * byte as f64 + shift) as f32));
        by_width!(self, E => {
            stored_as!(E, KERNEL; x);
            (x.par_chunks_mut(image), pixels.par_chunks(image), placements).into_par_iter().for_each(
                |(x, pixels, placement)| {
                    E::write(x, false, |x| place(x, pixels, *placement, format.order, &values, shape.size));
                },
            );
        });
        Ok(())
    }
}

/// One image.
fn place(x: &mut [f32], pixels: &[u8], placement: Placement, order: [usize; 3], values: &[[f32; 256]; 3], size: usize) {
    let Placement { flip, shift_y, shift_x } = placement;
    let source = |to: usize, shift: i8| to.checked_add_signed(-isize::from(shift)).filter(|from| *from < size);
    for (row, x) in x.chunks_exact_mut(size * 3).enumerate() {
        let from_row = source(row, shift_y);
        for (col, x) in x.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let from = from_row.zip(source(col, shift_x));
            *x = from.map_or([0.0; 3], |(from_row, from_col)| {
                let from_col = if flip { size - 1 - from_col } else { from_col };
                let pixel = &pixels[(from_row * size + from_col) * 3..][..3];
                std::array::from_fn(|c| values[c][usize::from(pixel[order[c]])])
            });
        }
    }
}
