//! `cp.async.bulk`: copies of whole ranges between device and shared memory, which threads start and something else does;
//! `cp.reduce.async.bulk`, which adds to what is there instead; and the groups in which threads wait for both.
//! ([`super::tensor_copy`] has the copies of boxes of tensors, [`super::bulk_memory`] what all of them do to memory.)
//!
//! The bytes move at once, but in the race check they are the work of an agent of its own: nobody has seen what it did
//! before the barrier that it completes (into shared memory), or before the wait for its group (out of it). What the
//! warp that starts a copy has seen, the copy has seen. All copies of a block share one clock, so that whoever has seen
//! a copy has seen those before it: that can hide a race, and never invents one.

use super::access::lanes;
use super::atomic::{Reduction, reduction};
use super::bulk_memory::PIECE;
use super::mbarrier::{offsets, place};
use super::memory::addresses;
use super::{Core, Done, Exec};
use crate::check::{BULK, NOTHING, Seen};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Type};
use std::collections::VecDeque;

type Result<T> = std::result::Result<T, DecodeError>;

/// A warp's work of an agent beside it: the clock behind the last of each group.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    open: u32,
    committed: VecDeque<u32>,
}

impl Groups {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Work before `clock` is in the open group.
    pub fn note(&mut self, clock: u32) {
        self.open = clock;
    }

    /// Closes the open group.
    pub fn commit(&mut self) {
        self.committed.push_back(self.open);
    }

    /// Waits until only the `keep` youngest groups are under way; gives the clock behind those that have ended.
    pub fn wait(&mut self, keep: usize) -> Option<u32> {
        let ended = self.committed.len().saturating_sub(keep);
        self.committed.drain(..ended).next_back()
    }
}

/// What those have seen who have seen an agent's work before `clock`.
pub(super) fn seen_until(agent: u32, clock: u32) -> Seen {
    let mut seen = NOTHING;
    seen[agent as usize] = clock;
    seen
}

/// Decodes the instruction with these words behind `cp.async.bulk`, hints left out.
pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction, words: &[&str]) -> Result<Inst> {
    match words {
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes"] => copy(d, ins, bring, true),
        ["shared::cluster", "global", "mbarrier::complete_tx::bytes", "multicast::cluster"] => {
            let mut inst = copy(d, ins, bring, true)?;
            inst.a[4] = d.src(d.operand(ins, 4)?, Type::U16)?;
            Ok(inst)
        }
        ["shared::cluster", "shared::cta", "mbarrier::complete_tx::bytes"] => copy(d, ins, pass, true),
        ["global", "shared::cta", "bulk_group"] => copy(d, ins, send, false),
        ["prefetch", "L2", "global"] => {
            let from = d.address(d.operand(ins, 0)?)?;
            let bytes = d.src(d.operand(ins, 1)?, Type::B32)?;
            let wide = vec![Slot::from(from.narrow)];
            let inst = Inst::new(Class::Memory, Act::Lanes(prefetch), &[from.base, bytes]);
            Ok(inst.imm(from.offset).wide(wide))
        }
        ["commit_group"] => Ok(Inst::new(Class::Memory, Act::Lanes(commit), &[])),
        ["wait_group"] | ["wait_group", "read"] => match d.operand(ins, 0)? {
            &Operand::Integer(groups) => Ok(Inst::new(Class::Barrier, Act::Lanes(wait), &[]).imm(groups as i64)),
            _ => d.unsupported(ins),
        },
        ["tensor" | "prefetch", ..] => super::tensor_copy::decode(d, ins, words),
        _ => d.unsupported(ins),
    }
}

/// Decodes the instruction with these words behind `cp.reduce.async.bulk`, hints left out.
pub(super) fn decode_reduction(d: &mut Decoder<'_>, ins: &Instruction, words: &[&str]) -> Result<Inst> {
    let (exec, counted, operation): (Exec, _, _) = match words {
        ["shared::cluster", "shared::cta", "mbarrier::complete_tx::bytes", rest @ ..] => (pass, true, rest),
        ["global", "shared::cta", "bulk_group", rest @ ..] => (send, false, rest),
        ["tensor", ..] => return super::tensor_copy::decode(d, ins, words),
        _ => return d.unsupported(ins),
    };
    let number = match operation {
        [name, "noftz", ty] | [name, ty] => Type::parse(ty).and_then(|ty| reduction(name, ty)),
        _ => None,
    };
    match number {
        // 0 stands for a copy.
        Some(number) => Ok(copy(d, ins, exec, counted)?.imm(number as i64 + 1)),
        None => d.unsupported(ins),
    }
}

