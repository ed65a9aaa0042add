//! Film posters drawn in code, for a first run without any data.
//!
//! Each genre leaves one mark on a poster, as a lazy art department would have it: an explosion for Action, balloons for Comedy, a
//! lone silhouette for Drama, hearts for Romance, barrier tape for Crime, darkness and drips for Thriller, mountains for everything
//! else. A film has one to three genres, its marks overlap, and all of them move, grow, change shade and gather grain from poster to
//! poster. A poster is a pure function of (seed, index), the same at every size but for its grain, and drawn with additions,
//! multiplications and square roots alone, so that it has the same pixels on every machine.

mod canvas;
mod marks;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::Split;
use super::tensor_file::{BLOCK, Description, TensorFile, TensorFileError, TensorFileWriter};
use crate::random::{Philox, Sequence, Stream};
use canvas::Canvas;
use marks::{background, balloons, darkness, explosion, hearts, mountains, silhouette, tape, title};

/// The label columns of synthetic posters: the genres of the paper.
pub const GENRES: [&str; 7] = ["Action", "Comedy", "Drama", "Romance", "Crime", "Thriller", "Other"];

/// How often a film has each genre, before films of none and of more than three are drawn again.
const FREQUENCIES: [f32; 7] = [0.14, 0.32, 0.51, 0.16, 0.13, 0.13, 0.56];

/// Draws poster `index` of `seed`: its pixels, `[size, size, 3]`, and its labels, `[7]` in the order of [`GENRES`].
pub fn draw(seed: u64, index: u32, size: usize) -> (Vec<u8>, Vec<u8>) {
    let mut dice = Philox::new(seed).sequence(Stream::Synthetic, index, 0);
    let labels = labels(&mut dice);
    let mut canvas = Canvas::new(size);
    background(&mut canvas, &mut dice);
    // From the far to the near.
    let marks = [(6, mountains as fn(&mut Canvas, &mut Sequence)), (0, explosion), (1, balloons), (2, silhouette)];
    for (genre, mark) in marks.into_iter().chain([(3, hearts as _), (4, tape as _), (5, darkness as _)]) {
        if labels[genre] == 1 {
            mark(&mut canvas, &mut dice);
        }
    }
    title(&mut canvas, &mut dice);
    let grain = Philox::new(seed).sequence(Stream::Synthetic, index, 1);
    (canvas.develop(dice.between(0.85, 1.15), grain), labels)
}

/// Writes `count` posters of `size` x `size` pixels to a tensor file, four fifths to train on, a tenth each for validation and test.
///
/// # Errors
/// As for [`TensorFileWriter`].
pub fn write(path: &Path, count: usize, size: usize, seed: u64) -> Result<(), TensorFileError> {
    let description = Description {
        size,
        genres: GENRES.map(String::from).to_vec(),
        capacity: count,
        provenance: BTreeMap::from([("source".into(), format!("{SOURCE}{seed}"))]),
    };
    let mut writer = TensorFileWriter::create(path, description)?;
    for first in (0..count).step_by(BLOCK) {
        let end = count.min(first + BLOCK);
        let posters: Vec<_> =
            (first..end).into_par_iter().map(|index| (index, draw(seed, index as u32, size))).collect();
        for (index, (pixels, labels)) in posters {
            let split = match index % 10 {
                8 => Split::Validation,
                9 => Split::Test,
                _ => Split::Train,
            };
            writer.push(&format!("synthetic-{index:05}"), &pixels, &labels, split)?;
        }
    }
    writer.finish()
}

/// Whether the file at `path` is one that [`write()`] wrote, whatever its seed.
pub fn drew(path: &Path) -> bool {
    let source = |file: TensorFile| file.provenance().get("source").is_some_and(|source| source.starts_with(SOURCE));
    TensorFile::open(path).is_ok_and(source)
}

/// What the provenance of drawn posters begins with.
const SOURCE: &str = "synthetic posters drawn from seed ";

