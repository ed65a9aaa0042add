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
            let values = values.map(|of_channel| of_channel.map(E::nearest));
            (x.par_chunks_mut(image), pixels.par_chunks(image), placements).into_par_iter().for_each(
                |(x, pixels, placement)| place(x, pixels, *placement, format.order, &values, shape.size),
            );
        });
        Ok(())
    }
}

/// One image.
fn place<E: Number>(
    x: &mut [E],
    pixels: &[u8],
    placement: Placement,
    order: [usize; 3],
    values: &[[E; 256]; 3],
    size: usize,
) {
    let Placement { flip, shift_y, shift_x } = placement;
    // The pixels of a row that come from the image, and the first of them there.
    let (right, left) =
        (usize::from(shift_x.max(0) as u8).min(size), usize::from(shift_x.min(0).unsigned_abs()).min(size));
    let pixels = pixels.as_chunks::<3>().0;
    for (row, x) in x.as_chunks_mut::<3>().0.chunks_exact_mut(size).enumerate() {
        let from_row = row.checked_add_signed(-isize::from(shift_y)).filter(|from_row| *from_row < size);
        let Some(from_row) = from_row else {
            x.fill([E::zeroed(); 3]);
            continue;
        };
        let (before, x) = x.split_at_mut(right);
        let (x, behind) = x.split_at_mut(x.len() - left);
        before.fill([E::zeroed(); 3]);
        behind.fill([E::zeroed(); 3]);
        let from = &pixels[from_row * size..][..size];
        let write = |(x, pixel): (&mut [E; 3], &[u8; 3])| {
            *x = std::array::from_fn(|c| values[c][usize::from(pixel[order[c]])]);
        };
        let seen = left..size - right;
        match flip {
            true => x.iter_mut().zip(from[size - seen.end..size - seen.start].iter().rev()).for_each(write),
            false => x.iter_mut().zip(&from[seen]).for_each(write),
        }
    }
}
