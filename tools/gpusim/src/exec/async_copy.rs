//! `cp.async`: copies from device to shared memory that a thread must wait for.
//!
//! The bytes arrive at once, but until the wait they are marked as pending, and any access to them is a fault: on
//! hardware it would see old or new data, as luck has it.

use super::access::{Mode, lanes};
use super::memory::{addresses, is_cache_hint};
use super::processor::{Body, best};
use super::{Core, Done};
use crate::check::Stamp;
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::{Instruction, Operand, Space, Type};
use std::collections::VecDeque;

type Result<T> = std::result::Result<T, DecodeError>;

/// What one instruction copies: so many bytes of shared memory a lane.
#[derive(Clone, Copy, Debug)]
struct Copies {
    offsets: [u32; 32],
    mask: u32,
    bytes: u32,
    at: u32,
}

/// A warp's copies: those not yet committed, and the committed groups, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    open: Vec<Copies>,
    committed: VecDeque<Vec<Copies>>,
    spare: Vec<Vec<Copies>>,
}

impl Groups {
    pub fn clear(&mut self) {
        self.open.clear();
        self.committed.clear();
    }
}

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let words: Vec<&str> = ins.modifiers.iter().map(String::as_str).filter(|word| !is_hint(word)).collect();
    match words[..] {
        ["async", "ca" | "cg", "shared" | "shared::cta", "global"] => copy(d, ins),
        ["async", "commit_group"] => Ok(Inst::new(Class::Memory, Act::Lanes(commit), &[])),
        ["async", "wait_all"] => Ok(Inst::new(Class::Barrier, Act::Lanes(wait), &[]).imm(-1)),
        ["async", "wait_group"] => match d.operand(ins, 0)? {
            &Operand::Integer(groups) => Ok(Inst::new(Class::Barrier, Act::Lanes(wait), &[]).imm(groups as i64)),
            _ => d.unsupported(ins),
        },
        ["async", "mbarrier", "arrive", ..] => super::mbarrier::decode_behind_copies(d, ins),
        ["async", "bulk", ref words @ ..] => super::bulk_copy::decode(d, ins, words),
        ["reduce", "async", "bulk", ref words @ ..] => super::bulk_copy::decode_reduction(d, ins, words),
        _ => d.unsupported(ins),
    }
}

fn is_hint(word: &str) -> bool {
    word != "ca" && word != "cg" && is_cache_hint(word)
}

fn copy(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let to = d.address(d.operand(ins, 0)?)?;
    let from = d.address(d.operand(ins, 1)?)?;
    let &Operand::Integer(bytes @ (4 | 8 | 16)) = d.operand(ins, 2)? else {
        return d.unsupported(ins);
    };
    // Behind the size may stand a cache policy (64 bits), and before it the bytes to read (32 bits).
    let mut source = d.constant(Type::U32, bytes);
    if let Some(operand) = ins.operands.get(3) {
        let is_policy = matches!(operand, Operand::Name(_)) && d.register(operand).is_ok_and(|(_, ty)| ty.size() == 8);
        let is_predicate = matches!(operand, Operand::Not(_))
            || matches!(operand, Operand::Name(_)) && d.register(operand).is_ok_and(|(_, ty)| ty == Type::Pred);
        if is_predicate {
            return d.unsupported(ins);
        }
        if !is_policy {
            source = d.src(operand, Type::U32)?;
        }
    }
    let wide = vec![u32::from(to.narrow), u32::from(from.narrow), bytes as u32, from.offset as u32];
    Ok(Inst::new(Class::Memory, Act::Lanes(best::<CopyLanes>()), &[to.base, from.base, source])
        .imm(to.offset)
        .wide(wide))
}

/// Copies 4, 8 or 16 bytes a lane.
struct CopyLanes;

