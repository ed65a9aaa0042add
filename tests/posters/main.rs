//! Posters: found under any spelling of their id, never outside the folder; hostile files cost one poster.
//!
//! The JPEG files here are made by `make_fixtures.py`.

mod folder;
mod hostile;
mod kinds;
#[path = "../support/not_checked.rs"]
mod not_checked;
mod whole;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, RgbImage};
use not_checked::not_checked;
use onesheet::data::pixels::{self, PixelError};
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};

fn poster(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(18, 27, |x, y| image::Rgb([13 * x as u8, 9 * y as u8, 90]));
    encode(image.into(), format)
}

fn encode(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A file that `make_fixtures.py` made.
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posters").join(name)).unwrap()
}

/// As the paper's Keras does it, to 16×16.
const KERAS: Squaring = Squaring { size: 16, resize: Resize::Nearest, exif: Exif::Ignore, alpha: Alpha::Drop };

fn square(bytes: &[u8]) -> Result<Vec<u8>, PixelError> {
    pixels::square(bytes, &KERAS)
}

/// The real posters, where they are; they are not ours to hand on.
fn real_posters() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/posters/Images");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        not_checked(&format!("real posters, because {} is absent", folder.display()));
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
