//! The 53 convolutions of the ResNet-50, equal ones together.

use onesheet::device::ConvShape;

/// A convolution, how often the network has it, and what is fused to it there.
pub struct Layer {
    /// Keras's name of the first that is so.
    pub name: String,
    /// Its geometry.
    pub shape: ConvShape,
    /// How many are so.
    pub count: usize,
    /// Whether it reads an activation that is owed a batch norm.
    pub normed: bool,
    /// Whether its data gradient is added to what another consumer of its input has left.
    pub accumulates: bool,
}

/// The layers over `n` posters of `size`×`size`.
pub fn layers(n: usize, size: usize) -> Vec<Layer> {
    let conv = |side, c, k, filter, stride, pad| {
        ConvShape::new([n, side, side, c], k, [filter; 2], stride, pad).expect("the network's geometry")
    };
    let mut layers: Vec<Layer> = Vec::new();
    let mut add = |name: String, shape: ConvShape, normed: bool, accumulates: bool| {
        let same =
            |layer: &&mut Layer| layer.shape == shape && layer.normed == normed && layer.accumulates == accumulates;
        match layers.iter_mut().find(same) {
            Some(layer) => layer.count += 1,
            None => layers.push(Layer { name, shape, count: 1, normed, accumulates }),
        }
        shape
    };
    let stem = add("conv1_conv".into(), conv(size, 3, 64, 7, 2, 3), false, false);
    let (mut side, mut c) = ((stem.p + 2 - 3) / 2 + 1, 64);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..blocks {
            let name = |conv| format!("conv{}_block{}_{conv}_conv", stage + 2, block + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let inner = add(name(1), conv(side, c, width, 1, stride, 0), false, true);
            add(name(2), conv(inner.p, width, width, 3, 1, 1), true, false);
            add(name(3), conv(inner.p, width, 4 * width, 1, 1, 0), true, false);
            if block == 0 {
                add(name(0), conv(side, c, 4 * width, 1, stride, 0), false, false);
            }
            (side, c) = (inner.p, 4 * width);
        }
    }
    layers
}
