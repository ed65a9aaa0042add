//! Names the genres of a poster from Rust: `cargo run --release --example predict -- MODEL POSTER`.

use onesheet::data::pixels;
use onesheet::data::squaring::Squaring;
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::Posters;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::learner;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::rc::Rc;

/// What a model says of a genre.
pub struct Answer {
    /// As the model calls it.
    pub genre: String,
    /// From 0 to 1.
    pub probability: f32,
    /// Whether that reaches the genre's threshold.
    pub is_named: bool,
}

/// The genres of a poster, a JPEG, PNG or WebP of any size.
pub fn predict(model: &Path, poster: &Path) -> Result<Vec<Answer>, Box<dyn Error>> {
    let checkpoint = Checkpoint::open_model(model)?;
    let model = learner::load(Rc::new(Cpu::fastest()), &checkpoint)?;
    let metadata = checkpoint.metadata();
    // As the training posters were made square, and as their bytes became numbers.
    let made = [("resize", &metadata.resize), ("exif", &metadata.exif), ("alpha", &metadata.alpha)];
    let made: BTreeMap<String, String> = made.map(|(key, how)| (key.to_owned(), how.clone())).into();
    let squaring = Squaring::from_provenance(metadata.config.image_size, &made)?;
    let pixels = pixels::square(&std::fs::read(poster)?, &squaring)?;
    let format = metadata.config.pixels.format();
    let posters = Posters { pixels: &pixels, placements: &[Placement::default()], format: &format };
    let probabilities = model.predict(posters)?;
    let answers = metadata.genres.iter().zip(probabilities).zip(&metadata.thresholds);
    let answer = |((genre, probability), threshold): ((&String, f32), &f64)| Answer {
        genre: genre.clone(),
        probability,
        is_named: probability >= *threshold as f32,
    };
    Ok(answers.map(answer).collect())
}

#[allow(dead_code, reason = "a test takes the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, model, poster] = &words[..] else {
        return Err("say which model and which poster: predict MODEL POSTER".into());
    };
    for Answer { genre, probability, is_named } in predict(Path::new(model), Path::new(poster))? {
        println!("{} {genre:10} {probability:.4}", if is_named { "✓" } else { " " });
    }
    Ok(())
}
