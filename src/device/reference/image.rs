//! The input kernel: where each number of `x` comes from, asked one at a time.

use super::Reference;
use crate::device::image::HostPixels;
use crate::device::{DeviceError, ImageKernels, ImageShape, PixelFormat, Placement};

/// The column or row that ends at `to` after a move by `shift`, if it lies inside.
fn source(to: usize, shift: i8, size: usize) -> Option<usize> {
    to.checked_add_signed(-isize::from(shift)).filter(|&from| from < size)
}

impl ImageKernels for Reference {
    fn image_forward(
        &self,
        x: &mut [f64],
        pixels: &HostPixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        let HostPixels { pixels, placements } = pixels;
        shape.check(x.len(), pixels.len(), placements.len(), format)?;
        let size = shape.size;
        for (i, x) in x.iter_mut().enumerate() {
            let (c, column, row, n) = (i % 3, i / 3 % size, i / 3 / size % size, i / 3 / size / size);
            let Placement { flip, shift_y, shift_x } = placements[n];
            let from = source(row, shift_y, size).zip(source(column, shift_x, size));
            *x = match from {
                Some((row, column)) => {
                    let column = if flip { size - 1 - column } else { column };
                    let pixel = pixels[((n * size + row) * size + column) * 3 + format.order[c]];
                    format.scale * f64::from(pixel) + format.shift[c]
                }
                None => 0.0,
            };
        }
        self.store(x);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(pixels: &[u8], placements: &[Placement]) -> HostPixels {
        HostPixels { pixels: pixels.to_vec(), placements: placements.to_vec() }
    }

    const PLAIN: PixelFormat = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };

    /// The red channel, row by row, of 2×2 posters whose red is `reds`.
    fn reds(reds: &[u8], placements: &[Placement]) -> Vec<f64> {
        let shape = ImageShape { n: placements.len(), size: 2 };
        let pixels: Vec<u8> = reds.iter().flat_map(|&red| [red, 0, 0]).collect();
        let mut x = vec![f64::NAN; shape.len()];
        Reference::EXACT.image_forward(&mut x, &placed(&pixels, placements), &PLAIN, &shape).unwrap();
        x.into_iter().step_by(3).collect()
    }

    #[test]
    fn channels_are_reordered_scaled_and_shifted() {
        // Keras's caffe mode in miniature: blue first, minus a mean each.
        let format = PixelFormat { order: [2, 1, 0], scale: 0.5, shift: [-1.0, -2.0, -3.0] };
        let (shape, mut x) = (ImageShape { n: 1, size: 1 }, vec![f64::NAN; 3]);
        Reference::EXACT
            .image_forward(&mut x, &placed(&[10, 20, 255], &[Placement::default()]), &format, &shape)
            .unwrap();
        assert_eq!(x, [126.5, 8.0, 2.0]);
    }

    #[test]
    fn mirrored_then_moved() {
        let plain = Placement::default();
        let flip = Placement { flip: true, ..plain };
        let right = Placement { shift_x: 1, ..plain };
        let up = Placement { shift_y: -1, ..plain };
        let all = Placement { flip: true, shift_y: 1, shift_x: -1 };
        let found = reds(&[1, 2, 3, 4].repeat(5), &[plain, flip, right, up, all]);
        assert_eq!(found[0..4], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(found[4..8], [2.0, 1.0, 4.0, 3.0]);
        assert_eq!(found[8..12], [0.0, 1.0, 0.0, 3.0]);
        assert_eq!(found[12..16], [3.0, 4.0, 0.0, 0.0]);
        assert_eq!(found[16..20], [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn moved_out_of_sight() {
        let placements = [
            Placement { shift_x: 2, ..Placement::default() },
            Placement { shift_y: i8::MIN, ..Placement::default() },
            Placement { shift_x: i8::MAX, ..Placement::default() },
        ];
        assert_eq!(reds(&[9; 12], &placements), [0.0; 12]);
    }

    #[test]
    fn what_enters_is_zero_after_normalisation() {
        let format = PixelFormat { shift: [-100.0; 3], ..PLAIN };
        let (shape, mut x) = (ImageShape { n: 1, size: 1 }, vec![f64::NAN; 3]);
        let away = Placement { shift_y: 1, ..Placement::default() };
        Reference::EXACT.image_forward(&mut x, &placed(&[50; 3], &[away]), &format, &shape).unwrap();
        assert_eq!(x, [0.0; 3]);
    }

    #[test]
    fn wrong_operands_are_named() {
        let (shape, mut x, plain) = (ImageShape { n: 1, size: 1 }, [0.0; 3], Placement::default());
        let error = Reference::EXACT.image_forward(&mut x, &placed(&[0; 3], &[plain; 2]), &PLAIN, &shape).unwrap_err();
        assert_eq!(error.to_string(), "image_forward: operand placements has 2 elements, its shape asks for 1");
        let format = PixelFormat { order: [0, 1, 3], ..PLAIN };
        assert!(Reference::EXACT.image_forward(&mut x, &placed(&[0; 3], &[plain]), &format, &shape).is_err());
    }
}
