//! Posters: found under any spelling of their id, never outside the folder; hostile files cost one poster.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use image::{DynamicImage, ImageFormat, RgbImage};
use onesheet::data::films::FilmId;
use onesheet::data::pixels::{self, PixelError, Resize};
use onesheet::data::posters::{self, PosterFolder, ReadError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

fn poster(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(18, 27, |x, y| image::Rgb([13 * x as u8, 9 * y as u8, 90]));
    encode(image.into(), format)
}

fn encode(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn found<'a>(folder: &'a PosterFolder, id: &str) -> Option<&'a str> {
    let path = folder.find(&FilmId::parse(id).unwrap())?;
    path.strip_prefix(folder.root()).unwrap().to_str()
}

#[test]
fn a_poster_is_found_under_any_spelling() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("1995/07")).unwrap();
    for name in [
        "tt0000001.jpg",
        "2.JPEG",
        "0000003.png",
        "4.0.webp",
        "1995/07/tt5.Jpg",
        "tt0000006.gif",
        "7",
        "8.jpg.txt",
        "my-film.png",
        "9.jpg",
        "tt0000009.jpg",
    ] {
        File::create(folder.path().join(name)).unwrap();
    }
    let folder = PosterFolder::index(folder.path()).unwrap();
    for (id, name) in [
        ("1", Some("tt0000001.jpg")),
        ("2", Some("2.JPEG")),
        ("3", Some("0000003.png")),
        ("4", Some("4.0.webp")),
        ("5", Some("1995/07/tt5.Jpg")),
        ("6", None),
        ("7", None),
        ("8", None),
        ("my-film", Some("my-film.png")),
        ("9", Some("9.jpg")), // the first by path of two
    ] {
        assert_eq!(found(&folder, id), name, "{id}");
    }
    assert!(PosterFolder::index(Path::new("no/such/folder")).is_err());
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_folder_is_touched_and_a_pipe_never_opened() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let (canary, root) = (outside.path().join("1.jpg"), inside.path());
    fs::write(&canary, "canary").unwrap();
    fs::write(root.join("real.jpg"), "poster").unwrap();
    symlink(&canary, root.join("1.jpg")).unwrap();
    symlink(outside.path(), root.join("2")).unwrap(); // a folder with 1.jpg in it
    symlink("../../../../../etc/passwd", root.join("3.jpg")).unwrap();
    symlink("real.jpg", root.join("4.jpg")).unwrap();
    symlink("5.jpg", root.join("5.jpg")).unwrap(); // a circle
    symlink("nowhere.jpg", root.join("6.jpg")).unwrap();
    symlink("/dev/zero", root.join("7.jpg")).unwrap();
    let pipe = root.join("8.jpg");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("8.jpg", root.join("9.jpg")).unwrap();
    fs::create_dir(root.join("10.jpg")).unwrap();

    let folder = PosterFolder::index(root).unwrap();
    let all: Vec<_> = (1..=10).map(|id| found(&folder, &id.to_string())).collect();
    assert_eq!(all, [None, None, None, Some("4.jpg"), None, None, None, None, None, None]);
    assert!(matches!(posters::read(&pipe), Err(ReadError::NotAFile)));
    assert!(matches!(posters::read(Path::new("/dev/zero")), Err(ReadError::NotAFile)));
    assert!(matches!(posters::read(root), Err(ReadError::NotAFile)));
    assert_eq!(fs::read(&canary).unwrap(), b"canary");
}

#[test]
fn a_huge_file_is_not_opened() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    assert!(matches!(posters::read(file.path()), Err(ReadError::TooLarge(bytes)) if bytes == 1 << 40));
}

#[test]
fn every_kind_of_image_becomes_rgb() {
    let rgb = |image: DynamicImage, format| pixels::square(&encode(image, format), 16, Resize::Nearest).unwrap();
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
            let square = pixels::square(&poster(format), 10, resize).unwrap();
            assert_eq!(square.len(), 10 * 10 * 3);
            assert!(square[0] < 60 && square[27] > 150, "red grows from left to right: {resize:?}");
        }
    }
}

#[test]
fn what_is_no_poster_is_named() {
    let error = |bytes: &[u8]| pixels::square(bytes, 16, Resize::Area).unwrap_err();
    for bytes in [&b""[..], b"<html>404</html>", b"GIF89a\x01\0\x01\0", b"\xff", &[0; 4096]] {
        assert!(matches!(error(bytes), PixelError::UnknownFormat), "{bytes:?}");
    }
    let jpeg = poster(ImageFormat::Jpeg);
    assert!(matches!(error(&jpeg[..40]), PixelError::Damaged(_)));
    let wide = encode(RgbImage::new(4097, 1).into(), ImageFormat::Png);
    assert!(matches!(error(&wide), PixelError::TooLarge { width: 4097, height: 1 }));
}

/// Small files that claim, or are, huge images: refused at once.
#[test]
fn bombs_are_defused() {
    let flat = encode(RgbImage::new(6000, 6000).into(), ImageFormat::Png);
    // Sixteen bits of four channels fit the sides and exceed the memory.
    let deep = encode(image::ImageBuffer::<image::Rgba<u16>, _>::new(4096, 4096).into(), ImageFormat::Png);
    let mut bombs = vec![flat, deep];
    for side in [0u32, 4097, 65_535, 0x7fff_ffff, u32::MAX] {
        let mut png = poster(ImageFormat::Png);
        png[16..20].copy_from_slice(&side.to_be_bytes());
        png[20..24].copy_from_slice(&side.to_be_bytes());
        bombs.push(png);
        let mut jpeg = poster(ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 7].copy_from_slice(&(side as u16).to_be_bytes());
        jpeg[frame + 7..frame + 9].copy_from_slice(&(side as u16).to_be_bytes());
        bombs.push(jpeg);
    }
    for (number, bomb) in bombs.iter().enumerate() {
        let start = Instant::now();
        assert!(pixels::square(bomb, 16, Resize::Area).is_err(), "bomb {number}");
        assert!(start.elapsed() <= Duration::from_millis(500), "bomb {number}: {:?}", start.elapsed());
    }
}

/// Damaged files give pixels or an error, and no decoder takes the program down or its time.
#[test]
fn thirty_thousand_damaged_posters() {
    let originals = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP].map(poster);
    let decoded: usize = (0..30_000u64)
        .into_par_iter()
        .map(|number| {
            let mut random = StdRng::seed_from_u64(number);
            let mut bytes = originals[number as usize % 3].clone();
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..8) {
                    0 => bytes.truncate(at.max(1)),
                    1 => drop(bytes.splice(at..at, [0xff, random.random()])),
                    _ => bytes[at] = random.random(),
                }
            }
            let start = Instant::now();
            let result = pixels::square(&bytes, 16, Resize::Area);
            assert!(start.elapsed() <= Duration::from_secs(2), "mutant {number}: {:?}", start.elapsed());
            usize::from(result.is_ok_and(|pixels| pixels.len() == 16 * 16 * 3))
        })
        .sum();
    assert!((1_000..29_000).contains(&decoded), "{decoded}: the damage should neither spare all posters nor ruin all");
}