impl Body for CopyLanes {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        let bytes = inst.wide[2];
        // SAFETY: the decoder put address rows in operands 0 and 1 and a row of u32 in 2.
        let (to, mut from, source) = unsafe {
            let to = addresses(core, inst.a[0], inst.wide[0] != 0, inst.imm);
            let from = addresses(core, inst.a[1], inst.wide[1] != 0, i64::from(inst.wide[3] as i32));
            (to, from, core.row::<u32>(inst.a[2]))
        };
        // Lanes that read everything, and lanes that read less and fill up with zeros.
        let mut full = 0;
        for (lane, &source) in source.iter().enumerate() {
            full |= u32::from(source >= bytes) << lane;
        }
        full &= mask;
        if full != 0 {
            core.locate(Space::Global, &mut from, full, bytes, Mode::Read)?;
        }
        let mut filled;
        if full != mask {
            // Whatever is read: machine code has the number of zeros in the low bits of the address.
            core.check_aligned(&from, mask, bytes, Mode::Read)?;
            core.check_source(&from, lanes(mask & !full).filter(|&lane| source[lane] == 0))?;
            filled = [[0u8; 16]; 32];
            for lane in lanes(mask & !full) {
                for byte in 0..source[lane] {
                    let mut one = [from[lane] + u64::from(byte); 32];
                    core.locate(Space::Global, &mut one, 1 << lane, 1, Mode::Read)?;
                    // SAFETY: `locate` found this byte readable.
                    filled[lane][byte as usize] = unsafe { (one[lane] as *const u8).read() };
                }
                from[lane] = filled[lane].as_ptr() as u64;
            }
        }
        let mut place = to;
        core.locate(Space::Shared, &mut place, mask, bytes, Mode::Write)?;
        // SAFETY: `locate` found the bytes of all lanes readable and writable, or they are in `filled`.
        unsafe {
            match bytes {
                16 => move_lanes::<u128>(&from, &place, mask),
                8 => move_lanes::<u64>(&from, &place, mask),
                _ => move_lanes::<u32>(&from, &place, mask),
            }
        }
        let (at, line) = (core.at, core.line(core.at));
        let mut offsets = [0; 32];
        for lane in lanes(mask) {
            offsets[lane] = to[lane] as u32;
            core.common.shared.promise(offsets[lane], bytes, line);
        }
        core.warp.copies.open.push(Copies { offsets, mask, bytes, at });
        Ok(())
    }
}

/// Copies a `T` a lane.
///
/// # Safety
/// The addresses of active lanes are readable and writable.
#[inline(always)]
unsafe fn move_lanes<T>(from: &[u64; 32], to: &[u64; 32], mask: u32) {
    for lane in lanes(mask) {
        // SAFETY: the caller's promise.
        unsafe { (to[lane] as *mut T).write_unaligned((from[lane] as *const T).read_unaligned()) };
    }
}

unsafe fn commit(core: &mut Core<'_>, _: &Inst, _: u32) -> Done {
    let copies = &mut core.warp.copies;
    let next = copies.spare.pop().unwrap_or_default();
    copies.committed.push_back(std::mem::replace(&mut copies.open, next));
    Ok(())
}

/// Waits until at most so many groups (−1: not even the open one) are pending.
unsafe fn wait(core: &mut Core<'_>, inst: &Inst, _: u32) -> Done {
    let keep = inst.imm.max(0) as usize;
    while core.warp.copies.committed.len() > keep {
        if let Some(group) = core.warp.copies.committed.pop_front() {
            core.deliver(group);
        }
    }
    if inst.imm < 0 {
        let open = std::mem::take(&mut core.warp.copies.open);
        core.deliver(open);
    }
    Ok(())
}

impl Core<'_> {
    /// Lanes that copy nothing must still name memory that is there: whether the address is used is up to the assembler,
    /// and for some GPUs it makes a load of it whose result it throws away. Its first byte is what counts. The rest of
    /// an aligned chunk is on the same page, so hardware can't fault there, and a lane that reads a part of its chunk
    /// may leave the allocation with what it doesn't read.
    fn check_source(&self, from: &[u64; 32], unread: impl Iterator<Item = usize>) -> Done {
        if self.launch.setup.masked_anywhere {
            return Ok(());
        }
        let mut known = 0..0;
        for lane in unread {
            let address = from[lane];
            if !known.contains(&address) {
                let Some(found) = self.launch.allocations.find(address, 1) else {
                    return Err(self.missed(Space::Global, lane as u32, address, 0, Mode::Read));
                };
                known = found.address..found.address + found.bytes;
            }
        }
        Ok(())
    }

    /// All copies of the warp have arrived, those that it hasn't committed too.
    pub(super) fn deliver_all(&mut self) {
        while let Some(group) = self.warp.copies.committed.pop_front() {
            self.deliver(group);
        }
        let open = std::mem::take(&mut self.warp.copies.open);
        self.deliver(open);
    }

    /// The copies of a group have arrived: from now on they are writes like any other of their thread.
    fn deliver(&mut self, mut group: Vec<Copies>) {
        let (warp, shared) = (self.warp.number, &mut self.common.shared);
        for Copies { offsets, mask, bytes, at } in group.drain(..) {
            let stamp = Stamp::new(self.warp.clocks.now(warp), at, warp);
            for lane in lanes(mask) {
                shared.arrive(offsets[lane], bytes, stamp.of_lane(lane as u32));
            }
        }
        self.warp.copies.spare.push(group);
    }
}
