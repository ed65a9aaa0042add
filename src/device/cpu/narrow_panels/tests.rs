//! The product against its definition, by every kind of instruction that the machine has.

use super::*;
use crate::device::cpu::matmul::Matrix;
use crate::device::cpu::simd::tests::{check_digest, numbers, on_each_level, with_each_product};
use std::cell::RefCell;

/// Numbers that are bfloat16 already, in both widths.
fn stored(seed: u32, len: usize) -> (Vec<bf16>, Vec<f64>) {
    let narrow: Vec<bf16> = numbers(seed, len).into_iter().map(bf16::from_f32).collect();
    let wide = narrow.iter().map(|x| x.to_f64()).collect();
    (narrow, wide)
}

/// Rows and columns that are and are not whole blocks and whole tile registers, odd and even columns of a, several slices of K, rows
/// of b from the middle, a wide a, an a by columns.
#[test]
fn a_product_is_its_definition() {
    // Of the products that are widened, whose bits every processor gives.
    let mut bits = Vec::new();
    for (m, n, k, rows) in [
        (1, 1, 1, 0..1),
        (6, 16, 5, 0..5),
        (32, 32, 64, 0..64),
        (13, 40, 300, 32..300),
        (33, 31, 147, 0..147),
        (39, 35, 1120, 64..1088),
        (3, 65, 1063, 0..1063),
    ] {
        let count = rows.len();
        let stride = count + 3;
        let ((a, a_wide), before) = (stored(1, m * stride), numbers(3, m * n));
        let b = numbers(2, k * n);
        let (b_stored, b_wide) = stored(2, k * n);
        let [mut panels, mut again] = [(); 2].map(|()| vec![bf16::NAN; packed_len([k, n])]);
        pack(&mut panels, Matrix::new(&b, k, n, n));
        pack_here(&mut again, &b_stored, [k, n], n);
        assert!(panels == again);
        // The rows of the transpose.
        let transpose: Vec<bf16> =
            (0..count * m).map(|at| (at / m, at % m)).map(|(col, row)| a[row * stride + col]).collect();
        let mut by_columns = vec![bf16::NAN; count.next_multiple_of(2) * m];
        interleave(&mut by_columns, &transpose, m, m);
        let operands = [Pairs::by_rows(&a, m, count, stride), Pairs::by_columns(&by_columns, m, count)];
        // The sum without what was there, and the sum of sizes.
        let expected: Vec<[f64; 2]> = (0..m * n)
            .map(|at| (at / n, at % n))
            .map(|(i, j)| {
                let terms = (0..count).map(|l| a_wide[i * stride + l] * b_wide[(rows.start + l) * n + j]);
                terms.fold([0.0; 2], |[sum, size], term| [sum + term, size + term.abs()])
            })
            .collect();
        for (accumulate, a) in [false, true].into_iter().flat_map(|accumulate| operands.map(|a| (accumulate, a))) {
            let start = if accumulate { before.clone() } else { vec![0.0; m * n] };
            let product = || {
                // Behind c there is room for more rows, which stays as it is.
                let mut c = [&before[..], &vec![f32::INFINITY; 32 * n]].concat();
                NarrowPanels::new(&panels, [k, n]).multiply(&mut c[..m * n], accumulate, a, rows.clone(), None);
                assert!(c.drain(m * n..).all(|c| c == f32::INFINITY), "{m}x{n}x{k} {rows:?}");
                c
            };
            let levels = || if products() == Products::Widened { on_each_level(product) } else { vec![product()] };
            let all = with_each_product(levels);
            let (_, widened) = &all[0];
            bits.extend(widened[0].iter().map(|c| u64::from(c.to_bits())));
            for (kind, found) in &all {
                // No number here is denormal, so AVX-512 gives the bits of the loop in plain Rust; tile registers have an order of their own.
                let expected_bits = match kind.are_tiles() {
                    true => &in_the_order_of_tiles(&a_wide, stride, &b_wide[rows.start * n..], count, n, &start),
                    false => &widened[0],
                };
                assert!(found.iter().all(|c| same_bits(c, expected_bits)), "{m}x{n}x{k} {rows:?} {kind}");
                for ((c, [sum, size]), start) in found[0].iter().zip(&expected).zip(&start) {
                    let start = f64::from(*start);
                    let error = (f64::from(*c) - (start + sum)).abs();
                    assert!(error <= 1e-5 * (start.abs() + size), "{m}x{n}x{k} {rows:?} {kind}: {c}");
                }
            }
        }
    }
    check_digest("21cf75cc505e8cb0", &bits);
}

