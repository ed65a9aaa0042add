//! The processor and CUDA against the reference, in each precision.

use crate::support::{assert_close, compare};
use crate::{GENRES, config, cuda, model, small, values, with_posters};
use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, Precision};
use onesheet::network::Network;
use onesheet::ops::pool::Pooling;

const POOLINGS: [Pooling; 2] = [Pooling::Average, Pooling::Max];

fn maps<D: Device>(device: D, network: Network, pooling: Pooling) -> Vec<f64> {
    let mut model = model(device, config(network, pooling));
    with_posters(crate::SIZE, |posters| values(&model.explain(posters, &[0, 1, 2, GENRES - 1]).unwrap()))
}

/// Relative to the largest value of all maps: where the sum for a place is nearly 0, its digits say nothing.
fn check<D: Device>(what: &str, device: impl Fn() -> D, network: Network, pooling: Pooling, tolerance: f64) {
    let expected = maps(Reference::EXACT, network, pooling);
    let largest = expected.iter().fold(0.0, |largest: f64, &value| largest.max(value));
    let found = maps(device(), network, pooling);
    let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max);
    println!("{what}, {network}, {pooling:?}: off by {off:.1e} of the largest");
    let what = format!("{network}, {pooling:?}, {what}");
    assert_close(&what, &found, &expected, tolerance * largest, 0.0);
    let mut swapped = expected;
    swapped.rotate_left(found.len() / GENRES);
    compare(&what, &found, &swapped, tolerance * largest, 0.0).expect_err("another genre's maps are noticed");
}

#[test]
fn the_processor_sees_what_the_reference_sees() {
    for (network, pooling) in small().flat_map(|network| POOLINGS.map(|pooling| (network, pooling))) {
        check("f32", Cpu::new, network, pooling, 1e-5);
        check("bf16", || Cpu::storing(Precision::Bf16), network, pooling, 0.06);
    }
}

#[test]
fn cuda_sees_what_the_reference_sees() {
    for (network, pooling) in small().zip(POOLINGS.into_iter().cycle()) {
        check("CUDA in f32", || cuda::device(Precision::F32), network, pooling, 1e-5);
        check("CUDA in bf16", || cuda::device(Precision::Bf16), network, pooling, 0.06);
    }
}
