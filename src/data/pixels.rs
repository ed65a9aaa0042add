//! From the bytes of an image file to the square of pixels the network sees.

use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};

use image::imageops::{self, FilterType};
use image::{ImageReader, Limits, RgbImage};

/// The widest and the highest poster, in pixels.
pub const LARGEST_SIDE: u32 = 4096;
/// The most memory a decoder may take, in bytes.
const DECODER_MEMORY: u64 = 64 << 20;

/// How a poster becomes a square. The whole poster is kept: its sides are scaled each by its own factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Every pixel is a weighted mean over the area it covers in the poster.
    ///
    /// The weights fall off in a triangle two target pixels wide (Pillow's `BILINEAR` when shrinking). A plain box would be
    /// the obvious choice, but at these small factors (182 to 150 pixels) it takes one source pixel here and two there,
    /// which breaks fine lines such as the small print of a poster.
    Area,
    /// Every pixel is one pixel of the poster, as in Keras's `load_img`, which is what the paper's network saw.
    Nearest,
}

impl Resize {
    /// `area` or `nearest`.
    pub fn name(self) -> &'static str {
        match self {
            Resize::Area => "area",
            Resize::Nearest => "nearest",
        }
    }
}

/// Why there are no pixels.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// The bytes are no image of a known kind.
    #[error("not a JPEG, PNG or WebP image")]
    UnknownFormat,
    /// The image is larger than posters are; it was not decoded.
    #[error("{width}×{height} pixels; a poster has {LARGEST_SIDE}×{LARGEST_SIDE} at most")]
    TooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// The decoder refuses.
    #[error("damaged: {0}")]
    Damaged(image::ImageError),
    /// The decoder panicked. That is a bug in the decoder, and this image's doing.
    #[error("damaged: its decoder gave up")]
    Panicked,
}

/// Decodes the poster in `bytes` and makes it a square: RGB pixels [size, size, 3].
///
/// Grey images become RGB, transparency is dropped, and an orientation noted beside the pixels is not applied, all as Keras
/// does it.
pub fn square(bytes: &[u8], size: usize, resize: Resize) -> Result<Vec<u8>, PixelError> {
    // Decoders are fed what the internet calls a poster, and are known to panic on some of it.
    let image = panic::catch_unwind(AssertUnwindSafe(|| decode(bytes))).map_err(|_| PixelError::Panicked)??;
    Ok(match resize {
        Resize::Area => area(&image, size),
        Resize::Nearest => nearest(&image, size),
    })
}

fn decode(bytes: &[u8]) -> Result<RgbImage, PixelError> {
    let reader = || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().expect("a slice can always be read");
        if reader.format().is_some_and(|format| format.reading_enabled()) {
            Ok(reader)
        } else {
            Err(PixelError::UnknownFormat)
        }
    };
    let (width, height) = reader()?.into_dimensions().map_err(PixelError::Damaged)?;
    if width > LARGEST_SIDE || height > LARGEST_SIDE || width == 0 || height == 0 {
        return Err(PixelError::TooLarge { width, height });
    }
    let mut reader = reader()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_MEMORY);
    reader.limits(limits);
    Ok(reader.decode().map_err(PixelError::Damaged)?.into_rgb8())
}

fn area(image: &RgbImage, size: usize) -> Vec<u8> {
    imageops::resize(image, size as u32, size as u32, FilterType::Triangle).into_raw()
}

fn nearest(image: &RgbImage, size: usize) -> Vec<u8> {
    let columns = nearest_sources(image.width(), size);
    let mut pixels = Vec::with_capacity(size * size * 3);
    for y in nearest_sources(image.height(), size) {
        pixels.extend(columns.iter().flat_map(|&x| image.get_pixel(x, y).0));
    }
    pixels
}

/// Of each of `size` pixels the source pixel under its centre: floor((i + 0.5) · length / size).
///
/// Pillow steps from centre to centre by adding in doubles; so do we, because where a centre falls on the edge of two pixels
/// the rounding of that sum decides.
fn nearest_sources(length: u32, size: usize) -> Vec<u32> {
    let step = f64::from(length) / size as f64;
    let mut centre = step * 0.5;
    let mut sources = Vec::with_capacity(size);
    for _ in 0..size {
        sources.push((centre as u32).min(length - 1));
        centre += step;
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow 13's answers, each list of 150 columns folded to a number:
    /// ```python
    /// image = Image.fromarray(np.arange(n, dtype=np.int32).reshape(1, -1), mode="I")
    /// columns = np.asarray(image.resize((150, 1), Image.NEAREST)).ravel().tolist()
    /// functools.reduce(lambda folded, x: (folded * 31 + x) % 2**64, columns, 0)
    /// ```
    #[test]
    fn nearest_is_pillows() {
        let fold =
            |sources: &[u32]| sources.iter().fold(0u64, |folded, &x| folded.wrapping_mul(31).wrapping_add(x.into()));
        for (length, expected) in [
            (1, 0),
            (100, 0x6686d40a6c3673),
            (149, 0xc4e4728d529bfcea),
            (182, 0x7e701b1b0e977d5b),
            (268, 0x9f772050c0f6f6e7),
            (300, 0xce5c2c8766cb89f6),
            (4096, 0x7d6ec2aa7815e89f),
        ] {
            assert_eq!(fold(&nearest_sources(length, 150)), expected, "{length} to 150");
        }
    }

    #[test]
    fn nearest_picks_columns_and_rows() {
        // Pixel (x, y) is [x, y, 7]; 4×8 to 2×2 takes columns 1 and 3, rows 2 and 6.
        let image = RgbImage::from_fn(4, 8, |x, y| image::Rgb([x as u8, y as u8, 7]));
        assert_eq!(nearest(&image, 2), [1, 2, 7, 3, 2, 7, 1, 6, 7, 3, 6, 7]);
    }

    #[test]
    fn area_keeps_flat_colours_and_means() {
        let flat = RgbImage::from_pixel(182, 268, image::Rgb([10, 128, 250]));
        assert!(area(&flat, 150).chunks(3).all(|pixel| pixel == [10, 128, 250]));
        // A checkerboard averages to grey where nearest would pick black or white.
        let board = RgbImage::from_fn(256, 256, |x, y| image::Rgb([255 * ((x + y) % 2) as u8; 3]));
        assert!(area(&board, 32).iter().all(|&value| (126..=129).contains(&value)));
    }
}
