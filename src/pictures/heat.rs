//! A heat map over its poster.

use super::text;
use crate::model::HeatMap;
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, Rgb, RgbImage};

/// Viridis (van der Walt and Smith 2015) at nine places from 0 to 1, between which colours are interpolated. Its lightness rises evenly, so
/// that people read it who see no difference between red and green, and so does a printer without colours.
const COLOURS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// How much of the colour is the map's; the rest is the poster's grey.
const SHARE: f32 = 0.6;

/// The longer side of a poster in a picture, in pixels: one that is smaller or larger is scaled.
const SIDES: std::ops::RangeInclusive<u32> = 256..=1024;

/// Pixels between the two, and around the line below.
const GAP: u32 = 8;
/// Below the poster.
const FOOT: u32 = text::LETTER.1 + GAP;
/// The bar that explains the colours.
const BAR: (u32, u32) = (64, 9);

/// The colour of `share`, from 0 to 1.
fn colour(share: f32) -> [f32; 3] {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let before = (place as usize).min(COLOURS.len() - 2);
    let behind = place - before as f32;
    std::array::from_fn(|channel| {
        let [from, to] = [COLOURS[before], COLOURS[before + 1]].map(|colour| f32::from(colour[channel]));
        from + behind * (to - from)
    })
}

/// The colour of `share` over a pixel that is so bright.
fn over(grey: u8, share: f32) -> Rgb<u8> {
    Rgb(colour(share).map(|value| (SHARE * value + (1.0 - SHARE) * f32::from(grey)).round() as u8))
}

/// The poster as it is, beside it in grey below the colours of its heat map, and a line under both: the `caption`, and what the colours
/// mean. They are scaled by the map's largest value, so pictures compare places of a poster, and not posters or genres with each other.
pub fn drawn(poster: &RgbImage, map: &HeatMap, caption: &str) -> RgbImage {
    let poster = shown(poster);
    let (width, height) = poster.dimensions();
    let mut picture = RgbImage::from_pixel(2 * width + GAP, height + FOOT, Rgb([255; 3]));
    imageops::replace(&mut picture, &poster, 0, 0);
    imageops::replace(&mut picture, &coloured(&poster, map), i64::from(width + GAP), 0);
    let is_empty = map.values.iter().all(|&value| value <= 0.0);
    let caption = if is_empty { format!("{caption}: nothing speaks for it") } else { caption.to_owned() };
    let (line, black) = (height + GAP / 2, Rgb([0; 3]));
    let legend = legend();
    let room = picture.width().saturating_sub(legend.width() + GAP);
    text::write(&mut picture, &caption, (0, line), room, black);
    imageops::replace(&mut picture, &legend, i64::from(room + GAP), i64::from(line));
    picture
}

/// A poster in grey below the colours of its heat map, which are scaled by the map's largest value; as large as the poster.
pub fn coloured(poster: &RgbImage, map: &HeatMap) -> RgbImage {
    let (width, height) = poster.dimensions();
    let (shares, grey) = (enlarged(map, width, height), imageops::grayscale(poster));
    RgbImage::from_fn(width, height, |x, y| over(grey.get_pixel(x, y)[0], shares.get_pixel(x, y)[0]))
}

/// The poster in the size in which it is drawn.
pub fn shown(poster: &RgbImage) -> RgbImage {
    let (width, height) = poster.dimensions();
    let longer = width.max(height);
    let wanted = longer.clamp(*SIDES.start(), *SIDES.end());
    if wanted == longer {
        return poster.clone();
    }
    let side = |side: u32| (f64::from(side) * f64::from(wanted) / f64::from(longer)).round().max(1.0) as u32;
    imageops::resize(poster, side(width), side(height), FilterType::Triangle)
}

/// The map in shares of its largest value, interpolated between the centres of its grid.
fn enlarged(map: &HeatMap, width: u32, height: u32) -> ImageBuffer<Luma<f32>, Vec<f32>> {
    let largest = map.values.iter().fold(0.0, |largest: f32, &value| largest.max(value));
    let scale = if largest > 0.0 { largest.recip() } else { 0.0 };
    let shares = map.values.iter().map(|value| value * scale).collect();
    let shares: ImageBuffer<Luma<f32>, Vec<f32>> =
        ImageBuffer::from_raw(map.width as u32, map.height as u32, shares).expect("a map has a value for each place");
    imageops::resize(&shares, width, height, FilterType::Triangle)
}

