//! ResNet-50 v1 as Keras Applications has it (`ResNet50`, `include_top=False`).
//!
//! Three of Keras's habits matter here: convolutions have biases although batch norms follow, a stage's stride sits on its
//! first 1×1 convolution, and padding is a layer of its own, so that 176 layers are counted where 107 compute.

use super::builder::{Builder, Value};
use super::layer::Convolution;
use super::{HEAD, Network};
use crate::device::DeviceError;

/// Keras Applications' epsilon for the ResNet family.
const EPSILON: f64 = 1.001e-5;

/// The paper's network: 25,817,991 parameters with seven genres, of which the base has 23,587,712.
pub const NETWORK: Network =
    Network { title: "ResNet-50", base: |net| base(net, 64, &[(64, 3), (128, 4), (256, 6), (512, 3)]), head: &HEAD };

/// For tests: every kind of layer and junction in about a thousand parameters.
pub const MINIATURE: Network =
    Network { title: "a miniature of ResNet-50", base: |net| base(net, 4, &[(2, 2), (3, 1)]), head: &[6] };

/// A stem of so many filters, and for each stage the filters of its 3×3 convolutions and how many blocks it has.
///
/// # Errors
/// [`DeviceError::Shape`] if the images are too small.
pub fn base(net: &mut Builder, stem: usize, stages: &[(usize, usize)]) -> Result<Value, DeviceError> {
    let x = net.zero_pad("conv1_pad", net.input(), 3)?;
    let x = net.conv("conv1_conv", x, conv(stem, 7, 2))?;
    let x = net.batch_norm("conv1_bn", x, EPSILON)?;
    let x = net.relu("conv1_relu", x)?;
    let x = net.zero_pad("pool1_pad", x, 1)?;
    let mut x = net.max_pool("pool1_pool", x, 3, 2)?;
    for (stage, &(filters, blocks)) in stages.iter().enumerate() {
        for block in 0..blocks {
            // Keras numbers the stages from 2: the stem is stage 1.
            let name = format!("conv{}_block{}", stage + 2, block + 1);
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            x = bottleneck(net, &name, x, filters, stride, block == 0)?;
        }
    }
    Ok(x)
}

/// 1×1 down to `filters` with the stride, 3×3, 1×1 up to four times as many, and around them the input or a 1×1 convolution of it.
fn bottleneck(
    net: &mut Builder,
    block: &str,
    input: Value,
    filters: usize,
    stride: usize,
    project: bool,
) -> Result<Value, DeviceError> {
    let name = |layer: &str| format!("{block}_{layer}");
    let x = net.conv(&name("1_conv"), input, conv(filters, 1, stride))?;
    let x = net.batch_norm(&name("1_bn"), x, EPSILON)?;
    let x = net.relu(&name("1_relu"), x)?;

    let x = net.conv(&name("2_conv"), x, Convolution { pad: 1, ..conv(filters, 3, 1) })?;
    let x = net.batch_norm(&name("2_bn"), x, EPSILON)?;
    let x = net.relu(&name("2_relu"), x)?;

    // Keras lists the two ways of a projecting block side by side.
    let around = match project {
        true => Some(net.conv(&name("0_conv"), input, conv(4 * filters, 1, stride))?),
        false => None,
    };
    let x = net.conv(&name("3_conv"), x, conv(4 * filters, 1, 1))?;
    let shortcut = match around {
        Some(around) => net.batch_norm(&name("0_bn"), around, EPSILON)?,
        None => input,
    };
    let x = net.last_batch_norm(&name("3_bn"), x, EPSILON)?;
    let x = net.add(&name("add"), [shortcut, x])?;
    net.relu(&name("out"), x)
}

/// A convolution with a bias and without padding of its own.
fn conv(filters: usize, window: usize, stride: usize) -> Convolution {
    Convolution { filters, window, stride, pad: 0, bias: true }
}
