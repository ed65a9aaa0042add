//! One loop, compiled for several instruction sets.
//!
//! A user's `cargo build` compiles for the oldest x86-64, which has vectors of four floats. [`simd!`] compiles a loop for
//! AVX2 and AVX-512 besides and runs the widest that the machine has. A build for aarch64 has NEON's vectors of four floats, and nothing
//! wider is compiled. The loops contain no fused multiply-add and reduce in an order that they spell out themselves, so all versions
//! give the same bits, on every kind of processor.

mod limit;

/// Defines functions whose body is compiled once per instruction set. They may be generic over types with a bound each.
macro_rules! simd {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident$(<$($of:ident: $bound:ident),+>)?($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name$(<$($of: $bound),+>)?($($arg: $type),*) {
            #[inline(always)]
            fn portable$(<$($of: $bound),+>)?($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2$(<$($of: $bound),+>)?($($arg: $type),*) {
                    portable($($arg),*)
                }

                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512$(<$($of: $bound),+>)?($($arg: $type),*) {
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

pub(super) use limit::refusal;
pub(super) use simd;

/// The instruction sets that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// What the build was told to expect: four floats a vector on x86-64 and on aarch64.
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
            Level::Portable if cfg!(target_arch = "aarch64") => "NEON",
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
        })
    }
}

/// The widest instruction set that this machine has and kernels may use.
#[inline]
pub(super) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::FORCED.get() {
        return level;
    }
    limit::limited(widest())
}

/// The widest that this machine has.
#[inline]
fn widest() -> Level {
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

/// What multiplies bfloat16 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Products {
    /// Plain Rust, on numbers made wider.
    Widened,
    /// AVX-512 with `vdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AMX: tile registers and `tdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl std::fmt::Display for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Products::Widened => "widened",
            #[cfg(target_arch = "x86_64")]
            Products::Avx512Bf16 => "AVX-512 BF16",
            #[cfg(target_arch = "x86_64")]
            Products::Amx => "AMX",
        })
    }
}

impl Products {
    /// Whether they are faster than products of `f32` numbers. AMX's are. `vdpbf16ps` does twice the work of a multiply-add on an AMD EPYC of
    /// Zen 4, and half of it on an Intel Xeon (docs/measurements.md).
    pub(super) fn outdo_f32(self) -> bool {
        match self {
            Products::Widened => false,
            #[cfg(target_arch = "x86_64")]
            Products::Avx512Bf16 => !is_intels(),
            #[cfg(target_arch = "x86_64")]
            Products::Amx => true,
        }
    }

    /// Whether they are made on tile registers.
    pub(super) fn are_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Products::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// The fastest that this machine has and kernels may use.
#[inline]
pub(super) fn products() -> Products {
    #[cfg(test)]
    if let Some(products) = tests::FORCED_PRODUCTS.get() {
        return products;
    }
    limit::limited_products(fastest())
}

/// The fastest that this machine has.
#[inline]
fn fastest() -> Products {
    #[cfg(target_arch = "x86_64")]
    {
        if tiles::are_usable() {
            return Products::Amx;
        }
        if level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16") {
            return Products::Avx512Bf16;
        }
    }
    Products::Widened
}