/// Operands: where to, where from, how many bytes, and the barrier of a copy into shared memory. A cache policy behind
/// changes nothing that a program can see.
fn copy(d: &mut Decoder<'_>, ins: &Instruction, exec: Exec, counted: bool) -> Result<Inst> {
    let (to, from) = (d.address(d.operand(ins, 0)?)?, d.address(d.operand(ins, 1)?)?);
    let bytes = d.src(d.operand(ins, 2)?, Type::B32)?;
    let mut rows = vec![to.base, from.base, bytes];
    let mut wide = vec![place(&to, ins), place(&from, ins), to.offset as Slot, from.offset as Slot];
    if counted {
        let barrier = d.address(d.operand(ins, 3)?)?;
        rows.push(barrier.base);
        wide.extend([place(&barrier, ins), barrier.offset as Slot]);
    }
    Ok(Inst::new(Class::Memory, Act::Lanes(exec), &rows).wide(wide))
}

/// An offset inside an instruction, as it was.
pub(super) fn signed(offset: Slot) -> i64 {
    i64::from(offset as i32)
}

/// What a reduction does; a copy does none.
fn operation(inst: &Inst) -> Option<Reduction> {
    (inst.imm > 0).then(|| Reduction::numbered(inst.imm as usize - 1))
}

/// From device to shared memory.
unsafe fn bring(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    // SAFETY: the decoder put rows of addresses in operands 0, 1 and 3, and a row of u32 in 2.
    let (to, from, bytes, barriers) = unsafe {
        let to = offsets(core, inst.a[0], wide[0], signed(wide[2]));
        let from = addresses(core, inst.a[1], wide[1] & 1 != 0, signed(wide[3]));
        (to, from, core.row::<u32>(inst.a[2]), offsets(core, inst.a[3], wide[4], signed(wide[5])))
    };
    // SAFETY: operand 4 is a row of u16 where there is one.
    let blocks = unsafe { core.blocks(inst.a[4]) };
    for lane in lanes(mask) {
        core.check_bulk(to[lane], from[lane], bytes[lane], lane)?;
        core.check_blocks(blocks[lane], lane)?;
        let clock = core.begin_bulk();
        for (start, here) in parts(bytes[lane]) {
            let mut data = [0; PART];
            let data = &mut data[..here];
            core.bulk_read(from[lane] + start, data, lane)?;
            for (at, piece) in (0..).step_by(PIECE).zip(data.chunks_exact(PIECE)) {
                core.put_piece(to[lane] + start + at, piece, lane)?;
            }
        }
        core.count_bulk(bytes[lane]);
        core.complete_bytes(barriers[lane], bytes[lane], &seen_until(BULK, clock + 1), lane)?;
    }
    Ok(())
}

/// From shared to shared memory: a cluster has one block, which is its own neighbour.
unsafe fn pass(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let operation = operation(inst);
    // SAFETY: the decoder put rows of addresses in operands 0, 1 and 3, and a row of u32 in 2.
    let (to, from, bytes, barriers) = unsafe {
        let to = offsets(core, inst.a[0], wide[0], signed(wide[2]));
        let from = offsets(core, inst.a[1], wide[1], signed(wide[3]));
        (to, from, core.row::<u32>(inst.a[2]), offsets(core, inst.a[3], wide[4], signed(wide[5])))
    };
    for lane in lanes(mask) {
        core.check_bulk(to[lane], from[lane], bytes[lane], lane)?;
        let clock = core.begin_bulk();
        for at in (0..u64::from(bytes[lane])).step_by(PIECE) {
            let mut piece = [0; PIECE];
            core.get_part(from[lane] + at, &mut piece, lane)?;
            if let Some(operation) = operation {
                let mut old = [0; PIECE];
                core.get_part(to[lane] + at, &mut old, lane)?;
                operation.apply(&mut old, &piece);
                piece = old;
            }
            core.put_piece(to[lane] + at, &piece, lane)?;
        }
        core.count_bulk(bytes[lane]);
        core.complete_bytes(barriers[lane], bytes[lane], &seen_until(BULK, clock + 1), lane)?;
    }
    Ok(())
}

