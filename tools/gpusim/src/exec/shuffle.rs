//! What lanes of a warp tell each other: shuffles, votes, matches, reductions.

use super::access::lanes;
use super::{Core, Done};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Operand, Type};

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    if ins.opcode == "activemask" {
        let to = d.dst(d.operand(ins, 0)?, Type::B32)?;
        return Ok(Inst::new(Class::Exchange, Act::Lanes(active_mask), &[to]));
    }
    if ins.opcode == "elect" {
        let Operand::Pair(leader, elected) = d.operand(ins, 0)?.clone() else {
            return d.unsupported(ins);
        };
        let rows = [d.dst(&leader, Type::B32)?, d.dst_predicate(&elected)?, d.src(d.operand(ins, 1)?, Type::B32)?];
        return Ok(Inst::new(Class::Exchange, Act::Lanes(elect), &rows));
    }
    // Without `.sync` these instructions are gone since Volta.
    if !ins.has("sync") {
        return d.unsupported(ins);
    }
    match ins.opcode.as_str() {
        "shfl" => shuffle(d, ins),
        "vote" => vote(d, ins),
        "match" => matching(d, ins),
        _ => redux(d, ins),
    }
}

impl Core<'_> {
    /// Checks the member mask of a collective instruction.
    ///
    /// # Safety
    /// `slot` is a row of u32.
    unsafe fn members(&self, slot: u32, mask: u32, name: &str) -> std::result::Result<u32, super::Stop> {
        // SAFETY: the caller's promise.
        let named = unsafe { self.row::<u32>(slot) };
        for lane in lanes(mask) {
            // Every executing lane names itself, and every named lane that still lives executes.
            if named[lane] >> lane & 1 == 0 || named[lane] & self.warp.live & !mask != 0 {
                let kind = Kind::MemberMask { name: name.to_owned(), named: named[lane], active: mask };
                return Err(self.fault(lane as u32, kind));
            }
        }
        Ok(named[mask.trailing_zeros() as usize & 31])
    }
}

fn shuffle(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let (to, predicate) = match d.operand(ins, 0)?.clone() {
        Operand::Pair(to, predicate) => (d.dst(&to, Type::B32)?, d.dst_predicate(&predicate)?),
        to => (d.dst(&to, Type::B32)?, d.scratch(Type::Pred)),
    };
    let mode = ["up", "down", "bfly", "idx"].iter().position(|mode| ins.has(mode));
    let Some(mode) = mode else {
        return d.unsupported(ins);
    };
    let value = d.src(d.operand(ins, 1)?, Type::B32)?;
    let by = d.src(d.operand(ins, 2)?, Type::B32)?;
    let clamp = d.src(d.operand(ins, 3)?, Type::B32)?;
    let members = d.src(d.operand(ins, 4)?, Type::B32)?;
    Ok(Inst::new(Class::Exchange, Act::Lanes(shuffle_lanes), &[to, predicate, value, by, clamp])
        .imm(mode as i64)
        .wide(vec![members]))
}

unsafe fn shuffle_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made operand 1 a predicate and the others rows of u32.
    unsafe {
        core.members(inst.wide[0], mask, "shfl.sync")?;
        let value = core.row::<u32>(inst.a[2]);
        let (by, clamp) = (core.row::<u32>(inst.a[3]), core.row::<u32>(inst.a[4]));
        let (mut out, mut inside) = (value, 0u32);
        for lane in 0..32u32 {
            let (by, packed) = (by[lane as usize] & 31, clamp[lane as usize]);
            let (clamp, segment) = (packed & 31, packed >> 8 & 31);
            let highest = lane & segment | clamp & !segment;
            let lowest = lane & segment;
            let (from, valid) = match inst.imm {
                0 => (lane.wrapping_sub(by), lane as i32 - by as i32 >= highest as i32),
                1 => (lane + by, lane + by <= highest),
                2 => (lane ^ by, (lane ^ by) <= highest),
                _ => (lowest | by & !segment, (lowest | by & !segment) <= highest),
            };
            let from = if valid { from } else { lane };
            inside |= u32::from(valid) << lane;
            // A lane that doesn't execute has nothing to tell; PTX leaves what is read from it undefined.
            out[lane as usize] = value[from as usize & 31];
        }
        core.set_row(inst.a[0], out, mask);
        core.set_predicate(inst.a[1], inside, mask);
    }
    Ok(())
}

