//! `onesheet infer`: each poster has its own answers, under its own name, whatever lies between them.

use crate::models::{Bench, GENRES, Loaded, POSTERS, bench, probabilities};
use crate::{device, objects, run};
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::data::{pixels, synthetic};
use onesheet::device::cpu::Cpu;
use onesheet::model::Model;
use onesheet::training::checkpoint::Metadata;
use onesheet::training::config::Pixels;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Of the posters, one that has transparent parts and one that is turned.
const TRANSPARENT: usize = 17;
const TURNED: usize = 20;

/// What `infer` is asked about, in this order: a batch of 16 with one file in its middle that is no poster, a batch without any
/// poster, and a batch that is not full.
fn asked() -> Vec<String> {
    let none = ["cut.jpg", "text.png", "absent.jpg", "folder.png"];
    let mut names: Vec<String> = (0..POSTERS).map(poster).collect();
    names.insert(6, none[0].into());
    for number in 0..16 {
        names.insert(16 + number, none[number % 4].into());
    }
    names
}

fn poster(number: usize) -> String {
    let extension = match number {
        TRANSPARENT | TURNED => "png",
        _ => ["png", "jpg", "webp"][number % 3],
    };
    format!("poster {number}.{extension}")
}

/// Draws the posters that are asked about, of many sizes and all kinds, and what is none.
pub fn draw_posters(folder: &Path) {
    for number in 0..POSTERS {
        let (width, height) = (40 + 7 * number as u32, 90 - 2 * number as u32);
        let (drawn, _) = synthetic::draw(4, number as u32, 64);
        let drawn = image::RgbImage::from_raw(64, 64, drawn).unwrap();
        let scaled = image::imageops::thumbnail(&drawn, width, height);
        let path = folder.join(poster(number));
        if number == TRANSPARENT {
            let clear = |x: u32, y: u32| if (x / 8 + y / 8).is_multiple_of(2) { 40 } else { 255 };
            let pixel = |x, y| {
                let [r, g, b] = scaled.get_pixel(x, y).0;
                image::Rgba([r, g, b, clear(x, y)])
            };
            image::RgbaImage::from_fn(width, height, pixel).save(path).unwrap();
        } else if number == TURNED {
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posters/turned.png"), path).unwrap();
        } else {
            scaled.save(path).unwrap();
        }
    }
    let whole = fs::read(folder.join(poster(1))).unwrap();
    fs::write(folder.join("cut.jpg"), &whole[..whole.len() - 40]).unwrap();
    fs::write(folder.join("text.png"), "no poster").unwrap();
    fs::create_dir(folder.join("folder.png")).unwrap();
}

/// The pixels of each poster as a model of this kind wants them.
pub fn squares(folder: &Path, metadata: &Metadata) -> Vec<Vec<u8>> {
    (0..POSTERS).map(|number| square(folder, number, squaring(metadata))).collect()
}

pub fn squaring(metadata: &Metadata) -> Squaring {
    let Metadata { resize, exif, alpha, config, .. } = metadata;
    let [resize, exif, alpha] = [resize, exif, alpha].map(|name| name.as_str());
    Squaring {
        size: config.image_size,
        resize: if resize == "area" { Resize::Area } else { Resize::Nearest },
        exif: if exif == "apply" { Exif::Apply } else { Exif::Ignore },
        alpha: if alpha == "white" { Alpha::White } else { Alpha::Drop },
    }
}

fn square(folder: &Path, number: usize, squaring: Squaring) -> Vec<u8> {
    pixels::square(&fs::read(folder.join(poster(number))).unwrap(), &squaring).unwrap()
}

/// The probabilities of each poster, asked in the batches that `asked` makes of them: 15 posters, none, and 8.
pub fn answers(model: &Model<Cpu>, squares: &[Vec<u8>], convention: Pixels) -> Vec<Vec<f32>> {
    let batches = squares.split_at(15);
    let ask = |batch: &[Vec<u8>]| probabilities(model, &batch.concat(), convention);
    let all = [ask(batches.0), ask(batches.1)].concat();
    all.chunks(GENRES.len()).map(<[f32]>::to_vec).collect()
}

/// Genre, probability and whether it is named, the most probable first.
fn ranked<'a>(genres: &'a [String], thresholds: &[f64], row: &[f32]) -> Vec<(&'a str, f32, bool)> {
    let mut order: Vec<usize> = (0..genres.len()).collect();
    order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap());
    let entry = |genre: usize| (genres[genre].as_str(), row[genre], f64::from(row[genre]) >= thresholds[genre]);
    order.into_iter().map(entry).collect()
}

