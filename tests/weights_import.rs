//! Weights from Keras's, PyTorch's and our own files, and every way such a file is refused.
//!
//! The Keras files are real ones, written by `weights_import/make_fixtures.py` and `make_xception.py`; the others are made here.

#[path = "weights_import/networks.rs"]
mod networks;
#[path = "weights_import/torch.rs"]
mod torch;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use onesheet::network::IMAGENET_PIXELS;
use onesheet::network::import::{self, ImportError, Source, Wanted, Weights};
use onesheet::network::{Architecture, ModelConfig, NamedShape, mobilenet, resnet50, vgg16, xception};
use onesheet::training::config::Pixels;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use torch::torch;

const KINDS: [&str; 8] = [
    "conv1_conv/kernel",
    "conv1_conv/bias",
    "conv1_bn/gamma",
    "conv1_bn/beta",
    "conv1_bn/moving_mean",
    "conv1_bn/moving_variance",
    "genres/kernel",
    "genres/bias",
];
/// Output channels, kernel rows, kernel columns, input channels.
const K: usize = 4;
const R: usize = 3;
const S: usize = 2;
const C: usize = 3;

/// What the model would ask for: a stem, its batch norm and a head.
fn expected() -> Vec<NamedShape> {
    let shapes = [vec![K, R, S, C], vec![K], vec![K], vec![K], vec![K], vec![K], vec![7, K], vec![7]];
    KINDS.iter().map(|name| name.to_string()).zip(shapes).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights_import").join(name)
}

/// A safetensors file of f32 tensors.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, data)| data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Tensors under our names with distinct values.
fn ours() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let values = |place: usize, count: usize| (0..count).map(|i| (place * 1000 + i) as f32).collect();
    let with_values = |(place, (name, shape)): (usize, (String, Vec<usize>))| {
        let data = values(place, shape.iter().product());
        (name, shape, data)
    };
    expected().into_iter().enumerate().map(with_values).collect()
}

/// What a model with these tensors asks for, which goes by the names of a ResNet-50.
fn wanted(tensors: &[NamedShape]) -> Wanted {
    let (head, base) = tensors.iter().cloned().partition(|(name, _)| name.starts_with("genres/"));
    Wanted { network: resnet50::NETWORK, base, head }
}

/// Weights for a model that is fed pixels as Keras's weights expect them.
fn read(path: &Path, expected: &[NamedShape]) -> Result<Weights, ImportError> {
    import::read(path, &wanted(expected), &IMAGENET_PIXELS.format)
}

/// The error of reading `path`, as its type and as the words a user sees (the causes included).
fn refusal(path: &Path) -> (ImportError, String) {
    let error = read(path, &expected()).expect_err("this file must be refused");
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words += &format!(": {inner}");
        cause = inner.source();
    }
    assert!(words.contains(&path.file_name().unwrap().to_string_lossy()[..]), "no file name in: {words}");
    (error, words)
}

fn base_shapes_are_right(weights: &Weights) {
    let base: HashMap<_, _> = wanted(&expected()).base.into_iter().collect();
    assert_eq!(weights.tensors.len(), base.len());
    for (name, tensor) in &weights.tensors {
        assert_eq!(tensor.shape, base[name], "{name}");
        assert_eq!(tensor.data.len(), tensor.shape.iter().product::<usize>(), "{name}");
    }
}

