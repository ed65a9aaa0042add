//! Weights files of whole networks, as torchvision and timm name and shape them: ResNet-50 under any prefix is read, and
//! other networks are refused though they hold all that ResNet-50 has.

use onesheet::network::IMAGENET_PIXELS;
use onesheet::network::import::{self, ImportError, Source, Wanted, Weights};
use onesheet::network::{self, Architecture, ModelConfig, resnet50, resnet50_v1_5, vgg16};
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
    read_for(resnet50::NETWORK, tensors)
}

fn read_for(network: network::Network, tensors: &[Named]) -> Result<Weights, ImportError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    write(&path, tensors);
    let architecture = Architecture::new(&ModelConfig::new(network, 7)).unwrap();
    import::read(&path, &Wanted::by(&architecture), &IMAGENET_PIXELS.format)
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
        let caveat = weights.notes.iter().any(|note| note.contains("--network resnet50-v1.5 fits them exactly"));
        assert!(caveat, "{:?}", weights.notes);
        let is_said = weights.notes.iter().any(|note| note.ends_with(&format!("behind the prefix {prefix}")));
        assert_eq!(is_said, !prefix.is_empty(), "{prefix}: {:?}", weights.notes);
    }
}

/// torchvision's and timm's own network: nothing to be said of it.
#[test]
fn resnet_50_v1_5_is_pytorchs_without_a_caveat() {
    for prefix in ["", "module."] {
        let weights = read_for(resnet50_v1_5::NETWORK, &behind(prefix, RESNET_50.tensors())).unwrap();
        let base = weights.tensors.values().map(|tensor| tensor.data.len()).sum::<usize>();
        assert_eq!((weights.source, weights.tensors.len(), base), (Source::Torch, 265, 23_561_152));
        let caveats: Vec<_> = weights.notes.iter().filter(|note| !note.contains("behind the prefix")).collect();
        assert!(caveats.is_empty(), "{caveats:?}");
    }
}

/// Every tensor of v1.5 is in v1 by name and shape, but the biases of v1 tell the two apart.
#[test]
fn v1_and_v1_5_are_told_apart_in_our_own_layout() {
    let own = |network| {
        let tensors = Architecture::new(&ModelConfig::new(network, 7)).unwrap().tensors;
        tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect::<Vec<_>>()
    };
    let (v1, v1_5) = (resnet50::NETWORK, resnet50_v1_5::NETWORK);
    for (network, tensors) in [(v1, own(v1)), (v1_5, own(v1_5))] {
        let weights = read_for(network, &tensors).unwrap();
        assert_eq!((weights.source, weights.tensors.len()), (Source::Onesheet, tensors.len()));
    }
    let error = read_for(v1, &own(v1_5)).expect_err("its convolutions have no biases");
    assert!(matches!(error, ImportError::Missing { count: 53, .. }), "{error}");
    assert!(
        error.to_string().contains("it looks like ResNet-50 v1.5, which --network resnet50-v1.5 chooses"),
        "{error}"
    );
    let error = read_for(v1_5, &own(v1)).expect_err("its convolutions have biases");
    assert!(matches!(&error, ImportError::OtherNetwork { tensor, .. } if tensor == "conv1_conv/bias"), "{error}");
    assert!(error.to_string().contains("it looks like ResNet-50, which --network resnet50 chooses"), "{error}");
}

