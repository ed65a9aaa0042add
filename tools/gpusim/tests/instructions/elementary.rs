//! Roots, reciprocals, exponentials, logarithms and the rest, within the errors that the PTX manual allows.

use super::{LANES, run};
use half::{bf16, f16};

/// What `opcode` makes of these singles.
fn singles(opcode: &str, values: &[f32]) -> Vec<f32> {
    values
        .chunks(LANES)
        .flat_map(|some| {
            let mut bits: Vec<u64> = some.iter().map(|value| value.to_bits().into()).collect();
            bits.resize(LANES, 0);
            let found = run(&format!("{opcode} %d, %a;"), &bits, &bits, &bits);
            let found = found.unwrap_or_else(|error| panic!("{opcode}: {error}"));
            found.into_iter().take(some.len()).map(|bits| f32::from_bits(bits as u32))
        })
        .collect()
}

/// Numbers of either sign whose exponents go from `low` to `high`, with other mantissas in each.
fn over(low: i32, high: i32) -> Vec<f32> {
    let mantissas = [1.0, 1.25, 1.0 + 1.0 / 3.0, 1.5, 1.99999, 1.0000001];
    (low..=high)
        .flat_map(|exponent| mantissas.map(|mantissa| (mantissa * 2f64.powi(exponent)) as f32))
        .flat_map(|value| [value, -value])
        .collect()
}

/// Largest errors: relative, absolute. What is within one of them passes.
#[derive(Clone, Copy)]
struct Bound {
    relative: f64,
    absolute: f64,
}

fn relative(bits: f64) -> Bound {
    Bound { relative: (-bits).exp2(), absolute: 0.0 }
}

fn absolute(bits: f64) -> Bound {
    Bound { relative: 0.0, absolute: (-bits).exp2() }
}

/// Subnormals as zeros, where they are flushed.
fn flush(value: f64, ftz: bool) -> f64 {
    if ftz && value.abs() < f32::MIN_POSITIVE.into() { 0f64.copysign(value) } else { value }
}

/// `opcode` is within `bound` of `exact` everywhere on `values`; infinite, zero, or no number exactly where that is.
fn close(opcode: &str, exact: impl Fn(f64) -> f64, bound: Bound, values: &[f32]) {
    let ftz = opcode.contains(".ftz");
    for (&value, found) in values.iter().zip(singles(opcode, values)) {
        let expected = flush(exact(flush(value.into(), ftz)), ftz);
        let (single, found) = (expected as f32, f64::from(found));
        let fine = if expected.is_nan() {
            found.is_nan()
        } else if single.is_infinite() || single == 0.0 {
            found == f64::from(single) && found.is_sign_negative() == single.is_sign_negative()
        } else {
            // Below the smallest normal number a place is worth more than the relative error.
            let place = f64::from(f32::from_bits(1));
            (found - expected).abs() <= (bound.relative * expected.abs()).max(bound.absolute).max(place)
        };
        assert!(fine, "{opcode} of {value:e}: {found:e} for {expected:e}");
    }
}

#[test]
fn reciprocals_and_roots_over_the_whole_range() {
    let all = over(-149, 127);
    for ftz in ["", ".ftz"] {
        close(&format!("rcp.approx{ftz}.f32"), |x| 1.0 / x, relative(23.0), &all);
        close(&format!("rcp.rn{ftz}.f32"), |x| 1.0 / x, relative(24.0), &all);
        close(&format!("sqrt.approx{ftz}.f32"), f64::sqrt, relative(23.0), &all);
        close(&format!("sqrt.rn{ftz}.f32"), f64::sqrt, relative(24.0), &all);
        close(&format!("rsqrt.approx{ftz}.f32"), |x| 1.0 / x.sqrt(), relative(22.4), &all);
    }
}

#[test]
fn exponentials_and_logarithms() {
    let exponents: Vec<f32> = (-1530..1290).map(|tenth| tenth as f32 / 10.0 + 0.03).chain(over(-149, 9)).collect();
    let all = over(-149, 127);
    // Around 1 the logarithm is small, and its error is absolute.
    let near: Vec<f32> = (1..200).map(|i| 0.5 + i as f32 / 133.0).filter(|x| (0.5..2.0).contains(x)).collect();
    for ftz in ["", ".ftz"] {
        close(&format!("ex2.approx{ftz}.f32"), f64::exp2, relative(22.0), &exponents);
        close(&format!("lg2.approx{ftz}.f32"), f64::log2, relative(22.0), &all);
        close(&format!("lg2.approx{ftz}.f32"), f64::log2, absolute(22.0), &near);
    }
}

