//! The weights alone, as safetensors.

use crate::{averaged, metadata, pixels, save};
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::Posters;
use onesheet::network::{Architecture, MINIATURES};
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, load};
use onesheet::training::{export, start};
use std::path::PathBuf;
use std::rc::Rc;

fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// The bits of what a model answers.
fn answers(model: &Checkpoint) -> Vec<u32> {
    let Metadata { config, .. } = model.metadata();
    let (pixels, format) = (pixels(3, config.image_size), config.pixels.format());
    let posters = Posters { pixels: &pixels, placements: &[Placement::default(); 3], format: &format };
    bits(load(Rc::new(Cpu::new()), model).unwrap().predict(posters).unwrap())
}

#[test]
fn the_weights_alone_answer_with_the_same_bits_and_are_a_start() {
    let folder = tempfile::tempdir().unwrap();
    for network in MINIATURES {
        let [whole, alone] = ["whole", "alone"].map(|name| folder.path().join(name));
        let config = RunConfig { network, image_size: 21, recipe: averaged(), ..RunConfig::default() };
        let model = save(&whole, &metadata(config), Keep::Everything);
        export::safetensors(&model, &alone).unwrap();
        let found = Checkpoint::open(&alone).unwrap();

        let Metadata { config, genres, .. } = model.metadata();
        let shapes = Architecture::new(&config.model(genres.len())).unwrap().named_shapes();
        assert!(model.tensors().len() > 3 * shapes.len(), "there is something to leave out");
        assert_eq!(found.tensors(), shapes, "{network}");
        for (name, _) in &shapes {
            assert_eq!(bits(found.values(name).unwrap()), bits(model.values(name).unwrap()), "{network}: {name}");
        }
        assert_eq!(found.metadata(), model.metadata());
        assert_eq!(answers(&found), answers(&model), "{network}");
        assert_eq!(start::read(&alone, config, genres).unwrap(), start::read(&whole, config, genres).unwrap());
        // The same file each time.
        export::safetensors(&model, &whole).unwrap();
        assert_eq!(std::fs::read(&alone).unwrap(), std::fs::read(&whole).unwrap());
    }
}

/// A folder's name may be a person's.
#[test]
fn no_folder_of_the_machine_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, alone] = ["whole", "alone"].map(|name| folder.path().join(name));
    let [data, weights] =
        ["/home/somebody/posters.safetensors", "somebody/keras.h5"].map(|path| Some(PathBuf::from(path)));
    let config = RunConfig { network: MINIATURES[5], image_size: 21, data, weights, ..RunConfig::default() };
    export::safetensors(&save(&whole, &metadata(config), Keep::Weights), &alone).unwrap();
    let found = Checkpoint::open(&alone).unwrap();
    let RunConfig { data, weights, .. } = &found.metadata().config;
    assert_eq!((data, weights), (&Some("posters.safetensors".into()), &Some("keras.h5".into())));
    assert!(!std::fs::read(&alone).unwrap().windows(8).any(|bytes| bytes == b"somebody"));
}
