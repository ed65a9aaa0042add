//! The product by `vdpbf16ps`, which adds two products of bfloat16 numbers to each of sixteen sums.

use super::{Product, Sums, Target};
use half::bf16;
use std::arch::x86_64::*;
use std::mem::transmute;

impl Sums for __m512 {
    const LANES: usize = 16;

    type Factors = __m512bh;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller answers for the instruction set.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller answers for what is read.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller answers for what is written.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn factors(from: *const bf16) -> __m512bh {
        // SAFETY: the caller answers for what is read; both types are a register's bits.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: [bf16; 2], b: __m512bh) -> Self {
        // SAFETY: the caller answers for the instruction set; both types are a register's bits.
        unsafe { _mm512_dpbf16_ps(self, transmute::<__m512i, __m512bh>(_mm512_set1_epi32(bytemuck::cast(a))), b) }
    }
}

/// All of a product, on a processor that has the instruction.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")]
pub(super) fn multiply(product: &Product, target: &mut Target) {
    // SAFETY: compiled for these instructions.
    unsafe { product.all::<__m512, 1, 12, 2>(target) }
}
