//! Heat maps of what a model sees: the gradient behind them against finite differences, the maps against the same by hand, and each device
//! against the reference. Beside PyTorch they stand in `tests/golden.rs`.

mod by_hand;
#[path = "../support/cuda.rs"]
mod cuda;
mod devices;
mod differences;
#[path = "../support/networks.rs"]
mod networks;
#[path = "../support/mod.rs"]
mod support;

use onesheet::device::{Device, Placement};
use onesheet::model::{HeatMap, Model, Posters};
use onesheet::network::{MINIATURES, ModelConfig, Network};
use onesheet::ops::pool::Pooling;
use onesheet::training::config::Pixels;
use std::rc::Rc;
use support::seeded;

const POSTERS: usize = 3;
const GENRES: usize = 4;
const SIZE: usize = 37;

/// The miniature of each network, and one with sums of all kinds.
fn small() -> impl Iterator<Item = Network> {
    MINIATURES.into_iter().chain([networks::SUMS])
}

fn config(network: Network, pooling: Pooling) -> ModelConfig {
    ModelConfig { pooling, image_size: SIZE, ..ModelConfig::new(network, GENRES) }
}

/// A model on `device` none of whose tensors is what it starts training with.
fn model<D: Device>(device: D, config: ModelConfig) -> Model<D> {
    let mut model = Model::zeros(Rc::new(device), config).unwrap();
    for (number, tensor) in model.architecture().tensors.clone().iter().enumerate() {
        let (lo, hi) = match tensor.name.rsplit('/').next().unwrap() {
            "moving_variance" => (0.5, 1.5),
            "gamma" => (0.4, 1.2),
            _ => (-0.6, 0.6),
        };
        let len = tensor.shape.iter().product();
        let values: Vec<f32> = seeded(number as u64, len, lo, hi).iter().map(|&value| value as f32).collect();
        model.write(tensor, &values).unwrap();
    }
    model
}

/// Calls `look` with the posters that everybody here sees.
fn with_posters<T>(size: usize, look: impl FnOnce(Posters<'_>) -> T) -> T {
    let pixels: Vec<u8> = seeded(7, POSTERS * size * size * 3, 0.0, 256.0).iter().map(|&value| value as u8).collect();
    let placements = [Placement::default(); POSTERS];
    look(Posters { pixels: &pixels, placements: &placements, format: &Pixels::Unit.format() })
}

/// All values of maps, a genre after the other.
fn values(maps: &[Vec<HeatMap>]) -> Vec<f64> {
    maps.iter().flatten().flat_map(|map| &map.values).map(|&value| f64::from(value)).collect()
}

#[test]
fn a_genre_that_the_model_does_not_have_is_refused_and_parameters_stay_as_they_are() {
    let mut model = model(onesheet::device::cpu::Cpu::new(), config(MINIATURES[0], Pooling::Average));
    with_posters(SIZE, |posters| {
        let answer = model.predict(posters).unwrap();
        let error = model.explain(posters, &[GENRES]).unwrap_err().to_string();
        assert!(error.contains("no genre 4 among 4"), "{error}");
        let state = |model: &Model<onesheet::device::cpu::Cpu>| {
            let (parameters, device) = (model.parameters(), model.device());
            let arenas = [&parameters.weights, &parameters.gradients, &parameters.averages];
            let host = arenas.map(|arena| {
                use onesheet::device::Memory;
                device.download(arena.from_offset(0)).unwrap()
            });
            (host, parameters.trainable_from)
        };
        let before = state(&model);
        assert!(model.explain(posters, &[]).unwrap().is_empty());
        let maps = model.explain(posters, &[2, 0, 2]).unwrap();
        assert_eq!((maps.len(), maps[0].len(), &maps[0]), (3, POSTERS, &maps[2]));
        assert_ne!(maps[0], maps[1]);
        assert!(state(&model) == before);
        assert_eq!(model.predict(posters).unwrap(), answer);
        // One poster by itself has the map that it has among others.
        let one = Posters {
            pixels: &posters.pixels[SIZE * SIZE * 3..][..SIZE * SIZE * 3],
            placements: &[Placement::default()],
            ..posters
        };
        assert_eq!(values(&[model.explain(one, &[2]).unwrap().concat()]), values(&[vec![maps[0][1].clone()]]));
    });
}
