//! VGG-16 as Keras Applications has it (`VGG16`, `include_top=False`): thirteen 3×3 convolutions in five blocks, each ended by a 2×2 max
//! pool (Simonyan and Zisserman 2014, configuration D).
//!
//! There are no batch norms. Each convolution has a bias and, as Keras's `activation="relu"`, a ReLU of its own, so that Keras counts 19
//! layers. Its own dense layers of 4096 are not there; the paper's head stands in their place.

use super::builder::{Builder, Value};
use super::layer::Convolution;
use super::{HEAD, IMAGENET_PIXELS, Network};
use crate::device::DeviceError;

/// Filters of each block's convolutions, and how many there are.
type Blocks<'a> = &'a [(usize, usize)];

const BLOCKS: Blocks<'static> = &[(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];

/// 15,372,103 parameters with seven genres, of which the base has 14,714,688.
pub const NETWORK: Network = Network {
    name: "vgg16",
    title: "VGG-16",
    base: |net| base(net, BLOCKS),
    head: &HEAD,
    pixels: IMAGENET_PIXELS,
    published_weights: Some("Keras's vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    keras: Some("VGG16"),
    torch: None,
};

/// For tests.
pub const MINIATURE: Network = Network {
    name: "vgg16-miniature",
    title: "a miniature of VGG-16",
    base: |net| base(net, &[(4, 2), (5, 2)]),
    head: &[6],
    ..NETWORK
};

fn base(net: &mut Builder, blocks: Blocks<'_>) -> Result<Value, DeviceError> {
    let mut x = net.input();
    for (block, &(filters, convolutions)) in blocks.iter().enumerate() {
        let name = |layer: &str| format!("block{}_{layer}", block + 1);
        for layer in 1..=convolutions {
            let convolution = Convolution { filters, window: 3, stride: 1, pad: 1.into(), bias: true };
            x = net.conv_relu(&name(&format!("conv{layer}")), x, convolution)?;
        }
        x = net.max_pool(&name("pool"), x, 2, 2)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, ModelConfig};

    #[test]
    fn five_pools_leave_nothing_of_fewer_than_32_pixels() {
        let laid_out = |image_size| Architecture::new(&ModelConfig { image_size, ..ModelConfig::new(NETWORK, 7) });
        assert_eq!(laid_out(32).unwrap().layers[18].output, [1, 1, 512]);
        let error = laid_out(31).unwrap_err().to_string();
        assert_eq!(error, "images of 31×31 are too small for VGG-16; the smallest that it takes are 32×32");
    }
}
