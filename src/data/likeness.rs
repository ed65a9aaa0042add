//! Posters that are nearly the same picture: stored once more by another program, smaller, in other colours.
//!
//! A poster is reduced to a difference hash of 64 bits, and to its greys in 16×16. Two posters are alike if their hashes differ in few
//! bits and their greys go up and down together. The hash finds candidates quickly, and is no proof: of the 21 million pairs that 6,523
//! posters of different films make, 3,300 have hashes that differ in 12 bits or fewer, the nearest in 3, and hardly one of them looks
//! alike. Dark posters with a light title below the middle have such hashes. Their greys tell them apart: of no pair at any distance do
//! they correlate by more than 0.93, and of those near each other by more than 0.91.
//!
//! Copies of 1,000 of those posters, in 150×150 pixels, were found by [`DISTANCE`] and [`CORRELATION`] in so many cases of a hundred:
//!
//! | a copy | found |
//! | --- | --- |
//! | as JPEG of quality 75, 30, 10 | 100, 99.9, 99.6 |
//! | scaled to half and back | 100 |
//! | in grey; with red, green and blue times 1, 0.8, 0.55; saturation times 1.8 | 100, 100, 99.8 |
//! | brightness times 0.6 and, cut off at white, times 1.3; contrast times 1.4 | 100, 98.3, 100 |
//! | a fiftieth of each side cut off; a twentieth | 83, 6 |
//!
//! So a poster cut out otherwise is another one here, and so is one with another title over half of it.

use rayon::prelude::*;

/// Most bits in which the hashes of two posters that are alike differ, of 64.
pub const DISTANCE: u32 = 12;

/// The least correlation of their greys.
pub const CORRELATION: f32 = 0.95;

/// A poster is of one colour if no channel deviates more than this from its mean, in the root mean square, of 255. Of the 6,523 posters the
/// plainest, small print on black, has 11.3.
pub const ONE_COLOUR: f32 = 8.0;

/// Sides of the grid of greys.
const GRID: usize = 16;

/// The weights of red, green and blue in a grey (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

/// What is kept of a poster to compare it by.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    hash: u64,
    /// Less their mean, and of length 1 together.
    greys: [f32; GRID * GRID],
    deviation: f32,
}

impl Look {
    /// Of a poster of `size`×`size` pixels, `[size, size, 3]` in RGB.
    pub fn new(pixels: &[u8], size: usize) -> Look {
        let (pixels, _) = pixels.as_chunks::<3>();
        let greys: Vec<f32> =
            pixels.iter().map(|pixel| pixel.iter().zip(GREY).map(|(&x, w)| f32::from(x) * w).sum()).collect();
        let mut grid: [f32; GRID * GRID] =
            cells(&greys, size, GRID, GRID).try_into().expect("as many cells as were asked for");
        let mean = grid.iter().sum::<f32>() / grid.len() as f32;
        grid.iter_mut().for_each(|grey| *grey -= mean);
        let length = grid.iter().map(|grey| grey * grey).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        grid.iter_mut().for_each(|grey| *grey /= length);
        let deviation = (0..3).map(|channel| deviation(pixels.iter().map(|pixel| pixel[channel]))).fold(0.0, f32::max);
        Look { hash: difference_hash(&greys, size), greys: grid, deviation }
    }

    /// Whether the poster is almost of one colour. Such posters are like each other, and that says nothing.
    pub fn is_of_one_colour(&self) -> bool {
        self.deviation < ONE_COLOUR
    }

    /// Whether two posters are nearly the same picture.
    pub fn is_like(&self, other: &Look) -> bool {
        let is_near = (self.hash ^ other.hash).count_ones() <= DISTANCE;
        is_near && self.greys.iter().zip(&other.greys).map(|(a, b)| a * b).sum::<f32>() >= CORRELATION
    }
}

/// A bit for each of 8×8 places, in 8 rows: whether it is darker than the one to its right, of 9 in a row.
fn difference_hash(greys: &[f32], size: usize) -> u64 {
    let rows = cells(greys, size, 8, 9);
    let bits = rows.chunks(9).flat_map(|row| row.windows(2).map(|pair| pair[1] > pair[0]));
    bits.fold(0, |hash, bit| hash << 1 | u64::from(bit))
}

