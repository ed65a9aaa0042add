//! How fast this machine is. No data sheet says it of a processor that is shared or throttled, so it is measured.

use super::factor::Factor;
use super::matmul::Matrix;
use super::memory::CHUNK;
use super::rows;
use super::scratch::Scratch;
use crate::device::Rates;
use rayon::prelude::*;
use std::time::Instant;

/// Floats that are added to as many: more than caches hold.
const ADDED: usize = 32 << 20;
/// Rows at least, columns and depth of a product: what a task of a convolution multiplies, which stays in a second-level cache.
const BLOCK: [usize; 3] = [120, 256, 512];
/// Products a thread: together they take long enough to be timed.
const PRODUCTS: usize = 32;
/// Tries, of which the fastest counts.
const TRIES: usize = 5;

/// The bytes a second of a sum in place, and the FLOPs a second of the products of `E` that convolutions are made of, each thread
/// multiplying blocks of its own. A copy would say less than the sum: the processor reads what it is about to overwrite.
pub(super) fn measure<E: Factor>() -> Rates {
    let (from, mut to) = (vec![1.0f32; ADDED], vec![0.0f32; ADDED]);
    let sum = fastest(|| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| rows::add(to, from));
    });
    let [least, columns, depth] = BLOCK;
    let rows = least.next_multiple_of(E::ROWS);
    let a = vec![E::nearest(1.0); rows * depth];
    let mut packed = Scratch::of(E::packed_len([depth, columns]));
    E::pack(&mut packed, Matrix::new(&from, depth, columns, columns));
    let packed = &packed[..];
    let products = PRODUCTS * rayon::current_num_threads();
    let product = fastest(|| {
        (0..products).into_par_iter().for_each(|_| {
            let mut block = Scratch::new(rows * columns);
            let a = E::left(&a, rows, depth, depth);
            E::multiply(&mut block, false, a, packed, [depth, columns], 0..depth, None);
        });
    });
    let source = format!(
        "measured: the fastest of {TRIES} sums of {} MiB in place, of {TRIES} rounds of {products} products of {rows}×{columns}×{depth}",
        ADDED >> 18
    );
    let flops = 2.0 * (products * rows * columns * depth) as f64 / product;
    Rates { bytes: (3 * size_of::<f32>() * ADDED) as f64 / sum, flops, source }
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
