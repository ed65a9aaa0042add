//! Letters.

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X13;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};
use std::convert::Infallible;

/// Width and height of a letter, in pixels.
pub const LETTER: (u32, u32) = (6, 13);

/// Writes a line from `(x, y)`, its upper left corner, on; what is longer than `width` pixels ends in two dots. The font knows the letters
/// of Western Europe (ISO 8859-1) and shows a question mark for any other.
pub fn write(image: &mut RgbImage, line: &str, (x, y): (u32, u32), width: u32, colour: Rgb<u8>) {
    let room = (width / LETTER.0) as usize;
    let mut line = line.to_owned();
    if line.chars().count() > room {
        line = line.chars().take(room.saturating_sub(2)).collect::<String>() + "..";
    }
    let [red, green, blue] = colour.0;
    let style = MonoTextStyle::new(&FONT_6X13, Rgb888::new(red, green, blue));
    let place = Point::new(x as i32, y as i32);
    let Ok(_) = Text::with_baseline(&line, place, style, Baseline::Top).draw(&mut Canvas(image));
}

/// An image to draw on.
struct Canvas<'a>(&'a mut RgbImage);

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(place, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(place.x), u32::try_from(place.y)) else { continue };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which columns of letters have ink in them.
    fn written(line: &str, width: u32) -> Vec<bool> {
        let mut image = RgbImage::new(120, 20);
        write(&mut image, line, (0, 2), width, Rgb([255; 3]));
        let has_ink = |column: u32| (6 * column..6 * column + 6).any(|x| (0..20).any(|y| image.get_pixel(x, y)[0] > 0));
        (0..20).map(has_ink).collect()
    }

    #[test]
    fn lines_stay_within_their_width_and_the_image() {
        let ink = |count: usize| (0..20).map(|column| column < count).collect::<Vec<_>>();
        assert_eq!(written("Drama", 60), ink(5));
        assert_eq!(written("Western/Action", 60), ink(10), "cut off");
        assert_eq!(written("a".repeat(40).as_str(), 240), ink(20), "the image ends before the line");
        let letters = |line: &str| {
            let mut image = RgbImage::new(120, 20);
            write(&mut image, line, (0, 2), 60, Rgb([255; 3]));
            image
        };
        assert_eq!(letters("Western/Action"), letters("Western/.."));
        assert_eq!(letters("é剧"), letters("é?"));
        assert_ne!(letters("é"), letters("e"));
    }
}