/// From shared to device memory.
unsafe fn send(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let operation = operation(inst);
    // SAFETY: the decoder put rows of addresses in operands 0 and 1, and a row of u32 in 2.
    let (to, from, bytes) = unsafe {
        let to = addresses(core, inst.a[0], wide[0] & 1 != 0, signed(wide[2]));
        (to, offsets(core, inst.a[1], wide[1], signed(wide[3])), core.row::<u32>(inst.a[2]))
    };
    for lane in lanes(mask) {
        core.check_bulk(to[lane], from[lane], bytes[lane], lane)?;
        let clock = core.begin_bulk();
        for (start, here) in parts(bytes[lane]) {
            let mut data = [0; PART];
            let data = &mut data[..here];
            for (at, piece) in (0..).step_by(PIECE).zip(data.chunks_exact_mut(PIECE)) {
                core.get_part(from[lane] + start + at, piece, lane)?;
            }
            match operation {
                None => core.bulk_write(to[lane] + start, data, lane)?,
                Some(operation) => core.bulk_reduce(to[lane] + start, data, operation, lane)?,
            }
        }
        core.count_bulk(bytes[lane]);
        core.warp.bulk.note(clock + 1);
    }
    Ok(())
}

/// Bytes of the parts that a copy is cut into.
const PART: usize = 512;

/// First bytes and lengths of the parts.
fn parts(bytes: u32) -> impl Iterator<Item = (u64, usize)> {
    (0..u64::from(bytes)).step_by(PART).map(move |start| (start, PART.min((u64::from(bytes) - start) as usize)))
}

/// Looks at what would be fetched; there is no cache to fetch it to.
unsafe fn prefetch(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put a row of addresses in operand 0 and a row of u32 in 1.
    let (from, bytes) =
        unsafe { (addresses(core, inst.a[0], inst.wide[0] != 0, inst.imm), core.row::<u32>(inst.a[1])) };
    for lane in lanes(mask) {
        core.check_bulk(from[lane], 0, bytes[lane], lane)?;
        core.check_allocated(from[lane], bytes[lane], lane)?;
    }
    Ok(())
}

unsafe fn commit(core: &mut Core<'_>, _: &Inst, _: u32) -> Done {
    core.warp.bulk.commit();
    Ok(())
}

unsafe fn wait(core: &mut Core<'_>, inst: &Inst, _: u32) -> Done {
    if let Some(clock) = core.warp.bulk.wait(inst.imm as usize) {
        core.warp.clocks.see(&seen_until(BULK, clock));
    }
    Ok(())
}

impl Core<'_> {
    /// The blocks of the cluster that a multicast goes to, one bit each; this one's where nothing else is said.
    ///
    /// # Safety
    /// `row` is 0, or a row of u16.
    pub(super) unsafe fn blocks(&self, row: Slot) -> [u16; 32] {
        // SAFETY: the caller's promise.
        if row == 0 { [1; 32] } else { unsafe { self.row(row) } }
    }

    /// A cluster has one block.
    pub(super) fn check_blocks(&self, blocks: u16, lane: usize) -> Done {
        if blocks == 1 {
            return Ok(());
        }
        let what = format!("a multicast to the blocks {blocks:#b} of a cluster of one");
        Err(self.fault(lane as u32, Kind::Unsupported(what)))
    }

    /// A copy's ends and length are whole pieces.
    fn check_bulk(&self, to: u64, from: u64, bytes: u32, lane: usize) -> Done {
        for (address, write) in [(to, true), (from, false)] {
            if !address.is_multiple_of(PIECE as u64) {
                return Err(self.fault(lane as u32, Kind::Misaligned { address, bytes: PIECE as u32, write }));
            }
        }
        if !bytes.is_multiple_of(PIECE as u32) {
            let what = format!("cp.async.bulk of {bytes} bytes (a multiple of {PIECE} is possible)");
            return Err(self.fault(lane as u32, Kind::Unsupported(what)));
        }
        Ok(())
    }
}
