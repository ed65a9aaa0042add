//! `atom` and `red`: old and new values at the edges of their types, in every space, and many lanes at one place.

use super::{EDGES, LANES, check_on, grid, run};

/// The places that a lane has for itself: by space, and the register with the address.
const PLACES: [(&str, &str, &str); 3] = [
    (".global", "%out", ""),
    (".shared", "%in", ".shared .align 8 .b64 cells[128]; mov.u64 %in, cells; add.u64 %in, %in, %off;"),
    ("", "%out", ""),
];

/// `operation`, of 32 bits, makes `new` of a, b and c; `red` as well unless it is one that must return the old value.
fn words(operation: &str, new: impl Fn(u32, u32, u32) -> u32) {
    let values = grid(EDGES);
    let third = if operation.starts_with("cas") { ", %c" } else { "" };
    for (space, at, before) in PLACES {
        let look = format!("ld{space}.b32 %e, [{at}]; cvt.u64.u32 %D, %e; shl.b64 %D, %D, 32;");
        let body = format!("{before} st{space}.b32 [{at}], %a; atom{space}.{operation} %d, [{at}], %b{third}; {look}");
        check_on(&values, &body, |a, b, c| u64::from(new(a as u32, b as u32, c as u32)) << 32 | u64::from(a as u32));
        if !operation.starts_with("cas") && !operation.starts_with("exch") {
            let body = format!("{before} st{space}.b32 [{at}], %a; red{space}.{operation} [{at}], %b; {look}");
            check_on(&values, &body, |a, b, c| u64::from(new(a as u32, b as u32, c as u32)) << 32);
        }
    }
}

/// As [`words`], for operations of 64 bits.
fn longs(operation: &str, new: impl Fn(u64, u64, u64) -> u64) {
    let values = grid(EDGES);
    let third = if operation.starts_with("cas") { ", %C" } else { "" };
    for (space, at, before) in PLACES {
        let begin = format!("{before} st{space}.b64 [{at}], %A;");
        let atom = format!("{begin} atom{space}.{operation} %D, [{at}], %B{third};");
        check_on(&values, &atom, |a, _, _| a);
        check_on(&values, &format!("{atom} ld{space}.b64 %D, [{at}];"), &new);
        if !operation.starts_with("cas") && !operation.starts_with("exch") {
            check_on(&values, &format!("{begin} red{space}.{operation} [{at}], %B; ld{space}.b64 %D, [{at}];"), &new);
        }
    }
}

#[test]
fn sums_wrap() {
    words("add.u32", |a, b, _| a.wrapping_add(b));
    words("add.s32", |a, b, _| a.wrapping_add(b));
    longs("add.u64", |a, b, _| a.wrapping_add(b));
}

#[test]
fn the_smaller_and_the_larger_are_those_of_the_type() {
    words("min.u32", |a, b, _| if a < b { a } else { b });
    words("max.u32", |a, b, _| if a > b { a } else { b });
    words("min.s32", |a, b, _| if (a as i32) < b as i32 { a } else { b });
    words("max.s32", |a, b, _| if a as i32 > b as i32 { a } else { b });
    longs("min.u64", |a, b, _| if a < b { a } else { b });
    longs("max.u64", |a, b, _| if a > b { a } else { b });
    longs("min.s64", |a, b, _| if (a as i64) < b as i64 { a } else { b });
    longs("max.s64", |a, b, _| if a as i64 > b as i64 { a } else { b });
}

#[test]
fn counters_wrap_at_their_limit() {
    words("inc.u32", |a, b, _| if a >= b { 0 } else { a + 1 });
    words("dec.u32", |a, b, _| if a == 0 || a > b { b } else { a - 1 });
}

#[test]
fn bits_are_combined() {
    words("and.b32", |a, b, _| a & b);
    words("or.b32", |a, b, _| a | b);
    words("xor.b32", |a, b, _| a ^ b);
    longs("and.b64", |a, b, _| a & b);
    longs("or.b64", |a, b, _| a | b);
    longs("xor.b64", |a, b, _| a ^ b);
}

