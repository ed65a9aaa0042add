//! Files made to do harm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};
use onesheet::data::pixels;
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::{encode, fixture, poster, square};

/// With everything that can be asked of a file.
const TURNED: Squaring = Squaring { size: 16, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::White };

thread_local! {
    /// Bytes that this thread has taken and not given back, and the most it ever had.
    static MEMORY: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's memory, counted by thread.
struct Counted;

fn count(bytes: isize) {
    // A thread that is ending counts no more.
    let _ = MEMORY.try_with(|memory| {
        let (now, most) = memory.get();
        memory.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// The most memory that `work` has at a time, in bytes.
fn memory_of(work: impl FnOnce()) -> isize {
    let before = MEMORY.get().0;
    MEMORY.set((before, before));
    work();
    MEMORY.get().1 - before
}

/// A colour profile of zeros packs to a thousandth of its size.
#[test]
fn a_colour_profile_does_not_unpack_without_bounds() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(vec![0; 30 << 20]).unwrap();
    encoder.write_image(&[99; 20 * 30 * 3], 20, 30, ExtendedColorType::Rgb8).unwrap();
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    let memory = memory_of(|| assert_eq!(square(&bytes).unwrap()[..3], [99; 3]));
    assert!(memory <= 8 << 20, "{memory} bytes for a poster of 20×30 pixels");

    // A WebP file that claims to have EXIF data of 4 GB.
    let mut webp = fixture("turned.webp");
    let at = webp.windows(4).position(|name| name == b"EXIF").unwrap();
    webp[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let memory = memory_of(|| drop(pixels::square(&webp, &TURNED)));
    assert!(memory <= 8 << 20, "{memory} bytes");
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
        assert!(square(bomb).is_err(), "bomb {number}");
        assert!(start.elapsed() <= Duration::from_millis(500), "bomb {number}: {:?}", start.elapsed());
    }
}

/// Damaged files give pixels or an error, and no decoder takes the program down or its time.
#[test]
fn thirty_thousand_damaged_posters() {
    let mut originals = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP].map(poster).to_vec();
    originals.extend(["turned.jpg", "progressive.jpg", "cmyk.jpg", "turned.webp"].map(fixture));
    let decoded: usize = (0..30_000u64)
        .into_par_iter()
        .map(|number| {
            let mut random = StdRng::seed_from_u64(number);
            let mut bytes = originals[number as usize % originals.len()].clone();
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..8) {
                    0 => bytes.truncate(at.max(1)),
                    1 => drop(bytes.splice(at..at, [0xff, random.random()])),
                    _ => bytes[at] = random.random(),
                }
            }
            let start = Instant::now();
            let result = pixels::square(&bytes, &TURNED);
            assert!(start.elapsed() <= Duration::from_secs(2), "mutant {number}: {:?}", start.elapsed());
            usize::from(result.is_ok_and(|pixels| pixels.len() == 16 * 16 * 3))
        })
        .sum();
    assert!((1_000..29_000).contains(&decoded), "{decoded}: the damage should neither spare all posters nor ruin all");
}
