//! Xception as Keras Applications has it (`Xception`, `include_top=False`): 36 convolutions, 34 of them separable, in fourteen blocks, with
//! a way around twelve of them (Chollet 2017).
//!
//! It is no ResNet in three ways. A block begins with the ReLU, so nothing follows the sum that ends it. A block that halves the image
//! does so with a max pool, and its way around with a stride of 2; the pool's windows reach over the image's edge, where there is nothing to
//! take. And the two convolutions in front have no padding, so that 150 pixels become 74 and then 72.
//!
//! Keras's file leaves the projections and the sums unnamed. They have the names that Keras gives them by itself in a fresh process; a
//! weight file may have other numbers, in the same order.

use super::builder::{Builder, Value};
use super::layer::{Convolution, Depthwise};
use super::{HEAD, Network, SYMMETRIC_PIXELS};
use crate::device::DeviceError;

/// Keras's default.
const EPSILON: f64 = 1e-3;

/// How wide and how deep it is.
struct Widths<'a> {
    /// Filters of the two convolutions in front.
    stem: [usize; 2],
    /// Filters of each block that halves the image. The last of them goes through the middle as well.
    entry: &'a [usize],
    /// Blocks that leave the image as large as it is.
    middle: usize,
    /// Filters that the last block with a way around ends with, and those of the two convolutions behind it.
    exit: [usize; 3],
}

/// 23,091,759 parameters with seven genres, of which the base has 20,861,480.
pub const NETWORK: Network = Network {
    name: "xception",
    title: "Xception",
    base: |net| base(net, &Widths { stem: [32, 64], entry: &[128, 256, 728], middle: 8, exit: [1024, 1536, 2048] }),
    head: &HEAD,
    pixels: SYMMETRIC_PIXELS,
    published_weights: Some("Keras's xception_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    keras: Some("Xception"),
    torch: None,
};

/// For tests.
pub const MINIATURE: Network = Network {
    name: "xception-miniature",
    title: "a miniature of Xception",
    base: |net| base(net, &Widths { stem: [3, 4], entry: &[5], middle: 1, exit: [6, 7, 8] }),
    head: &[6],
    ..NETWORK
};

fn base(net: &mut Builder, widths: &Widths<'_>) -> Result<Value, DeviceError> {
    let &Widths { stem, entry, middle, exit: [last, behind @ ..] } = widths;
    let mut x = net.input();
    for (at, (filters, stride)) in stem.into_iter().zip([2, 1]).enumerate() {
        let name = format!("block1_conv{}", at + 1);
        x = net.conv(&name, x, Convolution { filters, window: 3, stride, pad: 0.into(), bias: false })?;
        x = net.batch_norm(&format!("{name}_bn"), x, EPSILON)?;
        x = net.relu(&format!("{name}_act"), x)?;
    }
    let mut block = 2;
    for &filters in entry {
        x = halving_block(net, block, x, [filters; 2])?;
        block += 1;
    }
    let width = entry[entry.len() - 1];
    for _ in 0..middle {
        let branch = branch(net, block, x, &[width; 3])?;
        x = add(net, branch, x)?;
        block += 1;
    }
    x = halving_block(net, block, x, [width, last])?;
    block += 1;
    for (at, filters) in behind.into_iter().enumerate() {
        let name = format!("block{block}_sepconv{}", at + 1);
        x = separable(net, &name, x, filters)?;
        x = net.batch_norm(&format!("{name}_bn"), x, EPSILON)?;
        x = net.relu(&format!("{name}_act"), x)?;
    }
    Ok(x)
}

/// Two separable convolutions and a max pool; around them a convolution that sees every second pixel.
fn halving_block(net: &mut Builder, block: usize, x: Value, filters: [usize; 2]) -> Result<Value, DeviceError> {
    let branch = branch(net, block, x, &filters)?;
    let around = Convolution { filters: filters[1], window: 1, stride: 2, pad: 0.into(), bias: false };
    let around = net.conv(&net.automatic_name("conv2d"), x, around)?;
    let branch = net.max_pool_same(&format!("block{block}_pool"), branch, 3, 2)?;
    let around = net.batch_norm(&net.automatic_name("batch_normalization"), around, EPSILON)?;
    add(net, branch, around)
}

/// A separable convolution of each of these `filters` with a batch norm behind it, and a ReLU in front of it. The second block's first one
/// has none: the layer in front of the block is a ReLU already.
fn branch(net: &mut Builder, block: usize, mut x: Value, filters: &[usize]) -> Result<Value, DeviceError> {
    let last = filters.len() - 1;
    for (at, &filters) in filters.iter().enumerate() {
        let name = format!("block{block}_sepconv{}", at + 1);
        if (block, at) != (2, 0) {
            x = net.relu(&format!("{name}_act"), x)?;
        }
        x = separable(net, &name, x, filters)?;
        let norm = format!("{name}_bn");
        x = match at == last {
            true => net.last_batch_norm(&norm, x, EPSILON)?,
            false => net.batch_norm(&norm, x, EPSILON)?,
        };
    }
    Ok(x)
}

/// 3×3 per channel, then 1×1 to so many `filters`; the image stays as large as it is.
fn separable(net: &mut Builder, name: &str, x: Value, filters: usize) -> Result<Value, DeviceError> {
    net.separable_conv(name, x, Depthwise { window: 3, stride: 1, pad: 1.into() }, filters)
}

fn add(net: &mut Builder, branch: Value, around: Value) -> Result<Value, DeviceError> {
    net.add(&net.automatic_name("add"), [branch, around])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, ModelConfig, NamedTensor, Trainable};

    /// Chollet's table of depths counts 36 convolutions; Keras's summary has these numbers.
    #[test]
    fn counts_are_kerass() {
        let config = ModelConfig::new(NETWORK, 7);
        let all = Architecture::new(&config).unwrap();
        let size = |tensors: &[NamedTensor]| tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        let (base, head) = all.base_and_head();
        let sizes: (usize, usize) = (size(base), size(head));
        assert_eq!(sizes, (20_861_480, 2_230_279));
        assert_eq!((all.total_parameters(), all.averages.len()), (23_091_759, 54_528));
        assert_eq!((all.base_layers, all.layers.len()), (133, 136));
        let last = Trainable::Last(40);
        let last = Architecture::new(&ModelConfig { trainable: last, ..config }).unwrap();
        assert_eq!(last.trainable_parameters(), 10_554_328 + sizes.1);
        let first = last.tensors.iter().find(|tensor| tensor.name.ends_with("kernel") && !last.is_frozen(tensor));
        assert_eq!(first.unwrap().name, "block10_sepconv3/depthwise_kernel");
    }

    #[test]
    fn the_convolutions_in_front_and_the_pools_leave_nothing_of_too_few_pixels() {
        let laid_out = |image_size| Architecture::new(&ModelConfig { image_size, ..ModelConfig::new(NETWORK, 7) });
        // 7, 3, 1, and of one pixel a pool leaves one.
        assert_eq!(laid_out(7).unwrap().layers[131].output, [1, 1, 2048]);
        let error = laid_out(6).unwrap_err().to_string();
        assert_eq!(error, "images of 6×6 are too small for Xception; the smallest that it takes are 7×7");
    }
}