#[test]
fn values_are_exchanged_if_they_are_as_expected() {
    words("exch.b32", |_, b, _| b);
    longs("exch.b64", |_, b, _| b);
    for ty in ["b32", "u32", "s32"] {
        words(&format!("cas.{ty}"), |a, b, c| if a == b { c } else { a });
    }
    for ty in ["b64", "u64", "s64"] {
        longs(&format!("cas.{ty}"), |a, b, c| if a == b { c } else { a });
    }
    // Sixteen bits, between neighbours that stay as they are.
    let body = "st.global.b64 [%out], %A; atom.global.cas.b16 %k, [%out+2], %i, %j; \
                cvt.u32.u16 %e, %k; ld.global.b64 %D, [%out]; cvt.u64.u32 %B, %e; xor.b64 %D, %D, %B;";
    check_on(&grid(EDGES), body, |a, b, c| {
        let old = (a >> 16) as u16;
        let new = if old == b as u16 { c as u16 } else { old };
        (a & !0xffff_0000 | u64::from(new) << 16) ^ u64::from(old)
    });
}

#[test]
fn a_carry_never_reaches_the_neighbour() {
    let body = "st.global.b64 [%out], %A; red.global.add.u32 [%out], %b; ld.global.b64 %D, [%out];";
    check_on(&grid(EDGES), body, |a, b, _| a & !0xffff_ffff | u64::from((a as u32).wrapping_add(b as u32)));
    let body = "st.global.b64 [%out], %A; red.global.max.s32 [%out+4], %b; ld.global.b64 %D, [%out];";
    check_on(&grid(EDGES), body, |a, b, _| {
        let high = ((a >> 32) as i32).max(b as i32) as u32;
        a & 0xffff_ffff | u64::from(high) << 32
    });
}

/// What every lane got back from `operation` at one place that held `first`, and what is there in the end.
fn together(operation: &str, first: u32) -> (Vec<u32>, u32) {
    let body = format!(
        ".shared .align 8 .b32 cell; setp.eq.u32 %p, %t, 0; @%p st.shared.u32 [cell], {first}; bar.sync 0; \
         atom.shared.{operation}; bar.sync 0; ld.shared.u32 %e, [cell]; cvt.u64.u32 %D, %e; shl.b64 %D, %D, 32;"
    );
    let lanes: Vec<u64> = (0..LANES as u64).collect();
    let found = run(&body, &lanes, &lanes, &lanes).unwrap();
    let (mut old, last) = (found.iter().map(|&both| both as u32).collect::<Vec<_>>(), (found[0] >> 32) as u32);
    assert!(found.iter().all(|&both| (both >> 32) as u32 == last));
    old.sort_unstable();
    (old, last)
}

#[test]
fn lanes_at_one_place_take_turns() {
    let counted = |first: u32, step: u32| (0..LANES as u32).map(move |i| first.wrapping_add(i * step));
    let (old, last) = together("add.u32 %d, [cell], 3", u32::MAX - 100);
    let mut expected: Vec<u32> = counted(u32::MAX - 100, 3).collect();
    expected.sort_unstable();
    assert_eq!((old, last), (expected, (u32::MAX - 100).wrapping_add(3 * 128)));
    // Twelve rounds of ten, and eight.
    let (old, last) = together("inc.u32 %d, [cell], 9", 0);
    let mut expected: Vec<u32> = (0..128).map(|i| i % 10).collect();
    expected.sort_unstable();
    assert_eq!((old, last), (expected, 8));
    // One finds the place free.
    let (old, last) = together("cas.b32 %d, [cell], 1000, %a", 1000);
    assert_eq!(old.iter().filter(|&&found| found == 1000).count(), 1);
    assert!(last < 128 && old.iter().all(|&found| found == 1000 || found == last));
    // Each gets what another has left.
    let (mut old, last) = together("exch.b32 %d, [cell], %a", 1000);
    old.push(last);
    old.sort_unstable();
    assert_eq!(old, (0..128).chain([1000]).collect::<Vec<u32>>());
}

