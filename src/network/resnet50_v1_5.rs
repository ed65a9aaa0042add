//! ResNet-50 v1.5, which torchvision and timm call `resnet50`; their ImageNet weights fit it exactly.
//!
//! It is v1 with a stage's stride on the first 3×3 convolution, no biases in front of batch norms, and another epsilon. Layers have the
//! names that Keras gives v1's, so that summaries read alike and `last:N` reaches as far.

use super::resnet50::{FEW_STAGES, STAGES, Version, base, torch_layer};
use super::{HEAD, IMAGENET_PIXELS, Network, Torch};

/// PyTorch's version.
pub const V1_5: Version = Version { strides_3x3: true, bias: false, epsilon: 1e-5 };

/// 25,791,431 parameters with seven genres. Of the base's 23,561,152 torchvision counts 23,508,032: its running averages are none.
pub const NETWORK: Network = Network {
    name: "resnet50-v1.5",
    title: "ResNet-50 v1.5",
    base: |net| base(net, V1_5, 64, STAGES),
    head: &HEAD,
    pixels: IMAGENET_PIXELS,
    published_weights: Some("torchvision's or timm's resnet50 as safetensors"),
    keras: None,
    torch: Some(Torch { layer: torch_layer, note: None }),
};

/// For tests.
pub const MINIATURE: Network = Network {
    name: "resnet50-v1.5-miniature",
    title: "a miniature of ResNet-50 v1.5",
    base: |net| base(net, V1_5, 4, FEW_STAGES),
    head: &[6],
    ..NETWORK
};
