//! The names that Keras gave ResNet-50 before 2019, in today's words.
//!
//! From 2016 on its weights were `resnet50_weights_tf_dim_ordering_tf_kernels.h5` of fchollet/deep-learning-models, release
//! v0.2. A layer is called `res3b_branch2a` there, its batch norm `bn3b_branch2a`, and a data set `res3b_branch2a_W:0`.
//! Networks saved by Keras 2 have the same layers, with data sets of today's names: `res3b_branch2a/kernel:0`.
//!
//! `running_std` holds **variances**, whatever its name says. Keras 1's `BatchNormalization.call` hands it to
//! `K.batch_normalization(x, mean, var, …)` as `var`, and its author said so when asked (keras-team/keras issue 3484 and pull
//! request 5178: a wrong name, to be put right in Keras 2); and Keras 2, where it is called `moving_variance`, reads the very
//! same file (keras_applications/resnet50.py has the checksum that deep-learning-models/resnet50.py had in 2016) and
//! converts nothing.
//!
//! The values are those of the original Caffe network, which adds 1e-5 to a variance, as this network does. Keras's batch
//! norm of that time added its default, which changed over the years (1e-6 in early Keras 1, 1e-3 in Keras 2) while the file
//! did not; so nothing is added here to make up for it. (keras-team/keras-applications issue 8 measured the difference on
//! ImageNet: 25.07 % errors with 1e-3, 25.13 % with 1e-5.) Strides are where they are today, on the first 1×1; the padding
//! before the max pool came to Keras in 2019 and is Caffe's again.

/// Today's name, `conv3_block2_1_conv/kernel`, of the data set `dataset` in the group `layer`; `None` where either is not of
/// that time.
pub(super) fn today(layer: &str, dataset: &str) -> Option<String> {
    Some(format!("{}/{}", todays_layer(layer)?, kind(dataset)))
}

/// What each kind of tensor was called in Keras 1, behind its layer's name, and is called today.
const KINDS: [(&str, &str); 8] = [
    ("W", "kernel"),
    ("b", "bias"),
    ("gamma", "gamma"),
    ("beta", "beta"),
    ("running_mean", "moving_mean"),
    ("running_std", "moving_variance"),
    ("depthwise_kernel", "depthwise_kernel"),
    ("pointwise_kernel", "pointwise_kernel"),
];

/// Today's kind of the data set of any layer: `kernel` of `kernel:0`, and of `block1_conv1_W:0` as well.
pub(super) fn kind(dataset: &str) -> &str {
    let dataset = dataset.trim_end_matches(":0");
    let is_then = |then: &str| dataset.strip_suffix(then).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
    KINDS.iter().find(|(then, _)| is_then(then)).map_or(dataset, |(_, today)| today)
}

fn todays_layer(layer: &str) -> Option<String> {
    match layer {
        "conv1" => return Some("conv1_conv".to_owned()),
        "bn_conv1" => return Some("conv1_bn".to_owned()),
        _ => {}
    }
    let (rest, family) = match (layer.strip_prefix("res"), layer.strip_prefix("bn")) {
        (Some(rest), _) => (rest, "conv"),
        (None, rest) => (rest?, "bn"),
    };
    let (block, branch) = rest.split_once("_branch")?;
    let &[stage @ b'2'..=b'9', letter @ b'a'..=b'z'] = block.as_bytes() else { return None };
    let place = match branch {
        "1" => 0,
        "2a" => 1,
        "2b" => 2,
        "2c" => 3,
        _ => return None,
    };
    Some(format!("conv{}_block{}_{place}_{family}", stage - b'0', letter - b'a' + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, ModelConfig, resnet50};
    use std::collections::BTreeSet;

    /// The layers of deep-learning-models/resnet50.py, written down from its calls, against the network of today.
    #[test]
    fn the_network_of_2016_is_todays() {
        let mut found = BTreeSet::new();
        let mut layers = vec!["conv1".to_owned(), "bn_conv1".to_owned()];
        for (stage, blocks) in [(2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")] {
            for block in blocks.chars() {
                for branch in ["2a", "2b", "2c", "1"].iter().take(if block == 'a' { 4 } else { 3 }) {
                    layers.extend(["res", "bn"].map(|family| format!("{family}{stage}{block}_branch{branch}")));
                }
            }
        }
        for layer in layers {
            let parts: &[&str] = match layer.starts_with("bn") {
                true => &["gamma", "beta", "running_mean", "running_std"],
                false => &["W", "b"],
            };
            for part in parts {
                let name = today(&layer, &format!("{layer}_{part}")).unwrap_or_else(|| panic!("{layer} {part}"));
                assert!(found.insert(name), "{layer} {part} is another's name");
            }
        }
        let architecture = Architecture::new(&ModelConfig::new(resnet50::NETWORK, 7)).unwrap();
        let base: BTreeSet<String> = architecture.base_and_head().0.iter().map(|tensor| tensor.name.clone()).collect();
        assert_eq!(found, base);
    }

    #[test]
    fn kinds_of_then_and_of_today() {
        for (dataset, expected) in [
            ("kernel:0", "kernel"),
            ("W", "kernel"),
            ("convolution2d_1_W:0", "kernel"),
            ("block1_conv1_bn_running_std:0", "moving_variance"),
            ("block2_sepconv1_pointwise_kernel:0", "pointwise_kernel"),
            ("depthwise_kernel", "depthwise_kernel"),
            ("moving_mean:0", "moving_mean"),
            ("iter", "iter"),
        ] {
            assert_eq!(kind(dataset), expected, "{dataset}");
        }
    }

    #[test]
    fn names_of_2016_are_todays() {
        for (layer, dataset, expected) in [
            ("conv1", "conv1_W", Some("conv1_conv/kernel")),
            ("conv1", "conv1_b", Some("conv1_conv/bias")),
            ("bn_conv1", "bn_conv1_running_std", Some("conv1_bn/moving_variance")),
            ("bn_conv1", "bn_conv1_running_mean", Some("conv1_bn/moving_mean")),
            ("res2a_branch2a", "res2a_branch2a_W", Some("conv2_block1_1_conv/kernel")),
            ("res4f_branch2c", "kernel", Some("conv4_block6_3_conv/kernel")),
            ("bn5a_branch1", "bn5a_branch1_gamma", Some("conv5_block1_0_bn/gamma")),
            ("bn3d_branch2b", "moving_variance", Some("conv3_block4_2_bn/moving_variance")),
            ("fc1000", "fc1000_W", None),
            ("res4b22_branch2a", "res4b22_branch2a_W", None),
            ("conv1_conv", "kernel", None),
            ("batch_normalization", "gamma", None),
        ] {
            assert_eq!(today(layer, dataset).as_deref(), expected, "{layer} {dataset}");
        }
    }
}