#[test]
fn sines_and_tangents() {
    use std::f32::consts::PI;
    let turns = |times: f32| (-500..=500).map(move |i| i as f32 / 500.0 * times * PI).collect::<Vec<f32>>();
    for ftz in ["", ".ftz"] {
        for (opcode, exact) in [("sin", f64::sin as fn(f64) -> f64), ("cos", f64::cos)] {
            close(&format!("{opcode}.approx{ftz}.f32"), exact, absolute(20.5), &turns(2.0));
            close(&format!("{opcode}.approx{ftz}.f32"), exact, absolute(14.7), &turns(100.0));
        }
    }
    close("sin.approx.f32", f64::sin, absolute(20.5), &over(-149, 2));
    close("cos.approx.f32", f64::cos, absolute(20.5), &over(-149, 2));
    close("tanh.approx.f32", f64::tanh, relative(11.0), &over(-149, 127));
}

/// At the edges the manual gives a table.
#[test]
fn edges_are_those_of_the_manual() {
    let (inf, nan, tiny) = (f32::INFINITY, f32::NAN, f32::from_bits(1));
    let arguments = [-inf, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, inf, nan];
    let small = 2f32.powi(-149);
    let root = 2f64.powf(-74.5) as f32;
    for (opcode, expected) in [
        ("rcp.approx.f32", [-0.0, -1.0, -inf, -inf, inf, inf, 1.0, 0.0, nan]),
        ("rcp.approx.ftz.f32", [-0.0, -1.0, -inf, -inf, inf, inf, 1.0, 0.0, nan]),
        ("sqrt.approx.f32", [nan, nan, nan, -0.0, 0.0, root, 1.0, inf, nan]),
        ("sqrt.approx.ftz.f32", [nan, nan, -0.0, -0.0, 0.0, 0.0, 1.0, inf, nan]),
        ("rsqrt.approx.f32", [nan, nan, nan, -inf, inf, 1.0 / root, 1.0, 0.0, nan]),
        ("rsqrt.approx.ftz.f32", [nan, nan, -inf, -inf, inf, inf, 1.0, 0.0, nan]),
        ("lg2.approx.f32", [nan, nan, nan, -inf, -inf, -149.0, 0.0, inf, nan]),
        ("lg2.approx.ftz.f32", [nan, nan, -inf, -inf, -inf, -inf, 0.0, inf, nan]),
        ("ex2.approx.f32", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0, inf, nan]),
        ("ex2.approx.ftz.f32", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0, inf, nan]),
        ("sin.approx.f32", [nan, (-1f32).sin(), -small, -0.0, 0.0, small, 1f32.sin(), nan, nan]),
        ("sin.approx.ftz.f32", [nan, (-1f32).sin(), -0.0, -0.0, 0.0, 0.0, 1f32.sin(), nan, nan]),
        ("cos.approx.f32", [nan, 1f32.cos(), 1.0, 1.0, 1.0, 1.0, 1f32.cos(), nan, nan]),
        ("tanh.approx.f32", [-1.0, (-1f32).tanh(), -small, -0.0, 0.0, small, 1f32.tanh(), 1.0, nan]),
    ] {
        for ((argument, expected), found) in arguments.into_iter().zip(expected).zip(singles(opcode, &arguments)) {
            let same = found.is_nan() && expected.is_nan()
                || found.is_sign_negative() == expected.is_sign_negative()
                    && (found == expected || (found - expected).abs() <= expected.abs() / 1000.0);
            assert!(same, "{opcode} of {argument:e}: {found:e} for {expected:e}");
        }
    }
    // A result that is subnormal is flushed as well.
    assert_eq!(singles("ex2.approx.ftz.f32", &[-130.0]), [0.0]);
    assert_eq!(singles("ex2.approx.f32", &[-130.0]), [2f32.powi(-130)]);
    assert_eq!(singles("rcp.approx.ftz.f32", &[2f32.powi(127)]), [0.0]);
    assert_eq!(singles("rcp.approx.f32", &[2f32.powi(127)]), [2f32.powi(-127)]);
}

