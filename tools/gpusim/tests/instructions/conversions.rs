//! `cvt` between all types, at the edges and in every rounding.

use super::{EDGES, LANES, check_on, grid, run};
use half::{bf16, f16};

/// The integers: name, bits, whether signed.
const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

/// The register that holds a value of so many bits: of a as it is read, of a result, and what brings that into %D.
fn registers(bits: u32) -> (&'static str, &'static str, &'static str) {
    match bits {
        8 | 16 => ("%h", "%k", "cvt.u32.u16 %d, %k;"),
        32 => ("%a", "%d", ""),
        _ => ("%A", "%D", ""),
    }
}

/// The number that the low bits are.
fn number(value: u64, bits: u32, signed: bool) -> i128 {
    let low = i128::from(value) & ((1 << bits) - 1);
    if signed && low >> (bits - 1) != 0 { low - (1 << bits) } else { low }
}

/// What a register of at least 16 bits holds of a number: its low bits, extended by its sign.
fn held(value: i128, bits: u32, signed: bool) -> u64 {
    let low = number(value as u64, bits, signed);
    low as u64 & (u64::MAX >> (64 - bits.max(16)))
}

fn clamped(value: i128, bits: u32, signed: bool) -> i128 {
    let (low, high) = if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    value.clamp(low, high)
}

#[test]
fn integers_become_integers() {
    for (from, from_bits, from_signed) in INTEGERS {
        for (to, to_bits, to_signed) in INTEGERS {
            let ((source, ..), (_, target, after)) = (registers(from_bits), registers(to_bits));
            let read = |a: u64| number(a, from_bits, from_signed);
            let body = format!("cvt.{to}.{from} {target}, {source}; {after}");
            check_on(&grid(EDGES), &body, |a, _, _| held(read(a), to_bits, to_signed));
            let body = format!("cvt.sat.{to}.{from} {target}, {source}; {after}");
            check_on(&grid(EDGES), &body, |a, _, _| held(clamped(read(a), to_bits, to_signed), to_bits, to_signed));
        }
    }
}

/// Singles around whole numbers, halves, and the ends of the integer types.
fn reals() -> Vec<f64> {
    let near = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 126.5, 127.5, 128.0, 255.5, 256.0, 32767.5, 65535.5, 1e5];
    let ends = [31, 32, 63, 64].into_iter().flat_map(|power| {
        let end = 2f64.powi(power);
        [end, end * 0.75, end * (1.0 - 2f64.powi(-24)), end * 1.5]
    });
    let values = near.into_iter().chain(ends).chain([f64::INFINITY, f64::from(f32::MAX), 1e-40]);
    values.flat_map(|value| [value, -value]).chain([f64::NAN]).collect()
}

