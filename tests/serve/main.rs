//! `onesheet serve`, asked as browsers and programs ask, and as neither should.

mod answers;
mod connections;
mod description;
mod refused;
#[path = "../support/served.rs"]
mod served;

use onesheet::data::pixels;
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::data::synthetic;
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::Posters;
use onesheet::network::shallow;
use onesheet::training::checkpoint::{Metadata, Progress};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::{Keep, Learner};
use served::Served;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::OnceLock;

/// The side of a poster as the network sees it.
const SIDE: usize = 48;

/// Posters that are asked about, of many sizes and all kinds.
const POSTERS: [&str; 6] = ["a 0.png", "1.jpg", "2.webp", "3.png", "4.jpg", "5.webp"];

/// A folder with posters and `model.safetensors`, made once: it lies in Cargo's folder for tests.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (number, name) in (0..).zip(POSTERS) {
            let (drawn, _) = synthetic::draw(4, number, 64);
            let drawn = image::RgbImage::from_raw(64, 64, drawn).unwrap();
            image::imageops::thumbnail(&drawn, 40 + 30 * number, 300 - 20 * number).save(folder.join(name)).unwrap();
        }
        write_model(&folder);
        folder
    })
}

/// A network of random weights, the last ones large so that posters differ. Each genre's threshold lies between what is said of the posters, so that it is named of some of them.
fn write_model(folder: &std::path::Path) {
    let config =
        RunConfig { network: shallow::MINIATURE, image_size: SIDE, pixels: Pixels::Unit, ..RunConfig::default() };
    let mut learner = Learner::new(Rc::new(Cpu::new()), config.model(7), 5).unwrap();
    let model = learner.model_mut();
    let kernel = model.architecture().tensors.iter().find(|tensor| tensor.name == "genres/kernel").unwrap().clone();
    let large: Vec<f32> = model.read(&kernel).unwrap().iter().map(|weight| 200.0 * weight).collect();
    model.write(&kernel, &large).unwrap();
    let squaring = Squaring { size: SIDE, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop };
    let squares = POSTERS.map(|name| pixels::square(&fs::read(folder.join(name)).unwrap(), &squaring).unwrap());
    let format = config.pixels.format();
    let posters = Posters { pixels: &squares.concat(), placements: &[Placement::default(); 6], format: &format };
    let found = learner.model().predict(posters).unwrap();
    let threshold = |genre: usize| {
        let of_genre = || found.iter().skip(genre).step_by(7).copied();
        let (least, most) = (of_genre().fold(1.0, f32::min), of_genre().fold(0.0, f32::max));
        assert!(most - least > 0.02, "genre {genre}: {least} to {most}");
        f64::from((least + most) / 2.0)
    };
    let metadata = Metadata {
        genres: synthetic::GENRES.map(String::from).to_vec(),
        thresholds: (0..7).map(threshold).collect(),
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config,
    };
    learner.save(&folder.join("model.safetensors"), &metadata, Keep::Weights).unwrap();
}

/// The bytes of a poster.
fn poster(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

/// What a poster is by its name.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap() {
        "png" => "image/png",
        "jpg" => "image/jpeg",
        _ => "image/webp",
    }
}

/// A server on the processor, with these words behind the others.
fn serve(words: &str) -> Served {
    Served::start(folder(), &format!("--model model.safetensors --device cpu --precision f32 --port 0 {words}"))
}
