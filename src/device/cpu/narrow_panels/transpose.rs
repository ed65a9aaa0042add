//! The transpose of bfloat16 numbers, for tile registers: they want rows of pairs along K, and in a weight gradient K is the pixels.
//!
//! A block of 32×32 numbers: pairs of rows are interleaved, and their pairs transposed as `u32`, 16×16 of them, by the usual four rounds of
//! shuffles, of 32 bits, of 64, and twice of 128.

use super::DEPTH;
use half::bf16;
use std::arch::x86_64::*;

/// `out [width, rows]`: the transpose of `x [rows, width]`, a row of which comes every `stride` numbers, its rows filled up with zeros to a
/// multiple of [`DEPTH`].
///
/// # Safety
///
/// The processor has AVX-512, with instructions for 16 bits.
pub(super) unsafe fn transpose(out: &mut [bf16], x: &[bf16], [rows, width]: [usize; 2], stride: usize) {
    let long = rows.next_multiple_of(DEPTH);
    for row in (0..rows).step_by(DEPTH) {
        for column in (0..width).step_by(DEPTH) {
            let (x, out) = (&x[row * stride + column..], &mut out[column * long + row..]);
            let (there, wide) = (DEPTH.min(rows - row), DEPTH.min(width - column));
            if there == DEPTH && wide == DEPTH {
                // SAFETY: the caller's promise.
                unsafe { block(x, stride, out, long) };
                continue;
            }
            let [mut from, mut to] = [[bf16::ZERO; DEPTH * DEPTH]; 2];
            for (from, x) in from.chunks_exact_mut(DEPTH).zip(x.chunks(stride)).take(there) {
                from[..wide].copy_from_slice(&x[..wide]);
            }
            // SAFETY: the caller's promise.
            unsafe { block(&from, DEPTH, &mut to, DEPTH) };
            for (out, to) in out.chunks_mut(long).zip(to.chunks_exact(DEPTH)).take(wide) {
                out[..DEPTH].copy_from_slice(to);
            }
        }
    }
}

/// A whole block. Rows of `x` and of `out` come every so many numbers.
#[target_feature(enable = "avx512f,avx512bw")]
fn block(x: &[bf16], stride: usize, out: &mut [bf16], long: usize) {
    assert!(x.len() >= (DEPTH - 1) * stride + DEPTH && out.len() >= (DEPTH - 1) * long + DEPTH);
    // SAFETY: the last row ends inside, as was just seen.
    let row = |row: usize| unsafe { _mm512_loadu_si512(x.as_ptr().add(row * stride).cast()) };
    // Of each four lanes the first has channels 0 to 3 and 4 to 7, the second 8 to 11 and 12 to 15, and so on.
    let pairs: [[__m512i; 2]; 16] = std::array::from_fn(|pair| {
        let (first, second) = (row(2 * pair), row(2 * pair + 1));
        [_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second)]
    });
    for half in [0, 1] {
        let by_column = |group: usize| {
            let [a, b, c, d] = std::array::from_fn(|i| pairs[4 * group + i][half]);
            let [ab, cd] = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
            let [ab_high, cd_high] = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        };
        let groups: [[__m512i; 4]; 4] = std::array::from_fn(by_column);
        for column in 0..4 {
            let [a, b, c, d] = groups.map(|group| group[column]);
            let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
            let odd = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d)];
            let lanes = [
                _mm512_shuffle_i32x4::<0x88>(even[0], even[1]),
                _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]),
                _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]),
                _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]),
            ];
            for (lane, numbers) in lanes.into_iter().enumerate() {
                let channel = 8 * lane + 4 * half + column;
                // SAFETY: the last row ends inside, as was seen above.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(channel * long).cast(), numbers) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::{Level, level};
    use std::io::Write;

    #[test]
    fn a_transpose_is_its_definition_and_is_filled_up_with_zeros() {
        if level() != Level::Avx512 {
            // Straight to where no test harness holds it back.
            let told = "NOT TESTED, since this processor has no AVX-512: the transpose of bfloat16 numbers";
            let _ = writeln!(std::io::stderr(), "{told}");
            return;
        }
        for [rows, width] in [[32_usize, 32], [64, 96], [1, 1], [33, 7], [70, 40], [5, 64]] {
            let stride = width + 3;
            let x: Vec<bf16> = (0..rows * stride).map(|i| bf16::from_bits(1 + i as u16)).collect();
            let long = rows.next_multiple_of(DEPTH);
            let mut out = vec![bf16::NAN; width * long];
            // SAFETY: the level was just seen.
            unsafe { transpose(&mut out, &x[..rows * stride - 3], [rows, width], stride) };
            for (at, out) in out.iter().enumerate() {
                let (column, row) = (at / long, at % long);
                let expected = if row < rows { x[row * stride + column] } else { bf16::ZERO };
                assert_eq!(out.to_bits(), expected.to_bits(), "{rows}x{width}, row {row}, column {column}");
            }
        }
    }
}
