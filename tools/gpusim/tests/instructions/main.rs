//! Instruction families against plain Rust: one instruction a kernel, on values chosen to be awkward.

use gpusim::simulator::{Arguments, Error, Simulator};

const LANES: usize = 128;

/// Bits that include zeros, ones, extremes, subnormals, infinities, NaNs and noise, for 32- and 64-bit types alike.
fn awkward(seed: u64) -> Vec<u64> {
    let special: [u64; 16] = [
        0,
        1,
        0x8000_0000,
        0xffff_ffff,
        0x7fff_ffff,
        u64::MAX,
        1 << 63,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0x0000_0400,
        0x7f7f_ffff,
        0x3ff0_0000_0000_0000,
        0x4049_0fdb,
        33,
        7,
    ];
    (0..LANES as u64)
        .map(|i| {
            let mut x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
            x ^= x >> 31;
            x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            if i.is_multiple_of(3) { special[(x >> 60) as usize] } else { x ^ x >> 29 }
        })
        .collect()
}

/// Runs `body`, which computes %d (32 bits) or %D (64) of %a %b %c (32 bits) or %A %B %C (64), for every lane.
fn run(body: &str, a: &[u64], b: &[u64], c: &[u64]) -> Result<Vec<u64>, Error> {
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 out, .param .u64 in) {{\n\
         .reg .b64 %A, %B, %C, %D, %out, %in, %off; .reg .b32 %a, %b, %c, %d, %e, %t; .reg .b16 %h, %i, %j, %k;\n\
         .reg .pred %p, %q;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %in, [in];\n\
         mov.u32 %t, %tid.x; mul.wide.u32 %off, %t, 8; add.u64 %out, %out, %off; add.u64 %in, %in, %off;\n\
         ld.global.u64 %A, [%in]; ld.global.u64 %B, [%in+{}]; ld.global.u64 %C, [%in+{}];\n\
         cvt.u32.u64 %a, %A; cvt.u32.u64 %b, %B; cvt.u32.u64 %c, %C;\n\
         cvt.u16.u32 %h, %a; cvt.u16.u32 %i, %b; cvt.u16.u32 %j, %c;\n\
         mov.u64 %D, 0; mov.u32 %d, 0;\n\
         {body}\n\
         cvt.u64.u32 %A, %d; or.b64 %D, %D, %A;\n\
         st.global.u64 [%out], %D; ret; }}",
        LANES * 8,
        LANES * 16
    );
    let mut gpu = Simulator::new(&ptx)?;
    let input: Vec<u8> = [a, b, c].concat().iter().flat_map(|v| v.to_le_bytes()).collect();
    let input = gpu.upload(&input)?;
    let output = gpu.allocate(LANES * 8)?;
    let arguments = Arguments::new().pointer(output).pointer(input);
    gpu.launch("k", [1, 1, 1], [LANES as u32, 1, 1], 0, &arguments)?;
    let bytes = gpu.read(output, LANES * 8);
    Ok(bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect())
}

/// `body` gives what `expected` says on every lane.
fn check(body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    let (a, b, c) = (awkward(1), awkward(2), awkward(3));
    let found = run(body, &a, &b, &c).unwrap_or_else(|error| panic!("{body}: {error}"));
    for lane in 0..LANES {
        let want = expected(a[lane], b[lane], c[lane]);
        assert_eq!(found[lane], want, "{body} of {:#x}, {:#x}, {:#x}: {:#x}", a[lane], b[lane], c[lane], found[lane]);
    }
}

fn check32(body: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    check(body, |a, b, c| expected(a as u32, b as u32, c as u32).into());
}

/// As [`check32`] for singles: any NaN is as good as another.
fn check_single(body: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let (a, b, c) = (awkward(4), awkward(5), awkward(6));
    let found = run(body, &a, &b, &c).unwrap_or_else(|error| panic!("{body}: {error}"));
    let single = |bits: u64| f32::from_bits(bits as u32);
    for lane in 0..LANES {
        let (found, want) = (single(found[lane]), expected(single(a[lane]), single(b[lane]), single(c[lane])));
        let same = found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan();
        assert!(same, "{body} of {:?}: {found:?} for {want:?}", [a[lane], b[lane], c[lane]].map(single));
    }
}

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
