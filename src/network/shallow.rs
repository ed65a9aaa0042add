//! A shallow network of our own: seven convolutions where ResNet-50 has 53, for a seventh of its FLOPs.
//!
//! The paper asks how a shallower network does beside ResNet-50. For an answer to be about depth, everything else is ResNet-50's recipe:
//!
//! - its stem, half as wide: a 7×7/2 convolution and a 3×3/2 max pool leave a sixteenth of the pixels before the real work begins;
//! - convolution, batch norm, ReLU throughout, and zeros in layers of their own in front of whatever strides;
//! - stages that halve the image and double the width, so that each costs about as much as the one before it;
//! - the same global pooling and the same head.
//!
//! What goes is what only depth needs: shortcuts, and the 1×1 convolutions that make blocks cheap enough to be many. Two 3×3 convolutions
//! are left in each of three stages, the first of them with the stride. A pixel of the last map sees 99×99 of the image, most of a
//! poster of 150×150. The biases that Keras's ResNet-50 has in front of its batch norms go as well: a batch norm takes them out again.

use super::builder::{Builder, Value};
use super::layer::Convolution;
use super::{HEAD, IMAGENET_PIXELS, Network};
use crate::device::DeviceError;

/// What Keras's ResNet-50 adds to a variance.
const EPSILON: f64 = 1.001e-5;

/// 1,564,903 parameters with seven genres, of which the base has 1,169,632.
pub const NETWORK: Network = Network {
    name: "shallow",
    title: "ShallowNet",
    base: |net| base(net, 32, &[64, 128, 256]),
    head: &HEAD,
    pixels: IMAGENET_PIXELS,
    published_weights: None,
    keras: None,
    torch: None,
};

/// For tests.
pub const MINIATURE: Network = Network {
    name: "shallow-miniature",
    title: "a miniature of ShallowNet",
    base: |net| base(net, 3, &[3, 4]),
    head: &[6],
    ..NETWORK
};

/// A stem of so many filters, and two convolutions of each of these `widths`.
fn base(net: &mut Builder, stem: usize, widths: &[usize]) -> Result<Value, DeviceError> {
    let x = net.zero_pad("conv1_pad", net.input(), 3)?;
    let x = normed(net, "conv1", x, Convolution { window: 7, stride: 2, pad: 0.into(), ..conv(stem) })?;
    let x = net.zero_pad("pool1_pad", x, 1)?;
    let mut x = net.max_pool("pool1_pool", x, 3, 2)?;
    for (stage, &filters) in widths.iter().enumerate() {
        // The stem is stage 1, as in ResNet-50.
        let name = |layer: &str| format!("conv{}_{layer}", stage + 2);
        // The pool has just halved the image for the first stage.
        let first = match stage {
            0 => conv(filters),
            _ => {
                x = net.zero_pad(&name("1_pad"), x, 1)?;
                Convolution { stride: 2, pad: 0.into(), ..conv(filters) }
            }
        };
        x = normed(net, &name("1"), x, first)?;
        x = normed(net, &name("2"), x, conv(filters))?;
    }
    Ok(x)
}

/// A convolution with the batch norm and the ReLU behind it.
fn normed(net: &mut Builder, name: &str, x: Value, convolution: Convolution) -> Result<Value, DeviceError> {
    let x = net.conv(&format!("{name}_conv"), x, convolution)?;
    let x = net.batch_norm(&format!("{name}_bn"), x, EPSILON)?;
    net.relu(&format!("{name}_relu"), x)
}

/// A 3×3 convolution that leaves the image as large as it is.
fn conv(filters: usize) -> Convolution {
    Convolution { filters, window: 3, stride: 1, pad: 1.into(), bias: false }
}
