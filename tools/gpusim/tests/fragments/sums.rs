//! Sums as tensor cores take them, on numbers whose sums are known by hand: `TensorSums::of_hardware` against sums in order.

use super::layout::*;
use gpusim::exec::TensorSums;
use gpusim::simulator::{Arguments, Simulator};

const A100: (u32, u32) = (8, 0);
const H100: (u32, u32) = (9, 0);

/// A power of two.
fn two(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

/// A shape with its matrices.
struct Shape {
    name: &'static str,
    a: Matrix,
    b: Matrix,
    c: Matrix,
}

fn shape(kind: Kind) -> Shape {
    let (name, k, places): (_, _, [Place; 2]) = match kind.bytes {
        2 => ("m16n8k16", 16, [pairs_a, pairs_b]),
        _ => ("m16n8k8", 8, [words_a, words_b]),
    };
    let matrix = |kind, rows, columns, place| Matrix { kind, rows, columns, place };
    Shape { name, a: matrix(kind, 16, k, places[0]), b: matrix(kind, k, 8, places[1]), c: matrix(F32, 16, 8, sums) }
}

/// c + Σ a·b for the first few k, the other factors being zero, as a row and column of one `mma`. Every row and column has
/// the same sum, but their signs alternate in C and A.
fn sum(order: TensorSums, kind: Kind, c: f64, factors: &[(f64, f64)]) -> f64 {
    let Shape { name, a, b, c: matrix } = shape(kind);
    let factor = |k: usize| factors.get(k).copied().unwrap_or_default();
    let sign = |row: usize| if row.is_multiple_of(2) { 1.0 } else { -1.0 };
    let av: Vec<f64> = (0..16 * a.columns).map(|at| sign(at / a.columns) * factor(at % a.columns).0).collect();
    let bv: Vec<f64> = (0..b.rows * 8).map(|at| factor(at / 8).1).collect();
    let cv: Vec<f64> = (0..128).map(|at| sign(at / 8) * c).collect();
    let found = multiply(order, name, [&matrix, &a, &b, &matrix], [&av, &bv, &cv]).unwrap();
    for (at, value) in found.iter().enumerate() {
        assert_eq!(value * sign(at / 8), found[0], "element {at}: truncation is towards zero for either sign");
    }
    found[0]
}

/// The sums in order, on an A100 and on an H100.
fn three_ways(kind: Kind, c: f64, factors: &[(f64, f64)]) -> [f64; 3] {
    [TensorSums::InOrder, TensorSums::of_hardware(A100), TensorSums::of_hardware(H100)]
        .map(|order| sum(order, kind, c, factors))
}

/// A product of 2 to the power of `exponent` at k number `k`, behind others that are zero.
fn at(k: usize, exponent: i32) -> Vec<(f64, f64)> {
    let mut factors = vec![(0.0, 0.0); k];
    factors.push((two(exponent / 2), two(exponent - exponent / 2)));
    factors
}

#[test]
fn a_result_is_cut_off_and_not_rounded() {
    for kind in [F16, BF16, TF32] {
        // 1 + 1.5 · 2⁻²³ lies between two singles, and rounds to the even one, 1 + 2 · 2⁻²³.
        let found = three_ways(kind, 1.0, &[(1.5 * two(-11), two(-12))]);
        assert_eq!(found, [1.0 + two(-22), 1.0 + two(-23), 1.0 + two(-23)], "{}", kind.name);
    }
}

#[test]
fn terms_below_the_last_bit_add_up_if_it_is_kept() {
    // One after the other, 2⁻²⁴ is lost to rounding each time. Together, two of them are a bit of the result.
    let pair = [(two(-12), two(-12)); 2];
    assert_eq!(three_ways(BF16, 1.0, &pair), [1.0, 1.0 + two(-23), 1.0 + two(-23)]);
    // Of 2⁻²⁵, an A100 keeps nothing, and an H100 a last bit.
    let eight = [(two(-12), two(-13)); 8];
    assert_eq!(three_ways(BF16, 1.0, &eight), [1.0, 1.0, 1.0 + two(-22)]);
    assert_eq!(three_ways(TF32, 1.0, &eight[..4]), [1.0, 1.0, 1.0 + two(-23)]);
}

#[test]
fn groups_are_as_large_as_each_generation_has_them() {
    for (kind, group) in [(F16, 8), (BF16, 8), (TF32, 4)] {
        let pair = |k| {
            let mut factors = at(k, -24);
            factors[0] = (two(-12), two(-12));
            factors
        };
        let (together, apart) = (three_ways(kind, 1.0, &pair(group - 1)), three_ways(kind, 1.0, &pair(group)));
        assert_eq!(together, [1.0, 1.0 + two(-23), 1.0 + two(-23)], "{}", kind.name);
        assert_eq!(apart, [1.0, 1.0, 1.0 + two(-23)], "{}", kind.name);
    }
}

#[test]
fn a_product_is_aligned_by_its_factors_exponents() {
    // 1.5 · 1.5 = 2.25 counts as having exponent 0, so that the other terms keep 24 or 25 bits behind the point.
    let factors = [(1.5, 1.5), (two(-12), two(-12)), (-1.5, 1.5)];
    assert_eq!(three_ways(BF16, 0.0, &factors), [0.0, two(-24), two(-24)]);
    let factors = [(1.5, 1.5), (two(-12), two(-13)), (-1.5, 1.5)];
    assert_eq!(three_ways(BF16, 0.0, &factors), [0.0, 0.0, two(-25)]);
    // A subnormal half has the smallest exponent, −14: a product of two that have it is cut off 24 or 25 bits below 2⁻¹⁴.
    let factors = [(two(-24), 1.0), (two(-20), two(-20)), (two(-20), two(-19))];
    assert_eq!(three_ways(F16, 0.0, &factors), [two(-24) + two(-40) + two(-39), two(-24), two(-24) + two(-39)]);
}

#[test]
fn what_cancels_leaves_what_was_not_cut_off() {
    // 2²⁴ has the last bit at 1 (A100) or ½ (H100), whoever comes first.
    for factors in
        [[(4096.0, 4096.0), (0.75, 1.0), (-4096.0, 4096.0)], [(0.75, 1.0), (4096.0, 4096.0), (-4096.0, 4096.0)]]
    {
        assert_eq!(three_ways(F16, 0.0, &factors), [0.0, 0.0, 0.5]);
    }
}

#[test]
fn exact_sums_stay_exact_and_what_is_no_number_stays_none() {
    let factors: Vec<(f64, f64)> = (0..16).map(|k| (f64::from(k) - 7.0, f64::from(3 * k % 7) - 3.0)).collect();
    for (kind, k) in [(F16, 16), (BF16, 16), (TF32, 8)] {
        let exact: f64 = 100.0 + factors[..k].iter().map(|(a, b)| a * b).sum::<f64>();
        assert_eq!(three_ways(kind, 100.0, &factors[..k]), [exact; 3], "{}", kind.name);
        // Tiny: the smallest normal single, and half of it.
        assert_eq!(three_ways(kind, two(-126), &[]), [two(-126); 3]);
        assert_eq!(three_ways(kind, -two(-127), &[]), [-two(-127); 3]);
        for order in [TensorSums::of_hardware(A100), TensorSums::of_hardware(H100)] {
            assert_eq!(sum(order, kind, f64::INFINITY, &factors[..k]), f64::INFINITY);
            let Shape { name, a, b, c } = shape(kind);
            let mut av = vec![1.0; 16 * a.columns];
            av[3] = f64::NAN;
            av[a.columns] = f64::INFINITY;
            let bv = vec![0.0; b.rows * 8];
            let found = multiply(order, name, [&c, &a, &b, &c], [&av, &bv, &[2.0; 128]]).unwrap();
            assert!(found[..16].iter().all(|value| value.is_nan()), "{}: NaN, and infinity times zero", kind.name);
            assert!(found[16..].iter().all(|&value| value == 2.0), "{}: other rows", kind.name);
        }
    }
}

/// Two products of a warpgroup, one after the other into the same sums: each adds 1 + 3 · 2⁻²⁴.
#[test]
fn products_of_a_warpgroup_are_cut_off_as_well() {
    let row: Vec<u8> = (0..16)
        .flat_map(|k| {
            half::f16::from_f64([1.0, two(-12), two(-12), two(-12)].get(k).copied().unwrap_or(0.0)).to_le_bytes()
        })
        .collect();
    let run = |name: &str, order| {
        let mut gpu = Simulator::new(include_str!("../ptx/hopper.ptx")).unwrap();
        gpu.sums = order;
        let (a, b) = (gpu.upload(&row.repeat(64)).unwrap(), gpu.upload(&row.repeat(32)).unwrap());
        let out = gpu.allocate(4 * 64 * 32).unwrap();
        let arguments = Arguments::new().pointer(out).pointer(a).pointer(b).int(128);
        gpu.launch(name, [1, 1, 1], [128, 1, 1], 0, &arguments).unwrap();
        let bytes = gpu.read(out, 4 * 64 * 32);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>()
    };
    for (name, sign) in [("product", 1.0), ("product_from_registers", -1.0)] {
        // 1 + 3 · 2⁻²⁴ is cut off to 1 + 2⁻²³, and 2 + 2⁻²³ + 3 · 2⁻²⁴ to 2 + 2⁻²².
        let expected = sign * (2.0 + two(-22) as f32);
        assert_eq!(run(name, TensorSums::of_hardware(H100)), vec![expected; 64 * 32], "{name}");
        assert_eq!(run(name, TensorSums::InOrder), vec![2.0 * sign; 64 * 32], "{name}");
    }
}
