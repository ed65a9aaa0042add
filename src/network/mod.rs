//! Networks as data: each is Keras's own list of layers, in a file of its own.
//!
//! Everything else is derived from the list: where the parameters lie and what they start from, the summary, how far
//! `last:N` reaches, the names in checkpoints and weight files, and the [`plan`](crate::plan) that computes it.

mod architecture;
mod builder;
pub mod export;
pub mod import;
mod initialisers;
mod layer;
pub mod mobilenet;
pub mod resnet50;
pub mod resnet50_v1_5;
pub mod shallow;
pub mod summary;
pub mod vgg16;
pub mod xception;

pub use architecture::{Architecture, LayoutError, ModelConfig, NamedShape, NamedTensor, Place, Trainable};
pub use builder::{Builder, Value};
pub use initialisers::{Initialiser, KernelInit};
pub use layer::{Convolution, Depthwise, Layer, Op};

use crate::device::{DeviceError, PixelFormat};
use std::fmt;
use std::str::FromStr;

/// Every network that can be chosen, in the order in which they are listed.
pub const NETWORKS: [Network; 6] = [
    resnet50::NETWORK,
    resnet50_v1_5::NETWORK,
    mobilenet::NETWORK,
    vgg16::NETWORK,
    xception::NETWORK,
    shallow::NETWORK,
];

/// Small ones that tests are made of. Known by name, so that their checkpoints can be read, and listed to nobody.
pub const MINIATURES: [Network; 6] = [
    resnet50::MINIATURE,
    resnet50_v1_5::MINIATURE,
    mobilenet::MINIATURE,
    vgg16::MINIATURE,
    xception::MINIATURE,
    shallow::MINIATURE,
];

/// A network: how its list of layers is written, up to the last feature map, and the head behind it.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// What is typed behind `--network`, and written in checkpoints.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Writes the base's layers; returns its last feature map `[H, W, C]`, which a global pooling ends.
    pub base: fn(&mut Builder) -> Result<Value, DeviceError>,
    /// Widths of the hidden dense layers.
    pub head: &'static [usize],
    /// The pixels that its ImageNet weights in Keras Applications were made for; if it has none, those that it is fed unless told otherwise.
    pub pixels: KerasPixels,
    /// Which published files of ImageNet weights fit it, in words, if there are any.
    pub published_weights: Option<&'static str>,
    /// Its class in Keras Applications, if it has one.
    pub keras: Option<&'static str>,
    /// Its counterpart in PyTorch, if there is one.
    pub torch: Option<Torch>,
}

/// The network of torchvision and timm whose weights fit one of ours.
#[derive(Clone, Copy, Debug)]
pub struct Torch {
    /// The name there of a layer with parameters: `layer1.0.bn2` of `conv2_block1_2_bn`.
    pub layer: fn(&str) -> Option<String>,
    /// What someone should know who trains on such weights.
    pub note: Option<&'static str>,
}

/// Pixels that weights were made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KerasPixels {
    /// What is typed behind `--pixels`.
    pub name: &'static str,
    /// How bytes become them.
    pub format: PixelFormat,
}

/// Blue, green and red, each minus ImageNet's mean.
pub const IMAGENET_PIXELS: KerasPixels = KerasPixels {
    name: "imagenet",
    format: PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] },
};

/// Red, green and blue from −1 to 1.
pub const SYMMETRIC_PIXELS: KerasPixels =
    KerasPixels { name: "symmetric", format: PixelFormat { order: [0, 1, 2], scale: 1.0 / 127.5, shift: [-1.0; 3] } };

/// The paper's head.
pub const HEAD: [usize; 2] = [1024, 128];

/// By their names, which no two share.
impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The name, as it is typed.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, UnknownNetwork> {
        let mut known = NETWORKS.into_iter().chain(MINIATURES);
        known.find(|network| network.name == name).ok_or_else(|| UnknownNetwork { name: name.to_owned() })
    }
}

/// A name that no network has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no network `{name}`; there are {}", NETWORKS.map(|network| network.name).join(", "))]
pub struct UnknownNetwork {
    /// The name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_found_by_its_name_and_others_are_listed() {
        for network in NETWORKS.into_iter().chain(MINIATURES) {
            let found: Network = network.to_string().parse().unwrap();
            assert_eq!((found.name, found.title), (network.name, network.title));
            assert_eq!(NETWORKS.into_iter().chain(MINIATURES).filter(|other| *other == network).count(), 1);
        }
        for name in ["", "resnet", "ResNet-50", "resnet50 "] {
            let error = name.parse::<Network>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "there is no network `{name}`; there are resnet50, resnet50-v1.5, mobilenet, vgg16, xception, shallow"
                )
            );
        }
    }
}
