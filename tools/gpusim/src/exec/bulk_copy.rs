//! `cp.async.bulk`: copies of whole ranges between device and shared memory, which threads start and something else does.
//!
//! The bytes move at once, but in the race check they are the work of an agent of its own: nobody has seen what it did
//! before the barrier that it completes (into shared memory), or before the wait for its group (out of it). What the
//! warp that starts a copy has seen, the copy has seen. All copies of a block share one clock, so that whoever has seen
//! a copy has seen those before it: that can hide a race, and never invents one.

use super::access::{Mode, lanes};
use super::mbarrier::{offsets, place};
use super::memory::addresses;
use super::{Core, Done, Exec, Stop};
use crate::check::{AGENTS, BULK, Seen};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Operand, Space, Type};
use std::collections::VecDeque;

type Result<T> = std::result::Result<T, DecodeError>;

/// Bytes that a copy moves as one, and to which everything is aligned.
const PIECE: u32 = 16;

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
    let mut seen = [0; AGENTS];
    seen[agent as usize] = clock;
    seen
}

/// Decodes the instruction with these words, hints left out.
pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction, words: &[&str]) -> Result<Inst> {
    match words[2..] {
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes"] => copy(d, ins, bring, true),
        ["global", "shared::cta", "bulk_group"] => copy(d, ins, send, false),
        ["commit_group"] => Ok(Inst::new(Class::Memory, Act::Lanes(commit), &[])),
        ["wait_group"] | ["wait_group", "read"] => match d.operand(ins, 0)? {
            &Operand::Integer(groups) => Ok(Inst::new(Class::Barrier, Act::Lanes(wait), &[]).imm(groups as i64)),
            _ => d.unsupported(ins),
        },
        _ => d.unsupported(ins),
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
fn signed(offset: Slot) -> i64 {
    i64::from(offset as i32)
}

unsafe fn bring(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    // SAFETY: the decoder put rows of addresses in operands 0, 1 and 3, and a row of u32 in 2.
    let (to, from, bytes, barriers) = unsafe {
        let to = offsets(core, inst.a[0], wide[0], signed(wide[2]));
        let from = addresses(core, inst.a[1], wide[1] & 1 != 0, signed(wide[3]));
        (to, from, core.row::<u32>(inst.a[2]), offsets(core, inst.a[3], wide[4], signed(wide[5])))
    };
    for lane in lanes(mask) {
        core.check_bulk(from[lane], to[lane], bytes[lane], lane)?;
        let clock = core.begin_bulk();
        core.bulk_read(from[lane], bytes[lane], bytes[lane], |at| to[lane] + u64::from(at), lane)?;
        core.complete_bytes(barriers[lane], bytes[lane], &seen_until(BULK, clock + 1), lane)?;
    }
    Ok(())
}

unsafe fn send(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    // SAFETY: the decoder put rows of addresses in operands 0 and 1, and a row of u32 in 2.
    let (to, from, bytes) = unsafe {
        let to = addresses(core, inst.a[0], wide[0] & 1 != 0, signed(wide[2]));
        (to, offsets(core, inst.a[1], wide[1], signed(wide[3])), core.row::<u32>(inst.a[2]))
    };
    for lane in lanes(mask) {
        core.check_bulk(to[lane], from[lane], bytes[lane], lane)?;
        let clock = core.begin_bulk();
        core.bulk_write(to[lane], bytes[lane], |at| from[lane] + u64::from(at), lane)?;
        core.warp.bulk.note(clock + 1);
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
    fn check_bulk(&self, device: u64, shared: u64, bytes: u32, lane: usize) -> Done {
        let piece = u64::from(PIECE);
        for address in [device, shared] {
            if address % piece != 0 {
                return Err(
                    self.fault(lane as u32, Kind::Misaligned { address, bytes: PIECE, write: address == shared })
                );
            }
        }
        if !bytes.is_multiple_of(PIECE) {
            let what = format!("cp.async.bulk of {bytes} bytes (a multiple of {PIECE} is possible)");
            return Err(self.fault(lane as u32, Kind::Unsupported(what)));
        }
        Ok(())
    }

    /// Begins a copy, which has seen what its warp has done so far; gives its clock.
    pub(super) fn begin_bulk(&mut self) -> u32 {
        self.warp.clocks.tick();
        let clock = self.common.bulk_clock;
        self.common.bulk_clock += 1;
        clock
    }

    /// A fault of a request that stands for the bytes of one lane's copy.
    fn of_lane(&self, lane: usize, stop: Stop) -> Stop {
        match stop {
            Stop::Fault(mut fault) => {
                fault.thread = self.launch.thread(self.warp.number, lane as u32);
                Stop::Fault(fault)
            }
            Stop::Wait => Stop::Wait,
        }
    }

    /// Copies `bytes` from device memory to the pieces of shared memory that `to` names; behind the first `valid`, zeros.
    pub(super) fn bulk_read(
        &mut self,
        from: u64,
        valid: u32,
        bytes: u32,
        to: impl Fn(u32) -> u64,
        lane: usize,
    ) -> Done {
        let mut data = [0u8; 32 * PIECE as usize];
        for start in (0..bytes).step_by(data.len()) {
            data.fill(0);
            let here = (bytes - start).min(data.len() as u32);
            let have = valid.saturating_sub(start).min(here);
            self.device_pieces(from + u64::from(start), have, Mode::Read, lane, |host, at, count| {
                // SAFETY: `locate` found these bytes readable, and `data` holds them.
                unsafe { std::ptr::copy_nonoverlapping(host, data[at..].as_mut_ptr(), count) };
            })?;
            for at in (0..here).step_by(PIECE as usize) {
                let offset = to(start + at);
                self.bulk_touch(offset, true, lane)?;
                let piece = &data[at as usize..][..PIECE as usize];
                // SAFETY: `bulk_touch` found the piece in shared memory.
                unsafe {
                    let place = self.common.shared.pointer().add(offset as usize);
                    std::ptr::copy_nonoverlapping(piece.as_ptr(), place, piece.len());
                }
            }
        }
        self.count_bulk(bytes);
        Ok(())
    }

    /// Copies the first `bytes` of the pieces of shared memory that `from` names to device memory.
    pub(super) fn bulk_write(&mut self, to: u64, bytes: u32, from: impl Fn(u32) -> u64, lane: usize) -> Done {
        let mut data = [0u8; 32 * PIECE as usize];
        for start in (0..bytes).step_by(data.len()) {
            let here = (bytes - start).min(data.len() as u32);
            for at in (0..here).step_by(PIECE as usize) {
                let offset = from(start + at);
                self.bulk_touch(offset, false, lane)?;
                let piece = &mut data[at as usize..][..PIECE as usize];
                // SAFETY: `bulk_touch` found the piece in shared memory.
                unsafe {
                    let place = self.common.shared.pointer().add(offset as usize);
                    std::ptr::copy_nonoverlapping(place, piece.as_mut_ptr(), piece.len());
                }
            }
            self.device_pieces(to + u64::from(start), here, Mode::Write, lane, |host, at, count| {
                // SAFETY: `locate` found these bytes writable, and `data` holds them.
                unsafe { std::ptr::copy_nonoverlapping(data[at..].as_ptr(), host.cast_mut(), count) };
            })?;
        }
        self.count_bulk(bytes);
        Ok(())
    }

    /// Asks for up to 512 bytes of device memory, as requests of whole pieces and then of the bytes that are left.
    fn device_pieces(
        &mut self,
        start: u64,
        bytes: u32,
        mode: Mode,
        lane: usize,
        mut each: impl FnMut(*const u8, usize, usize),
    ) -> Done {
        let whole = bytes / PIECE;
        for (first, count, size) in [(0, whole, PIECE), (whole * PIECE, bytes % PIECE, 1)] {
            if count == 0 {
                continue;
            }
            let mut at: [u64; 32] = std::array::from_fn(|i| start + u64::from(first + i as u32 * size));
            let mask = u32::MAX >> (32 - count);
            self.locate(Space::Global, &mut at, mask, size, mode).map_err(|stop| self.of_lane(lane, stop))?;
            lanes(mask).for_each(|i| each(at[i] as *const u8, (first + i as u32 * size) as usize, size as usize));
        }
        Ok(())
    }

    /// Checks the access of a copy to a piece of shared memory.
    fn bulk_touch(&mut self, offset: u64, write: bool, lane: usize) -> Done {
        self.agent_touch(offset, write, BULK, self.common.bulk_clock - 1, lane as u32)
    }

    /// Shared memory serves 128 bytes at once.
    fn count_bulk(&mut self, bytes: u32) {
        let wavefronts = bytes.div_ceil(128);
        self.tally.shared(self.at, wavefronts, wavefronts);
    }
}
