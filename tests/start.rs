//! What a run starts from: its own kind of checkpoints, verified, with or without their heads.

use onesheet::device::cpu::Cpu;
use onesheet::model::Model;
use onesheet::network::import::ImportError;
use onesheet::network::{ModelConfig, Network, resnet50, resnet50_v1_5};
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError, Metadata, Progress};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::{Keep, Learner};
use onesheet::training::start;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tempfile::TempDir;

fn config() -> RunConfig {
    RunConfig { network: resnet50::MINIATURE, image_size: 32, ..RunConfig::default() }
}

fn genres(names: &str) -> Vec<String> {
    names.split(' ').map(str::to_owned).collect()
}

/// A checkpoint of a small network for these genres.
fn saved(folder: &Path, network: Network, names: &str) -> PathBuf {
    let genres = genres(names);
    let config = RunConfig { network, ..config() };
    let metadata = Metadata {
        thresholds: vec![0.3; genres.len()],
        genres,
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config: config.clone(),
    };
    let model: ModelConfig = config.model(metadata.genres.len());
    let path = folder.join("checkpoint.safetensors");
    Learner::new(Rc::new(Cpu::new()), model, 7).unwrap().save(&path, &metadata, Keep::Everything).unwrap();
    path
}

fn read(path: &Path, names: &str) -> Result<onesheet::network::import::Weights, TrainingError> {
    start::read(path, &config(), &genres(names))
}

