//! `setp`, `set`, `selp`, `slct`, `min` and `max`: every operator on every type, with NaNs, infinities, both zeros and subnormals.

use super::{EDGES, check, check_on, grid};
use half::{bf16, f16};
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// What a comparison accepts: less, equal, greater, and neither of them, which only NaNs are.
const OPERATORS: [(&str, [bool; 4]); 14] = [
    ("eq", [false, true, false, false]),
    ("ne", [true, false, true, false]),
    ("lt", [true, false, false, false]),
    ("le", [true, true, false, false]),
    ("gt", [false, false, true, false]),
    ("ge", [false, true, true, false]),
    ("equ", [false, true, false, true]),
    ("neu", [true, false, true, true]),
    ("ltu", [true, false, false, true]),
    ("leu", [true, true, false, true]),
    ("gtu", [false, false, true, true]),
    ("geu", [false, true, true, true]),
    ("num", [true, true, true, false]),
    ("nan", [false, false, false, true]),
];

fn accepts(operator: &str, order: Option<Ordering>) -> bool {
    let (_, [less, equal, greater, none]) = *OPERATORS.iter().find(|(name, _)| *name == operator).unwrap();
    match order {
        Some(Less) => less,
        Some(Equal) => equal,
        Some(Greater) => greater,
        None => none,
    }
}

/// Floats at their edges, as the bits of a type.
const SINGLES: [u64; 11] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x3f80_0000,
    0xbf80_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0001,
];
const DOUBLES: [u64; 11] = [
    0,
    1 << 63,
    1,
    1 << 63 | 1,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0001,
];
const HALVES: [u64; 11] = [0, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0xfe01];
const BFLOATS: [u64; 11] = [0, 0x8000, 1, 0x8001, 0x3f80, 0xbf80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0, 0xffc1];

/// A type of floats: its name, edges, the registers for a and b, and what bits mean.
type Kind = (&'static str, [u64; 11], [&'static str; 2], fn(u64) -> f64);
const KINDS: [Kind; 4] = [
    ("f32", SINGLES, ["%a", "%b"], |bits| f32::from_bits(bits as u32).into()),
    ("f64", DOUBLES, ["%A", "%B"], f64::from_bits),
    ("f16", HALVES, ["%h", "%i"], |bits| f16::from_bits(bits as u16).into()),
    ("bf16", BFLOATS, ["%h", "%i"], |bits| bf16::from_bits(bits as u16).into()),
];

#[test]
fn floats_are_compared_as_each_operator_says() {
    for (ty, values, [a, b], value) in KINDS {
        for (operator, _) in OPERATORS {
            let body = format!("setp.{operator}.{ty} %p|%q, {a}, {b}; selp.u32 %d, 1, 0, %p; @%q add.u32 %d, %d, 2;");
            check_on(
                &grid(values),
                &body,
                |a, b, _| {
                    if accepts(operator, value(a).partial_cmp(&value(b))) { 1 } else { 2 }
                },
            );
        }
    }
}

#[test]
fn subnormals_are_zeros_where_they_are_flushed() {
    let value = |bits: u64| {
        let value = f32::from_bits(bits as u32);
        if value.is_subnormal() { 0.0 } else { value }
    };
    for (operator, _) in OPERATORS {
        let body = format!("setp.{operator}.ftz.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;");
        check_on(&grid(SINGLES), &body, |a, b, _| accepts(operator, value(a).partial_cmp(&value(b))).into());
    }
}

/// The order of two values of an integer type.
fn order(ty: &str, a: u64, b: u64) -> Ordering {
    match ty {
        "s16" => (a as i16).cmp(&(b as i16)),
        "u16" | "b16" => (a as u16).cmp(&(b as u16)),
        "s32" => (a as i32).cmp(&(b as i32)),
        "u32" | "b32" => (a as u32).cmp(&(b as u32)),
        "s64" => (a as i64).cmp(&(b as i64)),
        _ => a.cmp(&b),
    }
}