/// The list that is printed of all posters.
fn text(metadata: &Metadata, answers: &[Vec<f32>]) -> String {
    let mut text = String::new();
    for (number, row) in answers.iter().enumerate() {
        text += &format!("{}\n", poster(number));
        for (genre, probability, named) in ranked(&metadata.genres, &metadata.thresholds, row) {
            let bar = "▇".repeat((20.0 * f64::from(probability)).round() as usize);
            text += &format!("  {} {genre:<7}  {probability:.4}  {bar}\n", if named { '✓' } else { ' ' });
        }
        text += "\n";
    }
    text
}

/// The lines of `--json` of all posters.
fn lines(metadata: &Metadata, answers: &[Vec<f32>]) -> Vec<Value> {
    let line = |(number, row): (usize, &Vec<f32>)| {
        let genre = |(genre, probability, named)| {
            let probability: f64 = format!("{probability:.7}").parse().unwrap();
            let threshold = metadata.thresholds[metadata.genres.iter().position(|found| found == genre).unwrap()];
            json!({ "genre": genre, "probability": probability, "threshold": threshold, "named": named })
        };
        let genres: Vec<Value> = ranked(&metadata.genres, &metadata.thresholds, row).into_iter().map(genre).collect();
        json!({
            "schema": 1, "kind": "poster", "device": device(), "poster": poster(number), "thresholds": "model",
            "calibrated": false, "temperature": 1.0, "mirror": false, "genres": genres,
        })
    };
    answers.iter().enumerate().map(line).collect()
}

/// What is said of each file that is no poster, in the order in which they are asked about.
fn complaints(folder: &Path, metadata: &Metadata) -> String {
    let posters: Vec<String> = (0..POSTERS).map(poster).collect();
    let cut = pixels::square(&fs::read(folder.join("cut.jpg")).unwrap(), &squaring(metadata)).unwrap_err().to_string();
    assert!(cut.starts_with("damaged: it is cut off"), "{cut}");
    let why = |name: &str| match name {
        "cut.jpg" => cut.as_str(),
        "text.png" => "not a JPEG, PNG or WebP image",
        "absent.jpg" => "No such file or directory (os error 2)",
        _ => "there is no poster in this folder, nor up to three folders below it (.jpg, .jpeg, .png, .webp)",
    };
    let none = asked().into_iter().filter(|name| !posters.contains(name));
    none.map(|name| format!("error: {name}: {}\n", why(&name))).collect()
}

fn infer(bench: &Bench, checkpoint: &str, more: &[&str], posters: &[String]) -> (i32, String, String) {
    let model = format!("runs/two/checkpoints/{checkpoint}.safetensors");
    let args = ["infer", "--device", "cpu", "--model", &model].into_iter().chain(more.iter().copied());
    run(&bench.folder, args.chain(posters.iter().map(String::as_str)))
}

/// Each other way to answer differs from the right one, `expected`, in what is printed, so that none can pass for it.
fn check_that_confusions_show(bench: &Bench, expected: &[Vec<f32>], loaded: &Loaded, other: &Loaded) {
    let Loaded { metadata, model } = loaded;
    let right = squaring(metadata);
    let convention = metadata.config.pixels;
    let differ = |what: &str, model: &Model<Cpu>, squaring: Squaring, convention: Pixels, posters: &[usize]| {
        let squares: Vec<Vec<u8>> = posters.iter().map(|&number| square(&bench.folder, number, squaring)).collect();
        let found = probabilities(model, &squares.concat(), convention);
        for (&poster, found) in posters.iter().zip(found.chunks(GENRES.len())) {
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            let most = expected[poster].iter().zip(found).map(off).fold(0.0, f32::max);
            assert!(most >= 2e-3, "{what} changes the answers on poster {poster} by {most}");
        }
    };
    let some = [0, 1, 2, 18];
    for pixels in [Pixels::Raw, Pixels::Imagenet, Pixels::Unit].into_iter().filter(|&pixels| pixels != convention) {
        differ(pixels.name(), model, right, pixels, &some);
    }
    let resize = if right.resize == Resize::Area { Resize::Nearest } else { Resize::Area };
    let exif = if right.exif == Exif::Apply { Exif::Ignore } else { Exif::Apply };
    let alpha = if right.alpha == Alpha::White { Alpha::Drop } else { Alpha::White };
    differ("the other resize", model, Squaring { resize, ..right }, convention, &some);
    differ("the other exif", model, Squaring { exif, ..right }, convention, &[TURNED]);
    differ("the other alpha", model, Squaring { alpha, ..right }, convention, &[TRANSPARENT]);
    differ("the other model", &other.model, right, convention, &some);
    for (poster, row) in expected.iter().enumerate() {
        assert!(expected[..poster].iter().all(|earlier| earlier != row), "poster {poster} has another's answers");
    }

    // The thresholds themselves are told as well; it is what they decide that must differ.
    let decided = |metadata: &Metadata| {
        let mut lines = lines(metadata, expected);
        for genre in lines.iter_mut().flat_map(|line| line["genres"].as_array_mut().unwrap()) {
            genre.as_object_mut().unwrap().remove("threshold").unwrap();
        }
        lines
    };
    let answers = decided(metadata);
    for (what, genres, thresholds) in [
        ("another order of genres", synthetic::GENRES[..5].to_vec(), metadata.thresholds.clone()),
        ("the other thresholds", GENRES.to_vec(), other.metadata.thresholds.clone()),
        ("thresholds in another order", GENRES.to_vec(), metadata.thresholds.iter().rev().copied().collect()),
        ("the settings' threshold", GENRES.to_vec(), vec![metadata.config.threshold; 5]),
    ] {
        let genres = genres.into_iter().map(String::from).collect();
        let wrong = Metadata { genres, thresholds, ..metadata.clone() };
        assert!(decided(&wrong) != answers, "{what} changes nothing");
    }
}

