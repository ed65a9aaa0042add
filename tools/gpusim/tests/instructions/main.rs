//! Instruction families against plain Rust: one instruction a kernel, on values chosen to be awkward.

mod atomics;
mod comparisons;
mod conversions;
mod elementary;
mod integers;
mod lanes;
mod reductions;

use lanes::*;

#[test]
fn integer_arithmetic() {
    check32("add.s32 %d, %a, %b;", |a, b, _| a.wrapping_add(b));
    check32("sub.u32 %d, %a, %b;", |a, b, _| a.wrapping_sub(b));
    check32("mul.lo.s32 %d, %a, %b;", |a, b, _| a.wrapping_mul(b));
    check32("mul.hi.u32 %d, %a, %b;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check32("mul.hi.s32 %d, %a, %b;", |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    check32("mad.lo.u32 %d, %a, %b, %c;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check("mul.wide.s32 %D, %a, %b;", |a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check("mad.wide.u32 %D, %a, %b, %C;", |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c));
    check32("min.s32 %d, %a, %b;", |a, b, _| (a as i32).min(b as i32) as u32);
    check32("max.u32 %d, %a, %b;", |a, b, _| a.max(b));
    check32("abs.s32 %d, %a;", |a, _, _| (a as i32).wrapping_abs() as u32);
    check32("or.b32 %e, %b, 1; div.s32 %d, %a, %e;", |a, b, _| (a as i32).wrapping_div((b | 1) as i32) as u32);
    check32("or.b32 %e, %b, 1; rem.u32 %d, %a, %e;", |a, b, _| a % (b | 1));
    check32("add.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check32("sad.s32 %d, %a, %b, %c;", |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
    check("sub.s64 %D, %A, %B;", |a, b, _| a.wrapping_sub(b));
    check("mul.hi.u64 %D, %A, %B;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64);
}

#[test]
fn carries_pass_from_word_to_word() {
    let body = "add.cc.u32 %d, %a, %b; addc.u32 %e, 0, 0; cvt.u64.u32 %D, %e; shl.b64 %D, %D, 32;";
    check(body, |a, b, _| u64::from(a as u32) + u64::from(b as u32));
    let body = "sub.cc.u32 %d, %a, %b; subc.u32 %e, 0, 0; cvt.u64.u32 %D, %e; shl.b64 %D, %D, 32;";
    check(body, |a, b, _| u64::from(a as u32).wrapping_sub(u64::from(b as u32)));
}

#[test]
fn bits() {
    check32("shl.b32 %d, %a, %b;", |a, b, _| a.checked_shl(b).unwrap_or(0));
    check32("shr.s32 %d, %a, %b;", |a, b, _| ((a as i32) >> b.min(31)) as u32);
    check("shr.u64 %D, %A, %b;", |a, b, _| a.checked_shr(b as u32).unwrap_or(0));
    check32("shf.l.wrap.b32 %d, %a, %b, %c;", |a, b, c| ((u64::from(b) << 32 | u64::from(a)) << (c & 31) >> 32) as u32);
    check32("lop3.b32 %d, %a, %b, %c, 0xe8;", |a, b, c| a & b | a & c | b & c);
    check32("lop3.b32 %d, %a, %b, %c, 0x96;", |a, b, c| a ^ b ^ c);
    check32("prmt.b32 %d, %a, %b, 0x7531;", |a, b, _| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        u32::from_le_bytes([a[1], a[3], b[1], b[3]])
    });
    check32("and.b32 %b, %b, 31; bfe.u32 %d, %a, %b, 5;", |a, b, _| a >> (b & 31) & 31);
    check32("bfe.s32 %d, %a, 8, 8;", |a, _, _| i32::from((a >> 8) as i8) as u32);
    check32("bfi.b32 %d, %a, %b, 4, 8;", |a, b, _| b & !0xff0 | a << 4 & 0xff0);
    check32("popc.b32 %d, %a;", |a, _, _| a.count_ones());
    check("clz.b64 %d, %A;", |a, _, _| a.leading_zeros().into());
    check32("brev.b32 %d, %a;", |a, _, _| a.reverse_bits());
    check32("bfind.u32 %d, %a;", |a, _, _| 31u32.wrapping_sub(a.leading_zeros()));
    check32("not.b32 %d, %a;", |a, _, _| !a);
    check32("cnot.b32 %d, %a;", |a, _, _| u32::from(a == 0));
}

#[test]
fn singles() {
    check_single("add.rn.f32 %d, %a, %b;", |a, b, _| a + b);
    check_single("sub.f32 %d, %a, %b;", |a, b, _| a - b);
    check_single("mul.f32 %d, %a, %b;", |a, b, _| a * b);
    check_single("fma.rn.f32 %d, %a, %b, %c;", f32::mul_add);
    check_single("div.rn.f32 %d, %a, %b;", |a, b, _| a / b);
    check_single("sqrt.rn.f32 %d, %a;", |a, _, _| a.sqrt());
    check_single("neg.f32 %d, %a;", |a, _, _| -a);
    check_single("abs.f32 %d, %a;", |a, _, _| a.abs());
    check_single("min.f32 %d, %a, 0f3F800000;", |a, _, _| if a.is_nan() { 1.0 } else { a.min(1.0) });
    check_single("max.NaN.f32 %d, %a, 0f00000000;", |a, _, _| if a > 0.0 || a.is_nan() { a } else { 0.0 });
    check_single("add.sat.f32 %d, %a, %b;", |a, b, _| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 });
    let flush = |x: f32| {
        if x.is_subnormal() { 0f32.copysign(x) } else { x }
    };
    check_single("add.ftz.f32 %d, %a, %b;", |a, b, _| flush(flush(a) + flush(b)));
    check_single("ex2.approx.f32 %d, %a;", |a, _, _| a.exp2());
    check_single("copysign.f32 %d, %a, %b;", |a, b, _| b.copysign(a));
}

#[test]
fn rounding_up_and_down_encloses_the_exact_sum() {
    let (a, b, c) = (awkward(7), awkward(8), awkward(9));
    let down = run("fma.rm.f32 %d, %a, %b, %c;", &a, &b, &c).unwrap();
    let up = run("fma.rp.f32 %d, %a, %b, %c;", &a, &b, &c).unwrap();
    let near = run("fma.rn.f32 %d, %a, %b, %c;", &a, &b, &c).unwrap();
    let single = |bits: u64| f32::from_bits(bits as u32);
    for lane in 0..LANES {
        let (down, near, up) = (single(down[lane]), single(near[lane]), single(up[lane]));
        if !near.is_nan() {
            assert!(down <= near && near <= up, "{down} {near} {up}");
            assert!(down == up || down.next_up() == up, "{down} {up} are neighbours");
        }
    }
}

#[test]
fn doubles() {
    let double = f64::from_bits;
    check("and.b64 %A, %A, 0x7fefffffffffffff; add.f64 %D, %A, 0d3FF0000000000000;", |a, _, _| {
        (double(a & 0x7fef_ffff_ffff_ffff) + 1.0).to_bits()
    });
    check("and.b64 %A, %A, 0x7fefffffffffffff; sqrt.rn.f64 %D, %A;", |a, _, _| {
        double(a & 0x7fef_ffff_ffff_ffff).sqrt().to_bits()
    });
    // Of both signs, and never NaN.
    let number = |a: u64| double(a & 0xffef_ffff_ffff_ffff);
    for (instruction, expected) in [
        ("neg.f64 %D, %A;", (|a| -a) as fn(f64) -> f64),
        ("abs.f64 %D, %A;", |a| a.abs()),
        ("sub.f64 %D, %A, 0d3FF0000000000000;", |a| a - 1.0),
        ("mul.f64 %D, %A, 0d4008000000000000;", |a| a * 3.0),
        ("div.rn.f64 %D, %A, 0d4008000000000000;", |a| a / 3.0),
        ("min.f64 %D, %A, 0d3FF0000000000000;", |a| a.min(1.0)),
        ("max.f64 %D, %A, 0d3FF0000000000000;", |a| a.max(1.0)),
    ] {
        let body = format!("and.b64 %A, %A, 0xffefffffffffffff; {instruction}");
        check(&body, move |a, _, _| expected(number(a)).to_bits());
    }
}

#[test]
fn comparisons_and_selections() {
    check32("setp.lt.s32 %p, %a, %b; selp.b32 %d, %a, %b, %p;", |a, b, _| (a as i32).min(b as i32) as u32);
    check32("setp.hi.u32 %p, %a, %b; selp.u32 %d, 1, 0, %p;", |a, b, _| u32::from(a > b));
    check32("setp.ge.f32 %p|%q, %a, %b; selp.u32 %d, 1, 0, %q;", |a, b, _| {
        u32::from(f32::from_bits(a).partial_cmp(&f32::from_bits(b)).is_none_or(|order| order.is_lt()))
    });
    check32("setp.neu.f32 %p, %a, %a; selp.u32 %d, 1, 0, %p;", |a, _, _| u32::from(f32::from_bits(a).is_nan()));
    check32("setp.ne.u32 %q, %c, 0; setp.eq.and.u32 %p, %a, %b, !%q; selp.u32 %d, 1, 0, %p;", |a, b, c| {
        u32::from(a == b && c == 0)
    });
    check32("set.lt.u32.s32 %d, %a, %b;", |a, b, _| if (a as i32) < b as i32 { u32::MAX } else { 0 });
    check32("slct.u32.s32 %d, %a, %b, %c;", |a, b, c| if c as i32 >= 0 { a } else { b });
    check32("setp.gt.u32 %p, %a, %b; @%p add.u32 %d, %a, 1; @!%p add.u32 %d, %b, 2;", |a, b, _| {
        if a > b { a.wrapping_add(1) } else { b.wrapping_add(2) }
    });
}

#[test]
fn conversions() {
    let single = f32::from_bits;
    check32("cvt.rzi.s32.f32 %d, %a;", |a, _, _| single(a) as i32 as u32);
    check32("cvt.rni.u32.f32 %d, %a;", |a, _, _| single(a).round_ties_even() as u32);
    check32("cvt.rn.f32.s32 %d, %a;", |a, _, _| (a as i32 as f32).to_bits());
    check("cvt.rn.f32.u64 %d, %A;", |a, _, _| (a as f32).to_bits().into());
    check("cvt.s64.s32 %D, %a;", |a, _, _| i64::from(a as i32) as u64);
    check32("cvt.s32.s8 %d, %a;", |a, _, _| i32::from(a as i8) as u32);
    check32("cvt.sat.u8.s32 %d, %a;", |a, _, _| (a as i32).clamp(0, 255) as u32);
    check("and.b32 %a, %a, 0xbfffffff; cvt.f64.f32 %D, %a;", |a, _, _| {
        f64::from(single(a as u32 & 0xbfff_ffff)).to_bits()
    });
    check32("and.b32 %a, %a, 0x3fffffff; cvt.rn.f16.f32 %k, %a; cvt.u32.u16 %d, %k;", |a, _, _| {
        half::f16::from_f32(single(a & 0x3fff_ffff)).to_bits().into()
    });
    check32("and.b32 %a, %a, 0x3fffffff; and.b32 %b, %b, 0x3fffffff; cvt.rn.bf16x2.f32 %d, %a, %b;", |a, b, _| {
        let bits = |x: u32| u32::from(half::bf16::from_f32(single(x & 0x3fff_ffff)).to_bits());
        bits(a) << 16 | bits(b)
    });
}

#[test]
fn halves_in_pairs() {
    let f = |bits: u32| half::f16::from_bits(bits as u16 & 0x3fff).to_f32();
    let mask = "and.b32 %a, %a, 0x3fff3fff; and.b32 %b, %b, 0x3fff3fff; and.b32 %c, %c, 0x3fff3fff;";
    let both = |f: &dyn Fn(u32, u32, u32) -> f32, a: u32, b: u32, c: u32| {
        let half = |shift: u32| u32::from(half::f16::from_f32(f(a >> shift, b >> shift, c >> shift)).to_bits());
        half(16) << 16 | half(0)
    };
    check32(&format!("{mask} add.f16x2 %d, %a, %b;"), |a, b, c| both(&|a, b, _| f(a) + f(b), a, b, c));
    check32(&format!("{mask} mul.f16x2 %d, %a, %b;"), |a, b, c| both(&|a, b, _| f(a) * f(b), a, b, c));
    check32(&format!("{mask} max.f16x2 %d, %a, %b;"), |a, b, c| both(&|a, b, _| f(a).max(f(b)), a, b, c));

    // Of either sign, and of so few digits that a sum is either rounded far from a tie or not at all.
    let f = |bits: u32| f64::from(half::f16::from_bits(bits as u16 & 0xbf80));
    let mask = "and.b32 %a, %a, 0xbf80bf80; and.b32 %b, %b, 0xbf80bf80; and.b32 %c, %c, 0xbf80bf80;";
    for (word, is_clipped) in [("rn", false), ("rn.relu", true)] {
        check32(&format!("{mask} fma.{word}.f16x2 %d, %a, %b, %c;"), |a, b, c| {
            let half = |shift: u32| {
                let sum = f(a >> shift) * f(b >> shift) + f(c >> shift);
                u32::from(half::f16::from_f64(if is_clipped && sum <= 0.0 { 0.0 } else { sum }).to_bits())
            };
            half(16) << 16 | half(0)
        });
    }
}

#[test]
fn moves_pack_and_unpack() {
    check("mov.b64 %D, {%b, %a};", |a, b, _| u64::from(a as u32) << 32 | u64::from(b as u32));
    check("mov.b64 {%e, %d}, %A;", |a, _, _| a >> 32);
}

#[test]
fn what_is_unknown_is_named() {
    let values = awkward(1);
    let error = run("tex.1d.v4.f32.s32 {%a, %b, %c, %d}, [%A, {%e}];", &values, &values, &values).unwrap_err();
    assert!(error.to_string().contains("`tex.1d.v4.f32.s32` is not supported"), "{error}");
    let error = run("add.frob.f32 %a, %b, %c;", &values, &values, &values).unwrap_err();
    assert!(error.to_string().contains("`add.frob.f32` is not supported"), "{error}");
    let error = run("add.s32 %a, %nowhere, 1;", &values, &values, &values).unwrap_err();
    assert!(error.to_string().contains("`%nowhere` is not declared"), "{error}");
}
