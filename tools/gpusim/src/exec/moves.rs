//! `mov`, `cvta` and `isspacep`.

use super::lanes::{set_wide_row, unary, wide_row};
use super::{Core, Done, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Type};
use std::time::Instant;

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    match ins.opcode.as_str() {
        "mov" => mov(d, ins),
        "cvta" => cvta(d, ins),
        "isspacep" => isspacep(d, ins),
        // Clusters are of one block: its own shared memory, its own rank.
        "mapa" => {
            let ty = if ins.has("u32") { Type::U32 } else { Type::U64 };
            let rows = [d.dst(d.operand(ins, 0)?, ty)?, d.src(d.operand(ins, 1)?, ty)?];
            let exec = if ty == Type::U32 { unary(|a: u32| a) } else { unary(|a: u64| a) };
            Ok(Inst::new(Class::Move, Act::Lanes(exec), &rows))
        }
        _ => d.unsupported(ins),
    }
}

fn mov(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let [ty] = ins.types()[..] else {
        return d.unsupported(ins);
    };
    let (to, from) = (d.operand(ins, 0)?.clone(), d.operand(ins, 1)?.clone());
    if ty == Type::Pred {
        let to = d.dst_predicate(&to)?;
        let (from, negated) = d.predicate(&from)?;
        return Ok(Inst::new(Class::Move, Act::Lanes(move_predicate), &[to, from]).imm(negated.into()));
    }
    match (&to, &from) {
        (Operand::Vector(parts), from) => {
            let part = part_type(d, ins, ty, parts.len())?;
            let whole = d.src(from, ty)?;
            let mut wide = vec![ty.size() as Slot, part.size() as Slot];
            for element in parts {
                wide.push(d.dst(element, part)?);
            }
            Ok(Inst::new(Class::Move, Act::Lanes(unpack), &[whole]).wide(wide))
        }
        (to, Operand::Vector(parts)) => {
            let part = part_type(d, ins, ty, parts.len())?;
            let whole = d.dst(to, ty)?;
            let mut wide = vec![ty.size() as Slot, part.size() as Slot];
            for element in parts {
                wide.push(d.src(element, part)?);
            }
            Ok(Inst::new(Class::Move, Act::Lanes(pack), &[whole]).wide(wide))
        }
        (to, Operand::Name(name)) if matches!(name.as_str(), "%clock" | "%clock_hi" | "%clock64" | "%globaltimer") => {
            let to = d.dst(to, ty)?;
            let high = i64::from(name == "%clock_hi");
            Ok(Inst::new(Class::Move, Act::Lanes(clock), &[to]).imm(high).wide(vec![ty.size() as Slot]))
        }
        (to, from) => {
            let to = d.dst(to, ty)?;
            let (from, have) = d.src_any(from, ty)?;
            let exec = match (have, ty.size()) {
                (8, 4) => unary(|a: u64| a as u32),
                (4, 2) => unary(|a: u32| a as u16),
                (4, 8) => unary(|a: u32| u64::from(a)),
                (8, 8) => unary(|a: u64| a),
                (4, 4) => unary(|a: u32| a),
                (2, 2) => unary(|a: u16| a),
                _ => return d.unsupported(ins),
            };
            Ok(Inst::new(Class::Move, Act::Lanes(exec), &[to, from]))
        }
    }
}

fn part_type(d: &Decoder<'_>, ins: &Instruction, whole: Type, parts: usize) -> Result<Type> {
    match whole.size() / parts.max(1) {
        2 => Ok(Type::B16),
        4 => Ok(Type::B32),
        8 => Ok(Type::B64),
        _ => d.unsupported(ins),
    }
}

unsafe fn move_predicate(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made both operands predicates.
    unsafe {
        let value = core.predicate(inst.a[1]);
        core.set_predicate(inst.a[0], if inst.imm != 0 { !value } else { value }, mask);
    }
    Ok(())
}

unsafe fn unpack(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let (whole, part) = (inst.wide[0], inst.wide[1]);
    // SAFETY: the decoder gave each row this size.
    unsafe {
        let values = wide_row(core, inst.a[0], whole);
        for (index, &slot) in (0..).zip(&inst.wide[2..]) {
            set_wide_row(core, slot, part, values.map(|v| v >> (index * part * 8)), mask);
        }
    }
    Ok(())
}

unsafe fn pack(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let (whole, part) = (inst.wide[0], inst.wide[1]);
    let mut values = [0u64; 32];
    // SAFETY: the decoder gave each row this size.
    unsafe {
        for (index, &slot) in (0..).zip(&inst.wide[2..]) {
            let row = wide_row(core, slot, part);
            for lane in 0..32 {
                values[lane] |= row[lane] << (index * part * 8);
            }
        }
        set_wide_row(core, inst.a[0], whole, values, mask);
    }
    Ok(())
}

/// A clock that goes on: nanoseconds of the host.
unsafe fn clock(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let now = START.get_or_init(Instant::now).elapsed().as_nanos() as u64;
    let now = if inst.imm != 0 { now >> 32 } else { now };
    // SAFETY: the decoder gave the row this size.
    unsafe { set_wide_row(core, inst.a[0], inst.wide[0], [now; 32], mask) };
    Ok(())
}

/// The window of a space, to add to its addresses.
fn window(d: &Decoder<'_>, ins: &Instruction) -> Result<u64> {
    for word in &ins.modifiers {
        match word.as_str() {
            "global" | "const" => return Ok(0),
            "shared" | "shared::cta" | "shared::cluster" => return Ok(SHARED_WINDOW),
            "local" => return Ok(LOCAL_WINDOW),
            "param" | "param::entry" => return Ok(PARAM_WINDOW),
            _ => {}
        }
    }
    d.unsupported(ins)
}

fn cvta(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    if !ins.has("u64") {
        return d.unsupported(ins);
    }
    let window = window(d, ins)?;
    let to = d.dst(d.operand(ins, 0)?, Type::U64)?;
    let from = d.src(d.operand(ins, 1)?, Type::U64)?;
    let exec = match (ins.has("to"), window) {
        (_, 0) => unary(|a: u64| a),
        (true, _) => unary(|a: u64| a & ((1 << 56) - 1)),
        (false, SHARED_WINDOW) => unary(|a: u64| a | SHARED_WINDOW),
        (false, LOCAL_WINDOW) => unary(|a: u64| a | LOCAL_WINDOW),
        (false, _) => unary(|a: u64| a | PARAM_WINDOW),
    };
    Ok(Inst::new(Class::Integer, Act::Lanes(exec), &[to, from]))
}

fn isspacep(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let window = window(d, ins)?;
    let to = d.dst_predicate(d.operand(ins, 0)?)?;
    let from = d.src(d.operand(ins, 1)?, Type::U64)?;
    Ok(Inst::new(Class::Integer, Act::Lanes(is_in_window), &[to, from]).imm(window as i64))
}

unsafe fn is_in_window(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made operand 0 a predicate and operand 1 a row of u64.
    unsafe {
        let addresses = core.row::<u64>(inst.a[1]);
        let hits =
            (0..32).fold(0, |hits, lane| hits | u32::from(addresses[lane] >> 56 << 56 == inst.imm as u64) << lane);
        core.set_predicate(inst.a[0], hits, mask);
    }
    Ok(())
}
