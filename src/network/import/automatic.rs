//! Names that Keras gives layers by itself: the class, and a number.
//!
//! The number says how many layers of the class the process has made before, whatever networks they were for. So two files of one network
//! may have `conv2d` to `conv2d_3` and `conv2d_7` to `conv2d_10`: what they agree on is the order. Keras 2 began with `conv2d_1`, and
//! Keras 1 called the classes otherwise.

use std::collections::HashMap;

/// How the classes are called today, and how they were in Keras 1.
const CLASSES: [(&str, &str); 4] = [
    ("conv2d", "convolution2d"),
    ("depthwise_conv2d", "depthwiseconvolution2d"),
    ("separable_conv2d", "separableconvolution2d"),
    ("batch_normalization", "batchnormalization"),
];

/// Today's class and the number of a layer that Keras has named by itself.
fn class_and_number(layer: &str) -> Option<(&'static str, usize)> {
    CLASSES.iter().find_map(|&(today, then)| {
        // Class by class, since `conv2d_1` is no layer of the class `conv`.
        let rest = layer.strip_prefix(today).or_else(|| layer.strip_prefix(then))?;
        let number = match rest.strip_prefix('_') {
            Some(number) => number.parse().ok()?,
            None => rest.is_empty().then_some(0)?,
        };
        Some((today, number))
    })
}

/// Whether Keras has named this layer by itself.
pub(super) fn is_automatic(layer: &str) -> bool {
    class_and_number(layer).is_some()
}

/// Of the layers in a file that Keras has named by itself, the name of the one of `ours` that each is: of each class the first is our first
/// one, and so on. A network is made before what is put behind it, so layers too many are not its own.
pub(super) fn our_names<'a>(
    ours: impl Iterator<Item = &'a str>,
    held: impl Iterator<Item = &'a str>,
) -> HashMap<&'a str, &'a str> {
    let (ours, held) = (in_order(ours), in_order(held));
    let pairs = CLASSES.iter().flat_map(|&(class, _)| {
        let of = |layers: &[Numbered<'a>]| {
            layers.iter().filter(|layer| layer.0 == class).map(|layer| layer.2).collect::<Vec<_>>()
        };
        of(&held).into_iter().zip(of(&ours))
    });
    pairs.collect()
}

/// Class, number and name.
type Numbered<'a> = (&'static str, usize, &'a str);

/// The layers that Keras has named by itself, class by class and by their numbers, each once.
fn in_order<'a>(layers: impl Iterator<Item = &'a str>) -> Vec<Numbered<'a>> {
    let numbered = |layer| class_and_number(layer).map(|(class, number)| (class, number, layer));
    let mut layers: Vec<_> = layers.filter_map(numbered).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_and_a_number_make_an_automatic_name() {
        for (layer, expected) in [
            ("conv2d", Some(("conv2d", 0))),
            ("conv2d_12", Some(("conv2d", 12))),
            ("convolution2d_3", Some(("conv2d", 3))),
            ("batch_normalization", Some(("batch_normalization", 0))),
            ("batchnormalization_4", Some(("batch_normalization", 4))),
            ("separable_conv2d_1", Some(("separable_conv2d", 1))),
            ("separableconvolution2d_9", Some(("separable_conv2d", 9))),
            ("depthwise_conv2d", Some(("depthwise_conv2d", 0))),
            ("conv2d_", None),
            ("conv2d_1x", None),
            ("conv2d1", None),
            ("block2_conv2d", None),
            ("conv2d_transpose_1", None),
            ("conv2_block1_1_conv", None),
        ] {
            assert_eq!(class_and_number(layer), expected, "{layer}");
            assert_eq!(is_automatic(layer), expected.is_some(), "{layer}");
        }
    }

    #[test]
    fn layers_are_ours_by_their_order_within_a_class() {
        let ours = ["conv2d_1", "batch_normalization", "conv2d", "stem", "conv2d_2"];
        let held = ["conv2d_10", "stem", "batch_normalization_31", "conv2d_9", "conv2d_9", "conv2d_100", "conv2d_101"];
        let names = our_names(ours.into_iter(), held.into_iter());
        let expected = [
            ("conv2d_9", "conv2d"),
            ("conv2d_10", "conv2d_1"),
            ("conv2d_100", "conv2d_2"),
            ("batch_normalization_31", "batch_normalization"),
        ];
        assert_eq!(names, HashMap::from(expected));
        // Of fewer, the last ones are missing.
        assert_eq!(our_names(ours.into_iter(), ["conv2d_5"].into_iter()), HashMap::from([("conv2d_5", "conv2d")]));
    }
}