/// Glorot and Bengio's uniform numbers in every kernel, each tensor drawn on its own; Keras's zeros and ones everywhere else.
#[test]
fn random_weights_are_kerass_and_follow_from_the_seed() {
    let network = |seed: u64, zero_init_residual: bool| {
        let config = RunConfig { zero_init_residual, ..config() };
        let model = Model::new(Rc::new(Cpu::new()), config.model(5), seed).unwrap();
        let tensors = model.architecture().tensors.clone();
        tensors.into_iter().map(|tensor| (model.read(&tensor).unwrap(), tensor)).collect::<Vec<_>>()
    };
    let (mut fractions, mut kernels) = (Vec::new(), 0);
    for (values, tensor) in network(7, true) {
        let name = &tensor.name;
        if !name.ends_with("/kernel") {
            let last_of_block = name.ends_with("_3_bn/gamma");
            let is_one = name.ends_with("/gamma") && !last_of_block || name.ends_with("/moving_variance");
            assert!(values.iter().all(|&value| value == f32::from(u8::from(is_one))), "{name}");
            continue;
        }
        // What an output sums up, and what an input goes to.
        let (outputs, inputs) = (tensor.shape[0], tensor.shape[tensor.shape.len() - 1]);
        let taps = values.len() / (outputs * inputs);
        let limit = (6.0 / (taps * inputs + taps * outputs) as f32).sqrt();
        fractions.extend(values.iter().map(|value| value / limit));
        kernels += 1;
        let rms = (values.iter().map(|value| (value / limit).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
        assert!(values.iter().all(|value| value.abs() <= limit) && (0.3..0.9).contains(&rms), "{name}: {rms}");
    }
    // Of numbers uniform in ±1, no two tensors having the same ones: the root mean square is 1/√3, and hardly two are alike.
    let rms = (fractions.iter().map(|value| value * value).sum::<f32>() / fractions.len() as f32).sqrt();
    assert!(kernels == 14 && (rms - 0.577).abs() < 0.02, "{kernels} kernels, {rms}");
    let apart: std::collections::BTreeSet<u32> = fractions.iter().map(|value| (value * 1e6) as i32 as u32).collect();
    assert!(apart.len() * 100 > fractions.len() * 99, "{} of {} are different", apart.len(), fractions.len());

    assert!(network(7, true) == network(7, true));
    for (((values, tensor), (others, _)), (kept, _)) in
        network(7, true).into_iter().zip(network(8, true)).zip(network(7, false))
    {
        assert_eq!(values != others, tensor.name.ends_with("/kernel"), "{} of another seed", tensor.name);
        assert_eq!(values != kept, tensor.name.ends_with("_3_bn/gamma"), "{} of Keras's blocks", tensor.name);
    }
}

#[test]
fn the_head_is_taken_only_for_the_same_genres_in_the_same_order() {
    let folder = TempDir::new().unwrap();
    let path = saved(folder.path(), resnet50::MINIATURE, "Action Drama Other");
    let checkpoint = Checkpoint::open(&path).unwrap();
    for (names, has_head) in [
        ("Action Drama Other", true),
        ("Drama Action Other", false),
        ("Action Comedy Other", false),
        ("Action Other", false),
        ("Action Comedy Drama Other", false),
    ] {
        let weights = read(&path, names).unwrap_or_else(|error| panic!("{names}: {error}"));
        for tensor in ["head_6/kernel", "head_6/bias", "genres/kernel", "genres/bias"] {
            assert_eq!(weights.tensors.contains_key(tensor), has_head, "{names}: {tensor}");
        }
        assert_eq!(weights.tensors["conv1_conv/kernel"].data, checkpoint.values("conv1_conv/kernel").unwrap());
        let is_said = weights.notes.iter().any(|note| note.contains("Action, Drama, Other") && note.contains("head"));
        assert_eq!(is_said, !has_head, "{names}: {:?}", weights.notes);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_checkpoint_is_found() {
    let folder = TempDir::new().unwrap();
    let path = saved(folder.path(), resnet50::MINIATURE, "Action Other");
    let whole = fs::read(&path).unwrap();
    let (header, head) = safetensors::SafeTensors::read_metadata(&whole).unwrap();
    let inside = |name: &str| header + 8 + head.info(name).unwrap().data_offsets.0 + 5;
    let word = |word: &str| whole.windows(word.len()).position(|bytes| bytes == word.as_bytes()).unwrap();
    for (what, at) in [
        ("a weight of the base", inside("conv2_block1_2_conv/kernel")),
        ("a weight of the head", inside("head_6/kernel")),
        ("a moment", inside("adam.v/conv1_conv/kernel")),
        ("the digests", inside("digests")),
        ("the settings", word("momentum = ") + 11),
        ("the name of the settings", word("\"onesheet\"") + 3),
        ("the name of the digests", word("\"digests\"") + 3),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = read(&path, "Action Other").expect_err(what);
        let is_damage = matches!(
            error,
            TrainingError::Checkpoint(CheckpointError::Damaged { .. })
                | TrainingError::Weights(ImportError::Damaged { .. })
        );
        assert!(is_damage && error.to_string().contains("checkpoint.safetensors"), "{what}: {error}");
    }
    for end in [20, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        let error = read(&path, "Action Other").expect_err("cut off");
        assert!(matches!(error, TrainingError::Weights(ImportError::Damaged { .. })), "{end}: {error}");
    }
}

#[test]
fn a_checkpoint_of_a_deeper_network_is_refused() {
    let folder = TempDir::new().unwrap();
    let deeper = Network { base: |net| resnet50::base(net, resnet50::V1, 4, &[(2, 3), (3, 1)]), ..resnet50::MINIATURE };
    let path = saved(folder.path(), deeper, "Action Other");
    let error = read(&path, "Action Other").expect_err("it has a block too many");
    assert!(matches!(error, TrainingError::Weights(ImportError::OtherNetwork { .. })), "{error}");
    assert!(error.to_string().contains("conv2_block3_1_conv/kernel"), "{error}");
}

/// Every tensor of v1.5 is in v1 as well, in names and shapes, so only its settings tell them apart.
#[test]
fn a_checkpoint_of_another_network_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = saved(folder.path(), resnet50_v1_5::MINIATURE, "Action Other");
    let error = read(&path, "Action Other").expect_err("it is of v1.5");
    assert!(matches!(error, TrainingError::Checkpoint(CheckpointError::OtherNetwork { .. })), "{error}");
    let told = "is a checkpoint of a miniature of ResNet-50 v1.5, and not of a miniature of ResNet-50";
    assert!(error.to_string().contains(told), "{error}");
    assert!(error.to_string().contains("--network resnet50-v1.5-miniature"), "{error}");
    let config = RunConfig { network: resnet50_v1_5::MINIATURE, ..config() };
    assert!(start::read(&path, &config, &genres("Action Other")).is_ok());
}

#[test]
fn other_pixels_than_a_checkpoint_was_trained_on_are_said() {
    let folder = TempDir::new().unwrap();
    let path = saved(folder.path(), resnet50::MINIATURE, "Action Other");
    assert_eq!(read(&path, "Action Other").unwrap().notes, [""; 0]);
    let raw = RunConfig { pixels: Pixels::Raw, ..config() };
    let notes = start::read(&path, &raw, &genres("Action Other")).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("--pixels imagenet") && notes[0].contains("raw"), "{notes:?}");
}