#[test]
fn integers_are_compared_with_their_sign() {
    let unsigned = [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")];
    for (ty, [a, b]) in [
        ("s16", ["%h", "%i"]),
        ("u16", ["%h", "%i"]),
        ("b16", ["%h", "%i"]),
        ("s32", ["%a", "%b"]),
        ("u32", ["%a", "%b"]),
        ("b32", ["%a", "%b"]),
        ("s64", ["%A", "%B"]),
        ("u64", ["%A", "%B"]),
        ("b64", ["%A", "%B"]),
    ] {
        let mut operators: Vec<(&str, &str)> = ["eq", "ne"].map(|name| (name, name)).into();
        if !ty.starts_with('b') {
            operators.extend(["lt", "le", "gt", "ge"].map(|name| (name, name)));
        }
        if ty.starts_with('u') {
            operators.extend(unsigned);
        }
        for (operator, meaning) in operators {
            let body = format!("setp.{operator}.{ty} %p, {a}, {b}; selp.u32 %d, 1, 0, %p;");
            check_on(&grid(EDGES), &body, |a, b, _| accepts(meaning, Some(order(ty, a, b))).into());
        }
    }
}

#[test]
fn a_third_predicate_is_combined_with_both_results() {
    for (word, combined) in [
        ("and", (|found, third| found && third) as fn(bool, bool) -> bool),
        ("or", |found, third| found || third),
        ("xor", |found, third| found != third),
    ] {
        for negated in [false, true] {
            let third = if negated { "!%p" } else { "%p" };
            let body = format!(
                "and.b32 %e, %c, 1; setp.ne.u32 %p, %e, 0; setp.lt.{word}.s32 %p|%q, %a, %b, {third}; \
                 selp.u32 %d, 1, 0, %p; @%q add.u32 %d, %d, 2;"
            );
            check_on(&grid(EDGES), &body, |a, b, c| {
                let (less, third) = ((a as i32) < b as i32, (c & 1 != 0) != negated);
                u64::from(combined(less, third)) | u64::from(combined(!less, third)) << 1
            });
        }
    }
}

#[test]
fn set_gives_ones_of_its_type() {
    for (to, one) in [("u32", u32::MAX), ("s32", u32::MAX), ("f32", 1f32.to_bits())] {
        let chosen = |yes: bool| u64::from(if yes { one } else { 0 });
        let body = format!("set.lt.{to}.s32 %d, %a, %b;");
        check_on(&grid(EDGES), &body, |a, b, _| chosen((a as i32) < b as i32));
        let body = format!("set.geu.{to}.f32 %d, %a, %b;");
        check_on(&grid(SINGLES), &body, |a, b, _| {
            chosen(accepts("geu", f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32))))
        });
        let body = format!("set.eq.ftz.{to}.f32 %d, %a, 0f00000000;");
        check_on(&grid(SINGLES), &body, |a, _, _| chosen(a & 0x7f80_0000 == 0));
    }
    let body = "set.gt.f16.f16 %k, %h, %i; cvt.u32.u16 %d, %k;";
    let half = |bits: u64| f16::from_bits(bits as u16);
    check_on(&grid(HALVES), body, |a, b, _| if half(a) > half(b) { 0x3c00 } else { 0 });
    let body = "set.le.u16.bf16 %k, %h, %i; cvt.u32.u16 %d, %k;";
    let bfloat = |bits: u64| bf16::from_bits(bits as u16);
    check_on(&grid(BFLOATS), body, |a, b, _| if bfloat(a) <= bfloat(b) { 0xffff } else { 0 });
    let body = "set.le.bf16.bf16 %k, %h, %i; cvt.u32.u16 %d, %k;";
    check_on(&grid(BFLOATS), body, |a, b, _| if bfloat(a) <= bfloat(b) { 0x3f80 } else { 0 });
}

#[test]
fn selections_take_the_first_where_the_predicate_holds() {
    let values = grid(EDGES);
    let odd = "and.b32 %e, %c, 1; setp.ne.u32 %p, %e, 0;";
    for (negated, sign) in [(false, ""), (true, "!")] {
        let first = move |c: u64| (c & 1 != 0) != negated;
        let body = format!("{odd} selp.b16 %k, %h, %i, {sign}%p; cvt.u32.u16 %d, %k;");
        check_on(&values, &body, |a, b, c| (if first(c) { a } else { b }) & 0xffff);
        let body = format!("{odd} selp.f32 %d, %a, %b, {sign}%p;");
        check_on(&values, &body, |a, b, c| (if first(c) { a } else { b }) & 0xffff_ffff);
        let body = format!("{odd} selp.b64 %D, %A, %B, {sign}%p;");
        check_on(&values, &body, |a, b, c| if first(c) { a } else { b });
    }
    check("slct.u64.s32 %D, %A, %B, %c;", |a, b, c| if c as i32 >= 0 { a } else { b });
    // The third operand is at its edges: −0 is not negative, and NaN is not at least 0.
    let [a, b, _] = grid(SINGLES);
    let values = [b.clone(), b, a];
    let single = |bits: u64| f32::from_bits(bits as u32);
    check_on(&values, "not.b32 %b, %a; slct.b32.f32 %d, %a, %b, %c;", |a, _, c| {
        u64::from(if single(c) >= 0.0 { a as u32 } else { !a as u32 })
    });
    check_on(&values, "not.b64 %B, %A; slct.b64.f32 %D, %A, %B, %c;", |a, _, c| if single(c) >= 0.0 { a } else { !a });
    // Flushed, a small negative number is −0.
    check_on(&values, "not.b32 %b, %a; slct.ftz.b32.f32 %d, %a, %b, %c;", |a, _, c| {
        let c = if single(c).is_subnormal() { 0.0 } else { single(c) };
        u64::from(if c >= 0.0 { a as u32 } else { !a as u32 })
    });
}