#[test]
fn each_poster_has_its_own_answers_under_its_own_name() {
    let bench = bench();
    let best = bench.best();
    let expected = answers(&best.model, &squares(&bench.folder, &best.metadata), Pixels::Unit);
    check_that_confusions_show(bench, &expected, &best, &bench.last());

    // At the threshold a genre is named, and just below it not.
    let thresholds = &best.metadata.thresholds;
    let named = |genre: usize, probability: f32| {
        let poster = expected.iter().find(|row| row[genre] == probability).unwrap();
        ranked(&best.metadata.genres, thresholds, poster).iter().find(|entry| entry.0 == GENRES[genre]).unwrap().2
    };
    let at = |genre: usize| thresholds[genre] as f32;
    assert_eq!((named(0, at(0)), named(1, at(1).next_down())), (true, false));

    let (code, stdout, stderr) = infer(bench, "best", &[], &asked());
    assert_eq!(code, 3, "the readable ones are answered, and the exit code tells of the others");
    assert_eq!(stdout, text(&best.metadata, &expected));
    let (complaints, all) = (complaints(&bench.folder, &best.metadata), "error: 17 of 40 posters could not be read\n");
    let mark = "✓ marks the genres at or above the model's threshold";
    assert_eq!(stderr, format!("{}\n{complaints}{mark}\n{all}", device()));

    let (code, stdout, stderr) = infer(bench, "best", &["--json"], &asked());
    assert_eq!((code, stderr), (3, complaints + all));
    // Through the same reader, which drops a last digit here and there.
    let printed: String = lines(&best.metadata, &expected).iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(objects(&stdout), objects(&printed));
}

#[test]
fn another_model_answers_in_its_own_way() {
    let bench = bench();
    let last = bench.last();
    let expected = answers(&last.model, &squares(&bench.folder, &last.metadata), Pixels::Imagenet);
    check_that_confusions_show(bench, &expected, &last, &bench.best());
    let posters: Vec<String> = (0..POSTERS).map(poster).collect();
    // No more than a batch, so that the posters are asked about as they were here.
    let (code, stdout, stderr) = infer(bench, "last", &[], &posters[..15]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout, text(&last.metadata, &expected[..15]));
    assert_eq!(stderr, device() + "\n✓ marks the genres at or above the model's threshold\n");
    let (code, stdout, stderr) = infer(bench, "last", &["--quiet"], &posters[15..]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let all = text(&last.metadata, &expected);
    assert_eq!(Some(&*stdout), all.strip_prefix(&text(&last.metadata, &expected[..15])));

    // Not one can be read: nothing is answered.
    let none = ["text.png", "absent.jpg"].map(String::from);
    let (code, stdout, stderr) = infer(bench, "last", &["--quiet"], &none);
    let complaints = "error: text.png: not a JPEG, PNG or WebP image\n\
        error: absent.jpg: No such file or directory (os error 2)\nerror: 2 of 2 posters could not be read\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (3, "", complaints));
}
