//! A register of floats: what a matrix product's loops are written in, once for all instruction sets.
//!
//! The compiler finds vectors in plain loops well enough where memory is the limit. A product lives from its sums staying in registers, and
//! that is spelled out.

/// Some floats in a register.
///
/// The functions are unsafe to call for what they have in common: the processor must have the instruction set, and the caller must have been
/// compiled for it (`target_feature`), or they become calls.
pub(super) trait Vector: Copy {
    /// How many floats.
    const LANES: usize;

    /// The same float in all lanes.
    unsafe fn splat(x: f32) -> Self;

    /// The floats from `from` on, all of which must be readable.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes to `to` and behind it; all of that must be writable.
    unsafe fn store(self, to: *mut f32);

    /// `self + x` in each lane.
    unsafe fn plus(self, x: Self) -> Self;

    /// `self + x·y` in each lane, rounded once where there is an instruction for it.
    unsafe fn plus_product(self, x: Self, y: Self) -> Self;
}

/// Implements [`Vector`] by the functions of an instruction set.
macro_rules! vector {
    ($type:ty, $lanes:literal, $splat:expr, $load:expr, $store:expr, $plus:expr, |$sum:ident, $x:ident, $y:ident| $plus_product:expr) => {
        impl Vector for $type {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: the caller answers for the instruction set; nothing else is asked for.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller answers for what is read; none of these loads asks for an alignment.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller answers for what is written; none of these stores asks for an alignment.
                unsafe { $store(to, self) }
            }

            #[inline(always)]
            unsafe fn plus(self, x: Self) -> Self {
                // SAFETY: the caller answers for the instruction set.
                unsafe { $plus(self, x) }
            }

            #[inline(always)]
            unsafe fn plus_product(self, $x: Self, $y: Self) -> Self {
                let $sum = self;
                // SAFETY: the caller answers for the instruction set.
                unsafe { $plus_product }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, |sum, x, y| _mm256_fmadd_ps(
        x, y, sum
    ));
    vector!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, |sum, x, y| _mm512_fmadd_ps(
        x, y, sum
    ));
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Vector;
    use std::arch::aarch64::*;

    vector!(float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vaddq_f32, |sum, x, y| vfmaq_f32(sum, x, y));
}

/// Where the build knows of no fused multiply-add: an array, which the compiler puts in whatever registers there are.
#[cfg(not(target_arch = "aarch64"))]
impl Vector for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; 4]
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
    unsafe fn plus(self, x: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + x[lane])
    }

    #[inline(always)]
    unsafe fn plus_product(self, x: Self, y: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + x[lane] * y[lane])
    }
}