#[test]
fn floats_are_added_and_compared() {
    use half::{bf16, f16};
    let single = |bits: u64| f32::from_bits(bits as u32);
    // Small whole numbers: their sums are exact in every type.
    let values = |one: fn(f32) -> u64| grid([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89].map(|n| one(n as f32 - 20.0)));
    let body = "st.global.b32 [%out], %a; atom.global.add.f32 %d, [%out], %b; ld.global.b32 %d, [%out];";
    check_on(&values(|x| x.to_bits().into()), body, |a, b, _| (single(a) + single(b)).to_bits().into());
    let body = "st.global.b64 [%out], %A; atom.global.add.f64 %D, [%out], %B; ld.global.b64 %D, [%out];";
    let double = f64::from_bits;
    check_on(&values(|x| f64::from(x).to_bits()), body, |a, b, _| (double(a) + double(b)).to_bits());
    type Half = (&'static str, fn(f32) -> u16, fn(u16) -> f32);
    let halves: [Half; 2] = [
        ("f16", |x| f16::from_f32(x).to_bits(), |bits| f16::from_bits(bits).to_f32()),
        ("bf16", |x| bf16::from_f32(x).to_bits(), |bits| bf16::from_bits(bits).to_f32()),
    ];
    type OnFloats = (&'static str, fn(f32, f32) -> f32);
    let operations: [OnFloats; 3] = [
        ("add.noftz", |a, b| a + b),
        ("min.noftz", |a, b| if a < b { a } else { b }),
        ("max.noftz", |a, b| if a > b { a } else { b }),
    ];
    for (ty, bits, value) in halves {
        for (operation, f) in operations {
            let of = |a: u64, b: u64| u64::from(bits(f(value(a as u16), value(b as u16))));
            let one = |x: f32| u64::from(f16::from_f32(x).to_bits()) | u64::from(bf16::from_f32(-x).to_bits()) << 16;
            let numbers = grid([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89].map(|n| match ty {
                "f16" => u64::from(bits(n as f32 - 20.0)) | u64::from(bits(7.0 - n as f32)) << 16,
                _ => one(n as f32 - 20.0) >> 16 | u64::from(bits(7.0 - n as f32)) << 16,
            }));
            let body = format!(
                "st.global.b32 [%out], %a; atom.global.{operation}.{ty} %k, [%out], %i; ld.global.b16 %k, [%out]; cvt.u32.u16 %d, %k;"
            );
            check_on(&numbers, &body, |a, b, _| of(a, b));
            let body = format!(
                "st.global.b32 [%out], %a; red.global.{operation}.{ty}x2 [%out], %b; ld.global.b32 %d, [%out];"
            );
            check_on(&numbers, &body, |a, b, _| of(a, b) | of(a >> 16, b >> 16) << 16);
        }
    }
}

#[test]
fn each_element_of_a_vector_goes_to_its_own_place() {
    let bits = |value: f32| u64::from(value.to_bits());
    let lanes = |f: &dyn Fn(usize) -> u64| (0..LANES).map(f).collect::<Vec<u64>>();
    let place = lanes(&|lane| bits(lane as f32) | bits(1000.0 + lane as f32) << 32);
    let values = [place, lanes(&|lane| bits(2.0 * lane as f32)), lanes(&|lane| bits(0.5 * lane as f32))];
    let single = |bits: u64| f32::from_bits(bits as u32);
    let sums = |a: u64, b: u64, c: u64| bits(single(a) + single(b)) | bits(single(a >> 32) + single(c)) << 32;
    let begin = "st.global.b64 [%out], %A;";
    let atom = "atom.global.add.v2.f32 {%d, %e}, [%out], {%b, %c};";
    check_on(&values, &format!("{begin} red.global.add.v2.f32 [%out], {{%b, %c}}; ld.global.b64 %D, [%out];"), sums);
    check_on(&values, &format!("{begin} {atom} mov.b32 %d, 0; ld.global.b64 %D, [%out];"), sums);
    check_on(&values, &format!("{begin} {atom} mov.b64 %D, {{%d, %e}}; mov.b32 %d, 0;"), |a, _, _| a);
}
