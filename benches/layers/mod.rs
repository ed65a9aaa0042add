//! The convolutions of a network as its plan computes them, equal ones together: for benches and tests.

use onesheet::device::ConvShape;
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
