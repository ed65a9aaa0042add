//! `mma.sync` of floats by AVX-512: what [`super::product`] computes, in the layout of the registers.
//!
//! A vector is half a register row: four quads of lanes, one row of the matrices each. For a k, the four lanes of a quad
//! of D need the same element of A, which is in one of their own registers: a shuffle within 128 bits. Of B they need the
//! even columns (D's first register) or the odd (the second), the same in every quad: 128 bits, sent to all four.

use super::matrix::whole_warp;
use super::product::{Float, Kind};
use super::{Core, Done};
use crate::program::{Inst, Slot};
use std::arch::x86_64::*;

/// A register row: lanes 0 to 15, and the others.
type Row = [__m512i; 2];

/// The instruction with singles (or `HALF`: halves) in C and D.
///
/// # Safety
/// As for [`super::Exec`]: rows of 32 bits everywhere, and a processor with AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn product<E: Float, const K: usize, const HALF: bool>(
    core: &mut Core<'_>,
    inst: &Inst,
    mask: u32,
) -> Done {
    whole_warp(core, mask, "mma")?;
    let registers = if HALF { 2 } else { 4 };
    let steps = K / (4 * E::PER);
    let (a_at, c_at) = (registers, inst.wide.len() - registers);
    let b_at = a_at + 2 * steps;
    // SAFETY: the caller's promise.
    let row = |slot: Slot| unsafe { core.row::<u32>(slot) };
    let mut sums = [[_mm512_setzero_ps(); 2]; 4];
    for (r, sums) in sums.iter_mut().enumerate() {
        let c = load(&row(inst.wide[c_at + if HALF { r / 2 } else { r }]));
        *sums = if HALF { c.map(|c| split(Kind::F16, c, r % 2)) } else { c.map(|c| _mm512_castsi512_ps(c)) };
    }
    for q in 0..steps {
        let a = [0, 1].map(|h| load(&row(inst.wide[a_at + 2 * q + h])));
        let b = load(&row(inst.wide[b_at + q]));
        let (mut factors, mut columns) = ([[[_mm512_setzero_ps(); 2]; 2]; 2], [[_mm512_setzero_ps(); 2]; 2]);
        for e in 0..E::PER {
            factors[e] = a.map(|row| row.map(|half| split(E::KIND, half, e)));
            columns[e] = by_k(b.map(|half| split(E::KIND, half, e)));
        }
        // The quad's lane t holds k = PER·t + e: in order of k, since that is the order of the sum.
        for e in 0..E::PER {
            multiply::<0x00, 0x00, 0x55>(&mut sums, &factors[e], columns[e][0]);
        }
        for e in 0..E::PER {
            multiply::<0x55, 0xaa, 0xff>(&mut sums, &factors[e], columns[e][0]);
        }
        for e in 0..E::PER {
            multiply::<0xaa, 0x00, 0x55>(&mut sums, &factors[e], columns[e][1]);
        }
        for e in 0..E::PER {
            multiply::<0xff, 0xaa, 0xff>(&mut sums, &factors[e], columns[e][1]);
        }
    }
    for r in 0..registers {
        let out = if HALF { join(sums[2 * r], sums[2 * r + 1]) } else { sums[r].map(|sum| _mm512_castps_si512(sum)) };
        // SAFETY: the caller's promise; a row is two vectors.
        unsafe { core.set_row(inst.wide[r], std::mem::transmute::<Row, [u32; 32]>(out), mask) };
    }
    Ok(())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(row: &[u32; 32]) -> Row {
    // SAFETY: 64 bytes are at either place.
    unsafe { [_mm512_loadu_si512(row.as_ptr().cast()), _mm512_loadu_si512(row.as_ptr().add(16).cast())] }
}

/// Element `e` of each register as a single.
#[inline]
#[target_feature(enable = "avx512f")]
fn split(kind: Kind, registers: __m512i, e: usize) -> __m512 {
    match (kind, e) {
        (Kind::Bf16, 0) => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(registers)),
        (Kind::Bf16, _) => _mm512_castsi512_ps(_mm512_and_si512(registers, _mm512_set1_epi32(0xffff_0000_u32 as i32))),
        (Kind::F16, 0) => _mm512_cvtph_ps(_mm512_cvtepi32_epi16(registers)),
        (Kind::F16, _) => _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(registers))),
        // The tensor core reads 19 bits and ignores the others.
        (Kind::Tf32, _) => _mm512_castsi512_ps(_mm512_and_si512(registers, _mm512_set1_epi32(0xffff_e000_u32 as i32))),
    }
}

/// Two rows of singles as one of pairs of halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn join(low: [__m512; 2], high: [__m512; 2]) -> Row {
    let half = |sum| _mm512_cvtepu16_epi32(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(sum));
    [0, 1].map(|i| _mm512_or_si512(half(low[i]), _mm512_slli_epi32::<16>(half(high[i]))))
}

/// Elements of B (lane 4g + t: column g of the quad's k number t) as, for t in 0 and 1 and then for 2 and 3, the even
/// columns and the odd.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_k([left, right]: [__m512; 2]) -> [__m512; 2] {
    let first = _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    let second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
    [_mm512_permutex2var_ps(left, first, right), _mm512_permutex2var_ps(left, second, right)]
}

/// Adds the products of one k. `LANE` sends A's lane to its quad, `EVEN` and `ODD` B's columns to all quads.
#[inline]
#[target_feature(enable = "avx512f")]
fn multiply<const LANE: i32, const EVEN: i32, const ODD: i32>(
    sums: &mut [[__m512; 2]; 4],
    factors: &[[__m512; 2]; 2],
    columns: __m512,
) {
    let (even, odd) = (_mm512_shuffle_f32x4::<EVEN>(columns, columns), _mm512_shuffle_f32x4::<ODD>(columns, columns));
    for h in 0..2 {
        for half in 0..2 {
            let factor = _mm512_permute_ps::<LANE>(factors[h][half]);
            sums[2 * h][half] = _mm512_fmadd_ps(factor, even, sums[2 * h][half]);
            sums[2 * h + 1][half] = _mm512_fmadd_ps(factor, odd, sums[2 * h + 1][half]);
        }
    }
}
