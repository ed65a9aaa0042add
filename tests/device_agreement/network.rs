//! Every convolution of every network at 150×150, with what is fused to it there.

#[path = "../../benches/layers/mod.rs"]
pub mod layers;

use super::agree;
use super::conv::{Conv, Fusions};
use layers::{Layer, layers};
use onesheet::network::{NETWORKS, resnet50, resnet50_v1_5};
use std::collections::HashSet;

#[test]
fn the_networks_shapes_are_right() {
    for (network, strided) in [(resnet50::NETWORK, 1), (resnet50_v1_5::NETWORK, 3)] {
        let all = layers(network, 1, 150);
        let total = |of: fn(&Layer) -> usize| all.iter().map(|layer| layer.count * of(layer)).sum::<usize>();
        assert_eq!((total(|_| 1), total(|layer| layer.shape.weights_len())), (53, 23_454_912), "{network}");
        // Behind the junctions there are no batch norms owed.
        assert_eq!(total(|layer| usize::from(layer.owed.is_some())), 2 * 16, "{network}");
        // The input of a block is read twice.
        assert_eq!(total(|layer| usize::from(layer.accumulates)), 16, "{network}");
        let named =
            |name: &str| all.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("no {name}")).shape;
        assert_eq!(named("conv1_conv").output_len(), 75 * 75 * 64);
        assert_eq!(named("conv5_block1_0_conv").output_len(), 5 * 5 * 2048);
        let place = named(&format!("conv5_block1_{}_conv", if strided == 1 { 1 } else { 2 }));
        assert_eq!((place.r, place.stride, place.p), (strided, 2, 5), "{network}");
    }
}

/// Each distinct shape with the fusions that the networks give it.
fn check(part: usize) {
    let mut seen = HashSet::new();
    for Layer { shape, owed, accumulates, activation, .. } in
        NETWORKS.into_iter().flat_map(|network| layers(network, 1, 150))
    {
        if seen.insert((shape, owed, accumulates, activation)) && seen.len() % 2 == part {
            let fusions = Fusions { norm: owed, ends: true, owed: true, accumulate: accumulates, activation };
            agree(&Conv { shape, fusions, seed: 100 * seen.len() as u64 });
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
