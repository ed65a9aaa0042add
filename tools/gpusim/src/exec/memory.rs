//! `ld`, `st` and the hints about caches.

use super::access::{Mode, lanes};
use super::lanes::{set_wide_row, wide_row};
use super::{Core, Done};
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Space, Type};

type Result<T> = std::result::Result<T, DecodeError>;

/// Modifiers that say how to cache, not what to do.
pub(super) fn is_cache_hint(word: &str) -> bool {
    matches!(word, "nc" | "ca" | "cg" | "cs" | "cv" | "lu" | "wb" | "wt" | "weak" | "unified")
        || word.starts_with("L1::")
        || word.starts_with("L2::")
}

/// The state space that a modifier names.
pub(super) fn space(word: &str) -> Option<Space> {
    Some(match word {
        "global" => Space::Global,
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "const" => Space::Const,
        "param" | "param::entry" | "param::func" => Space::Param,
        _ => return None,
    })
}

/// Is it a scope, which matters only to the order of accesses?
pub(super) fn is_scope(word: &str) -> bool {
    matches!(word, "cta" | "cluster" | "gpu" | "sys")
}

/// Numbers of the spaces and modes inside an instruction.
pub(super) const SPACES: [Space; 6] =
    [Space::Global, Space::Shared, Space::Local, Space::Const, Space::Param, Space::Generic];
const MODES: [Mode; 4] = [Mode::Read, Mode::StrongRead, Mode::Write, Mode::StrongWrite];

pub(super) fn number<T: PartialEq + Copy>(all: &[T], one: T) -> Slot {
    all.iter().position(|&other| other == one).map_or(0, |index| index as Slot)
}

/// Rows in [`Inst::wide`] before the first value.
const HEAD: usize = 6;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    match ins.opcode.as_str() {
        "ld" | "ldu" | "st" => {}
        "prefetch" if ins.has("tensormap") => return super::tensor_copy::decode_map_prefetch(d, ins),
        // Hints: they change where data is cached and nothing that a program can see.
        "prefetch" | "prefetchu" | "applypriority" => {
            return Ok(Inst::new(Class::Memory, Act::Lanes(nothing), &[]));
        }
        "createpolicy" => {
            let policy = d.dst(d.operand(ins, 0)?, Type::B64)?;
            let zero = d.constant(Type::B64, 0);
            return Ok(Inst::new(Class::Move, Act::Lanes(super::lanes::unary(|a: u64| a)), &[policy, zero]));
        }
        _ => return d.unsupported(ins),
    }
    let store = ins.opcode == "st";
    let (mut place, mut ty, mut count) = (Space::Generic, None, 1);
    let (mut strong, mut ordering) = (false, 0);
    for word in &ins.modifiers {
        match word.as_str() {
            "v2" => count = 2,
            "v4" => count = 4,
            "v8" => count = 8,
            "volatile" | "relaxed" | "mmio" => strong = true,
            "acquire" | "release" => (strong, ordering) = (true, 1),
            word => match (space(word), Type::parse(word)) {
                (Some(found), _) => place = found,
                (_, Some(found)) => ty = Some(found),
                _ if is_cache_hint(word) || is_scope(word) => {}
                _ => return d.unsupported(ins),
            },
        }
    }
    let Some(ty) = ty else {
        return d.unsupported(ins);
    };
    if matches!(ty, Type::Pred | Type::B128) || ty.size() * count > 32 {
        return d.unsupported(ins);
    }
    let (address, values) = if store { (0, 1) } else { (1, 0) };
    let operand = d.operand(ins, address)?;
    if place == Space::Param && (d.is_function_parameter(operand) || !d.in_kernel()) {
        place = Space::Local;
    }
    let address = d.address(operand)?;
    let mode = match (store, strong) {
        (false, false) => Mode::Read,
        (false, true) => Mode::StrongRead,
        (true, false) => Mode::Write,
        (true, true) => Mode::StrongWrite,
    };
    let mut wide = vec![
        number(&SPACES, place),
        number(&MODES, mode),
        ty.size() as Slot,
        Slot::from(ty.is_signed()),
        Slot::from(address.narrow),
        ordering,
    ];
    let elements = d.elements(d.operand(ins, values)?).to_vec();
    if elements.len() != count {
        return d.fail(format!("`{}` with {} values", ins.name(), elements.len()));
    }
    for element in &elements {
        let (slot, size) = if store {
            d.src_any(element, ty)?
        } else if *element == Operand::Sink {
            (d.scratch(ty), ty.size().max(2))
        } else {
            let (slot, have) = d.register(element)?;
            if have.size() < ty.size() {
                return d.fail(format!("`{}` into {have:?}", ins.name()));
            }
            (slot, have.size().max(2))
        };
        wide.extend([slot, size as Slot]);
    }
    let exec = if store { store_lanes } else { load_lanes };
    Ok(Inst::new(Class::Memory, Act::Lanes(exec), &[address.base]).imm(address.offset).wide(wide))
}

