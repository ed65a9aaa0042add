//! Channel counts that the tensor cores' tiles take whole, around the tiles' edges; the shared cases have mostly odd ones.

use super::agree;
use super::conv::{Conv, FUSED, Fusions, PLAIN};
use onesheet::device::ConvShape;

fn check(input: [usize; 4], k: usize, filter: usize, stride: usize, pad: usize, seed: u64) {
    let shape = ConvShape::new(input, k, [filter, filter], stride, pad).unwrap();
    agree(&Conv { shape, fusions: PLAIN, seed });
    agree(&Conv { shape, fusions: FUSED, seed: seed + 20 });
}

/// Maps 38, 19, 10 and 5 wide, one less and one more, all extents unequal.
#[test]
fn the_networks_widths() {
    for (seed, side) in [4, 5, 6, 9, 10, 11, 18, 19, 20].into_iter().enumerate() {
        check([2, side, side + 1, 24], 40, 1, 1, 0, 50 * seed as u64);
        check([1, side + 1, side, 16], 24, 3, 1, 1, 50 * seed as u64 + 7);
        check([2, side, side + 2, 32], 16, 1, 2, 0, 50 * seed as u64 + 11);
    }
}

/// Tiles hold 64 or 128 pixels and as many filters; a slice of the sum 16 to 64 channels.
#[test]
fn around_the_edges_of_tiles() {
    for (seed, pixels) in [63, 64, 65, 127, 128, 129, 257].into_iter().enumerate() {
        check([1, 1, pixels, 32], 72, 1, 1, 0, 50 * seed as u64);
    }
    for (seed, filters) in [56, 64, 72, 120, 128, 136].into_iter().enumerate() {
        check([1, 3, 5, 40], filters, 1, 1, 0, 50 * seed as u64);
        check([1, 3, 5, filters], 40, 3, 1, 1, 50 * seed as u64 + 9);
    }
}

#[test]
fn every_fusion_alone_and_together() {
    for (index, filter) in [1, 3].into_iter().enumerate() {
        for bits in 0..16 {
            let [norm, ends, owed, accumulate] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let shape = ConvShape::new([2, 7, 5, 16], 24, [filter, filter], 1, index).unwrap();
            agree(&Conv { shape, fusions: Fusions { norm, ends, owed, accumulate }, seed: bits });
        }
    }
}

/// Weight gradients: many splits of few weights, tiles that begin and end within a tap, and the largest filter whose taps are
/// bits of a pixel's word, one less and one more.
#[test]
fn weight_gradients_split_and_straddle() {
    check([4, 19, 21, 8], 16, 3, 1, 1, 1);
    check([2, 9, 10, 24], 72, 3, 1, 1, 60);
    check([1, 33, 31, 16], 8, 2, 3, 0, 120);
    for (seed, filter) in [14, 15, 16].into_iter().enumerate() {
        check([1, 17, 16, 8], 8, filter, 1, 7, 180 + 50 * seed as u64);
    }
}

/// The stem's own path: 7×7 over three channels, at its size and around.
#[test]
fn stems() {
    for (seed, (h, w)) in [(9, 7), (16, 33), (31, 64), (64, 65), (20, 150)].into_iter().enumerate() {
        for k in [8, 64] {
            let shape = ConvShape::new([2, h, w, 3], k, [7, 7], 2, 3).unwrap();
            for fusions in [PLAIN, Fusions { ends: true, ..PLAIN }] {
                agree(&Conv { shape, fusions, seed: 10 * seed as u64 });
            }
        }
    }
}
