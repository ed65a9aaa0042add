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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    #[cfg(test)]
    if let Some(level) = tests::FORCED.get() {
        return level;
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::Activation;
    use crate::device::cpu::rows;
    use std::cell::Cell;

    thread_local! {
        /// What [`level`] answers on this thread instead of what it sees.
        pub(super) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// What `run` returns on each level that this machine has.
    pub(in crate::device::cpu) fn on_each_level<T>(run: impl Fn() -> T) -> Vec<T> {
        let widest = level();
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        levels.extend([Level::Avx2, Level::Avx512].into_iter().filter(|&level| level <= widest));
        let answers = levels.iter().map(|&level| {
            FORCED.set(Some(level));
            run()
        });
        let answers = answers.collect();
        FORCED.set(None);
        answers
    }

    /// Numbers of both signs and many magnitudes.
    pub(in crate::device::cpu) fn numbers(seed: u32, len: usize) -> Vec<f32> {
        let hash = |i: u32| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(15).wrapping_mul(0x85eb_ca6b);
        (0..len as u32).map(|i| f32::from_bits(hash(i) & 0x83ff_ffff | 0x3c00_0000)).collect()
    }

    #[test]
    fn all_levels_give_the_same_bits() {
        const CHANNELS: usize = 93;
        const LEN: usize = 37 * CHANNELS;
        let [x, y, dz] = [1, 2, 3].map(|seed| numbers(seed, LEN));
        let [scale, shift, third] = [4, 5, 6].map(|seed| numbers(seed, CHANNELS));
        let answers = on_each_level(|| {
            let [mut normalised, mut paid, mut masked, mut biased] = [(); 4].map(|()| dz.clone());
            let [mut mean, mut squares, mut sums, mut plain, mut centred] = [(); 5].map(|()| vec![0.0; CHANNELS]);
            rows::normalise(&mut normalised, &x, CHANNELS, &scale, &shift, Activation::Relu6);
            rows::pay(&mut paid, &dz, &y, CHANNELS, &scale, &shift, &third);
            rows::mask(&mut masked, &x, &scale, &shift, Activation::Relu6);
            rows::add_bias(&mut biased, &shift);
            rows::moments(&x, &mut mean, &mut squares);
            rows::column_sums(&x, &mut sums);
            rows::gradient_sums(&dz, &x, &third, &mut plain, &mut centred);
            let floats = [normalised, paid, masked, biased].concat().into_iter().map(|v| u64::from(v.to_bits()));
            let sums = [mean, squares, sums, plain, centred].concat().into_iter().map(f64::to_bits);
            floats.chain(sums).collect::<Vec<u64>>()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }

    #[test]
    fn levels_are_told_apart() {
        let levels = on_each_level(level);
        assert!(levels[0] == Level::Portable && levels.is_sorted());
    }
}
