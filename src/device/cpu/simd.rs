//! One loop, compiled for several instruction sets.
//!
//! A user's `cargo build` compiles for the oldest x86-64, which has vectors of four floats. [`simd!`] compiles a loop for
//! AVX2 and AVX-512 besides and runs the widest that the machine has. The loops contain no fused multiply-add and reduce
//! in an order that they spell out themselves, so all versions give the same bits.

/// Defines functions whose body is compiled once per instruction set.
macro_rules! simd {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn portable($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) {
                    portable($($arg),*)
                }

                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512($($arg: $type),*) {
                    portable($($arg),*)
                }

                match $crate::device::cpu::simd::level() {
                    // SAFETY: `level` saw that the processor has these instructions.
                    $crate::device::cpu::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::device::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::device::cpu::simd::Level::Portable => {}
                }
            }
            portable($($arg),*)
        }
    )*};
}

pub(super) use simd;

/// The instruction sets that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// What the build was told to expect: four floats a vector on x86-64.
    Portable,
    /// Eight floats.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sixteen floats.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
        })
    }
}

/// The widest instruction set that this machine has.
#[inline]
pub(super) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        // Each of these is a load from a cached word.
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Portable
}
