//! The convolutions of a network as its plan computes them, and MobileNet's depthwise ones; equal ones together: for benches and
//! tests.

use onesheet::device::{ConvShape, DepthwiseShape, Padding};
use onesheet::network::{Architecture, ModelConfig, Network};
use onesheet::plan::{Plan, Work};

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
pub fn layers(network: Network, n: usize, size: usize) -> Vec<Layer> {
    let (architecture, plan) = planned(network, size);
    let steps = plan.steps();
    let mut layers: Vec<Layer> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let Work::ConvNorm { conv, layers: [own, _], .. } = step.work else { continue };
        let input = step.inputs[0];
        let [h, w, c] = architecture.layers[input].output[..] else { panic!("a convolution reads images") };
        let shape =
            ConvShape::new([n, h, w, c], conv.filters, conv.window, conv.stride, conv.pad).expect("it is planned");
        let is_owed = |work: Work| matches!(work, Work::ConvNorm { .. });
        let normed = steps.iter().any(|step| step.output() == input && is_owed(step.work));
        // The backward pass comes to later readers first.
        let accumulates = steps[at + 1..].iter().any(|later| later.inputs.contains(&input));
        let same =
            |layer: &&mut Layer| layer.shape == shape && layer.normed == normed && layer.accumulates == accumulates;
        match layers.iter_mut().find(same) {
            Some(layer) => layer.count += 1,
            None => {
                let name = architecture.layers[own].name.clone();
                layers.push(Layer { name, shape, count: 1, normed, accumulates });
            }
        }
    }
    layers
}

/// A network laid out, and its plan.
pub fn planned(network: Network, size: usize) -> (Architecture, Plan) {
    let config = ModelConfig { image_size: size, ..ModelConfig::new(network, 7) };
    let architecture = Architecture::new(&config).expect("the images are large enough");
    let plan = Plan::new(&architecture, config.momentum).expect("there are kernels for every network");
    (architecture, plan)
}

/// A depthwise convolution, and how often MobileNet has it. All read an activation that is owed a batch norm.
#[allow(dead_code, reason = "not every bench has them")]
pub struct DepthwiseLayer {
    /// Keras's name of the first that is so.
    pub name: String,
    /// Its geometry.
    pub shape: DepthwiseShape,
    /// How many are so.
    pub count: usize,
}

/// MobileNet's 13, over `n` posters of `size`×`size`.
#[allow(dead_code, reason = "not every bench has them")]
pub fn depthwise(n: usize, size: usize) -> Vec<DepthwiseLayer> {
    let channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024];
    let mut side = (size + 1 - 3) / 2 + 1;
    let mut layers: Vec<DepthwiseLayer> = Vec::new();
    for (at, c) in channels.into_iter().enumerate() {
        let stride = if [1, 3, 5, 11].contains(&at) { 2 } else { 1 };
        // Keras pads those of stride 2 below and to the right alone.
        let pad = Padding { before: 2 - stride, after: 1 };
        let shape = DepthwiseShape::new([n, side, side, c], [3, 3], stride, pad).expect("the images are large enough");
        side = shape.p;
        match layers.iter_mut().find(|layer| layer.shape == shape) {
            Some(layer) => layer.count += 1,
            None => layers.push(DepthwiseLayer { name: format!("conv_dw_{}", at + 1), shape, count: 1 }),
        }
    }
    layers
}
