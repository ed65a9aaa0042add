//! What network a file seems to hold, by the names of its tensors: only for the message that refuses it.

use std::collections::BTreeMap;

use crate::network::NamedShape;

/// Parts of names that only one kind of network has, the more particular ones first. The upper ones are Keras's, the lower ones
/// torchvision's and timm's.
const MARKS: [(&str, &str); 18] = [
    ("block5_conv4/", "VGG-19"),
    ("block5_conv3/", "VGG-16"),
    ("block14_sepconv2/", "Xception"),
    ("expanded_conv_depthwise/", "MobileNetV2"),
    ("conv_pw_13/", "MobileNet"),
    ("conv4_2_conv/", "ShallowNet"),
    ("block1a_dwconv/", "EfficientNet"),
    ("conv2_block1_preact_bn/", "a ResNet v2"),
    ("pool2_bn/", "a DenseNet"),
    ("conv2d_93/", "Inception v3"),
    ("features.denseblock1.", "a DenseNet"),
    ("Mixed_5b.", "Inception v3"),
    ("features.0.0.weight", "a MobileNet or EfficientNet"),
    ("blocks.0.0.conv_dw.", "a MobileNet or EfficientNet"),
    ("features.0.weight", "a VGG or AlexNet"),
    ("encoder.layers.encoder_layer_0.", "a vision transformer"),
    ("patch_embed.", "a vision transformer"),
    ("conv1.0.weight", "a ResNet with a deep stem, such as ResNet-50-D"),
];

/// The title of the network that these names and shapes are of, as far as is known.
pub(super) fn looks_like(held: &[NamedShape]) -> Option<String> {
    let mark = MARKS.iter().find(|(mark, _)| held.iter().any(|(name, _)| name.contains(mark)));
    match mark {
        // Its first convolution has 32 filters, wherever a layout has them.
        Some((_, "MobileNet"))
            if held.iter().any(|(name, shape)| name == "conv1/kernel" && shape.len() == 4 && !shape.contains(&32)) =>
        {
            Some("a MobileNet of another width".to_owned())
        }
        Some((_, title)) => Some((*title).to_owned()),
        None => resnet(held),
    }
}

/// A member of ResNet's family, by its blocks and by the extents of its 3×3 convolutions.
fn resnet(held: &[NamedShape]) -> Option<String> {
    // The last block of each stage.
    let mut stages: BTreeMap<usize, usize> = BTreeMap::new();
    for (stage, block) in held.iter().filter_map(|(name, _)| block(name)) {
        let last = stages.entry(stage).or_default();
        *last = block.max(*last);
    }
    let has = |parts: &[&str]| held.iter().any(|(name, _)| parts.iter().any(|part| name.contains(part)));
    let is_keras = has(&["_block1_"]);
    let bottleneck = has(&["_3_conv/", ".conv3."]);
    let depth = match (&stages.values().copied().collect::<Vec<_>>()[..], bottleneck) {
        ([], _) => return None,
        ([2, 2, 2, 2], false) => "18",
        ([3, 4, 6, 3], false) => "34",
        ([3, 4, 6, 3], true) => "50",
        ([3, 4, 23, 3], true) => "101",
        ([3, 8, 36, 3], true) => "152",
        (blocks, _) => {
            let blocks: Vec<String> = blocks.iter().map(usize::to_string).collect();
            return Some(format!("a ResNet of {} blocks", blocks.join(" + ")));
        }
    };
    let squeezes = if has(&[".se.", ".se_module.", "_se_"]) { "SE-" } else { "" };
    let middle = held.iter().find(|(name, _)| name.ends_with("layer1.0.conv2.weight"));
    let &[width, inputs, ..] = middle.map_or(&[64, 64][..], |(_, shape)| shape) else { return None };
    Some(match (width, inputs) {
        _ if has(&["_2_conv/depthwise_kernel"]) => format!("{squeezes}ResNeXt-{depth}"),
        (_, 1..) if inputs < width => format!("{squeezes}ResNeXt-{depth} ({}x{inputs}d)", width / inputs),
        (65.., _) => format!("Wide {squeezes}ResNet-{depth}-{}", width / 64),
        // Keras's layers without a bias are those of v1.5 in our own files.
        _ if is_keras && !has(&["conv1_conv/bias"]) => format!("{squeezes}ResNet-{depth} v1.5"),
        _ => format!("{squeezes}ResNet-{depth}"),
    })
}