unsafe fn nothing(_: &mut Core<'_>, _: &Inst, _: u32) -> Done {
    Ok(())
}

/// The addresses of a request: a row of 32 or 64 bits plus a constant.
///
/// # Safety
/// `base` is such a row.
#[inline(always)]
pub(super) unsafe fn addresses(core: &Core<'_>, base: Slot, narrow: bool, offset: i64) -> [u64; 32] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut row = [0; 32];
        if narrow {
            let narrow = core.row::<u32>(base);
            for lane in 0..32 {
                row[lane] = u64::from(narrow[lane]).wrapping_add(offset as u64);
            }
        } else {
            let wide = core.row::<u64>(base);
            for lane in 0..32 {
                row[lane] = wide[lane].wrapping_add(offset as u64);
            }
        }
        row
    }
}

unsafe fn load_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let (space, mode) = (SPACES[wide[0] as usize], MODES[wide[1] as usize]);
    let (bytes, signed) = (wide[2], wide[3] != 0);
    let count = (wide.len() - HEAD) as u32 / 2;
    // SAFETY: the decoder put an address row in operand 0.
    let mut at = unsafe { addresses(core, inst.a[0], wide[4] != 0, inst.imm) };
    core.locate_wide(space, &mut at, mask, bytes, count, mode)?;
    if mode == Mode::StrongRead {
        core.launch.order.acquire(core.common.linear);
    }
    for (element, pair) in wide[HEAD..].chunks_exact(2).enumerate() {
        let (slot, size) = (pair[0], pair[1]);
        let from = at.map(|address| address.wrapping_add(element as u64 * u64::from(bytes)));
        // SAFETY: `locate` found every active lane's bytes readable; the slot is a row of `size` bytes an element.
        unsafe {
            match (bytes, size) {
                (4, 4) => {
                    let values = gather::<u32>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                (8, 8) => {
                    let values = gather::<u64>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                (2, 2) => {
                    let values = gather::<u16>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                _ => {
                    let raw = match bytes {
                        1 => gather::<u8>(&from, mask).map(u64::from),
                        2 => gather::<u16>(&from, mask).map(u64::from),
                        4 => gather::<u32>(&from, mask).map(u64::from),
                        _ => gather::<u64>(&from, mask),
                    };
                    let unused = 64 - bytes * 8;
                    let values = raw.map(|v| if signed { ((v << unused) as i64 >> unused) as u64 } else { v });
                    set_wide_row(core, slot, size, values, mask);
                }
            }
        }
    }
    Ok(())
}

unsafe fn store_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let (space, mode, bytes) = (SPACES[wide[0] as usize], MODES[wide[1] as usize], wide[2]);
    let count = (wide.len() - HEAD) as u32 / 2;
    // SAFETY: the decoder put an address row in operand 0.
    let mut at = unsafe { addresses(core, inst.a[0], wide[4] != 0, inst.imm) };
    core.locate_wide(space, &mut at, mask, bytes, count, mode)?;
    if mode == Mode::StrongWrite && (wide[5] != 0 || core.warp.fenced) {
        core.launch.order.release(core.common.linear);
    }
    for (element, pair) in wide[HEAD..].chunks_exact(2).enumerate() {
        // SAFETY: the slot is a row of `size` bytes an element; `locate` found every active lane's bytes writable.
        unsafe {
            let values = wide_row(core, pair[0], pair[1]);
            for lane in lanes(mask) {
                let to = at[lane] as *mut u8;
                let to = to.add(element * bytes as usize);
                match bytes {
                    1 => to.write(values[lane] as u8),
                    2 => to.cast::<u16>().write_unaligned(values[lane] as u16),
                    4 => to.cast::<u32>().write_unaligned(values[lane] as u32),
                    _ => to.cast::<u64>().write_unaligned(values[lane]),
                }
            }
        }
    }
    Ok(())
}

/// Reads a value a lane.
///
/// # Safety
/// Every active lane's address is readable.
#[inline]
unsafe fn gather<T: Copy + Default>(from: &[u64; 32], mask: u32) -> [T; 32] {
    let mut out = [T::default(); 32];
    let read = |lane: usize| {
        // SAFETY: the caller's promise.
        unsafe { (from[lane] as *const T).read_unaligned() }
    };
    if mask == u32::MAX {
        for (lane, value) in out.iter_mut().enumerate() {
            *value = read(lane);
        }
    } else {
        lanes(mask).for_each(|lane| out[lane] = read(lane));
    }
    out
}

impl Core<'_> {
    /// [`Core::locate`] for `count` elements of `bytes`; more than 16 bytes a lane count as two requests.
    fn locate_wide(&mut self, space: Space, at: &mut [u64; 32], mask: u32, bytes: u32, count: u32, mode: Mode) -> Done {
        if bytes * count > 16 {
            let mut second = at.map(|address| address.wrapping_add(16));
            self.locate(space, &mut second, mask, bytes * count - 16, mode)?;
            return self.locate(space, at, mask, 16, mode);
        }
        self.locate(space, at, mask, bytes * count, mode)
    }
}