fn same_bits(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// `start [M, N] + a [M, K]·b [K, N]` in `f32`, where a row of a comes every `stride` numbers: of each 32 columns of a the products with the
/// even ones are added up, those with the odd ones, both sums, and that is added to what is there.
fn in_the_order_of_tiles(a: &[f64], stride: usize, b: &[f64], count: usize, n: usize, start: &[f32]) -> Vec<f32> {
    let element = |(at, start): (usize, &f32)| {
        let (row, column) = (&a[at / n * stride..][..count], at % n);
        // Two numbers of eight bits have a product of sixteen.
        let term = |k: usize| (row[k] * b[k * n + column]) as f32;
        let steps = (0..count).step_by(DEPTH).map(|from| from..(from + DEPTH).min(count));
        steps.fold(*start, |sum, step| {
            let of = |odd: usize| step.clone().skip(odd).step_by(2).fold(0.0, |sum, k| sum + term(k));
            sum + (of(0) + of(1))
        })
    };
    start.iter().enumerate().map(element).collect()
}

/// How a product is cut into rows, columns and blocks of K changes no bit.
#[test]
fn a_product_has_the_same_bits_however_it_is_cut() {
    let (m, n, k) = (50, 70, 1000);
    let ((a, _), (b, _)) = (stored(1, m * k), stored(2, k * n));
    let product = |rows: Range<usize>, cols: Range<usize>, cuts: &[usize]| {
        let extents = [k, cols.len()];
        let mut panels = vec![bf16::NAN; packed_len(extents)];
        pack_here(&mut panels, &b[cols.start..], extents, n);
        let mut c = vec![f32::NAN; rows.len() * cols.len()];
        for cut in cuts.windows(2) {
            let a = Pairs::by_rows(&a[rows.start * k + cut[0]..], rows.len(), cut[1] - cut[0], k);
            NarrowPanels::new(&panels, extents).multiply(&mut c, cut[0] > 0, a, cut[0]..cut[1], None);
        }
        c
    };
    for (kind, [whole, parts]) in with_each_product(|| {
        let whole = product(0..m, 0..n, &[0, k]);
        let mut parts = vec![f32::NAN; m * n];
        for (rows, cols) in [(0..13, 0..33), (13..m, 0..33), (0..37, 33..n), (37..m, 33..n)] {
            let part = product(rows.clone(), cols.clone(), &[0, 32, 544, 992, k]);
            for (row, part) in rows.zip(part.chunks_exact(cols.len())) {
                parts[row * n..][cols.clone()].copy_from_slice(part);
            }
        }
        [whole, parts]
    }) {
        assert!(whole == parts, "{kind}");
    }
}

/// Rows that overlap, in runs of columns, are what they are when copied one behind the other; and rows that are handed on are those of c.
/// Blocks of all and of some rows of the registers, runs that are a slice together, one by one, and more than a slice each.
#[test]
fn runs_of_columns_and_rows_that_are_handed_on() {
    for (m, n, [runs, run], [row_stride, run_stride]) in [
        (1, 16, [1, 32], [1, 32]),
        (75, 64, [7, 32], [6, 468]),
        (29, 40, [3, 192], [64, 384]),
        (70, 33, [3, 384], [128, 2560]),
        (33, 7, [2, 672], [224, 1344]),
        (300, 32, [3, 96], [32, 640]),
    ] {
        let k = runs * run;
        let (data, _) = stored(1, (m - 1) * row_stride + (runs - 1) * run_stride + run);
        let place = |i: usize, l: usize| i * row_stride + l / run * run_stride + l % run;
        let copied: Vec<bf16> = (0..m * k).map(|at| data[place(at / k, at % k)]).collect();
        let (b, before) = (stored(2, k * n).0, numbers(3, m * n));
        let mut panels = vec![bf16::NAN; packed_len([k, n])];
        pack_here(&mut panels, &b, [k, n], n);
        let panels = NarrowPanels::new(&panels, [k, n]);
        for accumulate in [false, true] {
            with_each_product(|| {
                let by_runs = Pairs::by_runs(&data, m, row_stride, [runs, run], run_stride);
                let [mut whole, mut c, mut left] = [(); 3].map(|()| before.clone());
                panels.multiply(&mut whole, accumulate, Pairs::by_rows(&copied, m, k, k), 0..k, None);
                panels.multiply(&mut c, accumulate, by_runs, 0..k, None);
                let handed = RefCell::new(vec![f32::NAN; m * n]);
                let then = |rows: Range<usize>, sums: &[f32]| {
                    let mut handed = handed.borrow_mut();
                    let rows = &mut handed[rows.start * n..rows.end * n];
                    assert!(rows.iter().all(|sum| sum.is_nan()), "rows are handed on once");
                    rows.copy_from_slice(sums);
                };
                panels.multiply(&mut left, accumulate, by_runs, 0..k, Some(&then));
                let case = format!("{m}x{n}x{runs}x{run} {accumulate} {}", products());
                assert!(c == whole, "{case}: by runs");
                assert!(*handed.borrow() == whole, "{case}: handed on");
            });
        }
    }
}

#[test]
fn infinities_and_nan_are_not_lost() {
    let (m, n, k) = (3, 17, 35);
    let mut a = vec![bf16::ONE; m * k];
    (a[k + 34], a[2 * k]) = (bf16::INFINITY, bf16::NAN);
    let mut panels = vec![bf16::NAN; packed_len([k, n])];
    pack(&mut panels, Matrix::new(&vec![2.0; k * n], k, n, n));
    for (kind, c) in with_each_product(|| {
        let mut c = vec![0.0; m * n];
        NarrowPanels::new(&panels, [k, n]).multiply(&mut c, false, Pairs::by_rows(&a, m, k, k), 0..k, None);
        c
    }) {
        assert!(c[..n].iter().all(|&c| c == 70.0), "{kind}");
        assert!(c[n..2 * n].iter().all(|&c| c == f32::INFINITY), "{kind}");
        assert!(c[2 * n..].iter().all(|c| c.is_nan()), "{kind}");
    }
}
