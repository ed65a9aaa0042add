//! Barriers, fences, and `trap`.

use super::access::lanes;
use super::warp::{State, Warp};
use super::{Core, Done, Stop};
use crate::check::{Clocks, NOTHING, Seen};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Type};

type Result<T> = std::result::Result<T, DecodeError>;

/// A barrier of a block.
#[derive(Clone, Debug)]
pub(super) struct Barrier {
    /// Threads that it waits for: 0 for all; none while nobody is here.
    pub expected: Option<u32>,
    /// Threads that have come.
    pub arrived: u32,
    /// What those who only arrive have seen.
    seen: Seen,
    /// A reduction's state: true count, and whether all and any were.
    votes: (u32, bool, bool),
    /// Where the reduction's result goes: warp, row, which, lanes.
    results: Vec<(u32, Slot, Reduction, u32)>,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { expected: None, arrived: 0, seen: NOTHING, votes: (0, false, false), results: Vec::new() }
    }
}

/// What `bar.red` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Count,
    All,
    Any,
}

impl Barrier {
    /// Lets everybody go who waits here at barrier `number`.
    pub fn open(&mut self, number: u32, warps: &mut [Warp]) {
        let waits = |warp: &Warp| warp.state == State::Waiting(number);
        let joined = Clocks::join(warps.iter().filter(|warp| waits(warp)).map(|warp| &warp.clocks));
        let seen = std::array::from_fn(|i| joined[i].max(self.seen[i]));
        for warp in warps.iter_mut().filter(|warp| waits(warp)) {
            warp.clocks.see(&seen);
            warp.state = State::Ready;
        }
        let (count, all, any) = self.votes;
        for (warp, slot, reduction, mask) in std::mem::take(&mut self.results) {
            warps[warp as usize].give(
                slot,
                mask,
                reduction == Reduction::Count,
                match reduction {
                    Reduction::Count => count,
                    Reduction::All => {
                        if all {
                            u32::MAX
                        } else {
                            0
                        }
                    }
                    Reduction::Any => {
                        if any {
                            u32::MAX
                        } else {
                            0
                        }
                    }
                },
            );
        }
        *self = Self::default();
    }
}

impl Warp {
    /// Writes a reduction's result: a number to each lane of a row, or a predicate.
    fn give(&mut self, slot: Slot, mask: u32, number: bool, value: u32) {
        let at = slot as usize;
        let registers = self.registers();
        // SAFETY: the decoder made the slot a row of u32 or a predicate of this kernel.
        unsafe {
            if number {
                let row = registers.add(at).cast::<u32>();
                lanes(mask).for_each(|lane| row.add(lane).write(value));
            } else {
                let word = registers.add(at).cast::<u32>();
                word.write(word.read() & !mask | value & mask);
            }
        }
    }
}

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let act = |exec| Ok(Inst::new(Class::Barrier, Act::Lanes(exec), &[]));
    match ins.opcode.as_str() {
        "trap" => act(trap),
        "nanosleep" | "pmevent" => act(nothing),
        // Launches run one after another: what this one waits for has happened.
        "griddepcontrol" => act(nothing),
        "setmaxnreg" => act(nothing),
        "membar" => {
            if ins.has("cta") {
                act(nothing)
            } else {
                act(fence)
            }
        }
        "fence" => match ins.modifiers.last().map(String::as_str) {
            // The order between the generic and the asynchronous proxy: everything is one here.
            _ if ins.modifiers.iter().any(|word| word.starts_with("proxy")) => act(fence),
            Some("cta") => act(nothing),
            Some("gpu" | "sys" | "cluster") => act(fence),
            _ if ins.has("mbarrier_init") => act(fence),
            _ => d.unsupported(ins),
        },
        "bar" | "barrier" => barrier(d, ins),
        _ => d.unsupported(ins),
    }
}

fn barrier(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    if ins.has("cluster") {
        return super::mbarrier::decode_cluster(d, ins);
    }
    if ins.has("warp") {
        let members = d.src(d.operand(ins, 0)?, Type::B32)?;
        return Ok(Inst::new(Class::Barrier, Act::Lanes(warp_barrier), &[members]));
    }
    if ins.has("red") {
        return reduction(d, ins);
    }
    d.only(ins, &["sync", "arrive", "aligned", "cta"])?;
    let number = d.src(d.operand(ins, 0)?, Type::U32)?;
    let threads = match ins.operands.get(1) {
        Some(operand) => d.src(operand, Type::U32)?,
        None => d.constant(Type::U32, 0),
    };
    let exec = match (ins.has("sync"), ins.has("arrive")) {
        (true, false) => wait,
        (false, true) => arrive,
        _ => return d.unsupported(ins),
    };
    Ok(Inst::new(Class::Barrier, Act::Lanes(exec), &[number, threads]))
}

