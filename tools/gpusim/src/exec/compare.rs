//! `setp`, `set`, `selp`, `slct`.

use super::lanes::{compare, set_wide_row, ternary, wide_row};
use super::{Core, Done, Exec};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Type};
use half::{bf16, f16};

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let compares = ins.opcode.starts_with("set");
    if compares && ins.modifiers.is_empty() {
        return d.unsupported(ins);
    }
    let mut known = vec!["and", "or", "xor", "ftz"];
    known.extend(ins.modifiers.first().filter(|_| compares).map(String::as_str));
    d.only(ins, &known)?;
    match ins.opcode.as_str() {
        "setp" => setp(d, ins),
        "set" => set(d, ins),
        "selp" => selp(d, ins),
        _ => slct(d, ins),
    }
}

/// How a comparison's mask is combined with a third predicate: 0 not at all.
fn combination(word: &str) -> Option<i64> {
    match word {
        "and" => Some(1),
        "or" => Some(2),
        "xor" => Some(3),
        _ => None,
    }
}

fn setp(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [ty] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    let (yes, no) = match d.operand(ins, 0)?.clone() {
        Operand::Pair(yes, no) => (d.dst_predicate(&yes)?, d.dst_predicate(&no)?),
        single => (d.dst_predicate(&single)?, 0),
    };
    let (a, b) = (d.src(d.operand(ins, 1)?, ty)?, d.src(d.operand(ins, 2)?, ty)?);
    let how = ins.modifiers.iter().find_map(|word| combination(word)).unwrap_or(0);
    let (third, negated) = if how != 0 { d.predicate(d.operand(ins, 3)?)? } else { (0, false) };
    let Some(exec) = comparison(&ins.modifiers[0], ty, ins.has("ftz")) else {
        return d.unsupported(ins);
    };
    let imm = how | if negated { 4 } else { 0 };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &[yes, no, a, b, third]).imm(imm))
}

/// `set`: a comparison into a predicate that nobody sees, then a selection.
fn set(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [to, ty] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    if ins.modifiers.iter().any(|word| combination(word).is_some()) {
        return d.unsupported(ins);
    }
    let Some(exec) = comparison(&ins.modifiers[0], ty, ins.has("ftz")) else {
        return d.unsupported(ins);
    };
    let one = match to {
        Type::F32 => u64::from(1f32.to_bits()),
        Type::U32 | Type::S32 => u64::from(u32::MAX),
        Type::U16 | Type::S16 => u64::from(u16::MAX),
        Type::F16 => u64::from(f16::ONE.to_bits()),
        Type::Bf16 => u64::from(bf16::ONE.to_bits()),
        _ => return d.unsupported(ins),
    };
    let predicate = d.scratch(Type::Pred);
    let (a, b) = (d.src(d.operand(ins, 1)?, ty)?, d.src(d.operand(ins, 2)?, ty)?);
    d.emit(Inst::new(Class::Integer, Act::Lanes(exec), &[predicate, 0, a, b, 0]));
    let (one, zero) = (d.constant(to, one), d.constant(to, 0));
    let result = d.dst(d.operand(ins, 0)?, to)?;
    Ok(select(result, one, zero, predicate, false, to.size()))
}

/// `result = predicate ? a : b`.
fn select(result: Slot, a: Slot, b: Slot, predicate: Slot, negated: bool, size: usize) -> Inst {
    let (a, b) = if negated { (b, a) } else { (a, b) };
    Inst::new(Class::Integer, Act::Lanes(select_lanes), &[result, a, b, predicate]).wide(vec![size as Slot])
}

fn selp(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [ty] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    let result = d.dst(d.operand(ins, 0)?, ty)?;
    let (a, b) = (d.src(d.operand(ins, 1)?, ty)?, d.src(d.operand(ins, 2)?, ty)?);
    let (predicate, negated) = d.predicate(d.operand(ins, 3)?)?;
    Ok(select(result, a, b, predicate, negated, ty.size()))
}

unsafe fn select_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let size = inst.wide[0];
    // SAFETY: the decoder gave the rows this size and made operand 3 a predicate.
    unsafe {
        let hits = core.predicate(inst.a[3]);
        let (a, b) = (wide_row(core, inst.a[1], size), wide_row(core, inst.a[2], size));
        let values = std::array::from_fn(|lane| if hits >> lane & 1 != 0 { a[lane] } else { b[lane] });
        set_wide_row(core, inst.a[0], size, values, mask);
    }
    Ok(())
}

