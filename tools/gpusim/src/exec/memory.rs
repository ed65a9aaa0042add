//! `ld`, `st` and the hints about caches.

use super::access::Mode;
use super::{Core, Done, load_store};
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
pub(super) const MODES: [Mode; 4] = [Mode::Read, Mode::StrongRead, Mode::Write, Mode::StrongWrite];

pub(super) fn number<T: PartialEq + Copy>(all: &[T], one: T) -> Slot {
    all.iter().position(|&other| other == one).map_or(0, |index| index as Slot)
}

/// Rows in [`Inst::wide`] before the first value.
pub(super) const HEAD: usize = 6;

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
    let same = wide[HEAD..].chunks_exact(2).all(|pair| pair[1] as usize == ty.size());
    let exec = load_store::choose(store, if same { ty.size() } else { 0 }, count);
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
