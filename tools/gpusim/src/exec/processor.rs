//! What the processor at hand can do, and code that is compiled for each kind of them.
//!
//! Loops over lanes are compiled for any processor, for one with AVX2 and fused multiply-adds, and for one with AVX-512.
//! Which of them runs is chosen when a kernel is decoded, or for what no instruction decides at the call.

use super::{Core, Done, Exec};
use crate::program::Inst;
use std::sync::OnceLock;

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// What this processor can do, or less where `GPUSIM_PROCESSOR` says so.
fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| limited(std::env::var("GPUSIM_PROCESSOR").as_deref().ok(), detected()))
}

/// The most that a `value` of the variable allows; none for one that it can't have.
fn named(value: &str) -> Option<Level> {
    match value {
        "baseline" => Some(Level::Baseline),
        #[cfg(target_arch = "x86_64")]
        "avx2" => Some(Level::Avx2),
        _ => None,
    }
}

/// Whether `GPUSIM_PROCESSOR` may have this value.
pub(crate) fn is_processor(value: &str) -> bool {
    named(value).is_some()
}

/// As much of what is `there` as the variable's `value` allows.
fn limited(value: Option<&str>, there: Level) -> Level {
    value.and_then(named).map_or(there, |most| there.min(most))
}

fn detected() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512) {
            (true, true) => return Level::Avx512,
            (true, false) => return Level::Avx2,
            _ => {}
        }
    }
    Level::Baseline
}

/// Has this processor AVX-512, as far as [`best`] uses it?
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    level() == Level::Avx512
}

/// The body of an instruction, to be compiled for several processors.
pub(super) trait Body: 'static {
    /// Executes it.
    ///
    /// # Safety
    /// As for [`Exec`].
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done;
}

unsafe fn baseline<B: Body>(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the caller's promise.
    unsafe { B::run(core, inst, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt")]
unsafe fn avx2<B: Body>(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the caller's promise.
    unsafe { B::run(core, inst, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<B: Body>(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the caller's promise.
    unsafe { B::run(core, inst, mask) }
}

/// The best compilation of a body for this processor.
pub(super) fn best<B: Body>() -> Exec {
    match level() {
        Level::Baseline => baseline::<B>,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::<B>,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::<B>,
    }
}

/// Some work, to be compiled for several processors.
pub(super) trait Work {
    /// What it gives.
    type Output;

    /// Does it. To be `#[inline(always)]`, for what is not inlined is compiled for any processor.
    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt")]
fn work_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn work_avx512<W: Work>(work: W) -> W::Output {
    work.run()
}

/// Does some work with all that this processor has.
#[inline]
pub(super) fn with_best<W: Work>(work: W) -> W::Output {
    match level() {
        Level::Baseline => work.run(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has these features.
        Level::Avx2 => unsafe { work_avx2(work) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { work_avx512(work) },
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Or else the samples that CI takes of lesser processors would be of this one.
    #[test]
    fn the_environment_takes_away_and_never_adds() {
        let levels = [Level::Baseline, Level::Avx2, Level::Avx512];
        for there in levels {
            assert_eq!(limited(Some("baseline"), there), Level::Baseline);
            assert_eq!(limited(Some("avx2"), there), if there == Level::Baseline { there } else { Level::Avx2 });
            assert_eq!(limited(None, there), there);
        }
        // What this process runs with is what its environment says.
        assert_eq!(level(), limited(std::env::var("GPUSIM_PROCESSOR").as_deref().ok(), detected()));
    }
}