/// `bar.red.popc.u32 d, a, {b,} p` and `bar.red.and.pred p, a, {b,} q`.
fn reduction(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let which = ["popc", "and", "or"].iter().position(|name| ins.has(name));
    let Some(which) = which else {
        return d.unsupported(ins);
    };
    let to = d.operand(ins, 0)?.clone();
    let to = if which == 0 { d.dst(&to, Type::U32)? } else { d.dst_predicate(&to)? };
    let number = d.src(d.operand(ins, 1)?, Type::U32)?;
    let counted = ins.operands.len() > 3;
    let threads = if counted { d.src(d.operand(ins, 2)?, Type::U32)? } else { d.constant(Type::U32, 0) };
    let (predicate, negated) = d.predicate(d.operand(ins, if counted { 3 } else { 2 })?)?;
    let imm = which as i64 | i64::from(negated) << 4;
    Ok(Inst::new(Class::Barrier, Act::Lanes(wait_and_reduce), &[number, threads, to, predicate]).imm(imm))
}

unsafe fn nothing(_: &mut Core<'_>, _: &Inst, _: u32) -> Done {
    Ok(())
}

unsafe fn trap(core: &mut Core<'_>, _: &Inst, mask: u32) -> Done {
    Err(core.fault(mask.trailing_zeros(), Kind::Trap))
}

/// A fence of device scope: the next atomic tells other blocks what the warp did and saw, and what atomics have told holds.
unsafe fn fence(core: &mut Core<'_>, _: &Inst, _: u32) -> Done {
    core.warp.clocks.fence_before_release();
    core.warp.clocks.fence_after_look();
    Ok(())
}

unsafe fn warp_barrier(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made operand 0 a row of u32.
    let named = unsafe { core.row::<u32>(inst.a[0]) };
    for lane in lanes(mask) {
        if named[lane] >> lane & 1 == 0 || named[lane] & core.warp.live & !mask != 0 {
            let kind = Kind::MemberMask { name: "bar.warp.sync".into(), named: named[lane], active: mask };
            return Err(core.fault(lane as u32, kind));
        }
    }
    core.warp.clocks.tick();
    Ok(())
}

impl Core<'_> {
    /// Counts the warp at the barrier that operands 0 and 1 name.
    ///
    /// # Safety
    /// They are rows of u32.
    unsafe fn come(&mut self, inst: &Inst, mask: u32) -> std::result::Result<u32, Stop> {
        let lane = mask.trailing_zeros();
        if mask != self.warp.live {
            let (there, live) = (mask.count_ones(), self.warp.live.count_ones());
            return Err(self.fault(lane, Kind::DivergentBarrier { there, live }));
        }
        // SAFETY: the caller's promise.
        let (number, threads) = unsafe { (self.row::<u32>(inst.a[0]), self.row::<u32>(inst.a[1])) };
        let (number, threads) = (number[lane as usize], threads[lane as usize]);
        if number >= 16 || !threads.is_multiple_of(32) {
            let what = format!("barrier {number} with {threads} threads (16 barriers; whole warps)");
            return Err(self.fault(lane, Kind::Unsupported(what)));
        }
        let barrier = &mut self.common.barriers[number as usize];
        if barrier.expected.is_some_and(|expected| expected != threads) {
            let what = format!("barrier {number} with two different thread counts at once");
            return Err(self.fault(lane, Kind::Deadlock(what)));
        }
        barrier.expected = Some(threads);
        // Barriers count whole warps.
        barrier.arrived += 32;
        self.warp.clocks.tick();
        Ok(number)
    }
}

unsafe fn wait(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made the operands rows of u32.
    let number = unsafe { core.come(inst, mask)? };
    core.warp.state = State::Waiting(number);
    Err(Stop::Wait)
}

unsafe fn arrive(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder made the operands rows of u32.
    let number = unsafe { core.come(inst, mask)? };
    let joined = Clocks::join(std::iter::once(&core.warp.clocks));
    let seen = &mut core.common.barriers[number as usize].seen;
    *seen = std::array::from_fn(|i| seen[i].max(joined[i]));
    Ok(())
}

unsafe fn wait_and_reduce(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder gave the operands these kinds.
    let (number, value) = unsafe { (core.come(inst, mask)?, core.predicate(inst.a[3])) };
    let value = if inst.imm & 16 != 0 { !value } else { value } & mask;
    let warp = core.warp.number;
    let barrier = &mut core.common.barriers[number as usize];
    if barrier.arrived == 32 {
        barrier.votes = (0, true, false);
    }
    barrier.votes.0 += value.count_ones();
    barrier.votes.1 &= value == mask;
    barrier.votes.2 |= value != 0;
    let reduction = [Reduction::Count, Reduction::All, Reduction::Any][(inst.imm & 15) as usize];
    barrier.results.push((warp, inst.a[2], reduction, mask));
    core.warp.state = State::Waiting(number);
    Err(Stop::Wait)
}
