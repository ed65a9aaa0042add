//! MobileNet v1 with a width of 1, as Keras Applications has it (`MobileNet`, `include_top=False`).
//!
//! Each block is a 3×3 convolution of every channel by itself and a 1×1 convolution across them (Howard et al. 2017). Where a block halves
//! the image it pads one row below and one column to the right, and none on the other sides.

use super::builder::{Builder, Value};
use super::layer::{Convolution, Depthwise};
use super::{HEAD, Network, SYMMETRIC_PIXELS};
use crate::device::{DeviceError, Padding};

/// Keras's default.
const EPSILON: f64 = 1e-3;

/// Filters of each block's 1×1 convolution, and the stride of its 3×3 one.
type Blocks<'a> = &'a [(usize, usize)];

const BLOCKS: Blocks<'static> = &[
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// 4,410,567 parameters with seven genres, of which the base has 3,228,864.
pub const NETWORK: Network = Network {
    name: "mobilenet",
    title: "MobileNet",
    base: |net| base(net, 32, BLOCKS),
    head: &HEAD,
    pixels: SYMMETRIC_PIXELS,
    published_weights: Some("Keras's mobilenet_1_0_224_tf_no_top.h5"),
    keras: Some("MobileNet"),
    torch: None,
};

/// For tests.
pub const MINIATURE: Network = Network {
    name: "mobilenet-miniature",
    title: "a miniature of MobileNet",
    base: |net| base(net, 3, &[(4, 1), (5, 2)]),
    head: &[6],
    ..NETWORK
};

fn base(net: &mut Builder, stem: usize, blocks: Blocks<'_>) -> Result<Value, DeviceError> {
    let pad = net.same(net.input(), 3, 2);
    let x = net.conv("conv1", net.input(), Convolution { filters: stem, window: 3, stride: 2, pad, bias: false })?;
    let x = net.batch_norm("conv1_bn", x, EPSILON)?;
    let mut x = net.relu6("conv1_relu", x)?;
    for (block, &(filters, stride)) in blocks.iter().enumerate() {
        x = separable(net, block + 1, x, filters, stride)?;
    }
    Ok(x)
}

/// 3×3 per channel, then 1×1 to so many `filters`.
fn separable(
    net: &mut Builder,
    block: usize,
    mut x: Value,
    filters: usize,
    stride: usize,
) -> Result<Value, DeviceError> {
    let mut pad = Padding::from(1);
    if stride > 1 {
        x = net.zero_pad(&format!("conv_pad_{block}"), x, Padding { before: 0, after: 1 })?;
        pad = 0.into();
    }
    let x = net.depthwise_conv(&format!("conv_dw_{block}"), x, Depthwise { window: 3, stride, pad })?;
    let x = net.batch_norm(&format!("conv_dw_{block}_bn"), x, EPSILON)?;
    let x = net.relu6(&format!("conv_dw_{block}_relu"), x)?;
    let across = Convolution { filters, window: 1, stride: 1, pad: 0.into(), bias: false };
    let x = net.conv(&format!("conv_pw_{block}"), x, across)?;
    let x = net.batch_norm(&format!("conv_pw_{block}_bn"), x, EPSILON)?;
    net.relu6(&format!("conv_pw_{block}_relu"), x)
}
