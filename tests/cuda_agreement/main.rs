//! Rung 2 on CUDA: every kernel against the reference, in every precision.
//!
//! Runs on the simulated GPU, where every access is checked (bounds, initialisation, races) and a fault fails the test; with
//! `ONESHEET_TEST_DEVICE=cuda` on the machine's NVIDIA GPU. The cases are those of `device_agreement`. Their operands are exact
//! in bfloat16, so a device that stores or multiplies narrow is off only by what it rounds itself.

#[path = "../device_agreement/batch_norm.rs"]
mod batch_norm;
#[path = "../device_agreement/case.rs"]
mod case;
mod choices;
mod columns;
#[path = "../device_agreement/conv.rs"]
mod conv;
#[path = "../support/cuda.rs"]
mod cuda;
#[path = "../device_agreement/depthwise.rs"]
mod depthwise;
#[path = "../device_agreement/head.rs"]
mod head;
mod layers;
#[path = "../device_agreement/network.rs"]
mod network;
mod passes;
#[path = "../device_agreement/pool.rs"]
mod pool;
#[path = "../support/mod.rs"]
mod support;

pub use case::*;
use onesheet::device::Memory;
use onesheet::device::cuda::Precision;
use onesheet::device::reference::Reference;

/// What a factor of a product may be rounded by, and what a stored activation may be, relative to its size.
fn roundings(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (0.0, 4.0 * EPSILON),
        Precision::Tf32 => (2f64.powi(-11), 4.0 * EPSILON),
        Precision::Bf16 => (2f64.powi(-9), 2f64.powi(-8)),
    }
}

/// Whether the CUDA device and the reference agree on a case in each of some precisions.
pub fn compare(case: &impl Case, precisions: &[Precision]) -> Result<(), String> {
    let expected = case.run(&Reference::EXACT);
    for &precision in precisions {
        let device = cuda::device(precision);
        let (factor, stored) = roundings(precision);
        for (found, expected) in case.run(&device).iter().zip(&expected) {
            let what = format!("{} of {case:?} on {}", expected.name, device.name());
            let atol = expected.tolerance + factor * expected.spread;
            let rtol = if expected.activation { stored } else { 4.0 * EPSILON };
            support::compare(&what, &found.values, &expected.values, atol, rtol)?;
        }
    }
    Ok(())
}

/// [`compare`] in every precision, or panic with its message.
#[track_caller]
pub fn agree(case: &impl Case) {
    if let Err(mismatch) = compare(case, &[Precision::F32, Precision::Tf32, Precision::Bf16]) {
        panic!("{mismatch}");
    }
}
