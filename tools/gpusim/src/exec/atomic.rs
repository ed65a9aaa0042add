//! `atom` and `red`.
//!
//! Lanes of a warp go one after another; host threads meet in the processor's own compare-and-swap.

use super::access::{Mode, lanes};
use super::float::{maximum, minimum};
use super::lanes::{set_wide_row, wide_row};
use super::memory::{SPACES, addresses, is_scope, number, space};
use super::{Core, Done};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Space, Type};
use half::{bf16, f16};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

type Result<T> = std::result::Result<T, DecodeError>;

/// What the memory becomes, of its old value and the operands.
type Update = fn(u64, u64, u64) -> u64;

fn float(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

type OnSingles = fn(f32, f32) -> f32;

fn on_f16(a: u64, b: u64, f: OnSingles) -> u64 {
    f16::from_f32(f(f16::from_bits(a as u16).to_f32(), f16::from_bits(b as u16).to_f32())).to_bits().into()
}

fn on_bf16(a: u64, b: u64, f: OnSingles) -> u64 {
    bf16::from_f32(f(bf16::from_bits(a as u16).to_f32(), bf16::from_bits(b as u16).to_f32())).to_bits().into()
}

fn half_pair(a: u64, b: u64, f: fn(u64, u64, OnSingles) -> u64, op: OnSingles) -> u64 {
    f(a, b, op) | f(a >> 16, b >> 16, op) << 16
}

fn sum(a: f32, b: f32) -> f32 {
    a + b
}

/// The updates, by the number inside an instruction.
const UPDATES: [(&str, Type, Update); 50] = [
    ("add", Type::U32, |old, b, _| (old as u32).wrapping_add(b as u32).into()),
    ("add", Type::S32, |old, b, _| (old as u32).wrapping_add(b as u32).into()),
    ("add", Type::U64, |old, b, _| old.wrapping_add(b)),
    ("add", Type::S64, |old, b, _| old.wrapping_add(b)),
    ("add", Type::F32, |old, b, _| (float(old) + float(b)).to_bits().into()),
    ("add", Type::F64, |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
    ("add", Type::F16, |old, b, _| on_f16(old, b, sum)),
    ("add", Type::Bf16, |old, b, _| on_bf16(old, b, sum)),
    ("add", Type::F16x2, |old, b, _| half_pair(old, b, on_f16, sum)),
    ("add", Type::Bf16x2, |old, b, _| half_pair(old, b, on_bf16, sum)),
    ("min", Type::F16, |old, b, _| on_f16(old, b, minimum)),
    ("min", Type::Bf16, |old, b, _| on_bf16(old, b, minimum)),
    ("max", Type::F16, |old, b, _| on_f16(old, b, maximum)),
    ("max", Type::Bf16, |old, b, _| on_bf16(old, b, maximum)),
    ("min", Type::F16x2, |old, b, _| half_pair(old, b, on_f16, minimum)),
    ("min", Type::Bf16x2, |old, b, _| half_pair(old, b, on_bf16, minimum)),
    ("max", Type::F16x2, |old, b, _| half_pair(old, b, on_f16, maximum)),
    ("max", Type::Bf16x2, |old, b, _| half_pair(old, b, on_bf16, maximum)),
    ("and", Type::B32, |old, b, _| old & b),
    ("and", Type::B64, |old, b, _| old & b),
    ("or", Type::B32, |old, b, _| old | b),
    ("or", Type::B64, |old, b, _| old | b),
    ("xor", Type::B32, |old, b, _| old ^ b),
    ("xor", Type::B64, |old, b, _| old ^ b),
    ("exch", Type::B32, |_, b, _| b),
    ("exch", Type::B64, |_, b, _| b),
    ("exch", Type::U32, |_, b, _| b),
    ("exch", Type::S32, |_, b, _| b),
    ("exch", Type::F32, |_, b, _| b),
    ("exch", Type::U64, |_, b, _| b),
    ("cas", Type::B16, |old, b, c| if old as u16 == b as u16 { c } else { old }),
    ("cas", Type::B32, |old, b, c| if old as u32 == b as u32 { c } else { old }),
    ("cas", Type::U32, |old, b, c| if old as u32 == b as u32 { c } else { old }),
    ("cas", Type::S32, |old, b, c| if old as u32 == b as u32 { c } else { old }),
    ("cas", Type::B64, |old, b, c| if old == b { c } else { old }),
    ("cas", Type::U64, |old, b, c| if old == b { c } else { old }),
    ("cas", Type::S64, |old, b, c| if old == b { c } else { old }),
    ("inc", Type::U32, |old, b, _| if old as u32 >= b as u32 { 0 } else { old + 1 }),
    ("dec", Type::U32, |old, b, _| if old == 0 || old as u32 > b as u32 { b } else { old - 1 }),
    ("min", Type::U32, |old, b, _| (old as u32).min(b as u32).into()),
    ("min", Type::S32, |old, b, _| (old as i32).min(b as i32) as u32 as u64),
    ("min", Type::U64, |old, b, _| old.min(b)),
    ("min", Type::S64, |old, b, _| (old as i64).min(b as i64) as u64),
    ("max", Type::U32, |old, b, _| (old as u32).max(b as u32).into()),
    ("max", Type::S32, |old, b, _| (old as i32).max(b as i32) as u32 as u64),
    ("max", Type::U64, |old, b, _| old.max(b)),
    ("max", Type::S64, |old, b, _| (old as i64).max(b as i64) as u64),
    ("add", Type::B32, |old, b, _| (old as u32).wrapping_add(b as u32).into()),
    ("exch", Type::S64, |_, b, _| b),
    ("exch", Type::F64, |_, b, _| b),
];

/// The number of an update by its name and type.
pub(super) fn reduction(name: &str, ty: Type) -> Option<usize> {
    UPDATES.iter().position(|&(known, kind, _)| known == name && kind == ty)
}

/// An update of whole ranges, element by element.
#[derive(Clone, Copy)]
pub(super) struct Reduction {
    size: usize,
    update: Update,
}

impl Reduction {
    /// The one with the number that [`reduction`] gave.
    pub fn numbered(number: usize) -> Self {
        let (_, ty, update) = UPDATES[number];
        Self { size: ty.size(), update }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        self.size
    }

    /// Updates memory that nobody else sees.
    pub fn apply(self, old: &mut [u8], with: &[u8]) {
        for (old, with) in old.chunks_exact_mut(self.size).zip(with.chunks_exact(self.size)) {
            let new = (self.update)(bits(old), bits(with), 0);
            old.copy_from_slice(&new.to_le_bytes()[..self.size]);
        }
    }

    /// Updates an element of device memory.
    ///
    /// # Safety
    /// It is there, aligned.
    pub unsafe fn update(self, place: u64, with: &[u8]) {
        let with = bits(with);
        // SAFETY: the caller's promise.
        unsafe { swap(place, self.size as u32, |old| (self.update)(old, with, 0)) };
    }
}

/// Up to eight bytes as a number.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

/// Rows in [`Inst::wide`] before those of the values: space, base is narrow, update, element size, order, value count.
const HEAD: usize = 6;
const RELEASE: Slot = 1;
const ACQUIRE: Slot = 2;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let (mut place, mut order, mut operation, mut count) = (Space::Generic, 0, None, 1usize);
    let Some(&ty) = ins.types().last() else {
        return d.unsupported(ins);
    };
    for word in &ins.modifiers {
        match word.as_str() {
            "relaxed" | "noftz" => {}
            "acquire" => order |= ACQUIRE,
            "release" => order |= RELEASE,
            "acq_rel" => order |= RELEASE | ACQUIRE,
            "v2" => count = 2,
            "v4" => count = 4,
            "v8" => count = 8,
            "add" | "and" | "or" | "xor" | "exch" | "cas" | "inc" | "dec" | "min" | "max" => {
                operation = Some(word.as_str());
            }
            word => match space(word) {
                Some(found) => place = found,
                None if is_scope(word) || Type::parse(word).is_some() || super::memory::is_cache_hint(word) => {}
                None => return d.unsupported(ins),
            },
        }
    }
    let Some(update) = operation.and_then(|name| reduction(name, ty)) else {
        return d.unsupported(ins);
    };
    let returns = ins.opcode == "atom";
    let first = usize::from(returns);
    let address = d.address(d.operand(ins, first)?)?;
    let mut wide = vec![
        number(&SPACES, place),
        Slot::from(address.narrow),
        update as Slot,
        ty.size() as Slot,
        order,
        count as Slot,
    ];
    let values = d.elements(d.operand(ins, first + 1)?).to_vec();
    let results = if returns { d.elements(d.operand(ins, 0)?).to_vec() } else { Vec::new() };
    if values.len() != count || (returns && results.len() != count) {
        return d.unsupported(ins);
    }
    for value in &values {
        wide.push(d.src(value, ty)?);
    }
    for result in &results {
        wide.push(d.dst(result, ty)?);
    }
    // The second operand of `cas`; others have none and read the first again.
    let third = if operation == Some("cas") { d.src(d.operand(ins, first + 2)?, ty)? } else { wide[HEAD] };
    Ok(Inst::new(Class::Atomic, Act::Lanes(update_lanes), &[address.base, third]).imm(address.offset).wide(wide))
}

unsafe fn update_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let (space, size, order, count) = (SPACES[wide[0] as usize], wide[3], wide[4], wide[5]);
    let update = UPDATES[wide[2] as usize].2;
    // SAFETY: the decoder put an address row in operand 0.
    let mut at = unsafe { addresses(core, inst.a[0], wide[1] != 0, inst.imm) };
    if order & RELEASE != 0 {
        core.warp.clocks.fence_before_release();
    }
    core.launch.order.release(core.common.linear, &core.warp.clocks);
    let mut host = at;
    core.locate(space, &mut host, mask, size * count, Mode::Atomic)?;
    std::mem::swap(&mut at, &mut host);
    // SAFETY: the decoder gave the rows this size, and `locate` found the bytes writable and aligned.
    unsafe {
        let c = wide_row(core, inst.a[1], size);
        for element in 0..count {
            let b = wide_row(core, wide[HEAD + element as usize], size);
            let mut old = [0; 32];
            for lane in lanes(mask) {
                let place = at[lane] + u64::from(element * size);
                old[lane] = swap(place, size, |value| update(value, b[lane], c[lane]));
            }
            if let Some(&result) = wide.get(HEAD + (count + element) as usize) {
                set_wide_row(core, result, size, old, mask);
            }
        }
    }
    // What an atomic returns may tell what other blocks did; only with a fence does that order anything.
    core.launch.order.look(&mut core.warp.clocks);
    if order & ACQUIRE != 0 {
        core.warp.clocks.fence_after_look();
    }
    Ok(())
}

/// Replaces the value at `place` by `f` of it, and gives the old one.
///
/// # Safety
/// `size` bytes are there, aligned.
unsafe fn swap(place: u64, size: u32, f: impl Fn(u64) -> u64) -> u64 {
    macro_rules! swap {
        ($atomic:ty, $value:ty) => {{
            // SAFETY: the caller's promise.
            let cell = unsafe { <$atomic>::from_ptr(place as *mut $value) };
            let update = |old: $value| Some(f(u64::from(old)) as $value);
            let old = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
            u64::from(old.unwrap_or_else(|old| old))
        }};
    }
    match size {
        2 => swap!(AtomicU16, u16),
        4 => swap!(AtomicU32, u32),
        _ => swap!(AtomicU64, u64),
    }
}