/// The root mean square deviation of some bytes from their mean.
fn deviation(bytes: impl Iterator<Item = u8> + Clone) -> f32 {
    let count = bytes.clone().count().max(1) as f64;
    let mean = bytes.clone().map(f64::from).sum::<f64>() / count;
    (bytes.map(|byte| (f64::from(byte) - mean).powi(2)).sum::<f64>() / count).sqrt() as f32
}

/// The mean grey of each cell of a grid over the poster; pixels on a border count in part.
fn cells(greys: &[f32], size: usize, rows: usize, columns: usize) -> Vec<f32> {
    let narrow: Vec<f32> = greys.chunks(size).flat_map(|row| means(row.iter().copied(), size, columns)).collect();
    let column = |at: usize| narrow.iter().skip(at).step_by(columns).copied();
    let upright: Vec<Vec<f32>> = (0..columns).map(|at| means(column(at), size, rows)).collect();
    (0..rows * columns).map(|at| upright[at % columns][at / columns]).collect()
}

/// The means of `values`, `len` of them, over `parts` of equal length.
fn means(values: impl Iterator<Item = f32>, len: usize, parts: usize) -> Vec<f32> {
    let mut means = vec![0.0; parts];
    // In units of one part of one value, so that all borders are whole numbers.
    for (at, value) in values.enumerate() {
        let (mut from, end) = (at * parts, (at + 1) * parts);
        while from < end {
            let part = from / len;
            let to = end.min((part + 1) * len);
            means[part] += value * (to - from) as f32 / len as f32;
            from = to;
        }
    }
    means
}