#[test]
fn keras_files_of_every_arrangement_give_the_same_weights() {
    // keras1.h5 and keras2.h5 have the layers' names of 2016, and keras1.h5 the data sets' as well.
    for name in [
        "applications.h5",
        "whole_model.h5",
        "nested.h5",
        "keras3.weights.h5",
        "nested.weights.h5",
        "keras1.h5",
        "keras2.h5",
    ] {
        let weights = read(&fixture(name), &expected()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(weights.source, Source::Keras);
        base_shapes_are_right(&weights);
        // The script's values: place of the tensor plus an eighth of the element's index in R S C K order.
        let kernel = &weights.tensors["conv1_conv/kernel"].data;
        for k in 0..K {
            for rsc in 0..R * S * C {
                assert_eq!(kernel[k * R * S * C + rsc], (rsc * K + k) as f32 / 8.0, "{name} k {k} rsc {rsc}");
            }
        }
        for (place, kind) in KINDS.iter().enumerate().take(6).skip(1) {
            let values: Vec<f32> = (0..K).map(|i| place as f32 + i as f32 / 8.0).collect();
            assert_eq!(weights.tensors[*kind].data, values, "{name} {kind}");
        }
    }
}

/// The script's values of a tensor of a miniature, in Keras's layout.
fn known(name: &str, len: usize) -> Vec<f32> {
    let number = name.bytes().fold(0, |number, byte| (31 * number + usize::from(byte)) % 65521);
    let lift = if name.ends_with("/gamma") || name.ends_with("/moving_variance") { 0.5 } else { -0.5 };
    (0..len).map(|i| ((37 * i + number) % 509) as f32 / 512.0 + lift).collect()
}

/// That a file's tensors are the script's, in our layouts.
fn assert_are_known(file: &str, weights: &Weights, wanted: &Wanted) {
    for (name, shape) in &wanted.base {
        let tensor = &weights.tensors[name];
        let len = shape.iter().product();
        assert_eq!((&tensor.shape, tensor.data.len()), (shape, len), "{file} {name}");
        let keras = known(name, len);
        // Keras has the output channels of a kernel last, and so has a depthwise kernel here.
        let is_transposed = name.ends_with("/kernel") || name.ends_with("/pointwise_kernel");
        let at = |i: usize| match (&shape[..], is_transposed) {
            ([outputs, ..], true) => keras[i % (len / outputs) * outputs + i / (len / outputs)],
            _ => keras[i],
        };
        assert!(tensor.data.iter().enumerate().all(|(i, value)| *value == at(i)), "{file} {name}");
    }
}

#[test]
fn convolutions_without_batch_norms_arrive() {
    let architecture = Architecture::new(&ModelConfig::new(vgg16::MINIATURE, 7)).unwrap();
    let wanted = Wanted::by(&architecture);
    for file in ["vgg16.h5", "vgg16.weights.h5"] {
        let weights = import::read(&fixture(file), &wanted, &IMAGENET_PIXELS.format).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((weights.tensors.len(), weights.notes.len()), (8, 0), "{file}");
        assert_are_known(file, &weights, &wanted);
    }
}

#[test]
fn depthwise_kernels_keep_their_order() {
    let architecture = Architecture::new(&ModelConfig::new(mobilenet::MINIATURE, 7)).unwrap();
    let wanted = Wanted::by(&architecture);
    for (file, fed) in [("mobilenet.h5", Pixels::Symmetric), ("mobilenet.weights.h5", Pixels::Imagenet)] {
        let weights = import::read(&fixture(file), &wanted, &fed.format()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(weights.tensors.len(), 5 + 2 * 10, "{file}");
        assert_are_known(file, &weights, &wanted);
        let noted = weights.notes.iter().any(|note| note.contains("--pixels symmetric"));
        assert_eq!(noted, fed == Pixels::Imagenet, "{:?}", weights.notes);
    }
    // Another network's file is named as what it is.
    let error = import::read(&fixture("miniature.h5"), &wanted, &IMAGENET_PIXELS.format).unwrap_err().to_string();
    assert!(error.contains("MobileNet") && error.contains("ResNet"), "{error}");
}

/// Keras numbers some of its layers by itself, and in these files with other numbers than ours.
#[test]
fn layers_that_nobody_named_arrive_by_their_order() {
    let architecture = Architecture::new(&ModelConfig::new(xception::MINIATURE, 7)).unwrap();
    let wanted = Wanted::by(&architecture);
    for file in ["xception.h5", "xception.weights.h5", "xception_2017.h5"] {
        let read = import::read(&fixture(file), &wanted, &Pixels::Symmetric.format());
        let weights = read.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((weights.tensors.len(), weights.notes.len()), (wanted.base.len(), 0), "{file}");
        assert_are_known(file, &weights, &wanted);
    }
    // Another network's file is named as what it is.
    let error = import::read(&fixture("miniature.h5"), &wanted, &IMAGENET_PIXELS.format).unwrap_err().to_string();
    assert!(error.contains("Xception") && error.contains("ResNet"), "{error}");
}

/// Keras's ResNet-101 holds all that its ResNet-50 has.
#[test]
fn a_keras_file_of_a_deeper_network_is_refused() {
    let (error, words) = refusal(&fixture("deeper.h5"));
    assert!(matches!(error, ImportError::OtherNetwork { .. }), "{words}");
    assert!(words.contains("conv2_block1_1_conv/kernel") && words.contains("a ResNet of 1 blocks"), "{words}");
}

#[test]
fn pixels_that_keras_weights_were_not_made_for_are_said() {
    let notes = |pixels: Pixels| {
        import::read(&fixture("applications.h5"), &wanted(&expected()), &pixels.format()).unwrap().notes
    };
    assert!(notes(Pixels::Imagenet).is_empty());
    for pixels in [Pixels::Raw, Pixels::Unit] {
        assert!(notes(pixels).iter().any(|note| note.contains("--pixels imagenet")), "{pixels:?}");
    }
}

#[test]
fn our_own_files_come_back_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ours.safetensors");
    write(&path, &ours());
    let weights = read(&path, &expected()).unwrap();
    assert_eq!(weights.source, Source::Onesheet);
    assert_eq!(weights.tensors.len(), ours().len());
    for (name, shape, data) in ours() {
        assert_eq!((&weights.tensors[&name].shape, &weights.tensors[&name].data), (&shape, &data), "{name}");
    }
}

#[test]
fn our_own_files_may_lack_the_head_but_not_half_of_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ours.safetensors");
    write(&path, &ours()[..6]);
    base_shapes_are_right(&read(&path, &expected()).unwrap());

    // A head of other genres.
    let mut other = ours();
    (other[6].1, other[6].2) = (vec![6, K], vec![0.5; 6 * K]);
    (other[7].1, other[7].2) = (vec![6], vec![0.5; 6]);
    write(&path, &other);
    let weights = read(&path, &expected()).unwrap();
    base_shapes_are_right(&weights);
    assert!(weights.notes.iter().any(|note| note.contains("head")), "{:?}", weights.notes);

    write(&path, &ours()[..7]);
    let (error, words) = refusal(&path);
    assert!(matches!(error, ImportError::Missing { count: 1, of: 8, .. }), "{words}");
    assert!(words.contains("genres/bias"), "{words}");
}

