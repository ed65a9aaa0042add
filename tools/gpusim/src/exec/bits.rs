//! Logic, shifts and bit fields.

use super::lanes::{binary, quaternary, ternary, ternary_immediate, unary};
use super::{Core, Done, Exec};
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Operand, Type};

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let types = ins.types();
    let Some(&ty) = types.first() else {
        return d.unsupported(ins);
    };
    d.only(ins, &["l", "r", "wrap", "clamp", "shiftamt"])?;
    if ty == Type::Pred {
        return predicate_logic(d, ins);
    }
    match ins.opcode.as_str() {
        "and" | "or" | "xor" | "not" | "cnot" => logic(d, ins, ty),
        "shl" | "shr" => shift(d, ins, ty),
        "shf" => funnel(d, ins),
        "lop3" => table(d, ins),
        "prmt" => permute(d, ins),
        "bfe" | "bfi" => field(d, ins, ty),
        "popc" | "clz" | "brev" | "bfind" => count(d, ins, ty),
        "bmsk" => bit_mask(d, ins),
        "szext" => sign_or_zero_extend(d, ins, ty),
        _ => d.unsupported(ins),
    }
}

fn predicate_logic(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let to = d.dst_predicate(d.operand(ins, 0)?)?;
    let (a, a_not) = d.predicate(d.operand(ins, 1)?)?;
    let (b, b_not) = if ins.opcode == "not" { (a, a_not) } else { d.predicate(d.operand(ins, 2)?)? };
    let op = match ins.opcode.as_str() {
        "and" => 0,
        "or" => 1,
        "xor" => 2,
        "not" => 3,
        _ => return d.unsupported(ins),
    };
    let imm = op | i64::from(a_not) << 2 | i64::from(b_not) << 3;
    Ok(Inst::new(Class::Integer, Act::Lanes(predicate_lanes), &[to, a, b]).imm(imm))
}

unsafe fn predicate_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made all operands predicates.
    unsafe {
        let flip = |value: u32, bit: i64| {
            if inst.imm >> bit & 1 != 0 { !value } else { value }
        };
        let (a, b) = (flip(core.predicate(inst.a[1]), 2), flip(core.predicate(inst.a[2]), 3));
        let value = match inst.imm & 3 {
            0 => a & b,
            1 => a | b,
            2 => a ^ b,
            _ => !a,
        };
        core.set_predicate(inst.a[0], value, mask);
    }
    Ok(())
}

