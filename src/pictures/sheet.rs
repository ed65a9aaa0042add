//! A contact sheet: many posters beside each other, each with a few lines below it.

use super::text;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::imageops::{self, FilterType};
use image::{ImageFormat, ImageResult, Rgb, RgbImage};
use maud::{DOCTYPE, PreEscaped, html};
use std::io::Cursor;

/// A poster on a sheet.
#[derive(Clone, Debug)]
pub struct Tile {
    /// The poster; all of a sheet have one size.
    pub picture: RgbImage,
    /// What stands below it.
    pub lines: Vec<String>,
}

/// A poster on a sheet is at least so wide, in pixels: a smaller one is enlarged by a whole factor, its pixels left as they are.
const NARROWEST: u32 = 128;

const STYLE: &str = "
body { font: 14px/1.3 sans-serif; margin: 1em }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1em }
figure { margin: 0; overflow-wrap: anywhere }
img { width: 100%; image-rendering: pixelated }
";

/// Pixels between two posters, and around the sheet.
const GAP: u32 = 8;

/// The sheet as one picture, with so many posters in a row.
pub fn drawn(tiles: &[Tile], columns: usize) -> RgbImage {
    let pictures: Vec<RgbImage> = tiles.iter().map(|tile| enlarged(&tile.picture)).collect();
    let side = |of: fn(&RgbImage) -> u32| pictures.iter().map(of).max().unwrap_or(0);
    let lines = tiles.iter().map(|tile| tile.lines.len()).max().unwrap_or(0) as u32;
    let (width, height) = (side(RgbImage::width), side(RgbImage::height));
    let cell = (width + GAP, height + lines * text::LETTER.1 + GAP);
    let columns = columns.clamp(1, tiles.len().max(1)) as u32;
    let rows = (tiles.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(columns * cell.0 + GAP, rows * cell.1 + GAP, Rgb([255; 3]));
    for (at, (tile, picture)) in (0..).zip(tiles.iter().zip(&pictures)) {
        let (x, y) = (GAP + at % columns * cell.0, GAP + at / columns * cell.1);
        imageops::replace(&mut sheet, picture, x.into(), y.into());
        for (number, line) in (0..).zip(&tile.lines) {
            text::write(&mut sheet, line, (x, y + height + number * text::LETTER.1), width, Rgb([0; 3]));
        }
    }
    sheet
}

/// The sheet as a page of HTML that needs no other file, and that has room for lines of any length and script.
///
/// # Errors
/// Those of the PNG encoder.
pub fn page(tiles: &[Tile], title: &str) -> ImageResult<String> {
    let picture = |tile: &Tile| {
        let mut png = Cursor::new(Vec::new());
        tile.picture.write_to(&mut png, ImageFormat::Png)?;
        Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png.into_inner())))
    };
    let pictures = tiles.iter().map(picture).collect::<ImageResult<Vec<String>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                main {
                    @for (Tile { lines, .. }, picture) in tiles.iter().zip(&pictures) {
                        figure {
                            img alt=(lines.join(", ")) src=(picture);
                            figcaption { @for line in lines { (line) br; } }
                        }
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn enlarged(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let factor = NARROWEST.div_ceil(width.max(1));
    if factor == 1 {
        return picture.clone();
    }
    imageops::resize(picture, factor * width, factor * height, FilterType::Nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(value: u8, side: u32, lines: &[&str]) -> Tile {
        let picture = RgbImage::from_pixel(side, side, Rgb([value; 3]));
        Tile { picture, lines: lines.iter().map(|&line| line.to_owned()).collect() }
    }

    #[test]
    fn posters_are_in_rows_with_their_lines_below() {
        let tiles = [tile(1, 130, &["tt1", "Drama"]), tile(2, 130, &["tt2"]), tile(3, 130, &[])];
        let sheet = drawn(&tiles, 2);
        let (cell, row) = (130 + GAP, 130 + 2 * 13 + GAP);
        assert_eq!(sheet.dimensions(), (2 * cell + GAP, 2 * row + GAP));
        let at = |x: u32, y: u32| sheet.get_pixel(x, y)[0];
        assert_eq!([at(GAP, GAP), at(GAP + cell, GAP), at(GAP, GAP + row), at(GAP + cell, GAP + row)], [1, 2, 3, 255]);
        let ink = |x: u32, y: u32| (x..x + 130).any(|x| (y..y + 13).any(|y| at(x, y) == 0));
        let lines = |x: u32, y: u32| [ink(x, y + 130), ink(x, y + 143)];
        assert_eq!([lines(GAP, GAP), lines(GAP + cell, GAP)], [[true, true], [true, false]]);
        // Fewer posters than a row has make it no wider, and none at all make a sheet of nothing.
        assert_eq!(drawn(&tiles[..1], 9).dimensions().0, cell + GAP);
        drawn(&[], 9);
    }

    #[test]
    fn small_posters_are_enlarged_pixel_by_pixel() {
        let mut picture = RgbImage::new(50, 50);
        picture.put_pixel(1, 0, Rgb([9; 3]));
        let sheet = drawn(&[Tile { picture, lines: vec![] }], 1);
        assert_eq!(sheet.dimensions().0, 150 + 2 * GAP);
        let nines = sheet.pixels().filter(|pixel| pixel[0] == 9).count();
        assert_eq!((nines, sheet.get_pixel(GAP + 3, GAP)[0]), (9, 9));
    }

    #[test]
    fn the_page_holds_its_posters_and_runs_nothing() {
        let page = page(&[tile(7, 20, &["a<b>&\"c\"", "剧情"])], "<script>").unwrap();
        assert!(
            page.contains("<h1>&lt;script&gt;</h1>") && page.contains("a&lt;b&gt;&amp;&quot;c&quot;<br>剧情"),
            "{page}"
        );
        assert!(!page.contains("<script") && !page.contains("http"));
        let data = page.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        let png = BASE64_STANDARD.decode(data).unwrap();
        assert_eq!(image::load_from_memory(&png).unwrap().into_rgb8(), RgbImage::from_pixel(20, 20, Rgb([7; 3])));
    }
}
