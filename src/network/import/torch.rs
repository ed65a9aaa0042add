//! torchvision's and timm's `resnet50`: PyTorch's names, KCRS kernels, no convolution biases.
//!
//! PyTorch's recipe feeds RGB in 0…1, normalised by mean and deviation. A run feeds what its settings say: `scale`
//! times the pixel plus `shift`, its channels in some order ([`PixelFormat`]). The stem is linear, so the difference moves
//! into it for good: with x the raw pixel, PyTorch's input is (x - 255 mean) / (255 std), ours is scale x + shift, hence
//!
//! ```text
//! kernel'[k,r,s,ours] = kernel[k,RGB,r,s] / (255 std scale)
//! bias'[k]            = - sum over r, s, c of kernel'[k,r,s,c] * (shift[c] + scale 255 mean[c])
//! ```
//!
//! That is exact wherever a filter sees nothing but the poster. Over the three padded pixels around it both sides see zeros,
//! and these stand for different colours: PyTorch's for ImageNet's mean, ours for the pixel that becomes 0. With `--pixels
//! imagenet` that is the same mean to half a grey level; with `raw` and `unit` it is black, which a note says.

use std::collections::HashSet;

use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Source, Tensors, Wanted, WeightTensor, Weights, surplus, transpose};
use crate::device::PixelFormat;

/// PyTorch's ImageNet means and deviations in 0…1, of red, green and blue.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

const OTHER_STRIDES: &str = "these weights were trained as ResNet-50 v1.5, whose stages stride in the 3x3 convolution; here, \
     as in Keras, the first 1x1 strides. They are a good start for training, but untrained layers on top of them see features \
     somewhat unlike ImageNet's; Keras's own .h5 fits exactly";
const BLACK_BORDER: &str = "the first convolution is adapted to this run's pixels, exactly but for the three pixels of \
     padding around a poster: they are black here where PyTorch pads with ImageNet's mean colour, as --pixels imagenet does";

/// What stands before PyTorch's names of the network in the file: nothing, or `module.` and the like. `None` if it holds no
/// such names.
pub(super) fn prefix(file: &SafetensorsFile) -> Result<Option<String>, ImportError> {
    const MARK: &str = "layer1.0.conv1.weight";
    if file.contains(MARK) || file.contains("conv1.weight") {
        return Ok(Some(String::new()));
    }
    let names = file.names();
    let prefixes = names.iter().filter_map(|name| name.strip_suffix(MARK)).filter(|prefix| prefix.ends_with('.'));
    let prefixes: Vec<String> = prefixes.map(str::to_owned).collect();
    match &prefixes[..] {
        [] => Ok(None),
        [prefix] => Ok(Some(prefix.clone())),
        _ => Err(ImportError::SeveralNetworks { path: file.path().to_owned(), prefixes }),
    }
}

/// Reads the base under Onesheet's names, in its layouts, for a model that is fed `pixels`.
pub(super) fn read(
    mut file: SafetensorsFile,
    prefix: &str,
    wanted: &[Wanted<'_>],
    pixels: &PixelFormat,
) -> Result<Weights, ImportError> {
    let (mut missing, mut ours) = (Vec::new(), HashSet::new());
    for (name, _) in wanted {
        match theirs(name) {
            Some(Counterpart::Needed(name)) if !file.contains(&format!("{prefix}{name}")) => missing.push(name),
            Some(Counterpart::Needed(name) | Counterpart::Optional(name)) => drop(ours.insert(name)),
            None => missing.push((*name).to_owned()),
        }
    }
    let names = file.names();
    ImportError::missing(file.path(), missing, wanted.len(), names.first().cloned())?;
    let held = names.iter().filter_map(|name| name.strip_prefix(prefix)).filter(|name| is_in_network(name));
    surplus::refuse(file.path(), held, &ours, block)?;

    let mut tensors = Tensors::new();
    for &(name, shape) in wanted {
        let data = match (theirs(name), shape) {
            (Some(Counterpart::Needed(theirs)), &[k, r, s, c]) => {
                transpose(&file.read(&format!("{prefix}{theirs}"), &[k, c, r, s])?, c, r * s)
            }
            (Some(Counterpart::Optional(theirs)), _) if !file.contains(&format!("{prefix}{theirs}")) => {
                vec![0.0; shape.iter().product()]
            }
            (Some(Counterpart::Needed(theirs) | Counterpart::Optional(theirs)), _) => {
                file.read(&format!("{prefix}{theirs}"), shape)?
            }
            (None, _) => unreachable!("counted as missing above"),
        };
        tensors.insert(name.to_owned(), WeightTensor { shape: shape.to_vec(), data });
    }
    fold_pixels(&mut tensors, pixels);
    let mut notes = Vec::new();
    if !prefix.is_empty() {
        notes.push(format!("the network's tensors are found behind the prefix {prefix}"));
    }
    if padding_is_far_from_the_mean(pixels) {
        notes.push(BLACK_BORDER.to_owned());
    }
    notes.push(OTHER_STRIDES.to_owned());
    Ok(Weights { tensors, source: Source::Torch, notes })
}

/// Whether a tensor is one of the network's weights, and neither a head behind it nor a counter.
fn is_in_network(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit());
    matches!(first, "conv" | "bn" | "layer" | "stem" | "maxpool") && !name.ends_with(".num_batches_tracked")
}