#[test]
fn floats_become_integers_in_every_rounding() {
    type Round = (&'static str, fn(f64) -> f64);
    let roundings: [Round; 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    type Source = (&'static str, &'static str, fn(f64) -> u64, fn(u64) -> f64);
    let sources: [Source; 4] = [
        ("f16", "%h", |x| f16::from_f64(x).to_bits().into(), |bits| f16::from_bits(bits as u16).to_f64()),
        ("bf16", "%h", |x| bf16::from_f64(x).to_bits().into(), |bits| bf16::from_bits(bits as u16).to_f64()),
        ("f32", "%a", |x| (x as f32).to_bits().into(), |bits| f32::from_bits(bits as u32).into()),
        ("f64", "%A", f64::to_bits, f64::from_bits),
    ];
    for (from, source, bits, value) in sources {
        let mut values: Vec<u64> = reals().into_iter().map(bits).collect();
        values.resize(LANES, 0);
        let values = [values.clone(), values.clone(), values];
        for (to, to_bits, to_signed) in INTEGERS {
            for (word, round) in roundings {
                let (_, target, after) = registers(to_bits);
                let body = format!("cvt.{word}.{to}.{from} {target}, {source}; {after}");
                check_on(&values, &body, |a, _, _| {
                    let value = round(value(a));
                    // Beyond the ends it is cut off there; no number is 0.
                    let whole = if value.is_nan() { 0 } else { value.clamp(-2e19, 2e19) as i128 };
                    held(clamped(whole, to_bits, to_signed), to_bits, to_signed)
                });
            }
        }
    }
}

/// The results of `cvt.WORD.TO.FROM` for rounding to nearest, to zero, down and up.
fn four_ways(to: &str, from: &str, values: &[u64], [source, target, after]: [&str; 3]) -> [Vec<u64>; 4] {
    ["rn", "rz", "rm", "rp"].map(|word| {
        let body = format!("cvt.{word}.{to}.{from} {target}, {source}; {after}");
        run(&body, values, values, values).unwrap_or_else(|error| panic!("{body}: {error}"))
    })
}

/// `low` and `high` are the neighbours that enclose the exact value, or both are it; the nearer one, on a tie that with an even last
/// bit, is `near`, and the one towards zero is `cut`.
fn encloses(
    what: &str,
    [near, cut, low, high]: [(u64, f64); 4],
    cmp: impl Fn(f64) -> std::cmp::Ordering,
    is_low_nearer: Option<bool>,
) {
    use std::cmp::Ordering::{Equal, Greater, Less};
    // Each is compared with the exact value.
    assert!(cmp(low.1) != Greater && cmp(high.1) != Less, "{what}: {low:?} {high:?}");
    if cmp(low.1) == Equal || cmp(high.1) == Equal {
        assert!(
            low.1 == high.1 && near.1 == low.1 && cut.1 == low.1,
            "{what} is exact: {near:?} {cut:?} {low:?} {high:?}"
        );
        return;
    }
    assert_eq!(low.0.abs_diff(high.0), 1, "{what}: {low:?} and {high:?} are neighbours");
    assert_eq!(cut, if low.1 >= 0.0 { low } else { high }, "{what} towards zero");
    let even = if low.0.is_multiple_of(2) { low } else { high };
    assert_eq!(near, is_low_nearer.map_or(even, |is_low| if is_low { low } else { high }), "{what} to nearest");
}

#[test]
fn integers_become_floats_rounded_once() {
    let mut values = EDGES.to_vec();
    values.extend((0..LANES as u64 - 11).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 50)));
    // Ties, and what lies just beside them.
    values.truncate(LANES - 6);
    values.extend([
        (1 << 60) + (1 << 36),
        (1 << 60) + (1 << 36) + 1,
        (1 << 60) + (3 << 36),
        (1 << 24) + 1,
        (1 << 25) + 6,
        1 << 63 | 1,
    ]);
    for (from, bits, signed) in INTEGERS.into_iter().filter(|(_, bits, _)| *bits >= 32) {
        let (source, ..) = registers(bits);
        for (to, target) in [("f32", "%d"), ("f64", "%D")] {
            let found = four_ways(to, from, &values, [source, target, ""]);
            for (lane, &value) in values.iter().enumerate() {
                let exact = number(value, bits, signed);
                let each = [0, 1, 2, 3].map(|way| {
                    let bits = found[way][lane];
                    (bits, if to == "f32" { f32::from_bits(bits as u32).into() } else { f64::from_bits(bits) })
                });
                let (low, high) = (each[2].1 as i128, each[3].1 as i128);
                let nearer = (exact - low).cmp(&(high - exact));
                let is_low = if nearer.is_eq() { None } else { Some(nearer.is_lt()) };
                encloses(&format!("{to} of {from} {exact}"), each, |found| (found as i128).cmp(&exact), is_low);
            }
        }
    }
}

#[test]
fn wide_floats_become_narrow_ones_in_every_rounding() {
    let mantissas = [
        1.0,
        1.1,
        1.5,
        1.0 + 2f64.powi(-24),
        1.0 + 2f64.powi(-11),
        1.0 + 2f64.powi(-8),
        1.0 + 3.0 * 2f64.powi(-24),
        1.999,
    ];
    // Normal numbers of f16 and all others, either sign.
    let values: Vec<f64> = (0..LANES)
        .map(|i| mantissas[i % 8] * 2f64.powi(i as i32 / 8 - 9) * if i % 3 == 0 { -1.0 } else { 1.0 })
        .collect();
    type Narrow = (&'static str, [&'static str; 3], fn(u64) -> f64);
    let narrow: [Narrow; 3] = [
        ("f32", ["%A", "%d", ""], |bits| f32::from_bits(bits as u32).into()),
        ("f16", ["%a", "%k", "cvt.u32.u16 %d, %k;"], |bits| f16::from_bits(bits as u16).to_f64()),
        ("bf16", ["%a", "%k", "cvt.u32.u16 %d, %k;"], |bits| bf16::from_bits(bits as u16).to_f64()),
    ];
    for (to, places, value) in narrow {
        let (from, bits): (&str, Vec<u64>) = match to {
            "f32" => ("f64", values.iter().map(|x| x.to_bits()).collect()),
            _ => ("f32", values.iter().map(|&x| (x as f32).to_bits().into()).collect()),
        };
        let found = four_ways(to, from, &bits, places);
        for (lane, &wide) in values.iter().enumerate() {
            let exact = if from == "f64" { wide } else { f64::from(wide as f32) };
            let each = [0, 1, 2, 3].map(|way| (found[way][lane], value(found[way][lane])));
            let (low, high) = (exact - each[2].1, each[3].1 - exact);
            let is_low = if low == high { None } else { Some(low < high) };
            encloses(&format!("{to} of {exact:e}"), each, |found| found.total_cmp(&exact), is_low);
        }
    }
}

