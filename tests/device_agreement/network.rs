//! The convolutions of the network itself, all 53, at 150×150.

use super::agree;
use super::conv::{Conv, FUSED, Fusions, PLAIN};
use onesheet::device::ConvShape;

/// Every convolution of ResNet-50 over one image, in order: those that read a finished activation, and those that read one
/// behind a batch norm.
fn convolutions() -> Vec<(ConvShape, bool)> {
    let conv =
        |side, c, k, filter, stride, pad| ConvShape::new([1, side, side, c], k, [filter, filter], stride, pad).unwrap();
    let mut all = vec![(conv(150, 3, 64, 7, 2, 3), false)];
    let (mut side, mut c) = (38, 64);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let inner = conv(side, c, width, 1, stride, 0);
            all.push((inner, false));
            all.push((conv(inner.p, width, width, 3, 1, 1), true));
            all.push((conv(inner.p, width, 4 * width, 1, 1, 0), true));
            if block == 0 {
                all.push((conv(side, c, 4 * width, 1, stride, 0), false));
            }
            (side, c) = (inner.p, 4 * width);
        }
    }
    all
}

#[test]
fn the_networks_shapes_are_right() {
    let all = convolutions();
    assert_eq!(all.len(), 53);
    assert_eq!(all.iter().map(|(shape, _)| shape.weights_len()).sum::<usize>(), 23_454_912);
    assert_eq!(all[52].0.output_len(), 5 * 5 * 2048);
}

/// Each distinct shape with the fusions that the network gives it.
fn check(part: usize) {
    let mut seen = std::collections::HashSet::new();
    for (index, (shape, normed)) in convolutions().into_iter().enumerate() {
        if seen.insert((shape, normed)) && seen.len() % 2 == part {
            let fusions = if normed { FUSED } else { Fusions { owed: true, ends: true, ..PLAIN } };
            agree(&Conv { shape, fusions, seed: 100 * index as u64 });
        }
    }
}

// Two tests, for two threads.

#[test]
fn every_second_convolution() {
    check(0);
}

#[test]
fn the_convolutions_between() {
    check(1);
}
