//! What is computed for a network, step by step: its layers, and which of them are computed together.
//!
//! A [`Plan`] is made from the list of layers by a table of [rules](fuse::RULES), each of which makes one step of two. What
//! a step leaves to whoever reads its value, such as a batch norm's scale, shift and ReLU, is carried by the value itself:
//! see [`ops`](crate::ops).

pub mod fuse;
mod run;
mod step;

pub use run::{Statistics, forward};
pub use step::{Step, Work};

use crate::device::DeviceError;
use crate::network::Architecture;

/// The steps of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    steps: Vec<Step>,
    /// How many values there are: one per layer.
    values: usize,
}

impl Plan {
    /// The plan of a network; batch norm's running averages keep `momentum` of themselves.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if there is something in the network that no kernel computes.
    pub fn new(architecture: &Architecture, momentum: f64) -> Result<Self, DeviceError> {
        let steps = fuse::steps(architecture, momentum);
        let alone = |step: &&Step| {
            matches!(step.work, Work::Pad(_) | Work::Conv { .. } | Work::Norm(_) | Work::Relu | Work::Add)
        };
        if let Some(step) = steps.iter().find(alone) {
            let layer = &architecture.layers[step.output()];
            let reason = format!("no kernel computes a {} where {} has one", layer.kind(), layer.name);
            return Err(DeviceError::Shape { kernel: "plan", reason });
        }
        Ok(Plan { steps, values: architecture.layers.len() })
    }

    /// The steps in the order in which they are computed.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Builder, ModelConfig, Network, Value, resnet50};

    fn laid_out(network: Network) -> Architecture {
        Architecture::new(&ModelConfig { image_size: 64, ..ModelConfig::new(network, 7) }).unwrap()
    }

    #[test]
    fn resnet_50_is_53_convolutions_and_16_junctions() {
        let architecture = laid_out(resnet50::NETWORK);
        let plan = Plan::new(&architecture, 0.9).unwrap();
        let count = |of: fn(&Work) -> bool| plan.steps().iter().filter(|step| of(&step.work)).count();
        assert_eq!(count(|work| matches!(work, Work::ConvNorm { norm, .. } if norm.bias.is_some())), 53);
        assert_eq!(count(|work| matches!(work, Work::ConvNorm { relu: true, .. })), 33);
        assert_eq!(count(|work| *work == Work::Junction), 16);
        assert_eq!(count(|work| *work == Work::MaxPool { window: 3, stride: 2, pad: 1 }), 1);
        // The images, the pooling, and three dense layers.
        assert_eq!(plan.steps().len(), 53 + 16 + 1 + 5);
        let pads = |pad| {
            plan.steps().iter().filter(move |step| matches!(step.work, Work::ConvNorm { conv, .. } if conv.pad == pad))
        };
        assert_eq!([pads(3).count(), pads(1).count(), pads(0).count()], [1, 16, 36]);
    }

    #[test]
    fn each_layer_is_in_one_step_behind_what_it_reads_and_each_value_is_freed_once() {
        for network in [resnet50::NETWORK, resnet50::MINIATURE] {
            let architecture = laid_out(network);
            let plan = Plan::new(&architecture, 0.9).unwrap();
            let mut covered: Vec<usize> = plan.steps().iter().flat_map(|step| step.layers.clone()).collect();
            covered.sort_unstable();
            assert_eq!(covered, Vec::from_iter(0..architecture.layers.len()));
            let mut here = Vec::new();
            for step in plan.steps() {
                assert!(step.inputs.iter().all(|input| here.contains(input)), "{step:?} of {here:?}");
                here.retain(|value| !step.frees.contains(value));
                here.push(step.output());
            }
            assert_eq!(here, [architecture.layers.len() - 1]);
        }
    }

    #[test]
    fn a_blocks_projection_comes_before_its_branch() {
        let architecture = laid_out(resnet50::MINIATURE);
        let plan = Plan::new(&architecture, 0.9).unwrap();
        let outputs: Vec<&str> =
            plan.steps().iter().map(|step| architecture.layers[step.output()].name.as_str()).collect();
        let block = [
            "conv2_block1_0_bn",
            "conv2_block1_1_relu",
            "conv2_block1_2_relu",
            "conv2_block1_3_bn",
            "conv2_block1_out",
        ];
        assert!(outputs.windows(5).any(|steps| steps == block), "{outputs:?}");
    }

    #[test]
    fn what_no_kernel_computes_is_named() {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let x = net.relu("early_relu", net.input())?;
            net.max_pool("pool", x, 2, 2)
        }
        let architecture = laid_out(Network { title: "odd", base, head: &[] });
        let error = Plan::new(&architecture, 0.9).unwrap_err().to_string();
        assert!(error.contains("Activation") && error.contains("early_relu"), "{error}");
    }
}
