//! PyTorch's names and layouts, and its stem adapted to the pixels of a run.

use super::*;
use onesheet::device::PixelFormat;
use onesheet::network::import::Tensors;

/// The same network as PyTorch would save it: KCRS, no bias, a counter and another head beside.
pub fn torch() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let vector = |name: &str, first: f32| (name.to_owned(), vec![K], (0..K).map(|i| first + i as f32).collect());
    vec![
        ("conv1.weight".to_owned(), vec![K, C, R, S], (0..K * C * R * S).map(|i| i as f32 / 8.0).collect()),
        vector("bn1.weight", 10.0),
        vector("bn1.bias", 20.0),
        vector("bn1.running_mean", 30.0),
        vector("bn1.running_var", 40.0),
        ("bn1.num_batches_tracked".to_owned(), vec![], vec![7.0]),
        ("fc.bias".to_owned(), vec![1000], vec![0.0; 1000]),
    ]
}

#[test]
fn torch_kernels_are_transposed_and_biases_are_zero() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("torch.safetensors");
    // A later layer: the stem's pixels are another test's.
    let kernel: Vec<f32> = (0..K * C * R * S).map(|i| i as f32).collect();
    let tensors: Vec<_> = torch()
        .into_iter()
        .chain([
            ("layer2.3.conv2.weight".to_owned(), vec![K, C, R, S], kernel.clone()),
            ("layer4.0.downsample.0.weight".to_owned(), vec![K, C, 1, 1], kernel[..K * C].to_vec()),
            ("layer4.0.downsample.1.running_var".to_owned(), vec![K], vec![5.0; K]),
        ])
        .collect();
    write(&path, &tensors);
    let mut wanted = expected();
    wanted.push(("conv3_block4_2_conv/kernel".to_owned(), vec![K, R, S, C]));
    wanted.push(("conv3_block4_2_conv/bias".to_owned(), vec![K]));
    wanted.push(("conv5_block1_0_conv/kernel".to_owned(), vec![K, 1, 1, C]));
    wanted.push(("conv5_block1_0_bn/moving_variance".to_owned(), vec![K]));
    let weights = read(&path, &wanted).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(weights.source, Source::Torch);
    assert!(weights.notes.iter().any(|note| note.contains("--network resnet50-v1.5")), "{:?}", weights.notes);
    let imported = &weights.tensors["conv3_block4_2_conv/kernel"].data;
    for k in 0..K {
        for rs in 0..R * S {
            for c in 0..C {
                assert_eq!(imported[(k * R * S + rs) * C + c], kernel[(k * C + c) * R * S + rs], "{k} {rs} {c}");
            }
        }
    }
    assert_eq!(weights.tensors["conv3_block4_2_conv/bias"].data, vec![0.0; K]);
    assert_eq!(weights.tensors["conv5_block1_0_conv/kernel"].data, kernel[..K * C]);
    assert_eq!(weights.tensors["conv5_block1_0_bn/moving_variance"].data, vec![5.0; K]);
    assert_eq!(weights.tensors["conv1_bn/gamma"].data, vec![10.0, 11.0, 12.0, 13.0]);
    assert_eq!(weights.tensors["conv1_bn/beta"].data, vec![20.0, 21.0, 22.0, 23.0]);
    assert_eq!(weights.tensors["conv1_bn/moving_mean"].data, vec![30.0, 31.0, 32.0, 33.0]);
    assert_eq!(weights.tensors["conv1_bn/moving_variance"].data, vec![40.0, 41.0, 42.0, 43.0]);
}