/// `slct`: the first where the third operand is not negative.
fn slct(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [ty, by] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    let rows = [
        d.dst(d.operand(ins, 0)?, ty)?,
        d.src(d.operand(ins, 1)?, ty)?,
        d.src(d.operand(ins, 2)?, ty)?,
        d.src(d.operand(ins, 3)?, by)?,
    ];
    let ftz = ins.has("ftz");
    let exec = match (ty.size(), by) {
        (4, Type::F32) if ftz => ternary(|a: u32, b: u32, c: f32| if flush(c) >= 0.0 { a } else { b }),
        (8, Type::F32) if ftz => ternary(|a: u64, b: u64, c: f32| if flush(c) >= 0.0 { a } else { b }),
        (4, Type::S32) => ternary(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        (4, Type::F32) => ternary(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
        (8, Type::S32) => ternary(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        (8, Type::F32) => ternary(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &rows))
}

/// A single as a comparison with `.ftz` sees it.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

fn half_value(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

fn bfloat_value(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// Is either not a number?
fn unordered<T: PartialOrd>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_none()
}

/// The comparison of this name for this type.
fn comparison(name: &str, ty: Type, ftz: bool) -> Option<Exec> {
    macro_rules! integers {
        ($signed:ty, $unsigned:ty, $is_signed:expr) => {
            match name {
                "eq" => compare(|a: $unsigned, b| a == b),
                "ne" => compare(|a: $unsigned, b| a != b),
                "lo" => compare(|a: $unsigned, b| a < b),
                "ls" => compare(|a: $unsigned, b| a <= b),
                "hi" => compare(|a: $unsigned, b| a > b),
                "hs" => compare(|a: $unsigned, b| a >= b),
                "lt" if $is_signed => compare(|a: $signed, b| a < b),
                "le" if $is_signed => compare(|a: $signed, b| a <= b),
                "gt" if $is_signed => compare(|a: $signed, b| a > b),
                "ge" if $is_signed => compare(|a: $signed, b| a >= b),
                "lt" => compare(|a: $unsigned, b| a < b),
                "le" => compare(|a: $unsigned, b| a <= b),
                "gt" => compare(|a: $unsigned, b| a > b),
                "ge" => compare(|a: $unsigned, b| a >= b),
                _ => return None,
            }
        };
    }
    macro_rules! floats {
        ($ty:ty, $value:expr) => {
            match name {
                "eq" => compare(|a: $ty, b: $ty| $value(a) == $value(b)),
                "ne" => compare(|a: $ty, b: $ty| $value(a) < $value(b) || $value(a) > $value(b)),
                "lt" => compare(|a: $ty, b: $ty| $value(a) < $value(b)),
                "le" => compare(|a: $ty, b: $ty| $value(a) <= $value(b)),
                "gt" => compare(|a: $ty, b: $ty| $value(a) > $value(b)),
                "ge" => compare(|a: $ty, b: $ty| $value(a) >= $value(b)),
                // The same, or at least one is not a number.
                "equ" => compare(|a: $ty, b: $ty| !($value(a) < $value(b) || $value(a) > $value(b))),
                "neu" => compare(|a: $ty, b: $ty| $value(a) != $value(b)),
                "ltu" => compare(|a: $ty, b: $ty| $value(a) < $value(b) || unordered($value(a), $value(b))),
                "leu" => compare(|a: $ty, b: $ty| $value(a) <= $value(b) || unordered($value(a), $value(b))),
                "gtu" => compare(|a: $ty, b: $ty| $value(a) > $value(b) || unordered($value(a), $value(b))),
                "geu" => compare(|a: $ty, b: $ty| $value(a) >= $value(b) || unordered($value(a), $value(b))),
                "num" => compare(|a: $ty, b: $ty| !unordered($value(a), $value(b))),
                "nan" => compare(|a: $ty, b: $ty| unordered($value(a), $value(b))),
                _ => return None,
            }
        };
    }
    Some(match ty {
        Type::S16 => integers!(i16, u16, true),
        Type::U16 | Type::B16 => integers!(i16, u16, false),
        Type::S32 => integers!(i32, u32, true),
        Type::U32 | Type::B32 => integers!(i32, u32, false),
        Type::S64 => integers!(i64, u64, true),
        Type::U64 | Type::B64 => integers!(i64, u64, false),
        Type::F32 if ftz => floats!(f32, flush),
        Type::F32 => floats!(f32, std::convert::identity::<f32>),
        Type::F64 => floats!(f64, std::convert::identity::<f64>),
        Type::F16 => floats!(u16, half_value),
        Type::Bf16 => floats!(u16, bfloat_value),
        _ => return None,
    })
}
