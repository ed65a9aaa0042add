//! A square canvas and the few shapes that posters are made of.
//!
//! Coordinates run from 0 to 1, to the right and down. A shape is a function of a point: how far outside it lies, negative within.

use crate::random::Sequence;

/// Red, green and blue, 0 to 1.
pub type Colour = [f32; 3];

/// Pixels being painted, in light rather than bytes.
#[derive(Clone)]
pub struct Canvas {
    size: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    pub fn new(size: usize) -> Canvas {
        Canvas { size, pixels: vec![[0.0; 3]; size * size] }
    }

    /// Replaces each pixel by what `paint` makes of its place and its colour.
    pub fn each(&mut self, paint: impl Fn(f32, f32, Colour) -> Colour) {
        let step = 1.0 / self.size as f32;
        for (row, line) in self.pixels.chunks_mut(self.size.max(1)).enumerate() {
            for (column, pixel) in line.iter_mut().enumerate() {
                *pixel = paint((column as f32 + 0.5) * step, (row as f32 + 0.5) * step, *pixel);
            }
        }
    }

    /// Fills a shape, its edge one pixel soft.
    pub fn fill(&mut self, colour: Colour, outside: impl Fn(f32, f32) -> f32) {
        let sharpness = self.size as f32;
        self.each(|x, y, below| {
            let cover = (0.5 - sharpness * outside(x, y)).clamp(0.0, 1.0);
            std::array::from_fn(|c| below[c] + cover * (colour[c] - below[c]))
        });
    }

    /// The bytes, after exposure by `gain` and with `grain` on them.
    pub fn develop(self, gain: f32, mut grain: Sequence) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in self.pixels {
            let noise = grain.bits().to_le_bytes();
            for (channel, noise) in pixel.into_iter().zip(noise) {
                let level = 255.0 * gain * channel + (f32::from(noise) - 127.5) / 8.0;
                // A cast from float to integer saturates.
                bytes.push((level + 0.5) as u8);
            }
        }
        bytes
    }
}

/// In one of two shapes or in both.
pub fn either(a: impl Fn(f32, f32) -> f32, b: impl Fn(f32, f32) -> f32) -> impl Fn(f32, f32) -> f32 {
    move |x, y| a(x, y).min(b(x, y))
}

/// Where two shapes overlap.
pub fn both(a: impl Fn(f32, f32) -> f32, b: impl Fn(f32, f32) -> f32) -> impl Fn(f32, f32) -> f32 {
    move |x, y| a(x, y).max(b(x, y))
}

pub fn disc(cx: f32, cy: f32, radius: f32) -> impl Fn(f32, f32) -> f32 + Copy {
    move |x, y| ((x - cx) * (x - cx) + (y - cy) * (y - cy)).sqrt() - radius
}

/// A rectangle by its centre and half its sides.
pub fn rectangle(cx: f32, cy: f32, half_width: f32, half_height: f32) -> impl Fn(f32, f32) -> f32 + Copy {
    move |x, y| ((x - cx).abs() - half_width).max((y - cy).abs() - half_height)
}

/// A heart about `size` wide and high around its centre. The exact distance by Inigo Quilez, "2D distance functions".
pub fn heart(cx: f32, cy: f32, size: f32) -> impl Fn(f32, f32) -> f32 + Copy {
    move |x, y| {
        let (px, py) = ((x - cx).abs() / size, (cy - y) / size + 0.55);
        let square = |dx: f32, dy: f32| dx * dx + dy * dy;
        let distance = if px + py > 1.0 {
            square(px - 0.25, py - 0.75).sqrt() - 0.125f32.sqrt()
        } else {
            let along = 0.5 * (px + py).max(0.0);
            square(px, py - 1.0).min(square(px - along, py - along)).sqrt() * if px < py { -1.0 } else { 1.0 }
        };
        distance * size
    }
}
