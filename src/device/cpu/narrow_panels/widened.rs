//! The product where no instruction multiplies bfloat16 numbers: they are widened, and a pair is two products.
//!
//! A product of two of them fits an `f32`, so a fused multiply-add saves an instruction and changes no bit.

use super::{Product, Sums, Target};
#[cfg(target_arch = "x86_64")]
use crate::device::cpu::simd::{Level, level};
use half::bf16;

/// Any processor's: four lanes, which the compiler puts in whatever registers there are.
impl Sums for [f32; 4] {
    const LANES: usize = 4;

    type Factors = [[bf16; 2]; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller answers for what is read.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller answers for what is written.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn factors(from: *const bf16) -> [[bf16; 2]; 4] {
        // SAFETY: the caller answers for what is read.
        unsafe { from.cast::<[[bf16; 2]; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: [bf16; 2], b: [[bf16; 2]; 4]) -> Self {
        let wide = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
        // Only where it is an instruction: elsewhere `mul_add` is a call.
        let add =
            |sum: f32, x: f32, y: f32| if cfg!(target_arch = "aarch64") { x.mul_add(y, sum) } else { x * y + sum };
        let [first, second] = a.map(wide);
        std::array::from_fn(|lane| add(add(self[lane], second, wide(b[lane][1])), first, wide(b[lane][0])))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::{
        __m256, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    };

    impl Sums for __m256 {
        const LANES: usize = 8;

        /// The first and the second number of each pair.
        type Factors = [__m256; 2];

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller answers for the instruction set.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller answers for what is read.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller answers for what is written.
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn factors(from: *const bf16) -> [__m256; 2] {
            // SAFETY: the caller answers for what is read.
            let pairs = unsafe { _mm256_loadu_si256(from.cast()) };
            // SAFETY: and for the instruction set.
            unsafe {
                let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
                [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second)]
            }
        }

        #[inline(always)]
        unsafe fn plus_products(self, a: [bf16; 2], [first, second]: [__m256; 2]) -> Self {
            let wide = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
            // SAFETY: the caller answers for the instruction set.
            unsafe {
                let sum = _mm256_fmadd_ps(_mm256_set1_ps(wide(a[1])), second, self);
                _mm256_fmadd_ps(_mm256_set1_ps(wide(a[0])), first, sum)
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply(product: &Product, target: &mut Target) {
        // SAFETY: compiled for these instructions.
        unsafe { product.all::<__m256, 2, 4, 1>(target) }
    }
}

/// All of a product.
pub(super) fn multiply(product: &Product, target: &mut Target) {
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx2 && is_x86_feature_detected!("fma") {
        // SAFETY: `level` saw AVX2 at least, and the other instruction is asked for here.
        return unsafe { avx2::multiply(product, target) };
    }
    // SAFETY: arrays ask for no instruction set.
    unsafe { product.all::<[f32; 4], 4, 2, 1>(target) }
}
