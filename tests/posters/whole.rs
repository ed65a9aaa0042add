//! A file that is not all there is damaged, wherever it was cut off.

use image::ImageFormat;
use onesheet::data::pixels::PixelError;

use crate::{fixture, poster, real_posters, square};

const JPEGS: [&str; 10] = [
    "baseline.jpg",
    "baseline_422_optimised.jpg",
    "baseline_444_restarts.jpg",
    "cmyk.jpg",
    "grey.jpg",
    "turned.jpg",
    "progressive.jpg",
    "progressive_cmyk.jpg",
    "progressive_grey.jpg",
    "progressive_restarts.jpg",
];

#[test]
fn a_jpeg_cut_off_anywhere_is_damaged() {
    for name in JPEGS {
        let whole = fixture(name);
        let end = whole.len() - 2;
        assert_eq!(whole[end..], [0xff, 0xd9]);
        let picture = square(&whole).unwrap();
        for cut in 3..end {
            let error = square(&whole[..cut]).err().unwrap_or_else(|| panic!("{name} cut at {cut} of {end}"));
            assert!(error.to_string().starts_with("damaged: "), "{name} cut at {cut}: {error}");
        }
        // Only the end marker is missing, or half of it, or something follows: the picture is there.
        let more = [&whole[..], b"\xff\xd8\xff more"].concat();
        for bytes in [&whole[..end], &whole[..end + 1], &more] {
            assert!(square(bytes).unwrap() == picture, "{name} of {} bytes", bytes.len());
        }
    }
}

/// What programs make of a file that broke off: they close it with an end marker, or have made room for all of it before.
#[test]
fn a_jpeg_filled_up_after_it_broke_off_is_damaged() {
    for name in JPEGS {
        let whole = fixture(name);
        let end = whole.len() - 2;
        let data = whole.windows(2).position(|marker| marker == [0xff, 0xda]).unwrap() + 14;
        for cut in (data..end).step_by(7) {
            if !name.starts_with("progressive") {
                let closed = [&whole[..cut], &[0xff, 0xd9]].concat();
                assert!(square(&closed).is_err(), "{name} closed at {cut} of {end}");
            }
            // A few zeros at the very end can be codes by chance.
            if cut < end - 32 {
                let mut filled = whole.clone();
                filled[cut..].fill(0);
                assert!(square(&filled).is_err(), "{name} filled from {cut} of {end}");
            }
        }
    }
}

#[test]
fn png_and_webp_are_no_better_when_cut_off() {
    let clear = image::RgbaImage::from_fn(18, 27, |x, y| image::Rgba([13 * x as u8, 9 * y as u8, 90, 7 * x as u8]));
    for (name, whole, end) in [
        ("png", poster(ImageFormat::Png), 12),
        ("webp", poster(ImageFormat::WebP), 0),
        ("webp with transparency", crate::encode(clear.into(), ImageFormat::WebP), 0),
        ("webp with more in it", fixture("turned.webp"), 0),
    ] {
        assert!(square(&whole).is_ok(), "{name}");
        // A PNG file ends in a chunk of twelve bytes that says so and nothing else.
        for cut in 1..whole.len() - end {
            assert!(square(&whole[..cut]).is_err(), "{name} cut at {cut} of {}", whole.len());
        }
    }
}

#[test]
fn real_posters_are_whole() {
    for path in real_posters().iter().step_by(64) {
        let bytes = std::fs::read(path).unwrap();
        if let Err(error) = square(&bytes) {
            panic!("{}: {error}", path.display());
        }
        for cut in [bytes.len() / 2, bytes.len() * 7 / 8, bytes.len() - 3] {
            let error = square(&bytes[..cut]).err().unwrap_or_else(|| panic!("{} cut at {cut}", path.display()));
            assert!(matches!(error, PixelError::Jpeg(_)), "{}: {error}", path.display());
        }
    }
}