#[test]
fn other_networks_with_all_that_resnet_50_has_are_refused_by_what_they_have_more() {
    let resnet_101 = Network { blocks: [3, 4, 23, 3], ..RESNET_50 };
    let resnet_152 = Network { blocks: [3, 8, 36, 3], ..RESNET_50 };
    let with = |name: &str, shape: &[usize]| {
        let mut tensors = RESNET_50.tensors();
        tensors.push((name.to_owned(), shape.to_vec()));
        tensors
    };
    for (tensors, named, looks_like) in [
        (resnet_101.tensors(), "layer3.6.conv1.weight", "looks like ResNet-101)"),
        (resnet_152.tensors(), "layer2.4.conv1.weight", "looks like ResNet-152)"),
        (Network { squeeze: Some("se"), ..RESNET_50 }.tensors(), "layer1.0.se.fc1.weight", "looks like SE-ResNet-50)"),
        (
            Network { squeeze: Some("se_module"), ..RESNET_50 }.tensors(),
            "layer1.0.se_module.fc1.weight",
            "looks like SE-ResNet-50)",
        ),
        (
            with("layer2.1.downsample.0.weight", &[512, 512, 1, 1]),
            "layer2.1.downsample.0.weight",
            "too many in its block",
        ),
        (with("layer5.0.conv1.weight", &[8]), "layer5.0.conv1.weight", "a ResNet of 3 + 4 + 6 + 3 + 1 blocks"),
        (with("conv2.weight", &[8]), "conv2.weight", "outside its blocks"),
    ] {
        for prefix in ["", "module."] {
            let error = read(&behind(prefix, tensors.clone())).expect_err(named);
            let is_named = matches!(&error, ImportError::OtherNetwork { tensor, .. } if tensor == named);
            assert!(is_named && error.to_string().contains(looks_like), "{named}: {error}");
        }
    }
    // What a layer has more in width shows in its shape.
    let wide = Network { width: 2, ..RESNET_50 };
    for (network, seems) in [
        (wide, "it looks like Wide ResNet-50-2"),
        (Network { groups: 32, ..wide }, "it looks like ResNeXt-50 (32x4d)"),
        (Network { groups: 32, blocks: [3, 4, 23, 3], ..wide }, "layer3.6.conv1.weight"),
    ] {
        for (ours, tensors) in [(resnet50::NETWORK, network.tensors()), (resnet50_v1_5::NETWORK, network.tensors())] {
            let error = read_for(ours, &tensors).expect_err(seems);
            let is_shape = matches!(&error, ImportError::Shape { tensor, .. } if tensor == "layer1.0.conv1.weight");
            assert!(is_shape || matches!(error, ImportError::OtherNetwork { .. }), "{error}");
            assert!(error.to_string().contains(seems), "{error}");
        }
    }
}

/// Keras's VGG-19 has all that its VGG-16 has.
#[test]
fn a_vgg_19_is_refused_by_the_convolution_that_it_has_more() {
    let architecture = Architecture::new(&ModelConfig::new(vgg16::NETWORK, 7)).unwrap();
    let mut tensors: Vec<Named> = architecture.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    assert_eq!(read_for(vgg16::NETWORK, &tensors).unwrap().source, Source::Onesheet);
    tensors.push(("block5_conv4/kernel".to_owned(), vec![512, 3, 3, 512]));
    let error = read_for(vgg16::NETWORK, &tensors).expect_err("its blocks are longer");
    assert!(matches!(&error, ImportError::OtherNetwork { tensor, .. } if tensor == "block5_conv4/kernel"), "{error}");
    assert!(error.to_string().contains("looks like VGG-19"), "{error}");
    let error = read_for(vgg16::NETWORK, &RESNET_50.tensors()).expect_err("it is a ResNet");
    assert!(error.to_string().ends_with("it looks like ResNet-50, which --network resnet50 chooses"), "{error}");
}

/// Networks that lack what ResNet-50 has.
#[test]
fn other_networks_are_named_by_what_they_are() {
    let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec![2])).collect::<Vec<Named>>();
    let mut basic = Network { blocks: [2, 2, 2, 2], ..RESNET_50 }.tensors();
    basic.retain(|(name, _)| !name.contains("conv3") && !name.contains("bn3"));
    for (tensors, seems) in [
        (basic, "it looks like ResNet-18"),
        (named(&["features.0.weight", "classifier.6.weight"]), "it looks like a VGG or AlexNet"),
        (named(&["block1_conv1/kernel", "block5_conv3/kernel"]), "it looks like VGG-16, which --network vgg16 chooses"),
        (
            named(&["conv_dw_1/depthwise_kernel", "conv_pw_13/kernel"]),
            "it looks like MobileNet, which --network mobilenet chooses",
        ),
        (
            named(&["block1_conv1/kernel", "block14_sepconv2/depthwise_kernel"]),
            "it looks like Xception, which --network xception chooses",
        ),
        (
            named(&["conv1_conv/kernel", "conv4_2_conv/kernel"]),
            "it looks like ShallowNet, which --network shallow chooses",
        ),
        (named(&["conv_stem.weight", "blocks.0.0.conv_dw.weight"]), "it looks like a MobileNet or EfficientNet"),
    ] {
        for prefix in ["", "model."] {
            let error = read(&behind(prefix, tensors.clone())).expect_err(seems);
            assert!(matches!(error, ImportError::Missing { .. }), "{error}");
            assert!(error.to_string().ends_with(seems), "{error}");
        }
    }
    // Under a prefix the names are not Keras's, so that nothing of it is read.
    let keras = Architecture::new(&ModelConfig::new(resnet50::NETWORK, 7)).unwrap().tensors;
    let keras = keras.into_iter().map(|tensor| (format!("model.{}", tensor.name), tensor.shape)).collect::<Vec<_>>();
    let error = read(&keras).expect_err("a prefix");
    assert!(error.to_string().contains("what it has is called like model.conv1_conv/kernel"), "{error}");
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
