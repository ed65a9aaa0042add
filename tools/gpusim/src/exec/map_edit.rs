//! `tensormap`: kernels that make or change tensor maps. `replace` changes a field of one, of zeros at first, in shared or
//! device memory; `cp_fenceproxy` copies one from shared to device memory, where the block's and other blocks' copies can
//! use it after a fence of their own.

use super::access::{Mode, lanes};
use super::memory::{SPACES, addresses, number, space};
use super::tensor_copy::MAP_ALIGN;
use super::{Core, Done, Stop};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Space, Type};
use crate::tensor_map::{Field, Words, replace};

type Result<T> = std::result::Result<T, DecodeError>;

/// Bytes of a map.
const BYTES: usize = 128;
/// Bytes that one access takes of it.
const PART: usize = 16;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let words: Vec<&str> = ins.modifiers.iter().map(String::as_str).collect();
    match words[..] {
        ["replace", "tile", field, ref place @ .., "b1024", "b32" | "b64"] => replacement(d, ins, field, place),
        ["cp_fenceproxy", "global", "shared::cta", "tensormap::generic", "release", _, "sync", "aligned"] => {
            let (to, from) = (d.address(d.operand(ins, 0)?)?, d.address(d.operand(ins, 1)?)?);
            let wide = vec![Slot::from(to.narrow), Slot::from(from.narrow), from.offset as Slot];
            let inst = Inst::new(Class::Memory, Act::Lanes(copy_and_fence), &[to.base, from.base]);
            Ok(inst.imm(to.offset).wide(wide))
        }
        _ => d.unsupported(ins),
    }
}

/// Operands: the map, the dimension where the field has one for each, the value.
fn replacement(d: &mut Decoder<'_>, ins: &Instruction, name: &str, place: &[&str]) -> Result<Inst> {
    let space = match place {
        [] => Some(Space::Generic),
        [word] => space(word).filter(|&found| matches!(found, Space::Global | Space::Shared)),
        _ => None,
    };
    let (Some(space), Some(field)) = (space, Field::NAMES.iter().position(|&(known, _)| known == name)) else {
        return d.unsupported(ins);
    };
    let address = d.address(d.operand(ins, 0)?)?;
    let dimensions = Field::NAMES[field].1.dimensions();
    let dimension = match (dimensions, ins.operands.get(1)) {
        (0, _) => 0,
        (_, Some(&Operand::Integer(dimension))) if (dimension as usize) < dimensions => dimension as Slot,
        _ => return d.unsupported(ins),
    };
    let ty = if ins.has("b64") { Type::B64 } else { Type::B32 };
    let value = d.src(d.operand(ins, if dimensions == 0 { 1 } else { 2 })?, ty)?;
    let wide =
        vec![number(&SPACES, space), Slot::from(address.narrow), field as Slot, dimension, Slot::from(ty == Type::B64)];
    let inst = Inst::new(Class::Memory, Act::Lanes(replace_field), &[address.base, value]);
    Ok(inst.imm(address.offset).wide(wide))
}

impl Core<'_> {
    /// Asks for the 128 bytes of a lane's map; `each` gets the places of their parts on the host.
    fn map_parts(
        &mut self,
        space: Space,
        address: u64,
        mode: Mode,
        lane: usize,
        mut each: impl FnMut(usize, *mut u8),
    ) -> Done {
        if !address.is_multiple_of(MAP_ALIGN) {
            let kind = Kind::Misaligned { address, bytes: MAP_ALIGN as u32, write: mode == Mode::Write };
            return Err(self.fault(lane as u32, kind));
        }
        for part in 0..BYTES / PART {
            let mut at = [address + (part * PART) as u64; 32];
            self.locate(space, &mut at, 1 << lane, PART as u32, mode)?;
            each(part, at[lane] as *mut u8);
        }
        Ok(())
    }

    fn read_map(&mut self, space: Space, address: u64, lane: usize) -> std::result::Result<Words, Stop> {
        let mut words = [0; 16];
        self.map_parts(space, address, Mode::Read, lane, |part, host| {
            // SAFETY: `locate` found the part readable.
            let pair = unsafe { host.cast::<[u64; 2]>().read_unaligned() };
            words[2 * part..2 * part + 2].copy_from_slice(&pair);
        })?;
        Ok(words)
    }

    fn write_map(&mut self, space: Space, address: u64, words: &Words, lane: usize) -> Done {
        self.map_parts(space, address, Mode::Write, lane, |part, host| {
            // SAFETY: `locate` found the part writable.
            unsafe { host.cast::<[u64; 2]>().write_unaligned([words[2 * part], words[2 * part + 1]]) };
        })
    }
}

unsafe fn replace_field(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let (space, field, dimension) = (SPACES[wide[0] as usize], Field::NAMES[wide[2] as usize].1, wide[3] as usize);
    // SAFETY: the decoder put a row of addresses in operand 0, and one of u64 or u32 in 1.
    let (at, values) = unsafe {
        let at = addresses(core, inst.a[0], wide[1] != 0, inst.imm);
        (at, if wide[4] != 0 { core.row::<u64>(inst.a[1]) } else { core.row::<u32>(inst.a[1]).map(u64::from) })
    };
    for lane in lanes(mask) {
        let (address, mut words) = (at[lane], core.read_map(space, at[lane], lane)?);
        if let Err(broken) = replace(&mut words, field, dimension, values[lane]) {
            return Err(core.fault(lane as u32, Kind::TensorMap { address, what: broken.to_string() }));
        }
        core.write_map(space, address, &words, lane)?;
    }
    Ok(())
}

unsafe fn copy_and_fence(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    if mask != core.warp.live {
        let (name, named) = ("tensormap.cp_fenceproxy".to_owned(), core.warp.live);
        return Err(core.fault(mask.trailing_zeros(), Kind::MemberMask { name, named, active: mask }));
    }
    // SAFETY: the decoder put rows of addresses in operands 0 and 1.
    let (to, from) = unsafe {
        let to = addresses(core, inst.a[0], wide[0] != 0, inst.imm);
        (to, addresses(core, inst.a[1], wide[1] != 0, i64::from(wide[2] as i32)))
    };
    // The warp does it together: all lanes have the same addresses.
    let lane = mask.trailing_zeros() as usize;
    let words = core.read_map(Space::Shared, from[lane], lane)?;
    core.write_map(Space::Global, to[lane], &words, lane)?;
    core.warp.clocks.fence_before_release();
    core.warp.clocks.tick();
    Ok(())
}
