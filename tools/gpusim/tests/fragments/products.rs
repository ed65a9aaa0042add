//! `mma` in every form that is supported, against plain Rust.

use super::layout::*;
use gpusim::exec::TensorSums;
use gpusim::simulator::{Arguments, Error, Simulator};

/// `mma` of this shape on integers so small that every type holds the sums exactly.
fn check(shape: &str, [m, k]: [usize; 2], [a_kind, b_kind, sum]: [Kind; 3], [a_place, b_place]: [Place; 2]) {
    let a = Matrix { kind: a_kind, rows: m, columns: k, place: a_place };
    let b = Matrix { kind: b_kind, rows: k, columns: 8, place: b_place };
    let c = Matrix { kind: sum, rows: m, columns: 8, place: sums };
    // Bytes take their whole range, since their sums have room.
    let range = |kind: Kind| match kind.name {
        "s8" => (-128.0, 256),
        "u8" => (0.0, 256),
        _ => (-7.0, 15),
    };
    let values = |matrix: &Matrix, seed| {
        let (low, count) = range(matrix.kind);
        noise(matrix.rows * matrix.columns, seed, low, count)
    };
    let (av, bv, cv) = (values(&a, 1), values(&b, 2), values(&c, 3));
    let found = multiply(TensorSums::InOrder, shape, [&c, &a, &b, &c], [&av, &bv, &cv]);
    let found = found.unwrap_or_else(|error| panic!("{shape} {} {}: {error}", a_kind.name, b_kind.name));
    for at in 0..m * 8 {
        let products = (0..k).map(|i| av[at / 8 * k + i] * bv[i * 8 + at % 8]);
        let expected = cv[at] + products.sum::<f64>();
        assert_eq!(found[at], expected, "{shape} {} {}: element {at}", a_kind.name, b_kind.name);
    }
}

#[test]
fn products_of_16_bit_floats() {
    for kind in [F16, BF16] {
        check("m16n8k16", [16, 16], [kind, kind, F32], [pairs_a, pairs_b]);
        check("m16n8k8", [16, 8], [kind, kind, F32], [pairs_a, pairs_b]);
    }
}

#[test]
fn products_that_accumulate_in_halves() {
    check("m16n8k16", [16, 16], [F16, F16, F16], [pairs_a, pairs_b]);
    check("m16n8k8", [16, 8], [F16, F16, F16], [pairs_a, pairs_b]);
}

#[test]
fn a_half_accumulator_is_rounded_once() {
    let half = |rows, columns, place| Matrix { kind: F16, rows, columns, place };
    let (a, b, c) = (half(16, 8, pairs_a as Place), half(8, 8, pairs_b as Place), half(16, 8, sums as Place));
    // 2048 + 8 · 0.25 = 2050, which halves hold; 2048.25 they don't, so that rounding each sum would give 2048.
    let found =
        multiply(TensorSums::InOrder, "m16n8k8", [&c, &a, &b, &c], [&[0.25; 128], &[1.0; 64], &[2048.0; 128]]).unwrap();
    assert_eq!(found, [2050.0; 128]);
    // Beyond 65504 is infinite.
    let found =
        multiply(TensorSums::InOrder, "m16n8k8", [&c, &a, &b, &c], [&[100.0; 128], &[100.0; 64], &[0.0; 128]]).unwrap();
    assert_eq!(found, [f64::INFINITY; 128]);
}

#[test]
fn products_in_tf32() {
    check("m16n8k8", [16, 8], [TF32, TF32, F32], [words_a, words_b]);
    check("m16n8k4", [16, 4], [TF32, TF32, F32], [words_a, words_b]);
}

#[test]
fn products_of_bytes() {
    for (a, b) in [(S8, S8), (U8, U8), (S8, U8), (U8, S8)] {
        check("m16n8k32", [16, 32], [a, b, S32], [bytes_a, bytes_b]);
        check("m16n8k16", [16, 16], [a, b, S32], [bytes_a, bytes_b]);
    }
}

#[test]
fn sums_of_bytes_wrap() {
    let (a, b) = (
        Matrix { kind: U8, rows: 16, columns: 32, place: bytes_a },
        Matrix { kind: U8, rows: 32, columns: 8, place: bytes_b },
    );
    let c = Matrix { kind: S32, rows: 16, columns: 8, place: sums };
    let most = f64::from(i32::MAX);
    let found =
        multiply(TensorSums::InOrder, "m16n8k32", [&c, &a, &b, &c], [&[1.0; 512], &[1.0; 256], &[most; 128]]).unwrap();
    assert_eq!(found, [f64::from(i32::MIN) + 31.0; 128]);
}

#[test]
fn products_in_doubles() {
    let place_a: Place = |lane, _| (lane >> 2, lane % 4);
    let place_b: Place = |lane, _| (lane % 4, lane >> 2);
    check("m8n8k4", [8, 4], [F64, F64, F64], [place_a, place_b]);
}

#[test]
fn forms_that_are_missing_are_named() {
    for form in [
        "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1};",
        "stmatrix.sync.aligned.m16n8.x1.trans.shared.b8 [%r0], {%r1};",
        "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b6x16_p32 {%r1}, [%r0];",
        "movmatrix.sync.aligned.m8n8.b16 %r0, %r1;",
    ] {
        let ptx = format!(
            ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k() {{ .reg .b32 %r<6>;\n{form}\nret; }}"
        );
        let error = Simulator::new(&ptx).unwrap().launch("k", [1, 1, 1], [32, 1, 1], 0, &Arguments::new()).unwrap_err();
        let opcode = form.split('.').next().unwrap();
        assert!(matches!(error, Error::Decode(_)) && error.to_string().contains(opcode), "{form}: {error}");
    }
}
