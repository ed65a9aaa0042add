//! Rows of registers, and the shells that turn a scalar closure into an instruction.
//!
//! A closure that captures nothing is a type of no size; `binary(|a: f32, b: f32| a + b)` is a loop over 32 lanes with
//! that closure compiled into it, for each kind of processor: a shape that LLVM turns into a few vector instructions.

use super::processor::{Body, best};
use super::{Core, Done, Exec};
use crate::program::{Inst, Slot};
use std::marker::PhantomData;

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

    /// A row, to write.
    ///
    /// # Safety
    /// As for [`Self::row`].
    #[inline(always)]
    pub(super) unsafe fn row_mut<T: Lane>(&mut self, slot: Slot) -> &mut [T; 32] {
        // SAFETY: the caller's promise; `&mut self` makes the reference unique.
        unsafe { &mut *self.registers.add(slot as usize).cast::<[T; 32]>() }
    }

    /// Writes the active lanes of a row.
    ///
    /// # Safety
    /// As for [`Self::row`].
    #[inline(always)]
    pub(super) unsafe fn set_row<T: Lane>(&mut self, slot: Slot, values: [T; 32], mask: u32) {
        // SAFETY: the caller's promise.
        let row = unsafe { self.row_mut(slot) };
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
