//! Arithmetic: integers here; floats are sent to their families.

use super::lanes::{binary, ternary, unary};
use super::{Core, Done, float, half_float};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Type};

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let types = ins.types();
    let Some(&ty) = types.first() else {
        return d.unsupported(ins);
    };
    match ty {
        Type::F32 | Type::F64 => return float::arithmetic(d, ins, ty),
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => {
            return half_float::decode(d, ins, ty);
        }
        _ => {}
    }
    d.only(ins, &["lo", "hi", "wide", "sat", "cc"])?;
    if matches!(ins.opcode.as_str(), "addc" | "subc" | "madc") || ins.has("cc") {
        return carrying(d, ins, ty);
    }
    match ins.opcode.as_str() {
        "add" | "sub" | "div" | "rem" | "min" | "max" => two(d, ins, ty),
        "mul" | "mul24" => product(d, ins, ty),
        "mad" | "mad24" => product_sum(d, ins, ty),
        "abs" | "neg" => one(d, ins, ty),
        "sad" => sad(d, ins, ty),
        "dp4a" | "dp2a" => dot(d, ins, &types),
        _ => d.unsupported(ins),
    }
}

/// The rows of operands that all have one type.
pub(super) fn rows(d: &mut Decoder<'_>, ins: &Instruction, ty: Type, inputs: usize) -> Result<Vec<Slot>> {
    let mut rows = vec![d.dst(d.operand(ins, 0)?, ty)?];
    for index in 1..=inputs {
        rows.push(d.src(d.operand(ins, index)?, ty)?);
    }
    Ok(rows)
}

fn two(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let rows = rows(d, ins, ty, 2)?;
    let saturate = ins.has("sat");
    // Division by zero gives all ones, as the hardware's sequence does.
    macro_rules! by_type {
        ($signed:ty, $unsigned:ty) => {
            match (ins.opcode.as_str(), ty.is_signed()) {
                ("add", true) if saturate => binary(|a: $signed, b: $signed| a.saturating_add(b)),
                ("sub", true) if saturate => binary(|a: $signed, b: $signed| a.saturating_sub(b)),
                ("add", _) => binary(|a: $unsigned, b: $unsigned| a.wrapping_add(b)),
                ("sub", _) => binary(|a: $unsigned, b: $unsigned| a.wrapping_sub(b)),
                ("div", true) => binary(|a: $signed, b: $signed| if b == 0 { -1 } else { a.wrapping_div(b) }),
                ("div", false) => binary(|a: $unsigned, b: $unsigned| a.checked_div(b).unwrap_or(<$unsigned>::MAX)),
                ("rem", true) => binary(|a: $signed, b: $signed| if b == 0 { a } else { a.wrapping_rem(b) }),
                ("rem", false) => binary(|a: $unsigned, b: $unsigned| a.checked_rem(b).unwrap_or(a)),
                ("min", true) => binary(|a: $signed, b: $signed| a.min(b)),
                ("min", false) => binary(|a: $unsigned, b: $unsigned| a.min(b)),
                ("max", true) => binary(|a: $signed, b: $signed| a.max(b)),
                _ => binary(|a: $unsigned, b: $unsigned| a.max(b)),
            }
        };
    }
    let exec = match ty.size() {
        2 => by_type!(i16, u16),
        4 if !matches!(ty, Type::U16x2 | Type::S16x2) => by_type!(i32, u32),
        8 => by_type!(i64, u64),
        _ => return packed(d, ins, ty, &rows),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// Two 16-bit integers in one register.
fn packed(d: &mut Decoder<'_>, ins: &Instruction, ty: Type, rows: &[Slot]) -> Result<Inst> {
    macro_rules! halves {
        ($half:ty, $f:expr) => {
            binary(|a: u32, b: u32| {
                let low: $half = $f(a as $half, b as $half);
                let high: $half = $f((a >> 16) as $half, (b >> 16) as $half);
                u32::from(low as u16) | u32::from(high as u16) << 16
            })
        };
    }
    let exec = match (ins.opcode.as_str(), ty) {
        ("add", _) => halves!(u16, u16::wrapping_add),
        ("min", Type::U16x2) => halves!(u16, std::cmp::min),
        ("max", Type::U16x2) => halves!(u16, std::cmp::max),
        ("min", Type::S16x2) => halves!(i16, std::cmp::min),
        ("max", Type::S16x2) => halves!(i16, std::cmp::max),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), rows))
}

