//! From the bytes of an image file to the square of pixels the network sees.

use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};

use image::error::ImageError;
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::jpeg;
use super::squaring::{Alpha, Exif, Resize, Squaring};

/// The widest and the highest poster, in pixels.
pub const LARGEST_SIDE: u32 = 4096;
/// The most memory that a decoded poster may take, in bytes: room for the largest one with transparency.
pub const LARGEST_IMAGE: u64 = 64 << 20;
/// The most memory for what a PNG file carries besides: texts, and a colour profile, which unpack to a thousand times their
/// size.
const SIDE_DATA: u64 = 4 << 20;

/// Why there are no pixels.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// The bytes are no image of a known kind.
    #[error("not a JPEG, PNG or WebP image")]
    UnknownFormat,
    /// An image of a kind that is known and not read.
    #[error("{} {} image; convert it to PNG", if .0.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" }, .0)]
    OtherFormat(String),
    /// The image is larger than posters are; it was not decoded.
    #[error("too large: {width}×{height} pixels; a poster has {LARGEST_SIDE}×{LARGEST_SIDE} at most")]
    TooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// The image takes too much memory; it was not decoded.
    #[error(
        "too large: {width}×{height} pixels of {} bytes each take more than {} MB; store it with 8 bits a channel, or make it smaller",
        bytes / (u64::from(*width) * u64::from(*height)),
        LARGEST_IMAGE >> 20
    )]
    TooDeep {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// What its pixels take.
        bytes: u64,
    },
    /// The decoder needs more memory for this image than it may have.
    #[error("too large: {0}")]
    Limits(ImageError),
    /// The decoder refuses.
    #[error("damaged: {0}")]
    Damaged(ImageError),
    /// A JPEG file that is not all there.
    #[error("damaged: {0}")]
    Jpeg(jpeg::Flaw),
    /// A WebP file that is not all there.
    #[error("damaged: it is cut off at {found} of {expected} bytes")]
    WebP {
        /// Bytes that are there.
        found: usize,
        /// Bytes that it says it has.
        expected: usize,
    },
    /// The decoder panicked. That is a bug in the decoder, and this image's doing.
    #[error("damaged: its decoder gave up")]
    Panicked,
}

impl PixelError {
    fn decoding(error: ImageError) -> PixelError {
        if matches!(error, ImageError::Limits(_)) { PixelError::Limits(error) } else { PixelError::Damaged(error) }
    }
}

/// Decodes the poster in `bytes` and makes it a square: RGB pixels [size, size, 3]. Grey images become RGB.
///
/// # Errors
/// [`PixelError`]; a file that is cut off is damaged, however much of its image is there.
pub fn square(bytes: &[u8], squaring: &Squaring) -> Result<Vec<u8>, PixelError> {
    Ok(squared(&whole(bytes, squaring)?, squaring))
}

/// The poster in `bytes` in its own size, turned and its transparency dropped as `squaring` says.
///
/// # Errors
/// [`PixelError`]; a file that is cut off is damaged, however much of its image is there.
pub fn whole(bytes: &[u8], squaring: &Squaring) -> Result<RgbImage, PixelError> {
    // Decoders are fed what the internet calls a poster, and are known to panic on some of it.
    let image = panic::catch_unwind(AssertUnwindSafe(|| decode(bytes, squaring)));
    image.map_err(|_| PixelError::Panicked)?
}

/// Width and height of the poster in `bytes`, as its header says, with nothing decoded.
///
/// # Errors
/// [`PixelError`]; that there is none does not mean that the image is whole.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), PixelError> {
    let header = panic::catch_unwind(|| Ok(open(bytes, format(bytes)?)?.dimensions()));
    header.map_err(|_| PixelError::Panicked)?
}

/// What [`square`] makes of a poster that [`whole`] has decoded.
pub fn squared(image: &RgbImage, squaring: &Squaring) -> Vec<u8> {
    match squaring.resize {
        Resize::Area => area(image, squaring.size),
        Resize::Nearest => nearest(image, squaring.size),
    }
}

fn decode(bytes: &[u8], squaring: &Squaring) -> Result<RgbImage, PixelError> {
    let format = format(bytes)?;
    let decoder = open(bytes, format)?;
    let ((width, height), size) = (decoder.dimensions(), decoder.total_bytes());
    if width > LARGEST_SIDE || height > LARGEST_SIDE || width == 0 || height == 0 {
        return Err(PixelError::TooLarge { width, height });
    }
    if size > LARGEST_IMAGE {
        return Err(PixelError::TooDeep { width, height, bytes: size });
    }
    let bytes = match format {
        ImageFormat::Jpeg => jpeg::whole(bytes).map_err(PixelError::Jpeg)?,
        ImageFormat::WebP => whole_webp(bytes)?.into(),
        // The PNG decoder misses what is not there.
        _ => bytes.into(),
    };
    let mut decoder = open(&bytes, format)?;
    let orientation = match (squaring.exif, format) {
        (Exif::Ignore, _) => None,
        (Exif::Apply, ImageFormat::WebP) => webp_orientation(&bytes),
        (Exif::Apply, _) => decoder.orientation().ok(),
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(PixelError::decoding)?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(match squaring.alpha {
        Alpha::White if image.color().has_alpha() => over_white(image),
        _ => image.into_rgb8(),
    })
}

/// Which of the kinds that are read the image is of.
fn format(bytes: &[u8]) -> Result<ImageFormat, PixelError> {
    let format = image::guess_format(bytes).map_err(|_| PixelError::UnknownFormat)?;
    match format {
        ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP => Ok(format),
        other => Err(PixelError::OtherFormat(other.extensions_str()[0].to_uppercase())),
    }
}

/// The decoder of an image, with its header read.
fn open(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder, PixelError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(SIDE_DATA);
    reader.limits(limits);
    reader.into_decoder().map_err(PixelError::decoding)
}

/// The WebP file in `bytes`, if it is as long as it says.
fn whole_webp(bytes: &[u8]) -> Result<&[u8], PixelError> {
    let expected = webp_length(bytes, 4).map_or(usize::MAX, |length| length.saturating_add(8));
    if bytes.len() < expected { Err(PixelError::WebP { found: bytes.len(), expected }) } else { Ok(bytes) }
}

/// The orientation in a WebP file. Its decoder would do, but it makes room for as many bytes as the file claims.
fn webp_orientation(bytes: &[u8]) -> Option<Orientation> {
    let mut at = 12;
    loop {
        let length = webp_length(bytes, at + 4)?;
        let content = bytes.get(at + 8..(at + 8).checked_add(length)?)?;
        if &bytes[at..at + 4] == b"EXIF" {
            return Orientation::from_exif_chunk(content.strip_prefix(b"Exif\0\0").unwrap_or(content));
        }
        at += 8 + length.next_multiple_of(2);
    }
}

/// The length that four bytes of a WebP file tell.
fn webp_length(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// The image as it looks on white paper.
fn over_white(image: DynamicImage) -> RgbImage {
    let image = image.into_rgba8();
    let (width, height) = image.dimensions();
    let mut pixels = image.into_raw();
    // In place: the first three bytes of each four move together.
    for pixel in 0..pixels.len() / 4 {
        let alpha = u32::from(pixels[4 * pixel + 3]);
        for channel in 0..3 {
            let value = u32::from(pixels[4 * pixel + channel]);
            pixels[3 * pixel + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    pixels.truncate(pixels.len() / 4 * 3);
    RgbImage::from_raw(width, height, pixels).expect("three bytes a pixel were kept")
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