#[test]
fn half_precision_is_widened() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("half.safetensors");
    let f16: Vec<u8> = [1.0, -2.5, 0.0, 65504.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let bf16: Vec<u8> = [1.0, -2.5, 0.0, 3.0].iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
    let views = [
        ("conv1_bn/gamma", TensorView::new(Dtype::F16, vec![K], &f16).unwrap()),
        ("conv1_bn/beta", TensorView::new(Dtype::BF16, vec![K], &bf16).unwrap()),
    ];
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let weights = read(&path, &expected()[2..4]).unwrap();
    assert_eq!(weights.tensors["conv1_bn/gamma"].data, [1.0, -2.5, 0.0, 65504.0]);
    assert_eq!(weights.tensors["conv1_bn/beta"].data, [1.0, -2.5, 0.0, 3.0]);
}

#[test]
fn missing_tensors_are_counted_and_the_first_named() {
    let mut wanted = expected();
    wanted.extend((1..=9).map(|i| (format!("conv2_block{i}_1_bn/gamma"), vec![K])));
    let words = read(&fixture("applications.h5"), &wanted).unwrap_err().to_string();
    for part in [
        "applications.h5",
        "lacks 9 of the 15 tensors of ResNet-50",
        "conv2_block1_1_bn/gamma",
        "conv2_block4_1_bn/gamma, …",
    ] {
        assert!(words.contains(part), "{part:?} is not in: {words}");
    }

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("torch.safetensors");
    write(&path, &torch());
    let words = read(&path, &wanted).unwrap_err().to_string();
    assert!(words.contains("layer1.0.bn1.weight"), "not in the file's own names: {words}");
}

