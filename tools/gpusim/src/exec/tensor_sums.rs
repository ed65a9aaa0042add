//! Sums of tensor cores: in order of k in singles, or aligned and truncated as hardware takes them.
//!
//! NVIDIA documents neither order nor rounding, so the usual sums are the plainest, each product added by a fused
//! multiply-add that rounds to nearest. What hardware does was measured, and found again bit for bit by models of it:
//!
//! - M. Fasi, N. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 7:e330, 2021;
//! - P. Xie and others, "MMA-Sim: bit-accurate reference model of tensor cores and matrix cores", arXiv:2511.10909, 2025;
//! - F. Khattak, M. Mikaitis, "Accurate models of NVIDIA tensor cores", arXiv:2512.07004, 2025.
//!
//! Products are exact. A group of them and the accumulator are shifted to the largest exponent among them (a product's is
//! the sum of its factors', so that it may have two digits before the point), where bits beyond the last that is kept are
//! cut off, each term's on its own. What is left is added without error, and the sum cut off to a single. Sums are
//! therefore drawn towards zero, and up to a bit of the *largest term* is lost with each, where a rounding loses half a bit
//! of the *sum*: what a tolerance must allow for. The group is
//!
//! | | halves, bfloat16 | tf32 | bits behind the point |
//! | --- | --- | --- | --- |
//! | sm_80 to sm_89 | 8 | 4 | 24 |
//! | from sm_90 on | 16 | 8 | 25 |
//!
//! or all of an instruction that has less. Sums that are kept in halves are taken in order in either mode. Of hardware's
//! way only this is left out: bits below the smallest subnormal single, of which it keeps two for sums that are tiny.

use super::matrix::whole_warp;
use super::processor::Body;
use super::product::{Float, Operands, gather};
use super::{Core, Done};
use crate::program::Inst;
use std::marker::PhantomData;

/// How a launch takes its sums of floats on tensor cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TensorSums {
    /// In order of k, each rounded to nearest.
    #[default]
    InOrder,
    /// In groups, aligned and truncated.
    Truncated(Truncation),
}

impl TensorSums {
    /// As the tensor cores of a GPU of this capability take them.
    #[must_use]
    pub fn of_hardware((major, _): (u32, u32)) -> Self {
        let (bits, group_bytes) = if major < 9 { (24, 16) } else { (25, 32) };
        Self::Truncated(Truncation { bits, group_bytes })
    }
}

/// Where sums are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Bits that are kept behind the point, at the largest exponent of a group.
    bits: i32,
    /// Bytes of either operand that make a group.
    group_bytes: usize,
}

/// Factors with their exponents.
#[derive(Clone, Copy)]
pub(super) struct Factors<const N: usize> {
    values: [f64; N],
    exponents: [i32; N],
}

impl<const N: usize> Factors<N> {
    /// Of singles whose format's smallest exponent is `least`: there subnormals have it, too.
    #[inline(always)]
    pub fn new(singles: &[f32; N], least: i32) -> Self {
        let exponent = |single: f32| match single == 0.0 {
            // A product that is zero has no say in where the others are cut off.
            true => -512,
            false => ((single.to_bits() >> 23 & 0xff) as i32 - 127).max(least),
        };
        Self { values: singles.map(f64::from), exponents: singles.map(exponent) }
    }
}

/// 2 to the power of a number from −1022 to 1023.
#[inline(always)]
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

impl Truncation {
    /// Elements of this size in a group.
    #[inline(always)]
    pub(super) fn group(self, bytes: usize) -> usize {
        self.group_bytes / bytes
    }

    /// Adds the products of a row of A with eight columns of B to their sums, so many of k at once.
    #[inline(always)]
    pub(super) fn add<const K: usize>(self, sums: &mut [f32; 8], a: &Factors<K>, b: &[Factors<8>], group: usize) {
        for ((values, exponents), b) in a.values.chunks(group).zip(a.exponents.chunks(group)).zip(b.chunks(group)) {
            let mut largest = Factors::new(sums, -126).exponents;
            for (exponent, b) in exponents.iter().zip(b) {
                for (largest, other) in largest.iter_mut().zip(&b.exponents) {
                    *largest = (*largest).max(exponent + other);
                }
            }
            // The last bit that is kept is at least the smallest single.
            let last = largest.map(|largest| largest.max(self.bits - 149) - self.bits);
            let scales = last.map(|last| power_of_two(-last));
            let mut totals: [f64; 8] = std::array::from_fn(|n| (f64::from(sums[n]) * scales[n]).trunc());
            // Whole numbers of less than 33 bits: products, shifts and sums in doubles are exact.
            for (value, b) in values.iter().zip(b) {
                for n in 0..8 {
                    totals[n] += (value * b.values[n] * scales[n]).trunc();
                }
            }
            for n in 0..8 {
                sums[n] = f64::from_bits((totals[n] * power_of_two(last[n])).to_bits() & !0x1fff_ffff) as f32;
            }
        }
    }
}

/// `mma.sync` with truncated sums: D = A·B + C in singles, rows of D first, then A, B, C.
pub(super) struct Truncated<E, const K: usize>(PhantomData<E>);

impl<E: Float, const K: usize> Body for Truncated<E, K> {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        whole_warp(core, mask, "mma")?;
        let TensorSums::Truncated(truncation) = core.launch.setup.sums else { return Ok(()) };
        let (group, least) = (truncation.group(4 / E::PER), E::KIND.least_exponent());
        let c_at = inst.wide.len() - 4;
        // Row and column that register `r` holds in `lane`.
        let place = |r: usize, lane: usize| (lane / 4 + 8 * (r / 2), lane % 4 * 2 + r % 2);
        // SAFETY: the decoder put rows of 32 bits everywhere.
        unsafe {
            let Operands { a, b } = gather::<E, E, K>(core, inst, 4);
            let b = b.map(|row| Factors::new(&row, least));
            let mut sums = [[0f32; 8]; 16];
            for r in 0..4 {
                for (lane, value) in core.row::<f32>(inst.wide[c_at + r]).into_iter().enumerate() {
                    let (row, column) = place(r, lane);
                    sums[row][column] = value;
                }
            }
            for (sums, a) in sums.iter_mut().zip(&a) {
                truncation.add(sums, &Factors::new(a, least), &b, group);
            }
            for r in 0..4 {
                let row = std::array::from_fn(|lane| {
                    let (row, column) = place(r, lane);
                    sums[row][column]
                });
                core.set_row::<f32>(inst.wide[r], row, mask);
            }
        }
        Ok(())
    }
}