/// A bar from the colour of nothing to that of the largest value.
fn legend() -> RgbImage {
    let (letter, black) = (text::LETTER, Rgb([0; 3]));
    let word = 4 * letter.0 + GAP / 2;
    let mut legend = RgbImage::from_pixel(BAR.0 + 2 * word, letter.1, Rgb([255; 3]));
    let end = legend.width() - 4 * letter.0;
    text::write(&mut legend, "none", (0, 0), word, black);
    text::write(&mut legend, "most", (end, 0), word, black);
    for (x, y) in (0..BAR.0).flat_map(|x| (0..BAR.1).map(move |y| (x, y))) {
        legend.put_pixel(word + x, y + 2, over(128, x as f32 / (BAR.0 - 1) as f32));
    }
    legend
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: [f32; 4]) -> HeatMap {
        HeatMap { height: 2, width: 2, values: values.to_vec() }
    }

    #[test]
    fn colours_are_viridis_and_grow_lighter() {
        assert_eq!(colour(0.0), [68.0, 1.0, 84.0]);
        assert_eq!(colour(1.0), [253.0, 231.0, 37.0]);
        assert_eq!(colour(0.5), [33.0, 144.0, 141.0]);
        assert_eq!(colour(0.5625), [36.0, 158.5, 135.0]);
        let lightness = |share: f32| {
            let [red, green, blue] = colour(share);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        assert!((0..100).all(|at| lightness(at as f32 / 100.0) < lightness((at + 1) as f32 / 100.0)));
    }

    #[test]
    fn the_poster_is_beside_itself_and_the_hottest_place_is_where_the_map_says() {
        let poster = RgbImage::from_fn(200, 300, |x, y| Rgb([x as u8, (y / 2) as u8, 90]));
        let picture = drawn(&poster, &map([0.0, 0.0, 3.0, 0.0]), "Drama 0.5000");
        assert_eq!(picture.dimensions(), (2 * 200 + GAP, 300 + FOOT));
        assert_eq!(imageops::crop_imm(&picture, 0, 0, 200, 300).to_image(), poster);
        let grey = |x: u32, y: u32| imageops::grayscale(&poster).get_pixel(x, y)[0];
        let right = |x: u32, y: u32| *picture.get_pixel(200 + GAP + x, y);
        // Beyond the outer centres the map goes on as it is there.
        assert_eq!(right(20, 290), over(grey(20, 290), 1.0));
        assert_eq!(right(190, 10), over(grey(190, 10), 0.0));
        assert_eq!(right(190, 290), over(grey(190, 290), 0.0));
        // As bright everywhere, whatever the largest value is.
        assert_eq!(picture, drawn(&poster, &map([0.0, 0.0, 0.01, 0.0]), "Drama 0.5000"));
        assert_ne!(picture, drawn(&poster, &map([0.0, 0.0, 3.0, 0.0]), "Crime 0.5000"));
    }

    #[test]
    fn a_map_of_nothing_is_of_one_colour_and_says_so() {
        let poster = RgbImage::from_pixel(300, 300, Rgb([50; 3]));
        let picture = drawn(&poster, &map([0.0; 4]), "Drama 0.5000");
        let expected = over(50, 0.0);
        assert!((0..300).all(|at| *picture.get_pixel(300 + GAP + at, at) == expected));
        let spoken = drawn(&poster, &map([0.0; 4]), "Drama 0.5000: nothing speaks for it");
        let foot = |picture: &RgbImage| imageops::crop_imm(picture, 0, 300, 200, FOOT).to_image();
        assert_eq!(foot(&picture), foot(&spoken));
    }

    #[test]
    fn small_posters_are_enlarged_and_large_ones_made_smaller() {
        let sides = |width, height| shown(&RgbImage::new(width, height)).dimensions();
        assert_eq!(sides(182, 268), (182, 268));
        assert_eq!(sides(32, 64), (128, 256));
        assert_eq!(sides(4096, 2048), (1024, 512));
        assert_eq!(sides(1, 4096), (1, 1024));
        let tiny = drawn(&RgbImage::new(1, 4096), &map([1.0; 4]), "Drama");
        assert_eq!(tiny.dimensions(), (2 + GAP, 1024 + FOOT), "a legend without room is cut off");
    }
}
