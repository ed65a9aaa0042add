//! ResNet-50 v1 as Keras Applications has it (`ResNet50`, `include_top=False`).
//!
//! Three of Keras's habits matter here: convolutions have biases although batch norms follow, a stage's stride sits on its
//! first 1×1 convolution, and padding is a layer of its own, so that 176 layers are counted where 107 compute.

use super::builder::{Builder, Value};
use super::layer::Convolution;
use super::{HEAD, IMAGENET_PIXELS, Network, Torch};
use crate::device::DeviceError;

/// Filters of the 3×3 convolutions and number of blocks, for each stage.
pub type Stages<'a> = &'a [(usize, usize)];

/// ResNet-50's stages, of v1 and of v1.5.
pub const STAGES: Stages<'static> = &[(64, 3), (128, 4), (256, 6), (512, 3)];

/// Those of the miniatures, which have every kind of layer and junction in about a thousand parameters.
pub const FEW_STAGES: Stages<'static> = &[(2, 2), (3, 1)];

/// What tells v1 and v1.5 apart.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Whether a stage's stride is on its first 3×3 convolution rather than on the 1×1 in front of that.
    pub strides_3x3: bool,
    /// Whether the convolutions have biases.
    pub bias: bool,
    /// What the batch norms add to a variance.
    pub epsilon: f64,
}

/// Keras Applications' version.
pub const V1: Version = Version { strides_3x3: false, bias: true, epsilon: 1.001e-5 };

/// The paper's network: 25,817,991 parameters with seven genres, of which the base has 23,587,712.
pub const NETWORK: Network = Network {
    name: "resnet50",
    title: "ResNet-50",
    base: |net| base(net, V1, 64, STAGES),
    head: &HEAD,
    pixels: IMAGENET_PIXELS,
    published_weights: Some(
        "Keras's resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 or torchvision's resnet50 as safetensors",
    ),
    keras: Some("ResNet50"),
    torch: Some(Torch { layer: torch_layer, note: Some(OTHER_STRIDES) }),
};

const OTHER_STRIDES: &str = "these weights were trained as ResNet-50 v1.5, whose stages stride in the 3x3 convolution; here, \
     as in Keras, the first 1x1 strides. They are a good start for training, but untrained layers on top of them see features \
     somewhat unlike ImageNet's; --network resnet50-v1.5 fits them exactly, and Keras's own .h5 fits this network";

/// For tests.
pub const MINIATURE: Network = Network {
    name: "resnet50-miniature",
    title: "a miniature of ResNet-50",
    base: |net| base(net, V1, 4, FEW_STAGES),
    head: &[6],
    ..NETWORK
};

/// Writes the layers from a stem of so many filters to the last stage.
///
/// # Errors
/// [`DeviceError::Shape`] if the images are too small.
pub fn base(net: &mut Builder, version: Version, stem: usize, stages: Stages<'_>) -> Result<Value, DeviceError> {
    let x = net.zero_pad("conv1_pad", net.input(), 3)?;
    let x = net.conv("conv1_conv", x, conv(version, stem, 7, 2))?;
    let x = net.batch_norm("conv1_bn", x, version.epsilon)?;
    let x = net.relu("conv1_relu", x)?;
    let x = net.zero_pad("pool1_pad", x, 1)?;
    let mut x = net.max_pool("pool1_pool", x, 3, 2)?;
    for (stage, &(filters, blocks)) in stages.iter().enumerate() {
        for block in 0..blocks {
            // Keras numbers the stages from 2: the stem is stage 1.
            let name = format!("conv{}_block{}", stage + 2, block + 1);
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            x = bottleneck(net, version, &name, x, filters, stride, block == 0)?;
        }
    }
    Ok(x)
}

/// 1×1 down to `filters`, 3×3, 1×1 up to four times as many, and around them the input or a 1×1 convolution of it. One of the first
/// two has the stride.
fn bottleneck(
    net: &mut Builder,
    version: Version,
    block: &str,
    input: Value,
    filters: usize,
    stride: usize,
    project: bool,
) -> Result<Value, DeviceError> {
    let name = |layer: &str| format!("{block}_{layer}");
    let (first, second) = if version.strides_3x3 { (1, stride) } else { (stride, 1) };
    let x = net.conv(&name("1_conv"), input, conv(version, filters, 1, first))?;
    let x = net.batch_norm(&name("1_bn"), x, version.epsilon)?;
    let x = net.relu(&name("1_relu"), x)?;

    let x = net.conv(&name("2_conv"), x, Convolution { pad: 1.into(), ..conv(version, filters, 3, second) })?;
    let x = net.batch_norm(&name("2_bn"), x, version.epsilon)?;
    let x = net.relu(&name("2_relu"), x)?;

    // Keras lists the two ways of a projecting block side by side.
    let around = match project {
        true => Some(net.conv(&name("0_conv"), input, conv(version, 4 * filters, 1, stride))?),
        false => None,
    };
    let x = net.conv(&name("3_conv"), x, conv(version, 4 * filters, 1, 1))?;
    let shortcut = match around {
        Some(around) => net.batch_norm(&name("0_bn"), around, version.epsilon)?,
        None => input,
    };
    let x = net.last_batch_norm(&name("3_bn"), x, version.epsilon)?;
    let x = net.add(&name("add"), [shortcut, x])?;
    net.relu(&name("out"), x)
}

/// A convolution without padding of its own.
fn conv(version: Version, filters: usize, window: usize, stride: usize) -> Convolution {
    Convolution { filters, window, stride, pad: 0.into(), bias: version.bias }
}

/// PyTorch's name of a layer: `conv1` of `conv1_conv`, `layer2.1.bn1` of `conv3_block2_1_bn`, `layer2.0.downsample.1` of
/// `conv3_block1_0_bn`.
pub fn torch_layer(layer: &str) -> Option<String> {
    let (place, family) = layer.rsplit_once('_')?;
    if place == "conv1" {
        return Some(format!("{family}1"));
    }
    let (stage, rest) = place.strip_prefix("conv")?.split_once("_block")?;
    let (block, index) = rest.split_once('_')?;
    let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
    let block = block.parse::<usize>().ok()?.checked_sub(1)?;
    Some(match (index, family) {
        ("0", "conv") => format!("layer{stage}.{block}.downsample.0"),
        ("0", _) => format!("layer{stage}.{block}.downsample.1"),
        _ => format!("layer{stage}.{block}.{family}{index}"),
    })
}