/// The smaller of two, +0 being more than −0; NaN only if both are, or if `nan` says that one suffices.
fn smaller(a: f64, b: f64, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) => {
            if nan {
                f64::NAN
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                f64::NAN
            } else {
                a
            }
        }
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn larger(a: f64, b: f64, nan: bool) -> f64 {
    -smaller(-a, -b, nan)
}

#[test]
fn the_smaller_and_the_larger_of_floats() {
    for (ty, values, [a, b], value) in KINDS {
        for (operation, f) in [("min", smaller as fn(f64, f64, bool) -> f64), ("max", larger)] {
            for nan in if ty == "f64" { &[false][..] } else { &[false, true] } {
                let (d, wide) = match ty {
                    "f32" => ("%d", ""),
                    "f64" => ("%D", ""),
                    _ => ("%k", "cvt.u32.u16 %d, %k;"),
                };
                let word = if *nan { ".NaN" } else { "" };
                // NaNs differ in bits that mean nothing: they are made one.
                let one = match ty {
                    "f64" => "setp.nan.f64 %p, %D, %D; @%p mov.b64 %D, 0x7ff8000000000000;",
                    "f32" => "setp.nan.f32 %p, %d, %d; @%p mov.b32 %d, 0x7fc00000;",
                    "f16" => "setp.nan.f16 %p, %k, %k; @%p mov.b16 %k, 0x7e00;",
                    _ => "setp.nan.bf16 %p, %k, %k; @%p mov.b16 %k, 0x7fc0;",
                };
                let body = format!("{operation}{word}.{ty} {d}, {a}, {b}; {one} {wide}");
                check_on(&grid(values), &body, |a, b, _| {
                    let expected = f(value(a), value(b), *nan);
                    match ty {
                        "f32" if expected.is_nan() => 0x7fc0_0000,
                        "f32" => (expected as f32).to_bits().into(),
                        "f64" if expected.is_nan() => 0x7ff8_0000_0000_0000,
                        "f64" => expected.to_bits(),
                        "f16" if expected.is_nan() => 0x7e00,
                        "f16" => f16::from_f64(expected).to_bits().into(),
                        _ if expected.is_nan() => 0x7fc0,
                        _ => bf16::from_f64(expected).to_bits().into(),
                    }
                });
            }
        }
    }
}

#[test]
fn pairs_of_halves_are_compared_each_for_itself() {
    // With one NaN: which of two comes out means nothing.
    let mut values = HALVES;
    values[10] = values[9];
    let [low, high, c] = grid(values);
    let pairs: Vec<u64> = low.iter().zip(&high).map(|(low, high)| low | high << 16).collect();
    let turned: Vec<u64> = low.iter().zip(&high).map(|(low, high)| high | low << 16).collect();
    let half = |bits: u64| f64::from(f16::from_bits(bits as u16));
    for (operation, f) in [("min", smaller as fn(f64, f64, bool) -> f64), ("max", larger)] {
        let body = format!("{operation}.f16x2 %d, %a, %b;");
        check_on(&[pairs.clone(), turned.clone(), c.clone()], &body, |a, b, _| {
            let of = |a: u64, b: u64| {
                let expected = f(half(a), half(b), false);
                if expected.is_nan() { 0x7e00 } else { u64::from(f16::from_f64(expected).to_bits()) }
            };
            let (low, high) = (of(a, b), of(a >> 16, b >> 16));
            low | high << 16
        });
    }
}
