//! Weights files of whole networks, as torchvision and timm name and shape them: ResNet-50 under any prefix is read, and
//! other networks are refused though they hold all that ResNet-50 has.

use onesheet::network::import::{self, ImportError, KERAS_PIXELS, Source, Weights};
use onesheet::network::{Architecture, ModelConfig, resnet50};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// A tensor's name and shape.
type Named = (String, Vec<usize>);

/// What differs between networks of one family.
#[derive(Clone, Copy)]
struct Network {
    blocks: [usize; 4],
    /// Channels of the 3×3 for each of ResNet's.
    width: usize,
    groups: usize,
    squeeze: Option<&'static str>,
}

const RESNET_50: Network = Network { blocks: [3, 4, 6, 3], width: 1, groups: 1, squeeze: None };

impl Network {
    fn tensors(self) -> Vec<Named> {
        let norm = |name: String, channels: usize| {
            let parts = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
            parts.map(|part| {
                (format!("{name}.{part}"), if part == "num_batches_tracked" { vec![] } else { vec![channels] })
            })
        };
        let mut tensors = vec![("conv1.weight".to_owned(), vec![64, 3, 7, 7])];
        tensors.extend(norm("bn1".into(), 64));
        let mut inputs = 64;
        for (stage, (filters, blocks)) in [64, 128, 256, 512].into_iter().zip(self.blocks).enumerate() {
            let (inner, outputs) = (filters * self.width, 4 * filters);
            for block in 0..blocks {
                let name = format!("layer{}.{block}", stage + 1);
                let shapes = [[inner, inputs, 1, 1], [inner, inner / self.groups, 3, 3], [outputs, inner, 1, 1]];
                for (number, shape) in shapes.into_iter().enumerate() {
                    tensors.push((format!("{name}.conv{}.weight", number + 1), shape.to_vec()));
                    tensors.extend(norm(format!("{name}.bn{}", number + 1), shape[0]));
                }
                if let Some(squeeze) = self.squeeze {
                    tensors.push((format!("{name}.{squeeze}.fc1.weight"), vec![outputs / 16, outputs, 1, 1]));
                }
                if block == 0 {
                    tensors.push((format!("{name}.downsample.0.weight"), vec![outputs, inputs, 1, 1]));
                    tensors.extend(norm(format!("{name}.downsample.1"), outputs));
                }
                inputs = outputs;
            }
        }
        tensors.extend([("fc.weight".to_owned(), vec![1000, 2048]), ("fc.bias".to_owned(), vec![1000])]);
        tensors
    }
}

/// Writes 16-bit zeros under these names, which take no room on most disks.
fn write(path: &Path, tensors: &[Named]) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header
            .insert(name.clone(), serde_json::json!({ "dtype": "F16", "shape": shape, "data_offsets": [begin, end] }));
    }
    let json = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&json).unwrap();
    file.set_len((8 + json.len() + end) as u64).unwrap();
}

fn read(tensors: &[Named]) -> Result<Weights, ImportError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    write(&path, tensors);
    let expected: Vec<_> = Architecture::new(&ModelConfig::new(resnet50::NETWORK, 7)).unwrap().tensors;
    let expected: Vec<_> = expected.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    import::read(&path, &expected, &KERAS_PIXELS)
}

fn behind(prefix: &str, tensors: Vec<Named>) -> Vec<Named> {
    tensors.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
}

#[test]
fn resnet_50_is_read_under_any_prefix_and_beside_what_is_no_network() {
    for prefix in ["", "module.", "model.", "backbone.", "module.model.backbone."] {
        let mut tensors = behind(prefix, RESNET_50.tensors());
        for surplus in ["optimizer.state.0.exp_avg", "head.0.weight", "projector.conv1.weight", "epoch"] {
            tensors.push((surplus.to_owned(), vec![2]));
        }
        let weights = read(&tensors).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert_eq!((weights.source, weights.tensors.len()), (Source::Torch, 318));
        let is_said = weights.notes.iter().any(|note| note.ends_with(&format!("behind the prefix {prefix}")));
        assert_eq!(is_said, !prefix.is_empty(), "{prefix}: {:?}", weights.notes);
    }
}

#[test]
fn other_networks_with_all_that_resnet_50_has_are_refused_by_what_they_have_more() {
    let resnet_101 = Network { blocks: [3, 4, 23, 3], ..RESNET_50 };
    let with = |name: &str, shape: &[usize]| {
        let mut tensors = RESNET_50.tensors();
        tensors.push((name.to_owned(), shape.to_vec()));
        tensors
    };
    for (tensors, named, looks_like) in [
        (resnet_101.tensors(), "layer3.6.conv1.weight", "deeper ResNet"),
        (Network { squeeze: Some("se"), ..RESNET_50 }.tensors(), "layer1.0.se.fc1.weight", "SE-ResNet"),
        (Network { squeeze: Some("se_module"), ..RESNET_50 }.tensors(), "layer1.0.se_module.fc1.weight", "SE-ResNet"),
        (
            with("layer2.1.downsample.0.weight", &[512, 512, 1, 1]),
            "layer2.1.downsample.0.weight",
            "too many in its block",
        ),
        (with("layer5.0.conv1.weight", &[8]), "layer5.0.conv1.weight", "deeper ResNet"),
        (with("conv2.weight", &[8]), "conv2.weight", "outside its blocks"),
    ] {
        for prefix in ["", "module."] {
            let error = read(&behind(prefix, tensors.clone())).expect_err(named);
            let is_named = matches!(&error, ImportError::OtherNetwork { tensor, .. } if tensor == named);
            assert!(is_named && error.to_string().contains(looks_like), "{named}: {error}");
        }
    }
    for network in [Network { width: 2, ..RESNET_50 }, Network { width: 2, groups: 32, ..RESNET_50 }] {
        let error = read(&network.tensors()).expect_err("its 3x3 are wider");
        assert!(matches!(&error, ImportError::Shape { tensor, .. } if tensor == "layer1.0.conv1.weight"), "{error}");
        assert!(error.to_string().contains("wider network"), "{error}");
    }
}

#[test]
fn two_networks_in_one_file_are_refused_by_both_prefixes() {
    let both = ["student.", "teacher."].map(|prefix| behind(prefix, RESNET_50.tensors())).concat();
    let error = read(&both).expect_err("which one is meant?");
    assert!(matches!(error, ImportError::SeveralNetworks { .. }), "{error}");
    assert!(error.to_string().contains("student., teacher."), "{error}");
}

#[test]
fn a_file_with_none_of_the_names_is_told_what_it_has() {
    let error = read(&[("transformer.h.0.attn.weight".to_owned(), vec![2])]).expect_err("no ResNet at all");
    assert!(matches!(error, ImportError::Missing { count: 318, of: 318, .. }), "{error}");
    assert!(error.to_string().contains("called like transformer.h.0.attn.weight"), "{error}");
}
