//! Rows of registers, and the shells that turn a scalar closure into an instruction.
//!
//! A closure that captures nothing is a type of no size; `binary(|a: f32, b: f32| a + b)` is a loop over 32 lanes with
//! that closure compiled into it. Each loop is compiled for any processor, for one with AVX2 and fused multiply-adds and
//! for one with AVX-512, and chosen by what the processor has when a kernel is decoded: a shape that LLVM turns into a
//! few vector instructions.

use super::{Core, Done, Exec};
use crate::program::{Inst, Slot};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// A value that a row can hold.
pub(super) trait Lane: Copy + Default + 'static {}

impl Lane for u16 {}
impl Lane for i16 {}
impl Lane for u32 {}
impl Lane for i32 {}
impl Lane for u64 {}
impl Lane for i64 {}
impl Lane for f32 {}
impl Lane for f64 {}

impl Core<'_> {
    pub(super) fn set_registers(&mut self) {
        self.registers = self.warp.registers();
    }

    /// The values of a row.
    ///
    /// # Safety
    /// `slot` is a row of `T`s of this kernel.
    #[inline(always)]
    pub(super) unsafe fn row<T: Lane>(&self, slot: Slot) -> [T; 32] {
        // SAFETY: the caller's promise; rows are aligned to 64 bytes.
        unsafe { *self.registers.add(slot as usize).cast::<[T; 32]>() }
    }

    /// Writes the active lanes of a row.
    ///
    /// # Safety
    /// As for [`Self::row`].
    #[inline(always)]
    pub(super) unsafe fn set_row<T: Lane>(&mut self, slot: Slot, values: [T; 32], mask: u32) {
        // SAFETY: the caller's promise; `&mut self` makes the reference unique.
        let row = unsafe { &mut *self.registers.add(slot as usize).cast::<[T; 32]>() };
        if mask == u32::MAX {
            *row = values;
        } else {
            for lane in 0..32 {
                row[lane] = if mask >> lane & 1 != 0 { values[lane] } else { row[lane] };
            }
        }
    }

    /// A predicate's mask.
    ///
    /// # Safety
    /// `slot` is a predicate of this kernel.
    #[inline(always)]
    pub(super) unsafe fn predicate(&self, slot: Slot) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *self.registers.add(slot as usize).cast::<u32>() }
    }

    /// Writes the active lanes of a predicate.
    ///
    /// # Safety
    /// As for [`Self::predicate`].
    #[inline(always)]
    pub(super) unsafe fn set_predicate(&mut self, slot: Slot, values: u32, mask: u32) {
        // SAFETY: the caller's promise.
        let word = unsafe { &mut *self.registers.add(slot as usize).cast::<u32>() };
        *word = *word & !mask | values & mask;
    }
}

/// A row as values of `T`, whatever the width of its elements (zero-extended or cut).
///
/// # Safety
/// `slot` is a row of elements of `size` bytes.
#[inline(always)]
pub(super) unsafe fn wide_row(core: &Core<'_>, slot: Slot, size: u32) -> [u64; 32] {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            2 => core.row::<u16>(slot).map(u64::from),
            4 => core.row::<u32>(slot).map(u64::from),
            _ => core.row::<u64>(slot),
        }
    }
}

/// Writes the low bits of `values` to a row of elements of `size` bytes.
///
/// # Safety
/// As for [`wide_row`].
#[inline(always)]
pub(super) unsafe fn set_wide_row(core: &mut Core<'_>, slot: Slot, size: u32, values: [u64; 32], mask: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            2 => core.set_row(slot, values.map(|v| v as u16), mask),
            4 => core.set_row(slot, values.map(|v| v as u32), mask),
            _ => core.set_row(slot, values, mask),
        }
    }
}

/// What the processor can do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
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
    })
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

/// Does some work, compiled for this processor as far as it is inlined here.
#[inline(always)]
pub(super) fn with_best<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt")]
    unsafe fn with_avx2<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn with_avx512<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    match level() {
        Level::Baseline => work(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has these features.
        Level::Avx2 => unsafe { with_avx2(work) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { with_avx512(work) },
    }
}

/// The closure of a type that has only one value.
#[inline(always)]
fn closure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "the closure of an instruction captures nothing") };
    // SAFETY: reading a value of no size touches no memory; the value exists, since a constructor was given one.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

