//! The contact sheet of `inspect`.

use super::SeenArgs;
use crate::exit::Usage;
use anyhow::Context;
use image::{ImageFormat, RgbImage};
use onesheet::data::Split;
use onesheet::data::augmentation::Augmentation;
use onesheet::data::loader::{Batch, Loader};
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::reference::Reference;
use onesheet::device::{DeviceError, ImageKernels, ImageShape, Memory, PixelFormat};
use onesheet::files::{self, Disk, quoted};
use onesheet::pictures::sheet::{Tile, drawn, page};
use onesheet::training::config::Pixels;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// Posters in a row of a picture.
const COLUMNS: usize = 8;

/// What kind of file a sheet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Png,
    Html,
}

impl Kind {
    /// By the end of the file's name.
    pub fn of(path: &Path) -> Result<Kind, Usage> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("png") => Ok(Kind::Png),
            Some("html" | "htm") => Ok(Kind::Html),
            _ => Err(Usage(format!("--sheet {} ends neither in .png nor in .html", quoted(path)))),
        }
    }
}

/// Writes the sheet of `count` posters, or fewer if there are not as many, and says how many it has.
pub fn write(path: &Path, kind: Kind, file: &Arc<TensorFile>, count: usize, seen: &SeenArgs) -> anyhow::Result<usize> {
    let batch = batch(file, count, seen)?;
    let pictures = as_seen(&batch, file.size())?;
    let tiles: Vec<Tile> = batch.indices.iter().zip(pictures).map(|(&at, picture)| tile(file, at, picture)).collect();
    let bytes = match kind {
        Kind::Png => {
            let mut png = Cursor::new(Vec::new());
            drawn(&tiles, COLUMNS).write_to(&mut png, ImageFormat::Png)?;
            png.into_inner()
        }
        Kind::Html => page(&tiles, &title(file, seen))?.into_bytes(),
    };
    files::replace(&Disk, path, &bytes)?;
    Ok(tiles.len())
}

/// The posters, by the loader that training and evaluation have.
fn batch(file: &Arc<TensorFile>, count: usize, seen: &SeenArgs) -> anyhow::Result<Batch> {
    let mut loader = if seen.is_asked() {
        let train: Arc<[u32]> = file.indices(Split::Train).into();
        let batch = count.min(train.len());
        let augmentation = if seen.augment { Augmentation::FlipShift } else { Augmentation::None };
        let (seed, epoch) = (seen.seed.unwrap_or(0), seen.epoch.unwrap_or(1) - 1);
        Loader::train(Arc::clone(file), train, batch, seed, epoch, 0, augmentation, seen.distortion())?
    } else {
        let count = count.min(file.len());
        let evenly: Arc<[u32]> = (0..count).map(|at| (at * file.len() / count) as u32).collect();
        Loader::in_order(Arc::clone(file), evenly, count)?
    };
    Ok(loader.next().context("the loader has ended before its first batch")??)
}

/// The pixels of a batch as a network gets them, made bytes again: placed by the device's own code. What enters from outside is 0 for a
/// network, which in the usual pixel format stands for ImageNet's mean.
fn as_seen(batch: &Batch, size: usize) -> Result<Vec<RgbImage>, DeviceError> {
    let (device, format) = (Reference::EXACT, Pixels::Imagenet.format());
    let shape = ImageShape { n: batch.indices.len(), size };
    let mut numbers = vec![0.0; shape.len()];
    let pixels = device.upload_pixels(&batch.pixels, &batch.placements)?;
    device.image_forward(&mut numbers, &pixels, &format, &shape)?;
    let images = numbers.chunks_exact(3 * size * size).map(|image| {
        let bytes = image.as_chunks::<3>().0.iter().flat_map(|number| byte(number, &format)).collect();
        RgbImage::from_raw(size as u32, size as u32, bytes).expect("three bytes a pixel")
    });
    Ok(images.collect())
}

/// Red, green and blue of a pixel in a format.
fn byte(numbers: &[f64; 3], format: &PixelFormat) -> [u8; 3] {
    let mut pixel = [0; 3];
    for (channel, number) in numbers.iter().enumerate() {
        pixel[format.order[channel]] = ((number - format.shift[channel]) / format.scale).round() as u8;
    }
    pixel
}

fn tile(file: &TensorFile, at: u32, picture: RgbImage) -> Tile {
    let labels = file.labels(at as usize);
    let genres = file.genres().iter().zip(labels).filter(|(_, label)| **label == 1).map(|(genre, _)| genre.as_str());
    let genres: Vec<&str> = genres.collect();
    let genres = if genres.is_empty() { "no genre".to_owned() } else { genres.join(", ") };
    let id = format!("{} {}", file.ids()[at as usize], file.split(at as usize).name());
    Tile { picture, lines: vec![id, genres] }
}

fn title(file: &TensorFile, seen: &SeenArgs) -> String {
    let path = file.path().display();
    if seen.is_asked() {
        format!("Posters of {path} as training sees them in epoch {}", seen.epoch.unwrap_or(1))
    } else {
        format!("Posters of {path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::device::Placement;

    #[test]
    fn a_sheet_is_what_its_name_says() {
        let kind = |name: &str| Kind::of(Path::new(name)).ok();
        assert_eq!(
            ["a.png", "a.PNG", "b/a.html", "a.htm"].map(kind),
            [Kind::Png, Kind::Png, Kind::Html, Kind::Html].map(Some)
        );
        assert_eq!(["a", "a.jpg", ".png"].map(kind), [None; 3]);
    }

    #[test]
    fn posters_are_placed_and_keep_their_bytes() {
        let pixels: Vec<u8> = (0..12).map(|at| 20 * at).collect();
        let placed = |placement| {
            let batch = Batch { indices: vec![0], pixels: pixels.clone(), labels: vec![], placements: vec![placement] };
            as_seen(&batch, 2).unwrap().remove(0).into_raw()
        };
        assert_eq!(placed(Placement::default()), pixels);
        let moved = placed(Placement { flip: true, shift_y: 1, shift_x: 0 });
        assert_eq!(moved[..3], [124, 117, 104], "ImageNet's mean comes in from above");
        assert_eq!(moved[6..], [&pixels[3..6], &pixels[..3]].concat());
    }
}
