//! What is computed for a network, step by step: its layers, and which of them are computed together.
//!
//! A [`Plan`] is made from the list of layers by a table of [rules](fuse::RULES), each of which makes one step of two. What
//! a step leaves to whoever reads its value, such as a batch norm's scale, shift and ReLU, is carried by the value itself:
//! see [`ops`](crate::ops).

pub mod cost;
pub mod fold;
pub mod fuse;
pub mod gpus;
mod recompute;
mod run;
mod step;

pub use run::{Statistics, features, forward, head};
pub use step::{Filters, Step, Work};

use crate::device::{Activation, DeviceError};
use crate::network::{Architecture, Layer};
use std::ops::Range;
use std::rc::Rc;

/// The steps of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    layers: Rc<[Layer]>,
    steps: Rc<[Step]>,
    /// Which steps run again together in the backward pass, but for the last segment, whose values are still there.
    segments: Vec<Range<usize>>,
}

impl Plan {
    /// The plan of a network by all rules; batch norm's running averages keep `momentum` of themselves.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if there is something in the network that no kernel computes.
    pub fn new(architecture: &Architecture, momentum: f64) -> Result<Self, DeviceError> {
        Plan::without(architecture, momentum, &[])
    }

    /// The plan of a network by all [rules](fuse::RULES) but those of these names. Without any, each layer is a step: eager.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and if there is no rule of such a name.
    pub fn without(architecture: &Architecture, momentum: f64, rules: &[&str]) -> Result<Self, DeviceError> {
        let known = fuse::RULES.map(|rule| rule.name);
        if let Some(unknown) = rules.iter().find(|rule| !known.contains(rule)) {
            let reason = format!("there is no rule \"{unknown}\"; the rules are {}", known.join(", "));
            return Err(DeviceError::Shape { kernel: "plan", reason });
        }
        let steps: Rc<[Step]> = fuse::steps(architecture, momentum, rules).into();
        for step in steps.iter().filter(|step| matches!(step.work, Work::Norm(_))) {
            let readers =
                steps.iter().flat_map(|other| &other.inputs).filter(|&&input| input == step.inputs[0]).count();
            let is_conv = |of: &Step| match of.work {
                Work::Conv(conv) => conv.activation == Activation::Linear,
                Work::Depthwise(_) | Work::Separable(_) => true,
                _ => false,
            };
            if readers > 1 || !steps.iter().any(|of| of.output() == step.inputs[0] && is_conv(of)) {
                // Nobody else forms the gradient that a batch norm leaves.
                let layer = &architecture.layers[step.output()].name;
                let reason = format!("{layer} has to follow a convolution whose output nobody else reads");
                return Err(DeviceError::Shape { kernel: "plan", reason });
            }
        }
        let segments = std::iter::once(0..steps.len()).collect();
        Ok(Plan { layers: architecture.layers.as_slice().into(), steps, segments })
    }

    /// The same steps to the same bits, with less memory and more work: a training step keeps some values of the forward pass, where to
    /// keep them is cheapest, and computes those in between again when the backward pass needs them.
    #[must_use]
    pub fn recomputing(self) -> Self {
        Plan { segments: recompute::segments(&self.steps, &self.layers), ..self }
    }

    /// The network's layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The steps in the order in which they are computed.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The place of the step that ends the last feature map. All steps in front of it lead to it, and all behind it are the head's.
    fn pooling(&self) -> usize {
        let is_pooling = |step: &Step| matches!(step.work, Work::GlobalPool(_));
        self.steps.iter().position(is_pooling).expect("a network is laid out with a global pooling behind its base")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Outside, Padding};
    use crate::network::{Builder, Convolution, ModelConfig, Network, Value, resnet50, vgg16};
    use crate::ops::batch_norm::BatchNorm;

    fn laid_out(network: Network) -> Architecture {
        Architecture::new(&ModelConfig { image_size: 64, ..ModelConfig::new(network, 7) }).unwrap()
    }