fn logic(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let inputs = if matches!(ins.opcode.as_str(), "not" | "cnot") { 1 } else { 2 };
    let rows = super::arithmetic::rows(d, ins, ty, inputs)?;
    macro_rules! by_type {
        ($ty:ty) => {
            match ins.opcode.as_str() {
                "and" => binary(|a: $ty, b: $ty| a & b),
                "or" => binary(|a: $ty, b: $ty| a | b),
                "xor" => binary(|a: $ty, b: $ty| a ^ b),
                "not" => unary(|a: $ty| !a),
                _ => unary(|a: $ty| <$ty>::from(a == 0)),
            }
        };
    }
    let exec = match ty.size() {
        2 => by_type!(u16),
        4 => by_type!(u32),
        8 => by_type!(u64),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// Shifts; an amount beyond the width gives zero, or the sign.
fn shift(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let rows = [d.dst(d.operand(ins, 0)?, ty)?, d.src(d.operand(ins, 1)?, ty)?, d.src(d.operand(ins, 2)?, Type::U32)?];
    macro_rules! by_type {
        ($signed:ty, $unsigned:ty) => {
            match (ins.opcode.as_str(), ty.is_signed()) {
                ("shl", _) => binary(|a: $unsigned, n: u32| if n < <$unsigned>::BITS { a << n } else { 0 }),
                (_, true) => binary(|a: $signed, n: u32| a >> n.min(<$signed>::BITS - 1)),
                _ => binary(|a: $unsigned, n: u32| if n < <$unsigned>::BITS { a >> n } else { 0 }),
            }
        };
    }
    let exec = match ty.size() {
        2 => by_type!(i16, u16),
        4 => by_type!(i32, u32),
        8 => by_type!(i64, u64),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// `shf`: a shift of two registers as one.
fn funnel(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, Type::B32, 3)?;
    fn joined(low: u32, high: u32) -> u64 {
        u64::from(high) << 32 | u64::from(low)
    }
    let exec = match (ins.has("l"), ins.has("wrap")) {
        (true, true) => ternary(|a: u32, b: u32, n: u32| (joined(a, b) << (n & 31) >> 32) as u32),
        (true, false) => ternary(|a: u32, b: u32, n: u32| (joined(a, b) << n.min(32) >> 32) as u32),
        (false, true) => ternary(|a: u32, b: u32, n: u32| (joined(a, b) >> (n & 31)) as u32),
        (false, false) => ternary(|a: u32, b: u32, n: u32| (joined(a, b) >> n.min(32)) as u32),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// `lop3`: any function of three bits, as its truth table.
fn table(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, Type::B32, 3)?;
    let &Operand::Integer(table) = d.operand(ins, 4)? else {
        return d.unsupported(ins);
    };
    let exec = ternary_immediate(|a: u32, b: u32, c: u32, table: i64| {
        (0..8u32).fold(0, |out, row| {
            let pick = |value: u32, bit: u32| if row >> bit & 1 != 0 { value } else { !value };
            let chosen = 0u32.wrapping_sub((table >> row) as u32 & 1);
            out | pick(a, 2) & pick(b, 1) & pick(c, 0) & chosen
        })
    });
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows).imm(table as i64))
}

/// `prmt`: four bytes chosen from eight.
fn permute(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, Type::B32, 3)?;
    if ins.modifiers.len() != 1 {
        return d.unsupported(ins);
    }
    let exec = ternary(|a: u32, b: u32, selector: u32| {
        let bytes = u64::from(b) << 32 | u64::from(a);
        (0..4).fold(0, |out, i| {
            let pick = selector >> (4 * i) & 15;
            let byte = (bytes >> (8 * (pick & 7))) as u8;
            let byte = if pick & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
            out | u32::from(byte) << (8 * i)
        })
    });
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

fn field(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let insert = ins.opcode == "bfi";
    let mut rows = vec![d.dst(d.operand(ins, 0)?, ty)?, d.src(d.operand(ins, 1)?, ty)?];
    let inputs = if insert { vec![ty, Type::U32, Type::U32] } else { vec![Type::U32, Type::U32] };
    for (index, kind) in (2..).zip(inputs) {
        rows.push(d.src(d.operand(ins, index)?, kind)?);
    }
    let exec: Exec = match (insert, ty) {
        (true, Type::B32) => {
            quaternary(|a: u32, b: u32, at: u32, length: u32| insert_field(a.into(), b.into(), at, length, 32) as u32)
        }
        (true, Type::B64) => quaternary(|a: u64, b: u64, at: u32, length: u32| insert_field(a, b, at, length, 64)),
        (false, Type::U32) => ternary(|a: u32, at: u32, length: u32| extract(a.into(), at, length, 32, false) as u32),
        (false, Type::S32) => ternary(|a: u32, at: u32, length: u32| extract(a.into(), at, length, 32, true) as u32),
        (false, Type::U64) => ternary(|a: u64, at: u32, length: u32| extract(a, at, length, 64, false)),
        (false, Type::S64) => ternary(|a: u64, at: u32, length: u32| extract(a, at, length, 64, true)),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// So many bits from `at` on; beyond the top they are zero, or the field's sign.
fn extract(a: u64, at: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (at, length) = (at & 0xff, length & 0xff);
    let bit = |index: u32| if index < bits { a >> index & 1 } else { 0 };
    let sign = if signed && length > 0 { bit((at + length - 1).min(bits - 1)) } else { 0 };
    let fill = 0u64.wrapping_sub(sign);
    let inside = length.min(bits.saturating_sub(at)).min(64);
    if inside == 0 {
        return fill;
    }
    let kept = u64::MAX >> (64 - inside);
    (a >> at) & kept | fill & !kept
}

fn insert_field(a: u64, b: u64, at: u32, length: u32, bits: u32) -> u64 {
    let (at, length) = (at & 0xff, length & 0xff);
    if at >= bits || length == 0 {
        return b;
    }
    let mask = u64::MAX >> (64 - length.min(bits - at)) << at;
    b & !mask | a << at & mask
}

fn count(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let result = if ins.opcode == "brev" { ty } else { Type::U32 };
    let rows = [d.dst(d.operand(ins, 0)?, result)?, d.src(d.operand(ins, 1)?, ty)?];
    fn highest(value: u64, shift_amount: bool, bits: u32) -> u32 {
        match value {
            0 => u32::MAX,
            value => {
                let at = 63 - value.leading_zeros();
                if shift_amount { bits - 1 - at } else { at }
            }
        }
    }
    let shift = ins.has("shiftamt");
    let exec = match (ins.opcode.as_str(), ty) {
        ("popc", Type::B32) => unary(|a: u32| a.count_ones()),
        ("popc", Type::B64) => unary(|a: u64| a.count_ones()),
        ("clz", Type::B32) => unary(|a: u32| a.leading_zeros()),
        ("clz", Type::B64) => unary(|a: u64| a.leading_zeros()),
        ("brev", Type::B32) => unary(|a: u32| a.reverse_bits()),
        ("brev", Type::B64) => unary(|a: u64| a.reverse_bits()),
        ("bfind", Type::U32) if shift => unary(|a: u32| highest(a.into(), true, 32)),
        ("bfind", Type::U32) => unary(|a: u32| highest(a.into(), false, 32)),
        ("bfind", Type::S32) if shift => unary(|a: i32| highest((a ^ a >> 31) as u32 as u64, true, 32)),
        ("bfind", Type::S32) => unary(|a: i32| highest((a ^ a >> 31) as u32 as u64, false, 32)),
        ("bfind", Type::U64) if shift => unary(|a: u64| highest(a, true, 64)),
        ("bfind", Type::U64) => unary(|a: u64| highest(a, false, 64)),
        ("bfind", Type::S64) if !shift => unary(|a: i64| highest((a ^ a >> 63) as u64, false, 64)),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

fn bit_mask(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, Type::B32, 2)?;
    fn mask(at: u32, width: u32) -> u32 {
        if at >= 32 || width == 0 { 0 } else { u32::MAX >> (32 - width.min(32 - at)) << at }
    }
    let exec = if ins.has("wrap") {
        binary(|at: u32, width: u32| mask(at & 31, width & 31))
    } else {
        binary(|at: u32, width: u32| mask(at, width))
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

fn sign_or_zero_extend(d: &mut Decoder<'_>, ins: &Instruction, ty: Type) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, ty, 2)?;
    fn extend(a: u32, width: u32, signed: bool, wrap: bool) -> u32 {
        let width = if wrap { width & 31 } else { width };
        match width {
            0 => 0,
            32.. => a,
            _ => extract(a.into(), 0, width, 32, signed) as u32,
        }
    }
    let exec = match (ty.is_signed(), ins.has("wrap")) {
        (true, true) => binary(|a: u32, n: u32| extend(a, n, true, true)),
        (true, false) => binary(|a: u32, n: u32| extend(a, n, true, false)),
        (false, true) => binary(|a: u32, n: u32| extend(a, n, false, true)),
        (false, false) => binary(|a: u32, n: u32| extend(a, n, false, false)),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}