fn labels(dice: &mut Sequence) -> Vec<u8> {
    loop {
        let labels: Vec<u8> = FREQUENCIES.iter().map(|&frequency| u8::from(dice.uniform() < frequency)).collect();
        if (1..=3).contains(&labels.iter().sum::<u8>()) {
            return labels;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posters_are_the_same_everywhere() {
        let mut hasher = blake3::Hasher::new();
        for index in 0..32 {
            let (pixels, labels) = draw(1, index, 48);
            assert_eq!((pixels.len(), labels.len()), (48 * 48 * 3, 7));
            hasher.update(&pixels).update(&labels);
        }
        // Changes with the drawing, and with nothing else: not the machine, the compiler or the thread.
        assert_eq!(&hasher.finalize().to_hex()[..16], "b5ff22b98957a13e");
        assert_ne!(draw(1, 0, 48).0, draw(1, 1, 48).0);
        assert_ne!(draw(1, 0, 48).0, draw(2, 0, 48).0);
    }

    /// The paper's share of films with each genre.
    #[test]
    fn genres_are_about_as_frequent_as_in_the_paper() {
        let films = 5000;
        let mut counts = [0u32; 7];
        for index in 0..films {
            let labels = draw(3, index, 1).1;
            assert!((1..=3).contains(&labels.iter().sum::<u8>()));
            for (count, label) in counts.iter_mut().zip(labels) {
                *count += u32::from(label);
            }
        }
        for (count, paper) in counts.into_iter().zip([5293, 12518, 19788, 6168, 5234, 4787, 21840]) {
            let (share, paper) = (f64::from(count) / f64::from(films), f64::from(paper) / 39140.0);
            assert!((share - paper).abs() <= 0.04, "{share} {paper}");
        }
    }

    #[test]
    fn every_mark_shows_on_every_poster() {
        for mark in [mountains, explosion, balloons, silhouette, hearts, tape, darkness] {
            for index in 0..100 {
                let mut dice = Philox::new(4).sequence(Stream::Synthetic, index, 0);
                let mut canvas = Canvas::new(32);
                background(&mut canvas, &mut dice);
                let grain = Philox::new(4).sequence(Stream::Synthetic, index, 1);
                let before = canvas.clone().develop(1.0, grain.clone());
                mark(&mut canvas, &mut dice);
                let after = canvas.develop(1.0, grain);
                let changed = before.iter().zip(&after).filter(|(a, b)| a.abs_diff(**b) > 30).count();
                assert!(changed >= before.len() / 25, "poster {index}: {changed} of {} bytes", before.len());
            }
        }
    }

    #[test]
    fn a_poster_is_the_same_at_every_size() {
        for index in 0..20 {
            let (small, labels) = draw(5, index, 32);
            let (large, same) = draw(5, index, 64);
            assert_eq!(labels, same);
            let mut total = 0;
            for (at, &byte) in small.iter().enumerate() {
                let (y, x, c) = (at / 96, at / 3 % 32, at % 3);
                let corner = ((2 * y) * 64 + 2 * x) * 3 + c;
                let four = [0, 3, 192, 195].map(|step| u32::from(large[corner + step]));
                total += (four.iter().sum::<u32>() / 4).abs_diff(byte.into());
            }
            // Grain alone differs by 8 or so.
            assert!(total <= 12 * small.len() as u32, "poster {index}: {}", total / small.len() as u32);
        }
        for size in [0, 1, 2, 3] {
            assert_eq!(draw(5, 0, size).0.len(), size * size * 3);
        }
    }

    #[test]
    fn a_written_file_holds_them_in_three_splits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("synthetic.safetensors");
        write(&path, 150, 8, 6).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!((file.len(), file.size()), (150, 8));
        assert_eq!(file.genres(), GENRES);
        assert_eq!(file.ids()[42], "synthetic-00042");
        assert_eq!(Split::ALL.map(|split| file.indices(split).len()), [120, 15, 15]);
        for i in [0, 63, 64, 149] {
            let (pixels, labels) = draw(6, i as u32, 8);
            assert_eq!((&*file.image_checked(i).unwrap(), file.labels(i)), (&pixels[..], &labels[..]));
        }
        assert!(matches!(write(&path, 0, 8, 6), Err(TensorFileError::NoImages { .. })));
    }
}
