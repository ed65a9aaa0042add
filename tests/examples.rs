//! The examples do what they say.

#[path = "../examples/custom_network.rs"]
mod custom_network;
#[path = "../examples/predict.rs"]
mod predict;
#[path = "../examples/train.rs"]
mod train;

use onesheet::data::synthetic;
use onesheet::training::run_folder::{EpochRow, best_checkpoint};
use predict::Answer;
use tempfile::TempDir;

#[test]
fn a_network_is_trained_from_rust_and_names_the_genres_of_a_poster() {
    let folder = TempDir::new().unwrap();
    train::train(folder.path(), 60).unwrap();
    let run = folder.path().join("run");
    let epochs: Vec<EpochRow> =
        csv::Reader::from_path(run.join("log.csv")).unwrap().deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!(epochs.iter().map(|row| (row.epoch, row.step)).collect::<Vec<_>>(), [(1, 3), (2, 6)]);

    let (pixels, _) = synthetic::draw(1, 0, 90);
    let poster = folder.path().join("poster.png");
    image::RgbImage::from_raw(90, 90, pixels).unwrap().save(&poster).unwrap();
    let answers = predict::predict(&best_checkpoint(&run), &poster).unwrap();
    let genres: Vec<&str> = answers.iter().map(|answer| answer.genre.as_str()).collect();
    assert_eq!(genres, synthetic::GENRES);
    for Answer { genre, probability, is_named } in answers {
        assert!((0.0..=1.0).contains(&probability) && is_named == (probability >= 0.3), "{genre}: {probability}");
    }
    assert!(predict::predict(&poster, &poster).is_err(), "a poster is no model");
}

#[test]
fn a_list_of_layers_is_a_network_that_learns() {
    let losses = custom_network::learn(20).unwrap();
    assert!(losses.len() == 20 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    assert!(losses[19] < 0.7 * losses[0], "{losses:?}");
}