/// A patch of raw pixels gives the same number through PyTorch's preprocessing and kernel as through ours, whatever the run
/// makes of a pixel.
#[test]
fn the_torch_stem_takes_the_pixels_of_the_run() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("torch.safetensors");
    write(&path, &torch());
    let theirs = &torch()[0].2;
    let rgb = |rs: usize, c: usize| ((rs * 89 + c * 151 + 17) % 256) as f64;
    // The last one is no run's: PyTorch's own, but for the deviation.
    let less_mean = PixelFormat { order: [0, 1, 2], scale: 1.0 / 255.0, shift: [-0.485, -0.456, -0.406] };
    for (format, has_other_padding) in [
        (Pixels::Imagenet.format(), false),
        (Pixels::Raw.format(), true),
        (Pixels::Unit.format(), true),
        (Pixels::Symmetric.format(), true),
        (less_mean, false),
    ] {
        let weights = import::read(&path, &wanted(&expected()), &format).unwrap();
        let (kernel, bias) = (&weights.tensors["conv1_conv/kernel"].data, &weights.tensors["conv1_conv/bias"].data);
        for k in 0..K {
            let (mut by_torch, mut by_us) = (0.0, f64::from(bias[k]));
            for rs in 0..R * S {
                for c in 0..C {
                    let normalised = (rgb(rs, c) / 255.0 - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c];
                    by_torch += normalised * f64::from(theirs[(k * C + c) * R * S + rs]);
                    let ours = format.scale * rgb(rs, format.order[c]) + format.shift[c];
                    by_us += ours * f64::from(kernel[(k * R * S + rs) * C + c]);
                }
            }
            let off = (by_torch - by_us).abs();
            assert!(off <= 1e-5 * by_torch.abs(), "{format:?}, filter {k}: {by_torch} by PyTorch, {by_us} by us");
        }
        // Where a mean is taken off, padding is the mean colour, to half a grey level with Keras's pixels.
        let is_said = weights.notes.iter().any(|note| note.contains("padding"));
        assert_eq!(is_said, has_other_padding, "{format:?}: {:?}", weights.notes);
    }
}

/// A stem without a bias has its batch norm move instead: what comes out of that is the same.
#[test]
fn the_torch_stem_without_a_bias_takes_the_pixels_as_well() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("torch.safetensors");
    write(&path, &torch());
    let without: Vec<NamedShape> = expected().into_iter().filter(|(name, _)| name != "conv1_conv/bias").collect();
    for pixels in [Pixels::Imagenet, Pixels::Raw, Pixels::Unit] {
        let read = |expected: &[NamedShape]| import::read(&path, &wanted(expected), &pixels.format()).unwrap().tensors;
        let (with, without) = (read(&expected()), read(&without));
        assert_eq!(without.len() + 1, with.len());
        let values = |tensors: &Tensors, name: &str| tensors[name].data.clone();
        let means = values(&without, "conv1_bn/moving_mean");
        for (k, mean) in means.iter().enumerate() {
            let expected = values(&with, "conv1_bn/moving_mean")[k] - values(&with, "conv1_conv/bias")[k];
            assert!((mean - expected).abs() <= 1e-6 * expected.abs(), "{pixels:?}, filter {k}: {mean}, not {expected}");
        }
        for name in ["conv1_conv/kernel", "conv1_bn/gamma", "conv1_bn/beta", "conv1_bn/moving_variance"] {
            assert_eq!(without[name], with[name], "{pixels:?}: {name}");
        }
    }
}

/// A convolution with a bias, as other programs' exports of this network have it, keeps it.
#[test]
fn a_torch_bias_is_read_where_there_is_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("torch.safetensors");
    let mut tensors = torch();
    write(&path, &tensors);
    let without = read(&path, &expected()).unwrap().tensors["conv1_conv/bias"].data.clone();
    tensors.push(("conv1.bias".to_owned(), vec![K], vec![100.0, 200.0, 300.0, 400.0]));
    write(&path, &tensors);
    let with = read(&path, &expected()).unwrap().tensors["conv1_conv/bias"].data.clone();
    for (k, (with, without)) in with.iter().zip(without).enumerate() {
        assert!((with - without - 100.0 * (k as f32 + 1.0)).abs() <= 1e-3, "{with} {without}");
    }
}
