//! Keras's weights: the file as another crate reads it, and as a run begins from it.

use crate::{GENRES, metadata, save};
use hdf5_reader::Hdf5File;
use hdf5_reader::group::Group;
use onesheet::network::{Architecture, MINIATURES, Network, vgg16, xception};
use onesheet::ops::pool::Pooling;
use onesheet::training::checkpoint::Metadata;
use onesheet::training::config::RunConfig;
use onesheet::training::export::{self, ExportError};
use onesheet::training::learner::Keep;
use onesheet::training::start;
use std::collections::BTreeMap;

fn config(network: Network) -> RunConfig {
    RunConfig { network, image_size: 21, pooling: Pooling::Max, ..RunConfig::default() }
}

#[test]
fn a_run_begins_from_the_weights_with_their_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model", "out.h5"].map(|name| folder.path().join(name));
    for network in MINIATURES {
        let model = save(&path, &metadata(config(network)), Keep::Weights);
        let exported = export::keras(&model, &out);
        if network.keras.is_none() {
            assert!(matches!(exported, Err(ExportError::NotInKeras { network: told }) if told == network.title));
            continue;
        }
        exported.unwrap();
        let Metadata { config, genres, .. } = model.metadata();
        let weights = start::read(&out, config, genres).unwrap();
        let architecture = Architecture::new(&config.model(genres.len())).unwrap();
        let (base, _) = architecture.base_and_head();
        assert_eq!(weights.tensors.len(), base.len(), "{network}");
        for tensor in base {
            assert_eq!(weights.tensors[&tensor.name].data, model.values(&tensor.name).unwrap(), "{}", tensor.name);
        }
    }
}

/// What the importer passes over: the head, the order of the layers, and what is said of the model.
#[test]
fn the_file_has_the_head_and_what_it_takes_to_build_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model", "out.h5"].map(|name| folder.path().join(name));
    let model = save(&path, &metadata(config(vgg16::MINIATURE)), Keep::Weights);
    export::keras(&model, &out).unwrap();
    let root = Hdf5File::open(&out).unwrap().root_group().unwrap();

    let layers = ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "head_6", "genres"];
    assert_eq!(strings(&root, "layer_names"), layers);
    for layer in layers {
        let names = ["kernel", "bias"].map(|kind| format!("{layer}/{kind}:0"));
        assert_eq!(strings(&root.group(layer).unwrap(), "weight_names"), names);
    }
    let head = root.group("genres").unwrap().group("genres").unwrap();
    let kernel = head.dataset("kernel:0").unwrap();
    assert_eq!(kernel.shape(), [6, 4]);
    let mut found = [0.0f32; 24];
    kernel.read_into(&mut found).unwrap();
    let ours = model.values("genres/kernel").unwrap();
    assert!((0..24).all(|at| found[at] == ours[at % 4 * 6 + at / 4]), "{found:?}");

    let genres = serde_json::to_string(&GENRES).unwrap();
    let expected = [
        ("alpha", "white"),
        ("backend", "tensorflow"),
        ("calibrated", "false"),
        ("channel_order", "[2,1,0]"),
        ("exif", "apply"),
        ("genres", &*genres),
        ("head", "[6]"),
        ("image_size", "21"),
        ("keras_class", "VGG16"),
        ("keras_version", "2.15.0"),
        ("network", "vgg16-miniature"),
        ("pixels", "imagenet"),
        ("pooling", "max"),
        ("resize", "nearest"),
        ("scale", "1.0"),
        ("shift", "[-103.939,-116.779,-123.68]"),
        ("temperature", "1.5"),
        ("thresholds", "[0.3,0.4,0.5,0.6]"),
        ("tuned_thresholds", "[0.25,0.5,0.125,0.75]"),
    ];
    let names = expected.map(|(name, _)| name);
    let found: BTreeMap<_, _> =
        names.into_iter().map(|name| (name, root.attribute(name).unwrap().read_string().unwrap())).collect();
    assert_eq!(found, expected.map(|(name, value)| (name, value.to_owned())).into());
}

/// As Keras lists them: what an optimiser moves, then batch norm's averages.
#[test]
fn layers_of_several_tensors_name_them_in_keras_order() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model", "out.h5"].map(|name| folder.path().join(name));
    export::keras(&save(&path, &metadata(config(xception::MINIATURE)), Keep::Weights), &out).unwrap();
    let root = Hdf5File::open(&out).unwrap().root_group().unwrap();
    let names = |layer: &str| strings(&root.group(layer).unwrap(), "weight_names");
    let norm = ["gamma", "beta", "moving_mean", "moving_variance"].map(|kind| format!("block1_conv1_bn/{kind}:0"));
    assert_eq!(names("block1_conv1_bn"), norm);
    let kernels = ["depthwise_kernel", "pointwise_kernel"].map(|kind| format!("block2_sepconv1/{kind}:0"));
    assert_eq!(names("block2_sepconv1"), kernels);
}

fn strings(group: &Group, attribute: &str) -> Vec<String> {
    group.attribute(attribute).unwrap().read_strings().unwrap()
}