/// The groups of posters that are alike, each in order, and the groups by their first. A poster is in a group if it is like any one in it.
/// Posters of one colour are in none.
pub fn groups(looks: &[Look]) -> Vec<Vec<u32>> {
    // Side by side, since nearly all comparisons end with them.
    let hashes: Vec<u64> = looks.iter().map(|look| look.hash).collect();
    let is_near = |a: usize, b: usize| (hashes[a] ^ hashes[b]).count_ones() <= DISTANCE;
    let is_pair = &|a: usize, b: usize| {
        is_near(a, b) && ![a, b].iter().any(|&at| looks[at].is_of_one_colour()) && looks[a].is_like(&looks[b])
    };
    let pairs_of = |first: usize| {
        let later = (first + 1..looks.len()).filter(move |&second| is_pair(first, second));
        later.map(move |second| (first, second))
    };
    let pairs: Vec<(usize, usize)> = (0..looks.len()).into_par_iter().flat_map_iter(pairs_of).collect();
    // Each poster leads to an earlier one of its group, or to itself if it is the first.
    let mut earlier: Vec<usize> = (0..looks.len()).collect();
    fn first_of(earlier: &[usize], mut at: usize) -> usize {
        while earlier[at] != at {
            at = earlier[at];
        }
        at
    }
    for (a, b) in pairs {
        let [a, b] = [a, b].map(|at| first_of(&earlier, at));
        earlier[a.max(b)] = a.min(b);
    }
    let mut groups: Vec<Vec<u32>> = vec![Vec::new(); looks.len()];
    for at in 0..looks.len() {
        groups[first_of(&earlier, at)].push(at as u32);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use image::codecs::jpeg::JpegEncoder;
    use image::imageops::{self, FilterType};
    use image::{ImageFormat, RgbImage};

    const SIZE: usize = 150;

    /// Makes a copy of a poster.
    type Change<'a> = &'a dyn Fn(&RgbImage) -> RgbImage;

    fn poster(index: u32) -> RgbImage {
        let (pixels, _) = synthetic::draw(3, index, SIZE);
        RgbImage::from_raw(SIZE as u32, SIZE as u32, pixels).unwrap()
    }

    fn look(image: &RgbImage) -> Look {
        Look::new(image.as_raw(), image.width() as usize)
    }

    fn recompressed(image: &RgbImage, quality: u8) -> RgbImage {
        let mut bytes = Vec::new();
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).unwrap();
        image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).unwrap().into_rgb8()
    }

    fn with_colours(image: &RgbImage, change: impl Fn([f32; 3]) -> [f32; 3]) -> RgbImage {
        let mut image = image.clone();
        image.pixels_mut().for_each(|pixel| pixel.0 = change(pixel.0.map(f32::from)).map(|value| value as u8));
        image
    }

    #[test]
    fn copies_are_found_and_other_posters_are_not() {
        let posters: Vec<RgbImage> = (0..60).map(poster).collect();
        let looks: Vec<Look> = posters.iter().map(look).collect();
        assert_eq!(groups(&looks), Vec::<Vec<u32>>::new(), "drawn posters differ");
        let smaller = |image: &RgbImage| imageops::resize(image, 90, 90, FilterType::Triangle);
        let changes: [(&str, Change<'_>); 6] = [
            ("itself", &RgbImage::clone),
            ("recompressed", &|image| recompressed(image, 30)),
            ("smaller", &smaller),
            ("darker", &|image| with_colours(image, |colour| colour.map(|value| 0.6 * value))),
            ("tinted", &|image| with_colours(image, |[r, g, b]| [r, 0.8 * g, 0.55 * b])),
            ("grey", &|image| with_colours(image, |[r, g, b]| [0.299 * r + 0.587 * g + 0.114 * b; 3])),
        ];
        for (what, change) in changes {
            let copies: Vec<Look> = posters.iter().map(|poster| look(&change(poster))).collect();
            for (at, copy) in copies.iter().enumerate() {
                let alike: Vec<usize> = (0..looks.len()).filter(|&other| looks[other].is_like(copy)).collect();
                assert_eq!(alike, [at], "{what}");
            }
        }
        let mirrored = imageops::flip_horizontal(&posters[0]);
        assert!(!looks[0].is_like(&look(&mirrored)));
    }

    #[test]
    fn groups_are_what_is_alike_in_order() {
        let [a, b, c] = [0, 1, 2].map(|index| look(&poster(index)));
        let plain = look(&RgbImage::from_pixel(150, 150, image::Rgb([9, 9, 9])));
        let looks = [&a, &plain, &b, &a, &c, &plain, &b, &a].map(Look::clone);
        assert_eq!(groups(&looks), [vec![0, 3, 7], vec![2, 6]]);
        assert_eq!(groups(&[]), Vec::<Vec<u32>>::new());
        assert!(plain.is_of_one_colour() && !a.is_of_one_colour());
    }

    /// A chain: the first is like the second, and that is like the third, whichever comes first.
    #[test]
    fn whoever_is_like_one_of_a_group_belongs_to_it() {
        let look = |hash: u64| Look { hash, greys: [1.0 / 16.0; 256], deviation: 50.0 };
        let [first, middle, last] = [0, 0xfff, 0xff_ffff].map(look);
        assert!(first.is_like(&middle) && middle.is_like(&last) && !first.is_like(&last));
        assert_eq!(groups(&[first.clone(), last.clone(), middle.clone()]), [vec![0, 1, 2]]);
        assert_eq!(groups(&[last.clone(), first.clone()]), Vec::<Vec<u32>>::new());
        // Two chains in each other: the groups come by their first.
        let other = look(!0);
        let looks = [first, other.clone(), last, middle, other];
        assert_eq!(groups(&looks), [vec![0, 2, 3], vec![1, 4]]);
    }

    #[test]
    fn hashes_and_cells_by_hand() {
        assert_eq!(means([1.0, 2.0, 6.0].into_iter(), 3, 2), [4.0 / 3.0, 14.0 / 3.0]);
        assert_eq!(means([3.0].into_iter(), 1, 4), [3.0; 4], "a poster smaller than the grid");
        // Two by two cells of four by four.
        let greys: Vec<f32> = (0..16).map(|at| at as f32).collect();
        assert_eq!(cells(&greys, 4, 2, 2), [2.5, 4.5, 10.5, 12.5]);
        let ramp: Vec<f32> = (0..72 * 72).map(|at| (at % 72) as f32).collect();
        assert_eq!(difference_hash(&ramp, 72), u64::MAX);
        // Lighter to the right in the upper half only.
        let half: Vec<f32> = ramp.iter().enumerate().map(|(at, &x)| if at < 36 * 72 { x } else { -x }).collect();
        assert_eq!(difference_hash(&half, 72), u64::MAX << 32);
    }

    #[test]
    fn one_colour_is_what_deviates_little_in_every_channel() {
        let of = |values: [[u8; 3]; 2]| {
            let image = RgbImage::from_fn(20, 20, |x, _| image::Rgb(values[x as usize % 2]));
            look(&image).is_of_one_colour()
        };
        assert!(of([[100, 50, 0], [115, 50, 0]]), "by 7.5");
        assert!(!of([[100, 50, 0], [117, 50, 0]]), "by 8.5");
        assert!(!of([[100, 50, 0], [100, 50, 90]]), "of the same red and green");
    }
}