fn one(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let rows = rows(d, ins, ty, 1)?;
    let negate = ins.opcode == "neg";
    let exec = match (ty, negate) {
        (Type::S16, true) => unary(|a: i16| a.wrapping_neg()),
        (Type::S32, true) => unary(|a: i32| a.wrapping_neg()),
        (Type::S64, true) => unary(|a: i64| a.wrapping_neg()),
        (Type::S16, false) => unary(|a: i16| a.wrapping_abs()),
        (Type::S32, false) => unary(|a: i32| a.wrapping_abs()),
        (Type::S64, false) => unary(|a: i64| a.wrapping_abs()),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// The type of twice the size.
fn doubled(ty: Type) -> Option<Type> {
    Some(match ty {
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        Type::U32 => Type::U64,
        Type::S32 => Type::S64,
        _ => return None,
    })
}

fn product(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let wide = ins.has("wide");
    let result = if wide { doubled(ty) } else { Some(ty) };
    let Some(result) = result else {
        return d.unsupported(ins);
    };
    let rows = [d.dst(d.operand(ins, 0)?, result)?, d.src(d.operand(ins, 1)?, ty)?, d.src(d.operand(ins, 2)?, ty)?];
    let how = if ins.opcode == "mul24" { "24" } else { ins.modifiers[0].as_str() };
    let exec = match (how, ty) {
        ("lo", Type::U16 | Type::S16) => binary(|a: u16, b: u16| a.wrapping_mul(b)),
        ("lo", Type::U32 | Type::S32) => binary(|a: u32, b: u32| a.wrapping_mul(b)),
        ("lo", Type::U64 | Type::S64) => binary(|a: u64, b: u64| a.wrapping_mul(b)),
        ("hi", Type::U16) => binary(|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16),
        ("hi", Type::S16) => binary(|a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16),
        ("hi", Type::U32) => binary(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("hi", Type::S32) => binary(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        ("hi", Type::U64) => binary(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("hi", Type::S64) => binary(|a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        ("wide", Type::U16) => binary(|a: u16, b: u16| u32::from(a) * u32::from(b)),
        ("wide", Type::S16) => binary(|a: i16, b: i16| i32::from(a) * i32::from(b)),
        ("wide", Type::U32) => binary(|a: u32, b: u32| u64::from(a) * u64::from(b)),
        ("wide", Type::S32) => binary(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        ("24", Type::U32) if ins.has("lo") => binary(|a: u32, b: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        ("24", Type::S32) if ins.has("lo") => binary(|a: i32, b: i32| (a << 8 >> 8).wrapping_mul(b << 8 >> 8)),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

fn product_sum(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let wide = ins.has("wide");
    let result = if wide { doubled(ty) } else { Some(ty) };
    let Some(result) = result else {
        return d.unsupported(ins);
    };
    let rows = [
        d.dst(d.operand(ins, 0)?, result)?,
        d.src(d.operand(ins, 1)?, ty)?,
        d.src(d.operand(ins, 2)?, ty)?,
        d.src(d.operand(ins, 3)?, result)?,
    ];
    let how = if ins.opcode == "mad24" { "24" } else { ins.modifiers[0].as_str() };
    let exec = match (how, ty) {
        ("lo", Type::U16 | Type::S16) => ternary(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c)),
        ("lo", Type::U32 | Type::S32) => ternary(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c)),
        ("lo", Type::U64 | Type::S64) => ternary(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c)),
        ("hi", Type::U32) => {
            ternary(|a: u32, b: u32, c: u32| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c))
        }
        ("hi", Type::S32) if !ins.has("sat") => {
            ternary(|a: i32, b: i32, c: i32| (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c))
        }
        ("hi", Type::U64) => {
            ternary(|a: u64, b: u64, c: u64| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c))
        }
        ("wide", Type::U16) => ternary(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
        ("wide", Type::S16) => ternary(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
        ("wide", Type::U32) => ternary(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        ("wide", Type::S32) => ternary(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        ("24", Type::U32) if ins.has("lo") => {
            ternary(|a: u32, b: u32, c: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff).wrapping_add(c))
        }
        ("24", Type::S32) if ins.has("lo") => {
            ternary(|a: i32, b: i32, c: i32| (a << 8 >> 8).wrapping_mul(b << 8 >> 8).wrapping_add(c))
        }
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

fn sad(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let rows = rows(d, ins, ty, 3)?;
    let exec = match ty {
        Type::U32 => ternary(|a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b))),
        Type::S32 => ternary(|a: i32, b: i32, c: u32| c.wrapping_add(a.abs_diff(b))),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// `dp4a`, `dp2a`: dot products of bytes.
fn dot(d: &mut Decoder<'_>, ins: &Instruction, types: &[Type]) -> Result<Inst> {
    let rows = rows(d, ins, Type::B32, 3)?;
    fn bytes(word: u32, signed: bool) -> [i32; 4] {
        word.to_le_bytes().map(|b| if signed { i32::from(b as i8) } else { i32::from(b) })
    }
    fn words(word: u32, signed: bool) -> [i32; 2] {
        [word as u16, (word >> 16) as u16].map(|w| if signed { i32::from(w as i16) } else { i32::from(w) })
    }
    fn dot4(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
        let (a, b) = (bytes(a, a_signed), bytes(b, b_signed));
        (0..4).fold(c, |sum, i| sum.wrapping_add((a[i] * b[i]) as u32))
    }
    fn dot2(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, high: bool) -> u32 {
        let (a, b) = (words(a, a_signed), bytes(b, b_signed));
        let first = if high { 2 } else { 0 };
        (0..2).fold(c, |sum, i| sum.wrapping_add((a[i].wrapping_mul(b[first + i])) as u32))
    }
    let &[at, bt] = types else {
        return d.unsupported(ins);
    };
    let exec = match (ins.opcode.as_str(), at.is_signed(), bt.is_signed(), ins.has("hi")) {
        ("dp4a", true, true, _) => ternary(|a: u32, b: u32, c: u32| dot4(a, b, c, true, true)),
        ("dp4a", true, false, _) => ternary(|a: u32, b: u32, c: u32| dot4(a, b, c, true, false)),
        ("dp4a", false, true, _) => ternary(|a: u32, b: u32, c: u32| dot4(a, b, c, false, true)),
        ("dp4a", false, false, _) => ternary(|a: u32, b: u32, c: u32| dot4(a, b, c, false, false)),
        (_, true, true, false) => ternary(|a: u32, b: u32, c: u32| dot2(a, b, c, true, true, false)),
        (_, true, true, true) => ternary(|a: u32, b: u32, c: u32| dot2(a, b, c, true, true, true)),
        (_, false, false, false) => ternary(|a: u32, b: u32, c: u32| dot2(a, b, c, false, false, false)),
        (_, false, false, true) => ternary(|a: u32, b: u32, c: u32| dot2(a, b, c, false, false, true)),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// What [`carry_lanes`] is told in its immediate.
const SUBTRACT: i64 = 1;
const CARRY_IN: i64 = 2;
const CARRY_OUT: i64 = 4;
const MULTIPLY_LOW: i64 = 8;
const MULTIPLY_HIGH: i64 = 16;

/// `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`: arithmetic through the carry flag.
fn carrying(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let mut how = 0;
    how |= if ins.opcode.starts_with("sub") { SUBTRACT } else { 0 };
    how |= if ins.opcode.ends_with('c') { CARRY_IN } else { 0 };
    how |= if ins.has("cc") { CARRY_OUT } else { 0 };
    how |= if ins.has("lo") { MULTIPLY_LOW } else { 0 };
    how |= if ins.has("hi") { MULTIPLY_HIGH } else { 0 };
    let inputs = if ins.opcode.starts_with("mad") { 3 } else { 2 };
    let unsigned_product = matches!(ty, Type::U32 | Type::U64) || how & MULTIPLY_HIGH == 0;
    if !matches!(ty.size(), 4 | 8) || !unsigned_product {
        return d.unsupported(ins);
    }
    let rows = rows(d, ins, ty, inputs)?;
    let exec = if ty.size() == 4 { carry_lanes::<false> } else { carry_lanes::<true> };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows).imm(how))
}

unsafe fn carry_lanes<const WIDE: bool>(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let (how, bits) = (inst.imm, if WIDE { 64 } else { 32 });
    let size = bits / 8;
    let limit = u128::MAX >> (128 - bits);
    // SAFETY: the decoder gave each row this size.
    unsafe {
        let row = |slot| super::lanes::wide_row(core, slot, size);
        let (a, b) = (row(inst.a[1]), row(inst.a[2]));
        let multiply = how & (MULTIPLY_LOW | MULTIPLY_HIGH) != 0;
        let c = if multiply { row(inst.a[3]) } else { b };
        let (mut out, mut carries) = ([0u64; 32], 0u32);
        for lane in 0..32 {
            let first = if multiply {
                let product = u128::from(a[lane]) * u128::from(b[lane]);
                if how & MULTIPLY_HIGH != 0 { product >> bits } else { product & limit }
            } else {
                u128::from(a[lane])
            };
            let carry = if how & CARRY_IN != 0 { u128::from(core.warp.carry >> lane & 1) } else { 0 };
            // The flag is a carry; a subtraction's borrow is kept as it is.
            let second = u128::from(c[lane]);
            let wide = if how & SUBTRACT != 0 {
                first.wrapping_sub(second).wrapping_sub(carry)
            } else {
                first + second + carry
            };
            out[lane] = (wide & limit) as u64;
            carries |= ((wide >> bits & 1) as u32) << lane;
        }
        super::lanes::set_wide_row(core, inst.a[0], size, out, mask);
        if how & CARRY_OUT != 0 {
            core.warp.carry = core.warp.carry & !mask | carries & mask;
        }
    }
    Ok(())
}
