//! Integer arithmetic and bits in every width, at the edges of the types.

use super::{EDGES, awkward, check, check_on, grid};

/// As [`check`], on pairs of edges as well.
fn everywhere(body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    check_on(&grid(EDGES), body, &expected);
    check(body, expected);
}

/// As [`everywhere`], for a result of 16 bits in %k.
fn everywhere16(body: &str, expected: impl Fn(u16, u16, u16) -> u16) {
    everywhere(&format!("{body} cvt.u32.u16 %d, %k;"), |a, b, c| expected(a as u16, b as u16, c as u16).into());
}

fn everywhere32(body: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    everywhere(body, |a, b, c| expected(a as u32, b as u32, c as u32).into());
}

#[test]
fn sums_differences_and_their_limits() {
    everywhere16("add.s16 %k, %h, %i;", |a, b, _| a.wrapping_add(b));
    everywhere16("sub.u16 %k, %h, %i;", |a, b, _| a.wrapping_sub(b));
    everywhere32("sub.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_sub(b as i32) as u32);
    everywhere32("add.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    everywhere("add.u64 %D, %A, %B;", |a, b, _| a.wrapping_add(b));
    everywhere16("min.s16 %k, %h, %i;", |a, b, _| (a as i16).min(b as i16) as u16);
    everywhere16("max.s16 %k, %h, %i;", |a, b, _| (a as i16).max(b as i16) as u16);
    everywhere16("min.u16 %k, %h, %i;", |a, b, _| a.min(b));
    everywhere16("max.u16 %k, %h, %i;", |a, b, _| a.max(b));
    everywhere32("min.u32 %d, %a, %b;", |a, b, _| a.min(b));
    everywhere32("max.s32 %d, %a, %b;", |a, b, _| (a as i32).max(b as i32) as u32);
    everywhere("min.s64 %D, %A, %B;", |a, b, _| (a as i64).min(b as i64) as u64);
    everywhere("max.s64 %D, %A, %B;", |a, b, _| (a as i64).max(b as i64) as u64);
    everywhere("min.u64 %D, %A, %B;", |a, b, _| a.min(b));
    everywhere("max.u64 %D, %A, %B;", |a, b, _| a.max(b));
    everywhere16("neg.s16 %k, %h;", |a, _, _| a.wrapping_neg());
    everywhere16("abs.s16 %k, %h;", |a, _, _| (a as i16).wrapping_abs() as u16);
    everywhere32("neg.s32 %d, %a;", |a, _, _| a.wrapping_neg());
    everywhere("neg.s64 %D, %A;", |a, _, _| a.wrapping_neg());
    everywhere("abs.s64 %D, %A;", |a, _, _| (a as i64).wrapping_abs() as u64);
    everywhere32("sad.u32 %d, %a, %b, %c;", |a, b, c| a.abs_diff(b).wrapping_add(c));
    everywhere32("sad.s32 %d, %a, %b, %c;", |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
}

#[test]
fn pairs_of_sixteen_bits() {
    let both = |f: fn(u16, u16) -> u16| {
        move |a: u32, b: u32, _: u32| {
            u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
        }
    };
    everywhere32("add.u16x2 %d, %a, %b;", both(u16::wrapping_add));
    everywhere32("add.s16x2 %d, %a, %b;", both(u16::wrapping_add));
    everywhere32("min.u16x2 %d, %a, %b;", both(|a, b| a.min(b)));
    everywhere32("max.u16x2 %d, %a, %b;", both(|a, b| a.max(b)));
    everywhere32("min.s16x2 %d, %a, %b;", both(|a, b| (a as i16).min(b as i16) as u16));
    everywhere32("max.s16x2 %d, %a, %b;", both(|a, b| (a as i16).max(b as i16) as u16));
}

#[test]
fn quotients_and_remainders() {
    let odd = "or.b16 %i, %i, 1; or.b32 %b, %b, 1; or.b64 %B, %B, 1;";
    everywhere16(&format!("{odd} div.s16 %k, %h, %i;"), |a, b, _| (a as i16).wrapping_div((b | 1) as i16) as u16);
    everywhere16(&format!("{odd} rem.s16 %k, %h, %i;"), |a, b, _| (a as i16).wrapping_rem((b | 1) as i16) as u16);
    everywhere16(&format!("{odd} div.u16 %k, %h, %i;"), |a, b, _| a / (b | 1));
    everywhere16(&format!("{odd} rem.u16 %k, %h, %i;"), |a, b, _| a % (b | 1));
    everywhere32(&format!("{odd} div.s32 %d, %a, %b;"), |a, b, _| (a as i32).wrapping_div((b | 1) as i32) as u32);
    everywhere32(&format!("{odd} rem.s32 %d, %a, %b;"), |a, b, _| (a as i32).wrapping_rem((b | 1) as i32) as u32);
    everywhere32(&format!("{odd} div.u32 %d, %a, %b;"), |a, b, _| a / (b | 1));
    everywhere(&format!("{odd} div.s64 %D, %A, %B;"), |a, b, _| (a as i64).wrapping_div((b | 1) as i64) as u64);
    everywhere(&format!("{odd} rem.s64 %D, %A, %B;"), |a, b, _| (a as i64).wrapping_rem((b | 1) as i64) as u64);
    everywhere(&format!("{odd} div.u64 %D, %A, %B;"), |a, b, _| a / (b | 1));
    everywhere(&format!("{odd} rem.u64 %D, %A, %B;"), |a, b, _| a % (b | 1));
}

#[test]
fn products_low_high_and_wide() {
    let signed = |x: u16| i32::from(x as i16);
    everywhere16("mul.lo.u16 %k, %h, %i;", |a, b, _| a.wrapping_mul(b));
    everywhere16("mul.hi.u16 %k, %h, %i;", |a, b, _| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    everywhere16("mul.hi.s16 %k, %h, %i;", |a, b, _| ((signed(a) * signed(b)) >> 16) as u16);
    everywhere("mul.wide.u16 %d, %h, %i;", |a, b, _| u64::from(u32::from(a as u16) * u32::from(b as u16)));
    everywhere("mul.wide.s16 %d, %h, %i;", |a, b, _| u64::from((signed(a as u16) * signed(b as u16)) as u32));
    everywhere("mul.wide.u32 %D, %a, %b;", |a, b, _| u64::from(a as u32) * u64::from(b as u32));
    everywhere("mul.lo.s64 %D, %A, %B;", |a, b, _| a.wrapping_mul(b));
    everywhere("mul.hi.s64 %D, %A, %B;", |a, b, _| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
    let low24 = |x: u32| x & 0xff_ffff;
    let signed24 = |x: u32| (x << 8) as i32 >> 8;
    everywhere32("mul24.lo.u32 %d, %a, %b;", |a, b, _| low24(a).wrapping_mul(low24(b)));
    everywhere32("mul24.lo.s32 %d, %a, %b;", |a, b, _| signed24(a).wrapping_mul(signed24(b)) as u32);
    everywhere32("mad24.lo.u32 %d, %a, %b, %c;", |a, b, c| low24(a).wrapping_mul(low24(b)).wrapping_add(c));
    everywhere32("mad24.lo.s32 %d, %a, %b, %c;", |a, b, c| {
        (signed24(a).wrapping_mul(signed24(b)) as u32).wrapping_add(c)
    });
    everywhere16("mad.lo.s16 %k, %h, %i, %j;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    everywhere("mad.lo.u64 %D, %A, %B, %C;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    everywhere32("mad.hi.u32 %d, %a, %b, %c;", |a, b, c| {
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
    });
    everywhere32("mad.hi.s32 %d, %a, %b, %c;", |a, b, c| {
        (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c)
    });
    everywhere("mad.hi.u64 %D, %A, %B, %C;", |a, b, c| {
        (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)
    });
    everywhere("mad.wide.u16 %d, %h, %i, %c;", |a, b, c| {
        (u32::from(a as u16) * u32::from(b as u16)).wrapping_add(c as u32).into()
    });
    everywhere("mad.wide.s16 %d, %h, %i, %c;", |a, b, c| {
        ((signed(a as u16) * signed(b as u16)) as u32).wrapping_add(c as u32).into()
    });
    everywhere("mad.wide.s32 %D, %a, %b, %C;", |a, b, c| {
        ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
    });
}

#[test]
fn dot_products_of_bytes() {
    let byte = |word: u32, i: u32, signed: bool| {
        let byte = (word >> (8 * i)) as u8;
        if signed { i64::from(byte as i8) } else { byte.into() }
    };
    let half = |word: u32, i: u32, signed: bool| {
        let half = (word >> (16 * i)) as u16;
        if signed { i64::from(half as i16) } else { half.into() }
    };
    for (a_type, a_signed) in [("s32", true), ("u32", false)] {
        for (b_type, b_signed) in [("s32", true), ("u32", false)] {
            everywhere32(&format!("dp4a.{a_type}.{b_type} %d, %a, %b, %c;"), |a, b, c| {
                let sum: i64 = (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum();
                c.wrapping_add(sum as u32)
            });
            if a_signed == b_signed {
                for (word, first) in [("lo", 0), ("hi", 2)] {
                    everywhere32(&format!("dp2a.{word}.{a_type}.{b_type} %d, %a, %b, %c;"), |a, b, c| {
                        let sum: i64 = (0..2).map(|i| half(a, i, a_signed) * byte(b, first + i, b_signed)).sum();
                        c.wrapping_add(sum as u32)
                    });
                }
            }
        }
    }
}

/// Numbers of 128 bits, made of words that hand a carry on: low in %A, high in %B or %C.
#[test]
fn carries_go_on_through_three_words() {
    let body = "add.cc.u64 %D, %A, %B; addc.cc.u64 %A, %A, %C; addc.u64 %B, 0, 0;";
    for (which, part) in [("", 0), ("mov.u64 %D, %A;", 1), ("mov.u64 %D, %B;", 2)] {
        everywhere(&format!("{body} {which}"), |a, b, c| {
            let low = u128::from(a) + u128::from(b);
            let high = u128::from(a) + u128::from(c) + (low >> 64);
            [low as u64, high as u64, (high >> 64) as u64][part]
        });
    }
    let body = "sub.cc.u64 %D, %A, %B; subc.cc.u64 %A, %A, %C; subc.u64 %B, 0, 0;";
    for (which, part) in [("", 0), ("mov.u64 %D, %A;", 1), ("mov.u64 %D, %B;", 2)] {
        everywhere(&format!("{body} {which}"), |a, b, c| {
            let (low, borrow) = a.overflowing_sub(b);
            let high = i128::from(a) - i128::from(c) - i128::from(borrow);
            [low, high as u64, if high < 0 { u64::MAX } else { 0 }][part]
        });
    }
    // a·b + c in 64 bits, a word at a time.
    let body = "mad.lo.cc.u32 %d, %a, %b, %c; madc.hi.u32 %e, %a, %b, 0; cvt.u64.u32 %D, %e; shl.b64 %D, %D, 32;";
    everywhere(body, |a, b, c| u64::from(a as u32) * u64::from(b as u32) + u64::from(c as u32));
    // Without `.cc` the flag stays as it was, also where it is used.
    for between in ["add.u32", "addc.u32", "subc.u32", "madc.lo.u32"] {
        let third = if between.starts_with("mad") { ", %c" } else { "" };
        let body = format!("add.cc.u32 %e, %a, %b; {between} %e, %e, %c{third}; addc.u32 %d, 0, 0;");
        everywhere(&body, |a, b, _| u64::from((a as u32).checked_add(b as u32).is_none()));
    }
}

#[test]
fn logic_in_every_width() {
    everywhere16("and.b16 %k, %h, %i;", |a, b, _| a & b);
    everywhere16("or.b16 %k, %h, %i;", |a, b, _| a | b);
    everywhere16("xor.b16 %k, %h, %i;", |a, b, _| a ^ b);
    everywhere16("not.b16 %k, %h;", |a, _, _| !a);
    everywhere32("and.b32 %d, %a, %b;", |a, b, _| a & b);
    everywhere32("or.b32 %d, %a, %b;", |a, b, _| a | b);
    everywhere32("xor.b32 %d, %a, %b;", |a, b, _| a ^ b);
    everywhere("and.b64 %D, %A, %B;", |a, b, _| a & b);
    everywhere("xor.b64 %D, %A, %B;", |a, b, _| a ^ b);
    everywhere("not.b64 %D, %A;", |a, _, _| !a);
    everywhere("cnot.b64 %D, %A;", |a, _, _| u64::from(a == 0));
}

#[test]
fn predicates_have_logic_too() {
    let begin = "setp.lt.s32 %p, %a, %b; setp.lt.u32 %q, %a, %b;";
    for (word, combined) in
        [("and", (|a, b| a && b) as fn(bool, bool) -> bool), ("or", |a, b| a || b), ("xor", |a, b| a != b)]
    {
        for (left, right) in [("", ""), ("!", ""), ("", "!"), ("!", "!")] {
            let body = format!("{begin} {word}.pred %p, {left}%p, {right}%q; selp.u32 %d, 1, 0, %p;");
            everywhere(&body, |a, b, _| {
                let (p, q) = ((a as i32) < b as i32, (a as u32) < b as u32);
                combined(p != (left == "!"), q != (right == "!")).into()
            });
        }
    }
    let body = format!("{begin} not.pred %q, %p; selp.u32 %d, 1, 0, %q;");
    everywhere(&body, |a, b, _| u64::from(a as i32 >= b as i32));
}

#[test]
fn shifts_beyond_the_width_leave_zeros_or_signs() {
    // Amounts from 0 to 69, and enormous ones.
    let [a, _, c] = [awkward(1), awkward(2), awkward(3)];
    let amounts = (0..128).map(|lane| if lane < 120 { lane % 70 } else { u64::from(u32::MAX) - lane }).collect();
    let values = [a, amounts, c];
    let on = |body: &str, expected: &dyn Fn(u64, u32, u64) -> u64| {
        check_on(&values, body, |a, n, c| expected(a, n as u32, c));
    };
    let low16 = |value: u64| value & 0xffff;
    on("shl.b16 %k, %h, %b; cvt.u32.u16 %d, %k;", &|a, n, _| low16((a as u16).checked_shl(n).unwrap_or(0).into()));
    on("shr.u16 %k, %h, %b; cvt.u32.u16 %d, %k;", &|a, n, _| (a as u16).checked_shr(n).unwrap_or(0).into());
    on("shr.s16 %k, %h, %b; cvt.u32.u16 %d, %k;", &|a, n, _| u64::from((i32::from(a as i16) >> n.min(31)) as u16));
    on("shr.u32 %d, %a, %b;", &|a, n, _| (a as u32).checked_shr(n).unwrap_or(0).into());
    on("shr.b32 %d, %a, %b;", &|a, n, _| (a as u32).checked_shr(n).unwrap_or(0).into());
    on("shl.b64 %D, %A, %b;", &|a, n, _| a.checked_shl(n).unwrap_or(0));
    on("shr.s64 %D, %A, %b;", &|a, n, _| (i128::from(a as i64) >> n.min(127)) as u64);
    // Two words as one: c above a.
    let both = |a: u64, c: u64| u128::from(c as u32) << 32 | u128::from(a as u32);
    on("shf.l.clamp.b32 %d, %a, %c, %b;", &|a, n, c| ((both(a, c) << n.min(32)) >> 32) as u32 as u64);
    on("shf.l.wrap.b32 %d, %a, %c, %b;", &|a, n, c| ((both(a, c) << (n % 32)) >> 32) as u32 as u64);
    on("shf.r.clamp.b32 %d, %a, %c, %b;", &|a, n, c| (both(a, c) >> n.min(32)) as u32 as u64);
    on("shf.r.wrap.b32 %d, %a, %c, %b;", &|a, n, c| (both(a, c) >> (n % 32)) as u32 as u64);
}

/// Bit by bit, as the manual defines them.
#[test]
fn fields_are_extracted_and_inserted_bit_by_bit() {
    // Places and lengths up to 79, and some whose low byte alone counts.
    let at: Vec<u64> = (0..128).map(|lane| if lane < 120 { lane * 7 % 80 } else { 256 + lane }).collect();
    let length: Vec<u64> = (0..128).map(|lane| if lane < 120 { lane * 11 % 79 } else { 512 + lane % 9 }).collect();
    let values = [awkward(1), at, length];
    let extract = |a: u64, at: u64, length: u64, bits: u64, signed: bool| {
        let (at, length, top) = (at & 255, length & 255, bits - 1);
        let bit = |i: u64| a >> i & 1;
        let sign = if !signed || length == 0 { 0 } else { bit((at + length - 1).min(top)) };
        (0..bits).map(|i| if i < length && at + i <= top { bit(at + i) << i } else { sign << i }).sum::<u64>()
    };
    check_on(&values, "bfe.u32 %d, %a, %b, %c;", |a, at, length| extract(a, at, length, 32, false));
    check_on(&values, "bfe.s32 %d, %a, %b, %c;", |a, at, length| extract(a, at, length, 32, true));
    check_on(&values, "bfe.u64 %D, %A, %b, %c;", |a, at, length| extract(a, at, length, 64, false));
    check_on(&values, "bfe.s64 %D, %A, %b, %c;", |a, at, length| extract(a, at, length, 64, true));
    let insert = |a: u64, b: u64, at: u64, length: u64, bits: u64| {
        let (at, length) = (at & 255, length & 255);
        (0..bits).map(|i| if i >= at && i - at < length { a >> (i - at) & 1 } else { b >> i & 1 } << i).sum::<u64>()
    };
    check_on(&values, "not.b32 %e, %a; bfi.b32 %d, %a, %e, %b, %c;", |a, at, length| insert(a, !a, at, length, 32));
    check_on(&values, "not.b64 %D, %A; bfi.b64 %D, %A, %D, %b, %c;", |a, at, length| insert(a, !a, at, length, 64));
    for (word, kept) in [("clamp", u64::MAX), ("wrap", 31)] {
        check_on(&values, &format!("bmsk.{word}.b32 %d, %b, %c;"), |_, at, length| {
            let (at, length) = (at & kept, length & kept);
            (0..32).filter(|&i| i >= at && i - at < length).map(|i| 1 << i).sum()
        });
        for (ty, signed) in [("s32", true), ("u32", false)] {
            check_on(&values, &format!("szext.{word}.{ty} %d, %a, %c;"), |a, _, length| {
                let length = length & kept;
                if length == 0 { 0 } else { extract(a, 0, length.min(32), 32, signed) }
            });
        }
    }
}

#[test]
fn bits_are_counted_found_and_reversed() {
    everywhere("popc.b64 %d, %A;", |a, _, _| a.count_ones().into());
    everywhere32("clz.b32 %d, %a;", |a, _, _| a.leading_zeros());
    everywhere("brev.b64 %D, %A;", |a, _, _| a.reverse_bits());
    // The highest bit that is not the sign, or none.
    let highest = |a: i128, bits: u32, from_top: bool| {
        let a = if a < 0 { !a } else { a };
        let found = (0..bits).rev().find(|&i| a >> i & 1 != 0);
        u64::from(found.map_or(u32::MAX, |at| if from_top { bits - 1 - at } else { at }))
    };
    for (word, from_top) in [("", false), (".shiftamt", true)] {
        everywhere(&format!("bfind{word}.u32 %d, %a;"), |a, _, _| highest((a as u32).into(), 32, from_top));
        everywhere(&format!("bfind{word}.s32 %d, %a;"), |a, _, _| highest((a as i32).into(), 32, from_top));
        everywhere(&format!("bfind{word}.u64 %d, %A;"), |a, _, _| highest(a.into(), 64, from_top));
    }
    everywhere("bfind.s64 %d, %A;", |a, _, _| highest((a as i64).into(), 64, false));
}

#[test]
fn any_table_of_three_bits() {
    for table in [0x00u32, 0x01, 0x10, 0x80, 0xaa, 0xcc, 0xf0, 0xca, 0xe2, 0x78, 0xff] {
        check(&format!("lop3.b32 %d, %a, %b, %c, {table};"), |a, b, c| {
            (0..32).map(|i| u64::from(table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i).sum()
        });
    }
}

#[test]
fn bytes_are_permuted_and_their_signs_spread() {
    check("prmt.b32 %d, %a, %b, %c;", |a, b, c| {
        let bytes = (b as u32 as u64) << 32 | a as u32 as u64;
        (0..4)
            .map(|i| {
                let pick = c >> (4 * i) & 15;
                let byte = bytes >> (8 * (pick & 7)) & 255;
                let byte = if pick & 8 == 0 {
                    byte
                } else if byte & 128 != 0 {
                    255
                } else {
                    0
                };
                byte << (8 * i)
            })
            .sum()
    });
}
