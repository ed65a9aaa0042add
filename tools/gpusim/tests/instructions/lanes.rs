//! A kernel of one warp after another that computes a value for each lane, and the comparison with what it should be.

use gpusim::simulator::{Arguments, Error, Simulator};

pub const LANES: usize = 128;

/// Bits that include zeros, ones, extremes, subnormals, infinities, NaNs and noise, for 32- and 64-bit types alike.
pub fn awkward(seed: u64) -> Vec<u64> {
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
pub fn run(body: &str, a: &[u64], b: &[u64], c: &[u64]) -> Result<Vec<u64>, Error> {
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

/// Every pair of eleven values, and a third for each.
pub fn grid(values: [u64; 11]) -> [Vec<u64>; 3] {
    let at = |lane: usize| values[lane % 11];
    [(0..LANES).map(at).collect(), (0..LANES).map(|lane| at(lane / 11)).collect(), awkward(3)]
}

/// The edges of integers of 16, 32 and 64 bits.
pub const EDGES: [u64; 11] =
    [0, 1, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, i64::MIN as u64, u64::MAX];

/// `body` gives what `expected` says on every lane.
pub fn check(body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    check_on(&[awkward(1), awkward(2), awkward(3)], body, expected);
}

/// As [`check`], for these values of a, b and c.
pub fn check_on([a, b, c]: &[Vec<u64>; 3], body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    let found = run(body, a, b, c).unwrap_or_else(|error| panic!("{body}: {error}"));
    for lane in 0..LANES {
        let want = expected(a[lane], b[lane], c[lane]);
        let of = format!("{:#x}, {:#x}, {:#x}", a[lane], b[lane], c[lane]);
        assert_eq!(found[lane], want, "{body} of {of}: {:#x} for {want:#x}", found[lane]);
    }
}

pub fn check32(body: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    check(body, |a, b, c| expected(a as u32, b as u32, c as u32).into());
}

/// As [`check32`] for singles: any NaN is as good as another.
pub fn check_single(body: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let (a, b, c) = (awkward(4), awkward(5), awkward(6));
    let found = run(body, &a, &b, &c).unwrap_or_else(|error| panic!("{body}: {error}"));
    let single = |bits: u64| f32::from_bits(bits as u32);
    for lane in 0..LANES {
        let (found, want) = (single(found[lane]), expected(single(a[lane]), single(b[lane]), single(c[lane])));
        let same = found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan();
        assert!(same, "{body} of {:?}: {found:?} for {want:?}", [a[lane], b[lane], c[lane]].map(single));
    }
}