/// `layer3.5` of `layer3.5.conv1.weight`.
fn block(name: &str) -> Option<&str> {
    let (stage, rest) = name.split_once('.')?;
    let number = rest.split('.').next()?;
    stage.starts_with("layer").then(|| &name[..stage.len() + 1 + number.len()])
}

/// What stands in PyTorch's network where ours has a tensor.
enum Counterpart {
    Needed(String),
    /// A convolution's bias: zero where there is none, as in all of PyTorch's own.
    Optional(String),
}

/// PyTorch's name for one of our tensors: `conv3_block2_1_bn/gamma` is `layer2.1.bn1.weight`.
fn theirs(name: &str) -> Option<Counterpart> {
    let (layer, kind) = name.split_once('/')?;
    let (place, family) = layer.rsplit_once('_')?;
    let kind = match (family, kind) {
        ("conv", "kernel") | ("bn", "gamma") => "weight",
        ("conv", "bias") | ("bn", "beta") => "bias",
        ("bn", "moving_mean") => "running_mean",
        ("bn", "moving_variance") => "running_var",
        _ => return None,
    };
    let counterpart = |name| match (family, kind) {
        ("conv", "bias") => Counterpart::Optional(name),
        _ => Counterpart::Needed(name),
    };
    if place == "conv1" {
        return Some(counterpart(format!("{family}1.{kind}")));
    }
    let (stage, rest) = place.strip_prefix("conv")?.split_once("_block")?;
    let (block, index) = rest.split_once('_')?;
    let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
    let block = block.parse::<usize>().ok()?.checked_sub(1)?;
    let layer = match (index, family) {
        ("0", "conv") => "downsample.0".to_owned(),
        ("0", _) => "downsample.1".to_owned(),
        _ => format!("{family}{index}"),
    };
    Some(counterpart(format!("layer{stage}.{block}.{layer}.{kind}")))
}

/// Makes the stem take these pixels: see the head of this file.
fn fold_pixels(tensors: &mut Tensors, pixels: &PixelFormat) {
    let Some(WeightTensor { shape, data: kernel }) = tensors.get_mut("conv1_conv/kernel") else { return };
    let &mut [k, r, s, 3] = &mut shape[..] else { return };
    let PixelFormat { order, scale, shift } = *pixels;
    let mut biases = vec![0.0f64; k];
    for (filter, bias) in kernel.chunks_exact_mut(r * s * 3).zip(&mut biases) {
        for taps in filter.chunks_exact_mut(3) {
            let rgb = [taps[0], taps[1], taps[2]];
            for (c, tap) in taps.iter_mut().enumerate() {
                let colour = order[c];
                let scaled = f64::from(rgb[colour]) / (255.0 * STD[colour] * scale);
                *bias -= scaled * (shift[c] + scale * 255.0 * MEAN[colour]);
                *tap = scaled as f32;
            }
        }
    }
    if let Some(bias) = tensors.get_mut("conv1_conv/bias") {
        for (value, folded) in bias.data.iter_mut().zip(biases) {
            *value = (f64::from(*value) + folded) as f32;
        }
    }
}

/// Whether the pixel that becomes zero, and so looks like padding, is a grey level or more from PyTorch's mean.
fn padding_is_far_from_the_mean(pixels: &PixelFormat) -> bool {
    let level = |c: usize| -pixels.shift[c] / pixels.scale - 255.0 * MEAN[pixels.order[c]];
    (0..3).any(|c| level(c).abs() >= 1.0)
}
