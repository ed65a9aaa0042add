//! Posters that are changed before training looks at them: cut out, turned, coloured.
//!
//! It is done on the stored bytes, while a batch is assembled, so it is the same on every device. What is drawn for a poster is a pure
//! function of (seed, epoch, poster), and each kind has draws of its own: one that is switched on leaves the others as they were.

use crate::random::{Philox, Stream};

/// How far posters are changed, at the most. All 0 by default: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// A square window becomes the whole poster; its side is shorter than the poster's by up to this share. From 0 to below 1.
    pub crop: f64,
    /// Turned about the window's centre by up to so many degrees either way.
    pub rotate: f64,
    /// Brightness, contrast and saturation are multiplied by up to this share more or less, each by itself. From 0 to below 1.
    pub colour: f64,
}

/// The weights of red, green and blue in a grey (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

impl Distortion {
    /// Whether posters stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Distortion::default()
    }

    /// Changes poster `sample`, `pixels [size, size, 3]` in RGB, for `epoch`.
    pub fn apply(&self, pixels: &mut [u8], size: usize, seed: u64, epoch: u32, sample: u32) {
        let mut sequence = Philox::new(seed).sequence(Stream::Distortion, epoch, sample);
        let [side, row, column, turn, brightness, contrast, saturation] =
            std::array::from_fn(|_| f64::from(sequence.uniform()));
        if self.crop > 0.0 || self.rotate > 0.0 {
            let side = 1.0 - self.crop * side;
            let window = Window { side, row: (1.0 - side) * row, column: (1.0 - side) * column };
            let seen = window.seen(pixels, size, (self.rotate * (2.0 * turn - 1.0)).to_radians());
            pixels.copy_from_slice(&seen);
        }
        if self.colour > 0.0 {
            let factor = |drawn: f64| (1.0 + self.colour * (2.0 * drawn - 1.0)) as f32;
            recolour(pixels, factor(brightness), factor(contrast), factor(saturation));
        }
    }
}

/// A square part of a poster, in shares of its side.
struct Window {
    side: f64,
    row: f64,
    column: f64,
}

impl Window {
    /// The window as a whole poster, turned by `angle`. Between pixels it is interpolated, bilinearly; beyond the border the border goes
    /// on.
    fn seen(&self, pixels: &[u8], size: usize, angle: f64) -> Vec<u8> {
        let (extent, last) = (size as f64, (size - 1) as f32);
        // Half a pixel less: places of centres, so that a place's whole part is the pixel before it.
        let centre = [self.row, self.column].map(|start| (extent * (start + 0.5 * self.side) - 0.5) as f32);
        let (sine, cosine) = ((self.side * angle.sin()) as f32, (self.side * angle.cos()) as f32);
        let from_middle = |at: usize| (at as f64 + 0.5 - 0.5 * extent) as f32;
        let (pixels, _) = pixels.as_chunks::<3>();
        let mut seen = vec![[0; 3]; pixels.len()];
        for (down, line) in seen.chunks_exact_mut(size).enumerate() {
            let down = from_middle(down);
            for (right, seen) in line.iter_mut().enumerate() {
                let right = from_middle(right);
                let row = (centre[0] + cosine * down - sine * right).clamp(0.0, last);
                let column = (centre[1] + sine * down + cosine * right).clamp(0.0, last);
                let (first_row, first_column) = (row as u32 as usize, column as u32 as usize);
                let (below, beside) = (row - first_row as f32, column - first_column as f32);
                let (next_row, next_column) = ((first_row + 1).min(size - 1), (first_column + 1).min(size - 1));
                let between = |row: usize| {
                    let (here, next) = (pixels[row * size + first_column], pixels[row * size + next_column]);
                    std::array::from_fn::<f32, 3, _>(|channel| {
                        let (here, next) = (f32::from(here[channel]), f32::from(next[channel]));
                        here + beside * (next - here)
                    })
                };
                let (upper, lower) = (between(first_row), between(next_row));
                *seen =
                    std::array::from_fn(|channel| nearest(upper[channel] + below * (lower[channel] - upper[channel])));
            }
        }
        seen.into_flattened()
    }
}