macro_rules! shells {
    ($($constructor:ident $body:ident ($($input:ident $value:ident $index:literal),+);)+) => {$(
        struct $body<$($input,)+ D, F>(PhantomData<($($input,)+ D, F)>);

        impl<$($input: Lane,)+ D: Lane, F: Fn($($input),+) -> D + Copy + 'static> Body for $body<$($input,)+ D, F> {
            #[inline(always)]
            unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
                let f = closure::<F>();
                // SAFETY: the caller's promise about rows.
                unsafe {
                    $(let $value = core.row::<$input>(inst.a[$index]);)+
                    let mut out = [D::default(); 32];
                    for lane in 0..32 {
                        out[lane] = f($($value[lane]),+);
                    }
                    core.set_row(inst.a[0], out, mask);
                }
                Ok(())
            }
        }

        /// An instruction that applies `f` to each lane: row 0 from the rows behind it.
        pub(super) fn $constructor<$($input: Lane,)+ D: Lane, F>(_: F) -> Exec
        where
            F: Fn($($input),+) -> D + Copy + 'static,
        {
            best::<$body<$($input,)+ D, F>>()
        }
    )+};
}

shells! {
    unary Unary(A a 1);
    binary Binary(A a 1, B b 2);
    ternary Ternary(A a 1, B b 2, C c 3);
    quaternary Quaternary(A a 1, B b 2, C c 3, E e 4);
}

/// Applies `f`, which also sees the instruction's immediate.
struct WithImmediate<A, B, C, D, F>(PhantomData<(A, B, C, D, F)>);

impl<A: Lane, B: Lane, C: Lane, D: Lane, F> Body for WithImmediate<A, B, C, D, F>
where
    F: Fn(A, B, C, i64) -> D + Copy + 'static,
{
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        let f = closure::<F>();
        // SAFETY: the caller's promise about rows.
        unsafe {
            let a = core.row::<A>(inst.a[1]);
            let b = core.row::<B>(inst.a[2]);
            let c = core.row::<C>(inst.a[3]);
            let mut out = [D::default(); 32];
            for lane in 0..32 {
                out[lane] = f(a[lane], b[lane], c[lane], inst.imm);
            }
            core.set_row(inst.a[0], out, mask);
        }
        Ok(())
    }
}

/// An instruction that applies `f` to three rows and its immediate.
pub(super) fn ternary_immediate<A: Lane, B: Lane, C: Lane, D: Lane, F>(_: F) -> Exec
where
    F: Fn(A, B, C, i64) -> D + Copy + 'static,
{
    best::<WithImmediate<A, B, C, D, F>>()
}

/// A comparison's mask, before predicates are combined.
struct Compare<A, F>(PhantomData<(A, F)>);

impl<A: Lane, F: Fn(A, A) -> bool + Copy + 'static> Body for Compare<A, F> {
    /// Row 0 is the predicate, row 1 the one for the opposite, 2 and 3 are compared; row 4 with the immediate's low bits
    /// (1 and, 2 or, 3 xor; 4: negated) combines a third predicate.
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        let f = closure::<F>();
        // SAFETY: the caller's promise about rows.
        unsafe {
            let a = core.row::<A>(inst.a[2]);
            let b = core.row::<A>(inst.a[3]);
            let mut hits = 0u32;
            for lane in 0..32 {
                hits |= u32::from(f(a[lane], b[lane])) << lane;
            }
            let (mut yes, mut no) = (hits, !hits);
            if inst.imm != 0 {
                let mut third = core.predicate(inst.a[4]);
                if inst.imm & 4 != 0 {
                    third = !third;
                }
                (yes, no) = match inst.imm & 3 {
                    1 => (yes & third, no & third),
                    2 => (yes | third, no | third),
                    _ => (yes ^ third, no ^ third),
                };
            }
            core.set_predicate(inst.a[0], yes, mask);
            if inst.a[1] != 0 {
                core.set_predicate(inst.a[1], no, mask);
            }
        }
        Ok(())
    }
}

/// A comparison that sets predicates.
pub(super) fn compare<A: Lane, F: Fn(A, A) -> bool + Copy + 'static>(_: F) -> Exec {
    best::<Compare<A, F>>()
}
