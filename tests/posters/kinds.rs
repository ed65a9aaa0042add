//! Kinds of images, and what becomes of grey, transparency and orientation.

use image::{DynamicImage, ImageFormat, RgbImage};
use onesheet::data::pixels::{self, PixelError};
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};

use crate::{KERAS, encode, fixture, poster, square};

#[test]
fn every_kind_of_image_becomes_rgb() {
    let rgb = |image: DynamicImage, format| square(&encode(image, format)).unwrap();
    let grey = image::GrayImage::from_pixel(20, 30, image::Luma([77]));
    let clear = image::RgbaImage::from_pixel(20, 30, image::Rgba([1, 2, 3, 0]));
    let deep = image::ImageBuffer::from_pixel(20, 30, image::Rgb([0x0101u16, 0x8080, 0xffff]));
    let all = |pixels: Vec<u8>, pixel: [u8; 3]| pixels.len() == 16 * 16 * 3 && pixels.chunks(3).all(|p| p == pixel);
    assert!(all(rgb(grey.clone().into(), ImageFormat::Jpeg), [77; 3]));
    assert!(all(rgb(grey.into(), ImageFormat::Png), [77; 3]));
    assert!(all(rgb(clear.clone().into(), ImageFormat::Png), [1, 2, 3]));
    assert!(all(rgb(clear.into(), ImageFormat::WebP), [1, 2, 3]));
    assert!(all(rgb(deep.into(), ImageFormat::Png), [1, 128, 255]));
    // The kind is told by content, not by name; and the filters agree that a poster is a poster.
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        for resize in [Resize::Area, Resize::Nearest] {
            let square = pixels::square(&poster(format), &Squaring { size: 10, resize, ..KERAS }).unwrap();
            assert_eq!(square.len(), 10 * 10 * 3);
            assert!(square[0] < 60 && square[27] > 150, "red grows from left to right: {resize:?}");
        }
    }
}

#[test]
fn what_is_no_poster_is_named() {
    let error = |bytes: &[u8]| square(bytes).unwrap_err();
    for bytes in [&b""[..], b"<html>404</html>", b"\xff", &[0; 4096]] {
        assert!(matches!(error(bytes), PixelError::UnknownFormat), "{bytes:?}");
    }
    let jpeg = poster(ImageFormat::Jpeg);
    assert!(matches!(error(&jpeg[..40]), PixelError::Damaged(_)));
    let wide = encode(RgbImage::new(4097, 1).into(), ImageFormat::Png);
    assert!(matches!(error(&wide), PixelError::TooLarge { width: 4097, height: 1 }));
}

#[test]
fn other_kinds_are_called_by_their_name() {
    for (bytes, name) in [
        (&b"GIF89a\x01\0\x01\0"[..], "a GIF image; convert it to PNG"),
        (b"BM\x3a\0\0\0", "a BMP image; convert it to PNG"),
        (b"II*\0\x08\0\0\0", "a TIFF image; convert it to PNG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF image; convert it to PNG"),
    ] {
        assert_eq!(square(bytes).unwrap_err().to_string(), name);
    }
}

/// The orientation is noted in each kind of file: a quarter turn, so what is stored on top is seen on the right.
#[test]
fn posters_are_turned_as_their_files_say() {
    for name in ["turned.jpg", "turned.png", "turned.webp"] {
        let bytes = fixture(name);
        // Red at the four corners: top left, top right, bottom left, bottom right.
        let red = |exif| {
            let pixels = pixels::square(&bytes, &Squaring { exif, ..KERAS }).unwrap();
            [0, 15, 15 * 16, 16 * 16 - 1].map(|pixel| pixels[3 * pixel] > 100)
        };
        assert_eq!(red(Exif::Ignore), [true, true, false, false], "{name}");
        assert_eq!(red(Exif::Apply), [false, true, false, true], "{name}");
    }
    let upright = poster(ImageFormat::Jpeg);
    assert_eq!(square(&upright).unwrap(), pixels::square(&upright, &Squaring { exif: Exif::Apply, ..KERAS }).unwrap());
}

#[test]
fn transparency_is_dropped_or_laid_over_white() {
    let half = image::RgbaImage::from_fn(20, 30, |x, _| image::Rgba([100, 0, 200, if x < 10 { 0 } else { 128 }]));
    let grey = image::GrayAlphaImage::from_pixel(20, 30, image::LumaA([40, 51]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let bytes = encode(half.clone().into(), format);
        let pixels = |alpha| pixels::square(&bytes, &Squaring { alpha, ..KERAS }).unwrap();
        let (dropped, white) = (pixels(Alpha::Drop), pixels(Alpha::White));
        assert_eq!((&dropped[..3], &dropped[45..48]), (&[100, 0, 200][..], &[100, 0, 200][..]));
        assert_eq!((&white[..3], &white[45..48]), (&[255, 255, 255][..], &[177, 127, 227][..]));
    }
    let grey = encode(grey.into(), ImageFormat::Png);
    // A fifth of 40 and four fifths of 255.
    assert_eq!(pixels::square(&grey, &Squaring { alpha: Alpha::White, ..KERAS }).unwrap()[..3], [212; 3]);
}

#[test]
fn the_largest_poster_is_not_called_damaged() {
    let clear = encode(image::RgbaImage::new(4096, 4096).into(), ImageFormat::Png);
    assert!(square(&clear).is_ok());
    let deep = encode(image::ImageBuffer::<image::Rgba<u16>, _>::new(4096, 4096).into(), ImageFormat::Png);
    let error = square(&deep).unwrap_err().to_string();
    let expected = "too large: 4096×4096 pixels of 8 bytes each take more than 64 MB; store it with 8 bits a channel";
    assert!(error.starts_with(expected), "{error}");
}