    #[test]
    fn resnet_50_is_53_convolutions_and_16_junctions() {
        let architecture = laid_out(resnet50::NETWORK);
        let plan = Plan::new(&architecture, 0.9).unwrap();
        let count = |of: fn(&Work) -> bool| plan.steps().iter().filter(|step| of(&step.work)).count();
        assert_eq!(count(|work| matches!(work, Work::ConvNorm { norm, .. } if norm.bias.is_some())), 53);
        assert_eq!(
            count(|work| matches!(work, Work::ConvNorm { norm: BatchNorm { activation: Activation::Relu, .. }, .. })),
            33
        );
        assert_eq!(count(|work| *work == Work::Junction), 16);
        assert_eq!(
            count(
                |work| matches!(work, Work::MaxPool { window: 3, stride: 2, pad, outside: Outside::Zeros } if *pad == 1.into())
            ),
            1
        );
        // The images, the pooling, and three dense layers.
        assert_eq!(plan.steps().len(), 53 + 16 + 1 + 5);
        let pads = |pad: usize| {
            plan.steps()
                .iter()
                .filter(move |step| matches!(step.work, Work::ConvNorm { conv: Filters::Full(conv), .. } if conv.pad == pad.into()))
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
    fn the_shorter_way_comes_first_however_a_sum_lists_the_two() {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let convolution = Convolution { filters: 3, window: 1, stride: 1, pad: 0.into(), bias: true };
            let branch = net.conv("branch1", net.input(), convolution)?;
            let branch = net.conv("branch2", branch, convolution)?;
            let around = net.conv("around", net.input(), convolution)?;
            net.add("sum", [branch, around])
        }
        let architecture = laid_out(Network { name: "odd", base, ..resnet50::MINIATURE });
        let plan = Plan::new(&architecture, 0.9).unwrap();
        let outputs = plan.steps()[1..5].iter().map(|step| architecture.layers[step.output()].name.as_str());
        assert_eq!(outputs.collect::<Vec<_>>(), ["around", "branch1", "branch2", "sum"]);
    }

    #[test]
    fn zeros_in_front_of_a_pool_are_its_own_unless_it_sees_nothing_at_the_edges() {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let x = net.zero_pad("zeros", net.input(), 1)?;
            let x = net.max_pool("takes_them", x, 3, 2)?;
            let x = net.zero_pad("zeros_apart", x, 1)?;
            net.max_pool_same("sees_nothing", x, 3, 2)
        }
        let architecture = laid_out(Network { name: "odd", base, ..resnet50::MINIATURE });
        let plan = Plan::new(&architecture, 0.9).unwrap();
        let works: Vec<Work> = plan.steps().iter().map(|step| step.work).collect();
        // 64 pixels become 32, with zeros 34, and of those 17.
        let pool = |pad, outside| Work::MaxPool { window: 3, stride: 2, pad, outside };
        let own = pool(Padding { before: 0, after: 1 }, Outside::Nothing);
        assert_eq!(works[1..4], [pool(1.into(), Outside::Zeros), Work::Pad(1.into()), own]);
    }

    #[test]
    fn a_batch_norm_that_follows_no_convolution_is_named() {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let x = net.max_pool("pool", net.input(), 2, 2)?;
            net.batch_norm("lonely_bn", x, 1e-3)
        }
        fn behind_a_relu(net: &mut Builder) -> Result<Value, DeviceError> {
            let convolution = Convolution { filters: 2, window: 1, stride: 1, pad: 0.into(), bias: true };
            let x = net.conv_relu("conv", net.input(), convolution)?;
            net.batch_norm("lonely_bn", x, 1e-3)
        }
        for base in [base, behind_a_relu] {
            let architecture = laid_out(Network { name: "odd", base, ..resnet50::MINIATURE });
            let error = Plan::new(&architecture, 0.9).unwrap_err().to_string();
            assert!(error.contains("lonely_bn") && error.contains("convolution"), "{error}");
        }
    }

    #[test]
    fn a_convolution_takes_its_activation_and_one_that_alone_reads_it() {
        fn base(net: &mut Builder) -> Result<Value, DeviceError> {
            let convolution = Convolution { filters: 3, window: 1, stride: 1, pad: 0.into(), bias: true };
            let x = net.conv_relu("own", net.input(), convolution)?;
            let x = net.conv("apart", x, convolution)?;
            let x = net.relu6("apart_relu6", x)?;
            let read_twice = net.conv("read_twice", x, convolution)?;
            let x = net.relu("of_two", read_twice)?;
            net.add("sum", [x, read_twice])
        }
        let architecture = laid_out(Network { name: "odd", base, ..resnet50::MINIATURE });
        let of = |without: &[&str]| {
            let plan = Plan::without(&architecture, 0.9, without).unwrap();
            let convolutions = plan.steps().iter().filter_map(|step| match step.work {
                Work::Conv(conv) => Some(conv.activation),
                _ => None,
            });
            convolutions.collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [Activation::Relu, Activation::Relu6, Activation::Linear]);
        assert_eq!(of(&["epilogue"]), [Activation::Linear; 2]);
    }

    #[test]
    fn without_rules_each_layer_is_a_step() {
        let architecture = laid_out(resnet50::NETWORK);
        let eager = Plan::without(&architecture, 0.9, &fuse::RULES.map(|rule| rule.name)).unwrap();
        assert_eq!(eager.steps().len(), architecture.layers.len());
        assert!(eager.steps().iter().all(|step| !step.leaves_debt));
        for rule in fuse::RULES {
            // ResNet-50 has a batch norm behind each convolution.
            let network = if rule.name == "epilogue" { vgg16::NETWORK } else { resnet50::NETWORK };
            let architecture = laid_out(network);
            let plan = Plan::new(&architecture, 0.9).unwrap();
            assert_ne!(Plan::without(&architecture, 0.9, &[rule.name]).unwrap(), plan, "{}", rule.name);
        }
        let error = Plan::without(&architecture, 0.9, &["norms"]).unwrap_err().to_string();
        assert!(
            error.contains("norms") && error.contains("padding, norm, activation, epilogue, debt, junction"),
            "{error}"
        );
    }
}
