//! A trained model for other programs. What is written is read back here by other code than wrote it; `.ci/elsewhere` has ONNX Runtime
//! and Keras read it.

mod alone;
mod decoded;
mod elsewhere;
mod interpreter;
mod keras;
mod onnx;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "made for more than weights")]
#[path = "../golden/values.rs"]
mod values;

use onesheet::data::synthetic;
use onesheet::device::cpu::Cpu;
use onesheet::model::Model;
use onesheet::training::checkpoint::{Checkpoint, Metadata, Progress};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, Learner};
use onesheet::training::recipe::Recipe;
use onesheet::training::tuning::Tuned;
use std::path::Path;
use std::rc::Rc;

const GENRES: [&str; 4] = ["War", "Drama", "Film \"noir\"", "Комедия"];

/// What a model's file says, with thresholds and a temperature that somebody has tuned.
fn metadata(config: RunConfig) -> Metadata {
    let thresholds = vec![0.25, 0.5, 0.125, 0.75];
    let tuned = Tuned { thresholds, temperature: 1.5, posters: 9, data_digest: "of other posters".into() };
    Metadata {
        genres: GENRES.map(String::from).to_vec(),
        thresholds: vec![0.3, 0.4, 0.5, 0.6],
        resize: "nearest".into(),
        exif: "apply".into(),
        alpha: "white".into(),
        data_digest: "of the posters".into(),
        tuned: Some(tuned),
        progress: Progress { epoch: 2, total_steps: 7, best: Some(0.5), ..Progress::default() },
        config,
    }
}

/// Saves a checkpoint with the weights that the golden values are made with, whose batch norms have averages of their own. The first of
/// these are of pixels from 0 to 255; where pixels are fewer units wide, so are they.
fn save(path: &Path, metadata: &Metadata, keep: Keep) -> Checkpoint {
    let (device, scale) = (Rc::new(Cpu::new()), metadata.config.pixels.format().scale);
    let mut model = Model::zeros(device, metadata.config.model(metadata.genres.len())).unwrap();
    for (number, tensor) in model.architecture().tensors.clone().iter().enumerate() {
        let mut values = values::initial(number, &tensor.name, &tensor.shape);
        if tensor.name == "conv1_bn/moving_variance" && scale < 1.0 {
            values.iter_mut().for_each(|value| *value /= 8192.0);
        }
        model.write(tensor, &values).unwrap();
    }
    let mut learner = Learner::by(&metadata.config.recipe, model).unwrap();
    learner.begin_average().unwrap();
    learner.save(path, metadata, keep).unwrap();
    Checkpoint::open(path).unwrap()
}

/// Bytes of so many posters.
fn pixels(posters: usize, size: usize) -> Vec<u8> {
    (0..posters).flat_map(|poster| synthetic::draw(1, poster as u32, size).0).collect()
}

/// Settings in which a model has moments and a moving average beside its weights.
fn averaged() -> Recipe {
    Recipe { ema: 0.9, ..Recipe::default() }
}