#[test]
fn wrong_shapes_are_named_in_the_files_layout() {
    let mut wanted = expected();
    wanted[0].1 = vec![64, 7, 7, 3];
    let folder = TempDir::new().unwrap();
    let (ours_path, torch_path) = (folder.path().join("ours.safetensors"), folder.path().join("torch.safetensors"));
    write(&ours_path, &ours());
    write(&torch_path, &torch());
    for (path, tensor, needed, there) in [
        (fixture("applications.h5"), "conv1_conv/kernel", [7, 7, 3, 64], [R, S, C, K]),
        (ours_path, "conv1_conv/kernel", [64, 7, 7, 3], [K, R, S, C]),
        (torch_path, "conv1.weight", [64, 3, 7, 7], [K, C, R, S]),
    ] {
        match read(&path, &wanted) {
            Err(ImportError::Shape { tensor: name, expected, found, .. }) => {
                assert_eq!(name, tensor);
                assert_eq!(*expected, needed);
                assert_eq!(*found, there.map(|extent| extent as u64));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn poisonous_values_are_refused() {
    let (error, words) = refusal(&fixture("not_a_number.h5"));
    assert!(matches!(error, ImportError::Value { index: 2, .. }) && words.contains("conv1_bn/gamma"), "{words}");
    let (error, words) = refusal(&fixture("negative_variance.h5"));
    assert!(matches!(error, ImportError::Value { index: 1, .. }) && words.contains("moving_variance is -1"), "{words}");
}

#[test]
fn keras_files_that_reach_outside_or_claim_too_much_are_refused() {
    // Not followed, so absent.
    let (error, words) = refusal(&fixture("external_link.h5"));
    assert!(matches!(error, ImportError::Missing { count: 4, .. }), "{words}");
    for name in ["external_data.h5", "virtual_data.h5", "ring.h5", "twice.h5", "old_and_new.h5"] {
        let (error, words) = refusal(&fixture(name));
        assert!(matches!(error, ImportError::Damaged { .. }), "{name}: {words}");
    }
    let (error, words) = refusal(&fixture("huge_claim.h5"));
    assert!(matches!(error, ImportError::Shape { .. }) && words.contains("68719476736"), "{words}");
    let (error, words) = refusal(&fixture("integers.h5"));
    assert!(matches!(error, ImportError::ElementType { .. }), "{words}");
    let (error, words) = refusal(&fixture("unnamed.weights.h5"));
    assert!(matches!(error, ImportError::Unnamed { .. }), "{words}");
}

#[test]
fn truncated_files_are_refused() {
    let folder = TempDir::new().unwrap();
    let (ours_path, torch_path) = (folder.path().join("ours.safetensors"), folder.path().join("torch.safetensors"));
    write(&ours_path, &ours());
    write(&torch_path, &torch());
    for whole in [fixture("applications.h5"), fixture("keras3.weights.h5"), ours_path, torch_path] {
        let bytes = fs::read(&whole).unwrap();
        let cut = folder.path().join("cut");
        for keep in [0, 1, 7, 8, 9, 100, bytes.len() / 4, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&cut, &bytes[..keep]).unwrap();
            refusal(&cut);
        }
    }
}

#[test]
fn lying_safetensors_headers_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lying.safetensors");
    let entry = |name: &str, start: u64, end: u64| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[{start},{end}]}}")
    };
    let huge = u64::MAX;
    for (what, header, claimed) in [
        ("length beyond any header", format!("{{{}}}", entry("a", 0, 16)), Some(1 << 40)),
        ("length beyond the file", format!("{{{}}}", entry("a", 0, 16)), Some(1000)),
        ("hole", format!("{{{},{}}}", entry("a", 0, 16), entry("b", 20, 36)), None),
        ("overlap", format!("{{{},{}}}", entry("a", 0, 16), entry("b", 8, 24)), None),
        (
            "overflow",
            format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{huge},{huge}],\"data_offsets\":[0,16]}}}}"),
            None,
        ),
        ("backwards", format!("{{{}}}", entry("a", 16, 0)), None),
        ("size against shape", format!("{{{}}}", entry("a", 0, 32)), None),
        ("duplicate key", format!("{{{},{}}}", entry("a", 0, 16), entry("a", 16, 32)), None),
        ("deep JSON", format!("{{\"a\":{}", "[".repeat(100_000)), None),
        ("no JSON", "{hello".to_owned(), None),
    ] {
        let mut bytes = claimed.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 32]);
        fs::write(&path, bytes).unwrap();
        let (error, words) = refusal(&path);
        assert!(matches!(error, ImportError::Damaged { .. }), "{what}: {words}");
    }
}

#[test]
fn pickles_are_refused_with_the_command_that_converts_them() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("my resnet's.pth");
    for (what, bytes) in [
        ("zip of torch.save", &b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl\x80\x02}q\x00."[..]),
        ("torch.save before 1.6", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."),
        ("pickle", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00."),
    ] {
        fs::write(&path, bytes).unwrap();
        let (error, words) = refusal(&path);
        assert!(matches!(error, ImportError::Pickle { .. }), "{what}: {words}");
        assert!(words.contains("weights_only=True"), "{words}");
        assert!(words.contains(r"my resnet'\''s.safetensors'"), "not quoted for a shell: {words}");
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.keras");
    fs::write(&path, b"PK\x03\x04metadata.json config.json model.weights.h5").unwrap();
    let (error, words) = refusal(&path);
    assert!(matches!(error, ImportError::KerasArchive { .. }) && words.contains("model.weights.h5"), "{words}");

    fs::write(&path, b"<!DOCTYPE html><title>404</title>").unwrap();
    assert!(matches!(refusal(&path).0, ImportError::Unrecognised { .. }));
    assert!(matches!(refusal(&folder.path().join("absent.h5")).0, ImportError::Io { .. }));
    #[cfg(unix)]
    {
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refusal(&pipe).1.contains("not a file"), "and nobody waits for a writer");
    }
    let (error, words) = refusal(folder.path());
    assert!(matches!(error, ImportError::Io { .. }) && words.contains("it is a folder"), "{words}");
}