/// Flushing, saturation and `relu`, on what is not ordinary.
#[test]
fn modifiers_of_conversions() {
    let odd = [0.0f32, -0.0, 0.3, -0.3, 1.0, 1.5, -1e-41, 1e-41, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let values = grid(odd.map(|value| value.to_bits().into()));
    let single = |bits: u64| f32::from_bits(bits as u32);
    // No number and what is below 0 become 0, what is above 1 becomes 1.
    let saturated = |value: f32| if value > 0.0 { value.min(1.0) } else { 0.0 };
    check_on(&values, "cvt.sat.f32.f32 %d, %a;", |a, _, _| saturated(single(a)).to_bits().into());
    let flushed = |value: f32| if value.is_subnormal() { 0f32.copysign(value) } else { value };
    check_on(&values, "setp.nan.f32 %p, %a, %a; @%p mov.b32 %a, 0; cvt.ftz.f32.f32 %d, %a;", |a, _, _| {
        let value = single(a);
        flushed(if value.is_nan() { 0.0 } else { value }).to_bits().into()
    });
    check_on(&values, "cvt.rpi.ftz.s32.f32 %d, %a;", |a, _, _| u64::from(flushed(single(a)).ceil() as i32 as u32));
    check_on(&values, "cvt.rpi.s32.f32 %d, %a;", |a, _, _| u64::from(single(a).ceil() as i32 as u32));
    let half = |value: f32| u64::from(f16::from_f32(value).to_bits());
    let bfloat = |value: f32| u64::from(bf16::from_f32(value).to_bits());
    let clipped = |value: f32| if value < 0.0 { 0.0 } else { value };
    // NaNs are put aside: which one comes out means nothing.
    let number = "setp.nan.f32 %p, %a, %a; @%p mov.b32 %a, 0; setp.nan.f32 %p, %b, %b; @%p mov.b32 %b, 0;";
    let kept = |bits: u64| if single(bits).is_nan() { 0.0 } else { single(bits) };
    let wide = "cvt.u32.u16 %d, %k;";
    check_on(&values, &format!("{number} cvt.rn.relu.f16.f32 %k, %a; {wide}"), |a, _, _| half(clipped(kept(a))));
    check_on(&values, &format!("{number} cvt.rn.relu.bf16.f32 %k, %a; {wide}"), |a, _, _| bfloat(clipped(kept(a))));
    check_on(&values, &format!("{number} cvt.rn.sat.f16.f32 %k, %a; {wide}"), |a, _, _| half(saturated(kept(a))));
    type Pairs<'a> = (&'a str, &'a dyn Fn(f32) -> u64);
    let cut = |value: f32| u64::from(value.to_bits() >> 16);
    let pairs: [Pairs; 5] = [
        ("rn.f16x2", &half),
        ("rn.bf16x2", &bfloat),
        ("rn.relu.f16x2", &|value| half(clipped(value))),
        ("rn.relu.bf16x2", &|value| bfloat(clipped(value))),
        ("rz.bf16x2", &cut),
    ];
    for (word, bits) in pairs {
        check_on(&values, &format!("{number} cvt.{word}.f32 %d, %a, %b;"), |a, b, _| {
            bits(kept(a)) << 16 | bits(kept(b))
        });
    }
}

/// Ten bits of mantissa are kept: ties go away from zero, or to the even one, or everything is cut off.
#[test]
fn singles_become_tf32() {
    let bits = [
        0x3f80_0000u64,
        0x3f80_0fff,
        0x3f80_1000,
        0x3f80_1001,
        0x3f80_2fff,
        0x3f80_3000,
        0xbf80_1000,
        0xbf80_3000,
        0x7f7f_ffff,
        0x0000_1000,
        0xff80_0000,
    ];
    let cut = |a: u64| a & 0xffff_e000;
    let (step, tie) = (0x2000, 0x1000);
    let up = |a: u64| if a & 0x7f80_0000 == 0x7f80_0000 { a } else { cut(a) + step };
    check_on(&grid(bits), "cvt.rna.tf32.f32 %d, %a;", |a, _, _| if a & 0x1fff >= tie { up(a) } else { cut(a) });
    check_on(&grid(bits), "cvt.rn.tf32.f32 %d, %a;", |a, _, _| match a & 0x1fff {
        0x1000 if a & step == 0 => cut(a),
        rest if rest >= tie => up(a),
        _ => cut(a),
    });
    check_on(&grid(bits), "cvt.rz.tf32.f32 %d, %a;", |a, _, _| cut(a));
}

#[test]
fn whole_numbers_as_floats() {
    type Round = (&'static str, fn(f64) -> f64);
    let roundings: [Round; 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    let mut values: Vec<f64> = reals().into_iter().filter(|value| !value.is_nan()).collect();
    values.resize(LANES, 0.0);
    for (word, round) in roundings {
        let bits: Vec<u64> = values.iter().map(|&value| (value as f32).to_bits().into()).collect();
        check_on(&[bits.clone(), bits.clone(), bits], &format!("cvt.{word}.f32.f32 %d, %a;"), |a, _, _| {
            (round(f32::from_bits(a as u32).into()) as f32).to_bits().into()
        });
        let bits: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
        check_on(&[bits.clone(), bits.clone(), bits], &format!("cvt.{word}.f64.f64 %D, %A;"), |a, _, _| {
            round(f64::from_bits(a)).to_bits()
        });
    }
}
