//! How fast this machine is. No data sheet says it of a processor that is shared or throttled, so it is measured.

use super::matmul::{Matrix, Threads, matmul};
use super::memory::CHUNK;
use crate::device::Rates;
use rayon::prelude::*;
use std::time::Instant;

/// Floats that are copied: more than caches hold.
const COPIED: usize = 32 << 20;
/// Rows, columns and depth of the product.
const SIDE: usize = 1024;
/// Tries, of which the fastest counts.
const TRIES: usize = 5;

/// The bytes a second of a copy, and the FLOPs a second of the matrix product that the convolutions are made of.
pub(super) fn measure() -> Rates {
    let (from, mut to) = (vec![1.0f32; COPIED], vec![0.0f32; COPIED]);
    let copy = fastest(|| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
    });
    let elements = SIDE * SIDE;
    let matrix = Matrix::new(&from[..elements], SIDE, SIDE, SIDE);
    let product = fastest(|| matmul(&mut to[..elements], false, matrix, matrix, Threads::All));
    let source =
        format!("measured: the fastest of {TRIES} copies of {} MiB, of {TRIES} products of {SIDE}³", COPIED >> 18);
    Rates { bytes: (2 * size_of::<f32>() * COPIED) as f64 / copy, flops: 2.0 * (SIDE as f64).powi(3) / product, source }
}

/// Seconds of the fastest try.
fn fastest(mut work: impl FnMut()) -> f64 {
    let mut seconds = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| seconds()).fold(f64::INFINITY, f64::min)
}