/// Rounded down and up they enclose the exact value, and cut off they are the one nearer to zero.
#[test]
fn directed_reciprocals_and_roots() {
    let values = over(-120, 120);
    for (opcode, exact) in [("rcp", (|x| 1.0 / x) as fn(f64) -> f64), ("sqrt", f64::sqrt)] {
        let round = |word: &str| singles(&format!("{opcode}.{word}.f32"), &values);
        let (down, up, cut) = (round("rm"), round("rp"), round("rz"));
        for (i, &value) in values.iter().enumerate() {
            let exact = exact(value.into());
            if exact.is_nan() {
                assert!(down[i].is_nan() && up[i].is_nan() && cut[i].is_nan(), "{opcode} of {value}");
                continue;
            }
            assert!(f64::from(down[i]) <= exact && exact <= f64::from(up[i]), "{opcode} of {value:e}");
            assert!(down[i] == up[i] || down[i].next_up() == up[i], "{opcode} of {value:e}: {} {}", down[i], up[i]);
            assert_eq!(cut[i], if exact > 0.0 { down[i] } else { up[i] }, "{opcode} of {value:e}");
        }
    }
    // Flushed in every direction.
    let tiny = f32::from_bits(1);
    for word in ["rn", "rz", "rm", "rp"] {
        let inf = f32::INFINITY;
        assert_eq!(singles(&format!("rcp.{word}.ftz.f32"), &[tiny, -tiny, 2f32.powi(127)]), [inf, -inf, 0.0], "{word}");
        assert_eq!(singles(&format!("sqrt.{word}.ftz.f32"), &[tiny]), [0.0], "{word}");
    }
}

#[test]
fn doubles_have_their_own() {
    let values: Vec<u64> = (0..LANES).map(|i| (2f64.powi(i as i32 * 7 - 440) * 1.7).to_bits()).collect();
    for (opcode, exact) in [
        ("rcp.rn.f64", (|x| 1.0 / x) as fn(f64) -> f64),
        ("sqrt.rn.f64", f64::sqrt),
        ("rsqrt.approx.f64", |x| 1.0 / x.sqrt()),
    ] {
        let found = run(&format!("{opcode} %D, %A;"), &values, &values, &values).unwrap();
        for (&value, found) in values.iter().zip(found) {
            let (exact, found) = (exact(f64::from_bits(value)), f64::from_bits(found));
            assert!((found - exact).abs() <= exact * 2e-16, "{opcode} of {:e}: {found:e}", f64::from_bits(value));
        }
    }
}

/// `ex2` and `tanh` of halves, alone and in pairs: relative errors of 2^−9.9 and 2^−10.987 in f16, 2^−7 and 2^−8 in bf16.
#[test]
fn halves_have_exponentials_and_tangents() {
    type Kind = (&'static str, fn(f64) -> u16, fn(u16) -> f64, [f64; 2]);
    let kinds: [Kind; 2] = [
        ("f16", |x| f16::from_f64(x).to_bits(), |bits| f16::from_bits(bits).to_f64(), [9.9, 10.987]),
        ("bf16", |x| bf16::from_f64(x).to_bits(), |bits| bf16::from_bits(bits).to_f64(), [7.0, 8.0]),
    ];
    for (ty, bits, value, [power, tangent]) in kinds {
        let pairs: Vec<u64> = (0..LANES)
            .map(|i| u64::from(bits(i as f64 / 13.0 - 5.0)) | u64::from(bits(3.0 - i as f64 / 20.0)) << 16)
            .collect();
        let ftz = if ty == "bf16" { ".ftz" } else { "" };
        for (opcode, exact, allowed) in [
            (format!("ex2.approx{ftz}"), f64::exp2 as fn(f64) -> f64, power),
            ("tanh.approx".into(), f64::tanh, tangent),
        ] {
            let one = run(&format!("{opcode}.{ty} %k, %h; cvt.u32.u16 %d, %k;"), &pairs, &pairs, &pairs).unwrap();
            let both = run(&format!("{opcode}.{ty}x2 %d, %a;"), &pairs, &pairs, &pairs).unwrap();
            for (lane, &pair) in pairs.iter().enumerate() {
                for (argument, found) in [(pair, one[lane]), (pair, both[lane]), (pair >> 16, both[lane] >> 16)] {
                    let (exact, found) = (exact(value(argument as u16)), value(found as u16));
                    let most = (-allowed).exp2() * exact.abs().max(if ty == "f16" { 0.0 } else { 1e-3 });
                    assert!((found - exact).abs() <= most, "{opcode}.{ty}: {found} for {exact}");
                }
            }
        }
    }
}
