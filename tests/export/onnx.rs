//! ONNX: the file as another decoder reads it, computed by plain loops, beside the network on the reference device.

use crate::decoded::{Model, ValueInfo};
use crate::interpreter::{Array, compute};
use crate::support::{assert_close, compare};
use crate::{GENRES, metadata, pixels, save};
use onesheet::device::reference::Reference;
use onesheet::device::{PixelFormat, Placement};
use onesheet::model::Posters;
use onesheet::network::{MINIATURES, Network, resnet50, shallow};
use onesheet::ops::pool::Pooling;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::export::{self, ExportError, Input};
use onesheet::training::learner::{Keep, load};
use std::collections::BTreeSet;
use std::fs;
use std::rc::Rc;

/// Even, so that a window of three that steps by two finds more zeros behind the image than in front of it.
const SIZE: usize = 22;
const POSTERS: usize = 2;

/// A model, and what was written of it.
struct Exported {
    model: Checkpoint,
    file: Model,
}

impl Exported {
    fn new(config: RunConfig, input: Input, calibrated: bool) -> Exported {
        let folder = tempfile::tempdir().unwrap();
        let [path, out] = ["model", "out"].map(|name| folder.path().join(name));
        let model = save(&path, &metadata(config), Keep::Weights);
        export::onnx(&model, &out, input, calibrated).unwrap();
        Exported { model, file: Model::read(&fs::read(&out).unwrap()) }
    }

    fn format(&self) -> PixelFormat {
        self.model.metadata().config.pixels.format()
    }

    /// What the network answers in f64, at this temperature.
    fn expected(&self, temperature: f64) -> Vec<f64> {
        let (pixels, format) = (pixels(POSTERS, SIZE), self.format());
        let posters = Posters { pixels: &pixels, placements: &[Placement::default(); POSTERS], format: &format };
        let network = load(Rc::new(Reference::EXACT), &self.model).unwrap();
        let logits = network.logits(posters).unwrap().to_host(network.device()).unwrap();
        logits.into_iter().map(|logit| 1.0 / (1.0 + (-logit / temperature).exp())).collect()
    }

    /// What the graph makes of the same posters.
    fn found(&self, input: Input) -> Vec<f64> {
        let bytes: Vec<f64> = pixels(POSTERS, SIZE).into_iter().map(f64::from).collect();
        let image = match input {
            Input::Bytes => Array::new(&[POSTERS, SIZE, SIZE, 3], bytes),
            Input::Numbers => numbers(&bytes, &self.format()),
        };
        compute(&self.file.graph, image).values
    }
}

/// The network's numbers of the bytes, channels in front.
fn numbers(bytes: &[f64], format: &PixelFormat) -> Array {
    let images = bytes.chunks(SIZE * SIZE * 3);
    let channel = |image: &[f64], c: usize| -> Vec<f64> {
        image.chunks(3).map(|pixel| format.scale * pixel[format.order[c]] + format.shift[c]).collect()
    };
    let values = images.flat_map(|image| (0..3).flat_map(move |c| channel(image, c))).collect();
    Array::new(&[POSTERS, 3, SIZE, SIZE], values)
}

fn settings(network: Network) -> RunConfig {
    RunConfig { network, image_size: SIZE, ..RunConfig::default() }
}

/// Every kind of layer is in one of them, and each with either pooling and either input.
#[test]
fn the_graph_of_each_network_computes_what_the_network_does() {
    for network in MINIATURES {
        for (pooling, input) in [(Pooling::Average, Input::Bytes), (Pooling::Max, Input::Numbers)] {
            let exported = Exported::new(RunConfig { pooling, ..settings(network) }, input, false);
            let what = format!("{network}, {pooling} pooling, {input:?}");
            let (found, expected) = (exported.found(input), exported.expected(1.0));
            assert!(
                compare("posters", &expected[..4], &expected[4..], 1e-4, 0.0).is_err(),
                "{what}: they are told apart"
            );
            // Epsilons and pixels are f32 in the file.
            assert_close(&what, &found, &expected, 1e-6, 0.0);
        }
    }
}

#[test]
fn bytes_become_the_numbers_that_the_network_was_trained_on() {
    for pixels in [Pixels::Raw, Pixels::Imagenet, Pixels::Unit, Pixels::Symmetric] {
        let exported = Exported::new(RunConfig { pixels, ..settings(shallow::MINIATURE) }, Input::Bytes, false);
        let expected = exported.expected(1.0);
        assert!(
            compare("posters", &expected[..4], &expected[4..], 1e-4, 0.0).is_err(),
            "{pixels:?}: they are told apart"
        );
        assert_close(pixels.name(), &exported.found(Input::Bytes), &expected, 1e-6, 0.0);
    }
}

#[test]
fn calibrated_probabilities_are_those_at_the_temperature() {
    let exported = Exported::new(settings(shallow::MINIATURE), Input::Bytes, true);
    let (found, plain) = (exported.found(Input::Bytes), exported.expected(1.0));
    assert_close("calibrated", &found, &exported.expected(1.5), 1e-6, 0.0);
    assert!(compare("plain", &found, &plain, 1e-3, 0.0).is_err());
}