/// Whether Intel made the processor, by its own word.
#[cfg(target_arch = "x86_64")]
fn is_intels() -> bool {
    let word = std::arch::x86_64::__cpuid(0);
    [word.ebx, word.edx, word.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// AMX, which the standard library does not detect yet.
#[cfg(target_arch = "x86_64")]
mod tiles {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// Whether the processor has tile registers that multiply bfloat16 numbers and the system lets this process use them.
    pub(super) fn are_usable() -> bool {
        static USABLE: OnceLock<bool> = OnceLock::new();
        *USABLE.get_or_init(|| {
            is_x86_feature_detected!("avx512bf16") && have_instructions() && are_saved() && are_granted()
        })
    }

    /// AMX-BF16 and AMX-TILE, by the processor's word.
    fn have_instructions() -> bool {
        const BF16: u32 = 1 << 22;
        const TILES: u32 = 1 << 24;
        let features = __cpuid_count(7, 0).edx;
        features & BF16 != 0 && features & TILES != 0
    }

    /// Whether the system saves tile registers when it changes from one thread to another. Only asked where AVX-512 is, and with it the
    /// instruction that tells.
    fn are_saved() -> bool {
        const SHAPES_AND_DATA: u64 = 0b11 << 17;
        #[target_feature(enable = "xsave")]
        fn saved() -> u64 {
            // SAFETY: register 0 is there wherever the instruction is.
            unsafe { _xgetbv(0) }
        }
        // SAFETY: the instruction is there, and usable, where `is_x86_feature_detected` found AVX-512 to be so.
        let saved = unsafe { saved() };
        saved & SHAPES_AND_DATA == SHAPES_AND_DATA
    }

    /// Linux hands out the memory that tile registers are saved in only to those who asked, and then to all threads of the process.
    #[cfg(target_os = "linux")]
    fn are_granted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XTILEDATA: u64 = 18;
        let mut answer = ARCH_PRCTL;
        // SAFETY: the call takes two numbers and changes no memory of ours.
        unsafe {
            std::arch::asm!(
                "syscall",
                inout("rax") answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        answer == 0
    }

    /// Other systems are not known.
    #[cfg(not(target_os = "linux"))]
    fn are_granted() -> bool {
        false
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::Activation;
    use crate::device::cpu::rows;
    use std::cell::Cell;
    use std::io::Write;

    thread_local! {
        /// What [`level`] answers on this thread instead of what it sees.
        pub(super) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    thread_local! {
        /// What [`products`] answers on this thread instead of what it sees.
        pub(super) static FORCED_PRODUCTS: Cell<Option<Products>> = const { Cell::new(None) };
    }

    /// What `run` returns with each kind of product that this machine has; which it has not is said once, and loudly.
    pub(in crate::device::cpu) fn with_each_product<T>(run: impl Fn() -> T) -> Vec<(Products, T)> {
        let best = products();
        let all = [
            Products::Widened,
            #[cfg(target_arch = "x86_64")]
            Products::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Products::Amx,
        ];
        let (kinds, others): (Vec<Products>, Vec<Products>) = all.into_iter().partition(|&kind| kind <= best);
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            // Straight to where no test harness holds it back.
            let mut stderr = std::io::stderr();
            for kind in others {
                let _ = writeln!(stderr, "NOT TESTED, since this processor cannot: bfloat16 products by {kind}");
            }
        });
        let answers = kinds.into_iter().map(|kind| {
            FORCED_PRODUCTS.set(Some(kind));
            (kind, run())
        });
        let answers = answers.collect();
        FORCED_PRODUCTS.set(None);
        answers
    }

    /// What `run` returns on each level that this machine has.
    pub(in crate::device::cpu) fn on_each_level<T>(run: impl Fn() -> T) -> Vec<T> {
        let widest = level();
        let all = [
            Level::Portable,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512,
        ];
        let answers = all.into_iter().filter(|&level| level <= widest).map(|level| {
            FORCED.set(Some(level));
            run()
        });
        let answers = answers.collect();
        FORCED.set(None);
        answers
    }

    /// Panics unless all levels give the same `bits`, and those whose digest is `known` ([`check_digest`]).
    #[track_caller]
    pub(in crate::device::cpu) fn check_bits(known: &str, bits: impl Fn() -> Vec<u64>) {
        let answers = on_each_level(bits);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "levels differ");
        check_digest(known, &answers[0]);
    }

    /// Panics unless the digest of `bits` begins with what is `known`. That is the same on every kind of processor: so one of a single
    /// level, as those with NEON are, is compared with the others.
    #[track_caller]
    pub(in crate::device::cpu) fn check_digest(known: &str, bits: &[u64]) {
        let digest = blake3::hash(bytemuck::cast_slice(bits)).to_hex();
        assert!(digest.starts_with(known), "the digest of these bits is {digest}, and was known as {known}");
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
        check_bits("009be5b37e818105", || {
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
            floats.chain(sums).collect()
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tiles_outdo_f32_and_dot_products_not_on_intels_processors() {
        let outdo = [Products::Widened, Products::Avx512Bf16, Products::Amx].map(Products::outdo_f32);
        let vendor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        assert_eq!(outdo, [false, !vendor.contains("GenuineIntel"), true]);
    }

    #[test]
    fn levels_are_told_apart() {
        let levels = on_each_level(level);
        assert!(levels[0] == Level::Portable && levels.is_sorted());
    }
}