fn vote(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let (predicate, negated) = d.predicate(d.operand(ins, 1)?)?;
    let members = d.src(d.operand(ins, 2)?, Type::B32)?;
    let Some(mode) = ["ballot", "all", "any", "uni"].iter().position(|mode| ins.has(mode)) else {
        return d.unsupported(ins);
    };
    let to = d.operand(ins, 0)?.clone();
    let to = if mode == 0 { d.dst(&to, Type::B32)? } else { d.dst_predicate(&to)? };
    let imm = mode as i64 | i64::from(negated) << 4;
    Ok(Inst::new(Class::Exchange, Act::Lanes(vote_lanes), &[to, predicate, members]).imm(imm))
}

unsafe fn vote_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder gave the operands these kinds.
    unsafe {
        core.members(inst.a[2], mask, "vote.sync")?;
        let value = core.predicate(inst.a[1]);
        let ballot = if inst.imm & 16 != 0 { !value & mask } else { value & mask };
        let flag = match inst.imm & 15 {
            0 => {
                core.set_row(inst.a[0], [ballot; 32], mask);
                return Ok(());
            }
            1 => ballot == mask,
            2 => ballot != 0,
            _ => ballot == mask || ballot == 0,
        };
        core.set_predicate(inst.a[0], if flag { u32::MAX } else { 0 }, mask);
    }
    Ok(())
}

fn matching(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let all = ins.has("all");
    let wide = ins.has("b64");
    let (to, predicate) = match d.operand(ins, 0)?.clone() {
        Operand::Pair(to, predicate) => (d.dst(&to, Type::B32)?, d.dst_predicate(&predicate)?),
        to => (d.dst(&to, Type::B32)?, d.scratch(Type::Pred)),
    };
    let value = d.src(d.operand(ins, 1)?, if wide { Type::B64 } else { Type::B32 })?;
    let members = d.src(d.operand(ins, 2)?, Type::B32)?;
    let imm = i64::from(all) | i64::from(wide) << 1;
    Ok(Inst::new(Class::Exchange, Act::Lanes(match_lanes), &[to, predicate, value, members]).imm(imm))
}

unsafe fn match_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder gave the operands these kinds.
    unsafe {
        core.members(inst.a[3], mask, "match.sync")?;
        let values = super::lanes::wide_row(core, inst.a[2], if inst.imm & 2 != 0 { 8 } else { 4 });
        let equal = |value: u64| lanes(mask).filter(|&lane| values[lane] == value).fold(0u32, |m, lane| m | 1 << lane);
        if inst.imm & 1 != 0 {
            let same = equal(values[mask.trailing_zeros() as usize]) == mask;
            core.set_row(inst.a[0], [if same { mask } else { 0 }; 32], mask);
            core.set_predicate(inst.a[1], if same { u32::MAX } else { 0 }, mask);
        } else {
            core.set_row(inst.a[0], values.map(equal), mask);
        }
    }
    Ok(())
}

fn redux(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let rows = super::arithmetic::rows(d, ins, Type::B32, 2)?;
    let operation = ["add", "min", "max", "and", "or", "xor"].iter().position(|name| ins.has(name));
    let types = ins.types();
    let (Some(operation), [Type::S32 | Type::U32 | Type::B32]) = (operation, &types[..]) else {
        return d.unsupported(ins);
    };
    let imm = operation as i64 | i64::from(types[0].is_signed()) << 4;
    Ok(Inst::new(Class::Exchange, Act::Lanes(redux_lanes), &rows).imm(imm))
}

unsafe fn redux_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made the operands rows of u32.
    unsafe {
        core.members(inst.a[2], mask, "redux.sync")?;
        let row = core.row::<u32>(inst.a[1]);
        let signed = inst.imm & 16 != 0;
        let combine = |a: u32, b: u32| match inst.imm & 15 {
            0 => a.wrapping_add(b),
            1 if signed => (a as i32).min(b as i32) as u32,
            2 if signed => (a as i32).max(b as i32) as u32,
            1 => a.min(b),
            2 => a.max(b),
            3 => a & b,
            4 => a | b,
            _ => a ^ b,
        };
        let result = lanes(mask).map(|lane| row[lane]).reduce(combine).unwrap_or(0);
        core.set_row(inst.a[0], [result; 32], mask);
    }
    Ok(())
}

unsafe fn active_mask(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made operand 0 a row of u32.
    unsafe { core.set_row(inst.a[0], [mask; 32], mask) };
    Ok(())
}

unsafe fn elect(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder gave the operands these kinds.
    unsafe {
        core.members(inst.a[2], mask, "elect.sync")?;
        let leader = mask.trailing_zeros();
        core.set_row(inst.a[0], [leader; 32], mask);
        core.set_predicate(inst.a[1], 1 << leader, mask);
    }
    Ok(())
}