/// The comparisons above see each of them: with other numbers in any one the answers are others.
#[test]
fn each_tensor_of_the_file_counts() {
    for network in [resnet50::MINIATURE, MINIATURES[4]] {
        let mut exported = Exported::new(settings(network), Input::Bytes, false);
        let expected = exported.expected(1.0);
        for at in 0..exported.file.graph.tensors.len() {
            let tensor = &mut exported.file.graph.tensors[at];
            // Integers are places and extents.
            if tensor.element != 1 {
                continue;
            }
            let (name, values) = (tensor.name.clone(), tensor.values.clone());
            let (numbers, _) = tensor.values.as_chunks_mut();
            numbers.iter_mut().for_each(|bytes| *bytes = (2.0 * f32::from_le_bytes(*bytes) + 1.0).to_le_bytes());
            let found = exported.found(Input::Bytes);
            assert!(compare("", &found, &expected, 1e-6, 0.0).is_err(), "{network}: {name} may be anything");
            exported.file.graph.tensors[at].values = values;
        }
    }
}

#[test]
fn the_file_says_what_it_takes_to_ask_the_model() {
    let exported = Exported::new(settings(MINIATURES[2]), Input::Bytes, false);
    let Model { ir_version, producer, about, graph, operators, metadata } = exported.file;
    assert_eq!((ir_version, producer), (8, ["onesheet", env!("CARGO_PKG_VERSION")].map(String::from)));
    assert_eq!(about, "a miniature of MobileNet, trained by Onesheet to name the genres of a film from its poster.");
    assert_eq!((operators, &*graph.name), ([(String::new(), 17)].into(), "mobilenet-miniature"));
    let value = |name: &str, element, shape: &[&str], about: &str| ValueInfo {
        name: name.into(),
        element,
        shape: shape.iter().map(|&extent| extent.into()).collect(),
        about: about.into(),
    };
    assert_eq!(graph.inputs, [value("image", 2, &["N", "22", "22", "3"], "posters as bytes: red, green, blue")]);
    let about = "of each genre, in the order of the metadata's genres";
    assert_eq!(graph.outputs, [value("probabilities", 1, &["N", "4"], about)]);
    // Each layer leaves a value of its name, the images and the pooling behind them too.
    let left: BTreeSet<&str> = graph.nodes.iter().map(|node| node.outputs[0].as_str()).collect();
    for layer in
        ["input_layer", "conv1_bn", "conv_pad_2", "conv_dw_2", "conv_pw_2_relu", "avg_pool", "head_6", "genres"]
    {
        assert!(left.contains(layer), "{layer}");
    }

    let genres = serde_json::to_string(&GENRES).unwrap();
    let expected = [
        ("alpha", "white"),
        ("calibrated", "false"),
        ("exif", "apply"),
        ("genres", &*genres),
        ("image_size", "22"),
        ("network", "mobilenet-miniature"),
        ("pixels", "imagenet"),
        ("resize", "nearest"),
        ("temperature", "1.5"),
        ("thresholds", "[0.3,0.4,0.5,0.6]"),
        ("tuned_thresholds", "[0.25,0.5,0.125,0.75]"),
    ];
    assert_eq!(metadata, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn whoever_makes_the_numbers_is_told_how() {
    let exported = Exported::new(settings(shallow::MINIATURE), Input::Numbers, true);
    let [ValueInfo { element, shape, .. }] = &exported.file.graph.inputs[..] else { panic!("one input") };
    assert_eq!((*element, &shape[..]), (1, &["N", "3", "22", "22"].map(String::from)[..]));
    let value = |key: &str| exported.file.metadata.get(key).map(String::as_str);
    assert_eq!(value("channel_order"), Some("[2,1,0]"));
    assert_eq!(value("scale"), Some("1.0"));
    assert_eq!(value("shift"), Some("[-103.939,-116.779,-123.68]"));
    assert_eq!(value("calibrated"), Some("true"));
    // σ(z/1.5) where σ(z) is 0.25: z = -ln 3.
    let thresholds: Vec<f64> = serde_json::from_str(value("tuned_thresholds").unwrap()).unwrap();
    assert_close("thresholds", &thresholds[..1], &[1.0 / (1.0 + 3f64.powf(1.0 / 1.5))], 1e-12, 0.0);
}

#[test]
fn a_model_that_lacks_something_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model", "out"].map(|name| folder.path().join(name));
    let mut told = metadata(settings(shallow::MINIATURE));
    told.tuned = None;
    let model = save(&path, &told, Keep::Weights);
    let untuned = export::onnx(&model, &out, Input::Bytes, true).unwrap_err();
    assert!(matches!(&untuned, ExportError::Untuned { .. }) && untuned.to_string().contains("--tune`"), "{untuned}");

    // Its settings say another head than its tensors have.
    told.genres.pop();
    told.thresholds.pop();
    let tensors = model.tensors();
    onesheet::training::checkpoint::write(&onesheet::files::Disk, &path, &told, tensors, |name| model.values(name))
        .unwrap();
    let model = Checkpoint::open(&path).unwrap();
    for error in [export::onnx(&model, &out, Input::Bytes, false), export::safetensors(&model, &out)] {
        let error = error.unwrap_err();
        assert!(matches!(error, ExportError::Checkpoint(_)), "{error}");
        assert!(error.to_string().contains("genres/kernel"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the model alone");
}