/// The nearest byte. `f32::round` is a call on processors that compilers take for granted, and has the sign in mind.
fn nearest(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Multiplies a poster's brightness, its contrast around its mean grey, and its saturation around each pixel's grey, in this order.
fn recolour(pixels: &mut [u8], brightness: f32, contrast: f32, saturation: f32) {
    let grey = |pixel: [f32; 3]| pixel.iter().zip(GREY).map(|(value, weight)| value * weight).sum::<f32>();
    let bright = |pixel: &[u8; 3]| pixel.map(|value| (f32::from(value) * brightness).min(255.0));
    let (pixels, _) = pixels.as_chunks_mut::<3>();
    let mean = pixels.iter().map(|pixel| f64::from(grey(bright(pixel)))).sum::<f64>() / pixels.len() as f64;
    for pixel in pixels {
        let contrasted = bright(pixel).map(|value| mean as f32 + contrast * (value - mean as f32));
        let grey = grey(contrasted);
        *pixel = contrasted.map(|value| nearest(grey + saturation * (value - grey)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A poster of `size`² pixels, none like another.
    fn poster(size: usize) -> Vec<u8> {
        (0..3 * size * size).map(|at| ((at * at + 7 * at) % 251) as u8).collect()
    }

    fn applied(distortion: Distortion, epoch: u32, sample: u32) -> Vec<u8> {
        let mut pixels = poster(16);
        distortion.apply(&mut pixels, 16, 5, epoch, sample);
        pixels
    }

    const WHOLE: Window = Window { side: 1.0, row: 0.0, column: 0.0 };

    #[test]
    fn the_whole_window_is_the_poster_and_turns_in_quarters_exactly() {
        let (size, pixels) = (5, poster(5));
        assert_eq!(WHOLE.seen(&pixels, size, 0.0), pixels);
        let seen = WHOLE.seen(&pixels, size, 90f64.to_radians());
        let half = WHOLE.seen(&pixels, size, 180f64.to_radians());
        let pixel = |of: &[u8], row: usize, column: usize| of[3 * (row * size + column)..][..3].to_vec();
        for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
            // A quarter turn to the right: the left column comes to the top.
            assert_eq!(pixel(&seen, row, column), pixel(&pixels, size - 1 - column, row), "{row}, {column}");
            assert_eq!(pixel(&half, row, column), pixel(&pixels, size - 1 - row, size - 1 - column));
        }
    }

    /// The lower right quarter of four by four: two by two pixels, each seen four times, interpolated between their centres.
    #[test]
    fn a_window_is_enlarged() {
        let mut pixels = vec![0; 48];
        for (row, column, value) in [(2, 2, 0), (2, 3, 80), (3, 2, 160), (3, 3, 240)] {
            pixels[3 * (4 * row + column)] = value;
        }
        let seen = Window { side: 0.5, row: 0.5, column: 0.5 }.seen(&pixels, 4, 0.0);
        let reds: Vec<u8> = seen.into_iter().step_by(3).collect();
        // Centres at 1.75, 2.25, 2.75 and 3.25, the last beyond the last pixel's. What lies above and to the left is black.
        assert_eq!(reds[5..8], [60, 100, 120]);
        assert_eq!(reds[15], 240);
        assert_eq!(reds[10], 180);
    }

    #[test]
    fn colours_by_hand() {
        let mut pixels = [100, 100, 100, 200, 200, 200];
        recolour(&mut pixels, 1.5, 1.0, 1.0);
        assert_eq!(pixels, [150, 150, 150, 255, 255, 255]);
        let mut pixels = [100, 100, 100, 200, 200, 200];
        recolour(&mut pixels, 1.0, 0.5, 3.0);
        assert_eq!(pixels, [125, 125, 125, 175, 175, 175], "around 150; a grey has no saturation");
        let mut pixels = [200, 0, 0];
        recolour(&mut pixels, 1.0, 1.0, 0.0);
        assert_eq!(pixels, [60; 3], "its grey: 0.299 of 200");
    }

    #[test]
    fn each_kind_is_drawn_by_itself_and_again_the_same() {
        let none = Distortion::default();
        assert_eq!(applied(none, 0, 0), poster(16));
        let kinds =
            [Distortion { crop: 0.5, ..none }, Distortion { rotate: 30.0, ..none }, Distortion { colour: 0.5, ..none }];
        for kind in kinds {
            assert_ne!(applied(kind, 0, 0), poster(16), "{kind:?}");
            assert_eq!(applied(kind, 1, 2), applied(kind, 1, 2), "{kind:?}");
            assert_ne!(applied(kind, 1, 2), applied(kind, 1, 3), "{kind:?}");
            assert_ne!(applied(kind, 1, 2), applied(kind, 2, 2), "{kind:?}");
        }
    }

    #[test]
    fn draws_reach_their_bounds_and_no_further() {
        let mut most = 0;
        for sample in 0..200 {
            let mut pixels = [128; 3 * 16 * 16];
            Distortion { colour: 0.5, ..Distortion::default() }.apply(&mut pixels, 16, 5, 0, sample);
            most = most.max(pixels[0].abs_diff(128));
        }
        assert!((60..=64).contains(&most), "{most}");
    }
}