/// Stage and block, both from 1, of `conv3_block2_1_conv/kernel` or of `layer2.1.conv1.weight` under any prefix.
fn block(name: &str) -> Option<(usize, usize)> {
    if let Some((stage, rest)) = name.split_once("_block") {
        let stage: usize = stage.rsplit_once("conv")?.1.parse().ok()?;
        return Some((stage.checked_sub(1)?, rest.split(['_', '/']).next()?.parse().ok()?));
    }
    let mut parts = name.split('.').skip_while(|part| !part.starts_with("layer"));
    let stage = parts.next()?.strip_prefix("layer")?.parse().ok()?;
    Some((stage, parts.next()?.parse::<usize>().ok()?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Option<String> {
        looks_like(&names.iter().map(|name| ((*name).to_owned(), vec![1])).collect::<Vec<_>>())
    }

    /// A few names of each, as Keras Applications, torchvision and timm have them.
    #[test]
    fn networks_are_known_by_their_names() {
        for (names, expected) in [
            (&["block1_conv1/kernel", "block5_conv3/kernel", "fc1/kernel"][..], Some("VGG-16")),
            (&["block5_conv3/kernel", "block5_conv4/bias"], Some("VGG-19")),
            (&["block1_conv1/kernel", "block14_sepconv2/depthwise_kernel"], Some("Xception")),
            (&["conv1/kernel", "conv_dw_1/depthwise_kernel", "conv_pw_13/kernel"], Some("MobileNet")),
            (&["conv1_conv/kernel", "conv4_2_conv/kernel"], Some("ShallowNet")),
            (&["Conv1/kernel", "expanded_conv_depthwise/depthwise_kernel"], Some("MobileNetV2")),
            (&["stem_conv/kernel", "block1a_dwconv/depthwise_kernel"], Some("EfficientNet")),
            (&["conv2_block1_preact_bn/gamma", "conv2_block1_1_conv/kernel"], Some("a ResNet v2")),
            (&["conv2_block1_0_bn/gamma", "pool2_bn/gamma"], Some("a DenseNet")),
            (&["conv2d/kernel", "conv2d_93/kernel"], Some("Inception v3")),
            (&["module.features.0.weight", "classifier.6.bias"], Some("a VGG or AlexNet")),
            (&["features.0.0.weight", "features.18.1.bias"], Some("a MobileNet or EfficientNet")),
            (&["conv_stem.weight", "blocks.0.0.conv_dw.weight"], Some("a MobileNet or EfficientNet")),
            (&["features.conv0.weight", "features.denseblock1.denselayer1.conv1.weight"], Some("a DenseNet")),
            (&["Mixed_5b.branch1x1.conv.weight"], Some("Inception v3")),
            (&["encoder.layers.encoder_layer_0.mlp.0.weight"], Some("a vision transformer")),
            (&["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"], Some("a vision transformer")),
            (&["conv1.0.weight", "layer1.0.conv1.weight"], Some("a ResNet with a deep stem, such as ResNet-50-D")),
            (&["conv2_block1_3_conv/kernel", "conv3_block2_1_bn/gamma"], Some("a ResNet of 1 + 2 blocks")),
            (&["layer1.2.conv3.weight", "model.layer2.0.bn1.bias"], Some("a ResNet of 3 + 1 blocks")),
            (&["transformer.h.0.attn.weight", "layer.0.weight", "layer1.x.weight", "conv_block"], None),
            (&[], None),
        ] {
            assert_eq!(told(names).as_deref(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_mobilenet_of_another_width_is_known_by_its_first_filters() {
        let held = |filters: usize| {
            let names = [("conv1/kernel", vec![3, 3, 3, filters]), ("conv_pw_13/kernel", vec![1, 1, 8, 8])];
            names.map(|(name, shape)| (name.to_owned(), shape)).to_vec()
        };
        assert_eq!(looks_like(&held(32)).as_deref(), Some("MobileNet"));
        assert_eq!(looks_like(&held(16)).as_deref(), Some("a MobileNet of another width"));
    }

    #[test]
    fn resnets_are_known_by_their_blocks() {
        for (blocks, deep, expected) in [
            ([2, 2, 2, 2], false, "ResNet-18"),
            ([3, 4, 6, 3], false, "ResNet-34"),
            ([3, 4, 6, 3], true, "ResNet-50"),
            ([3, 4, 23, 3], true, "ResNet-101"),
            ([3, 8, 36, 3], true, "ResNet-152"),
        ] {
            let last = |stage: usize, block: usize| {
                (format!("model.layer{}.{}.conv2.weight", stage + 1, block - 1), vec![64, 64])
            };
            let mut held: Vec<NamedShape> =
                blocks.iter().enumerate().map(|(stage, &block)| last(stage, block)).collect();
            held.extend(deep.then(|| ("model.layer1.0.conv3.weight".to_owned(), vec![256, 64])));
            assert_eq!(looks_like(&held).as_deref(), Some(expected));
            for (shape, like) in [([128, 128], "Wide {}-2"), ([128, 4], "{} (32x4d)"), ([256, 8], "{} (32x8d)")] {
                held.push(("model.layer1.0.conv2.weight".to_owned(), shape.to_vec()));
                let name = if like.starts_with("Wide") { expected.to_owned() } else { expected.replace("Net", "NeXt") };
                assert_eq!(looks_like(&held), Some(like.replace("{}", &name)));
                held.pop();
            }
            held.push(("model.layer1.0.se.fc1.weight".to_owned(), vec![4, 64]));
            assert_eq!(looks_like(&held), Some(format!("SE-{expected}")));
        }
    }
}
