//! torchvision's and timm's networks: PyTorch's names, KCRS kernels, no biases in front of batch norms.
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
//! where a stem without a bias has its batch norm's running mean that much lower. That is exact wherever a filter sees nothing but the poster. Over the three padded pixels around it both sides see zeros,
//! and these stand for different colours: PyTorch's for ImageNet's mean, ours for the pixel that becomes 0. With `--pixels
//! imagenet` that is the same mean to half a grey level; with `raw` and `unit` it is black, which a note says.

use std::collections::HashSet;

use super::compare::Comparison;
use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Source, Tensors, Wanted, WeightTensor, Weights, transpose};
use crate::device::PixelFormat;
use crate::network::Network;

/// PyTorch's ImageNet means and deviations in 0…1, of red, green and blue.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

const OTHER_BORDER: &str = "the first convolution is adapted to this run's pixels, exactly but for the three pixels of \
     padding around a poster: here they are not ImageNet's mean colour, with which PyTorch pads, as --pixels imagenet does";

/// What stands before PyTorch's names of the network in the file: nothing, or `module.` and the like. `None` if it holds no
/// such names.
pub(super) fn prefix(file: &SafetensorsFile) -> Result<Option<String>, ImportError> {
    const MARK: &str = "layer1.0.conv1.weight";
    if file.contains(MARK) || file.contains("conv1.weight") {
        return Ok(Some(String::new()));
    }
    let tensors = file.tensors();
    let prefixes =
        tensors.iter().filter_map(|(name, _)| name.strip_suffix(MARK)).filter(|prefix| prefix.ends_with('.'));
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
    wanted: &Wanted,
    pixels: &PixelFormat,
) -> Result<Weights, ImportError> {
    let (path, held) = (file.path().to_owned(), file.tensors());
    let comparison = Comparison::new(&path, wanted, &held);
    let (mut missing, mut ours) = (Vec::new(), HashSet::new());
    for (name, _) in &wanted.base {
        match theirs(wanted.network, name) {
            Some(Counterpart::Needed(name)) if !file.contains(&format!("{prefix}{name}")) => missing.push(name),
            Some(Counterpart::Needed(name) | Counterpart::Optional(name)) => drop(ours.insert(name)),
            None => missing.push(name.clone()),
        }
    }
    comparison.missing(missing, wanted.base.len(), held.first().map(|(name, _)| name.clone()))?;
    let names = held.iter().filter_map(|(name, _)| name.strip_prefix(prefix)).filter(|name| is_in_network(name));
    comparison.surplus(names, &ours, block)?;

    let mut tensors = Tensors::new();
    for (name, shape) in &wanted.base {
        let data = match (theirs(wanted.network, name), &shape[..]) {
            (Some(Counterpart::Needed(theirs)), &[k, r, s, c]) => {
                transpose(&file.read(&format!("{prefix}{theirs}"), &[k, c, r, s], &comparison)?, c, r * s)
            }
            (Some(Counterpart::Optional(theirs)), _) if !file.contains(&format!("{prefix}{theirs}")) => {
                vec![0.0; shape.iter().product()]
            }
            (Some(Counterpart::Needed(theirs) | Counterpart::Optional(theirs)), _) => {
                file.read(&format!("{prefix}{theirs}"), shape, &comparison)?
            }
            (None, _) => unreachable!("counted as missing above"),
        };
        tensors.insert(name.clone(), WeightTensor { shape: shape.clone(), data });
    }
    fold_pixels(&mut tensors, wanted, pixels);
    let mut notes = Vec::new();
    if !prefix.is_empty() {
        notes.push(format!("the network's tensors are found behind the prefix {prefix}"));
    }
    if padding_is_far_from_the_mean(pixels) {
        notes.push(OTHER_BORDER.to_owned());
    }
    notes.extend(wanted.network.torch.and_then(|torch| torch.note).map(str::to_owned));
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
fn theirs(network: Network, name: &str) -> Option<Counterpart> {
    let (layer, kind) = name.split_once('/')?;
    let named = |kind: &str| Some(format!("{}.{kind}", (network.torch?.layer)(layer)?));
    Some(match kind {
        "kernel" | "gamma" => Counterpart::Needed(named("weight")?),
        "beta" => Counterpart::Needed(named("bias")?),
        "moving_mean" => Counterpart::Needed(named("running_mean")?),
        "moving_variance" => Counterpart::Needed(named("running_var")?),
        "bias" => Counterpart::Optional(named("bias")?),
        _ => return None,
    })
}

/// Makes the stem take these pixels: see the head of this file.
fn fold_pixels(tensors: &mut Tensors, wanted: &Wanted, pixels: &PixelFormat) {
    let Some((stem, _)) = wanted.base.first() else { return };
    let Some(WeightTensor { shape, data: kernel }) = tensors.get_mut(stem) else { return };
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
    // The bias, or the mean that the batch norm behind it subtracts, whichever comes first.
    let mut behind = wanted.base.iter().map(|(name, _)| name);
    let Some(name) = behind.find(|name| name.ends_with("/bias") || name.ends_with("/moving_mean")) else { return };
    let sign = if name.ends_with("/bias") { 1.0 } else { -1.0 };
    if let Some(tensor) = tensors.get_mut(name) {
        for (value, folded) in tensor.data.iter_mut().zip(biases) {
            *value = (f64::from(*value) + sign * folded) as f32;
        }
    }
}

/// Whether the pixel that becomes zero, and so looks like padding, is a grey level or more from PyTorch's mean.
fn padding_is_far_from_the_mean(pixels: &PixelFormat) -> bool {
    let level = |c: usize| -pixels.shift[c] / pixels.scale - 255.0 * MEAN[pixels.order[c]];
    (0..3).any(|c| level(c).abs() >= 1.0)
}
