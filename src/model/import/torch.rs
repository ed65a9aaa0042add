//! torchvision's and timm's `resnet50`: PyTorch's names, KCRS kernels, no convolution biases.
//!
//! PyTorch's recipe feeds RGB in 0…1, normalised by mean and deviation; Onesheet with `--pixels imagenet` feeds Keras's
//! form, BGR in 0…255 minus other means. The stem is linear, so the difference moves into it for good:
//! with x the raw pixel, PyTorch's input is (x - 255 mean) / (255 std), ours is x - ours, hence
//!
//! ```text
//! kernel'[k,r,s,BGR] = kernel[k,RGB,r,s] / (255 std)
//! bias'[k]           = sum over r, s, c of kernel'[k,r,s,c] * (ours[c] - 255 mean[c])
//! ```
//!
//! exactly, but for the padded border, whose zeros stand for two means half a grey level apart.

use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Tensors, Wanted, WeightTensor, transpose};

/// PyTorch's ImageNet means and deviations in 0…1, and Keras's means in 0…255, of red, green and blue.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
const KERAS_MEAN: [f64; 3] = [123.68, 116.779, 103.939];

/// Whether the names in the file are PyTorch's.
pub(super) fn wrote(file: &SafetensorsFile) -> bool {
    file.contains("layer1.0.conv1.weight") || file.contains("conv1.weight")
}

/// Reads the base under Onesheet's names, in its layouts.
pub(super) fn read(mut file: SafetensorsFile, wanted: &[Wanted<'_>]) -> Result<Tensors, ImportError> {
    let mut missing = Vec::new();
    for (name, _) in wanted {
        match theirs(name) {
            Some(Counterpart::Tensor(name)) if !file.contains(&name) => missing.push(name),
            Some(_) => {}
            None => missing.push((*name).to_owned()),
        }
    }
    ImportError::missing(file.path(), missing, wanted.len())?;

    let mut tensors = Tensors::new();
    for &(name, shape) in wanted {
        let data = match (theirs(name), shape) {
            (Some(Counterpart::Tensor(theirs)), &[k, r, s, c]) => {
                transpose(&file.read(&theirs, &[k, c, r, s])?, c, r * s)
            }
            (Some(Counterpart::Tensor(theirs)), _) => file.read(&theirs, shape)?,
            (Some(Counterpart::Zero) | None, _) => vec![0.0; shape.iter().product()],
        };
        tensors.insert(name.to_owned(), WeightTensor { shape: shape.to_vec(), data });
    }
    fold_pixels(&mut tensors);
    Ok(tensors)
}

/// What stands in PyTorch's network where ours has a tensor.
enum Counterpart {
    Tensor(String),
    /// The convolutions' biases, which PyTorch's network does not have.
    Zero,
}

/// PyTorch's name for one of our tensors: `conv3_block2_1_bn/gamma` is `layer2.1.bn1.weight`.
fn theirs(name: &str) -> Option<Counterpart> {
    let (layer, kind) = name.split_once('/')?;
    let (place, family) = layer.rsplit_once('_')?;
    let kind = match (family, kind) {
        ("conv", "kernel") | ("bn", "gamma") => "weight",
        ("conv", "bias") => return Some(Counterpart::Zero),
        ("bn", "beta") => "bias",
        ("bn", "moving_mean") => "running_mean",
        ("bn", "moving_variance") => "running_var",
        _ => return None,
    };
    if place == "conv1" {
        return Some(Counterpart::Tensor(format!("{family}1.{kind}")));
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
    Some(Counterpart::Tensor(format!("layer{stage}.{block}.{layer}.{kind}")))
}

/// Makes the stem take our pixels: see the head of this file.
fn fold_pixels(tensors: &mut Tensors) {
    let Some(WeightTensor { shape, data: kernel }) = tensors.get_mut("conv1_conv/kernel") else { return };
    let &mut [k, r, s, 3] = &mut shape[..] else { return };
    let mut biases = vec![0.0f64; k];
    for (filter, bias) in kernel.chunks_exact_mut(r * s * 3).zip(&mut biases) {
        for rgb in filter.chunks_exact_mut(3) {
            let mut scaled = [0.0; 3];
            for c in 0..3 {
                scaled[c] = f64::from(rgb[c]) / (255.0 * STD[c]);
                *bias += scaled[c] * (KERAS_MEAN[c] - 255.0 * MEAN[c]);
            }
            rgb.copy_from_slice(&[scaled[2] as f32, scaled[1] as f32, scaled[0] as f32]);
        }
    }
    if let Some(bias) = tensors.get_mut("conv1_conv/bias") {
        bias.data = biases.into_iter().map(|b| b as f32).collect();
    }
}
