//! How fast this machine is. No data sheet says it of a processor that is shared or throttled, so it is measured.

use super::matmul::{Matrix, matmul};
use super::memory::CHUNK;
use super::rows;
use crate::device::Rates;
use rayon::prelude::*;
use std::time::Instant;

/// Floats that are added to as many: more than caches hold.
const ADDED: usize = 32 << 20;
/// Rows, columns and depth of the product.
const SIDE: usize = 1024;
/// Tries, of which the fastest counts.
const TRIES: usize = 5;

/// The bytes a second of a sum in place, and the FLOPs a second of the matrix product that the convolutions are made of. A copy
/// would say less: the processor reads what it is about to overwrite.
pub(super) fn measure() -> Rates {
    let (from, mut to) = (vec![1.0f32; ADDED], vec![0.0f32; ADDED]);
    let sum = fastest(|| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| rows::add(to, from));
    });
    let elements = SIDE * SIDE;
    let matrix = Matrix::new(&from[..elements], SIDE, SIDE, SIDE);
    let product = fastest(|| matmul(&mut to[..elements], false, matrix, matrix));
    let source = format!(
        "measured: the fastest of {TRIES} sums of {} MiB in place, of {TRIES} products of {SIDE}³",
        ADDED >> 18
    );
    Rates { bytes: (3 * size_of::<f32>() * ADDED) as f64 / sum, flops: 2.0 * (SIDE as f64).powi(3) / product, source }
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
