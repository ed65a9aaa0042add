//! `mbarrier`: barriers in shared memory that count arrivals and bytes, a phase at a time; and the cluster's barrier, which
//! is one of them that nobody sees.
//!
//! What a barrier counts is kept beside shared memory, by its address, since its 64 bits are opaque to programs. A phase
//! is complete when nobody is expected any more and no bytes are under way; completing it makes what its arrivers have
//! done known to those who wait for it. A wait that fails ends the warp's turn, so that others can arrive. When nobody
//! has for very long, the block is stuck.

use super::access::{Mode, lanes};
use super::memory::{addresses, space};
use super::{Core, Done, SHARED_WINDOW, Stop};
use crate::check::{NOTHING, Seen};
use crate::fault::Kind;
use crate::program::{Act, Address, Class, DecodeError, Decoder, Inst, Slot};
use crate::ptx::ast::{Instruction, Space, Type};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, DecodeError>;

/// Failed waits of a block, with no arrival between, that mean it will never go on.
const PATIENCE: u32 = 1 << 20;

/// The most that a barrier can expect.
const MOST: u32 = (1 << 20) - 1;

/// A barrier's phases.
#[derive(Clone, Debug)]
struct Phases {
    /// Arrivals a phase.
    expected: u32,
    /// Arrivals that this phase lacks.
    pending: u32,
    /// Bytes that this phase lacks; below zero when more came than were announced so far.
    bytes: i64,
    /// Phases completed.
    completed: u64,
    /// What those who arrived have seen, until now and when the last phase was complete.
    seen: Seen,
    known: Seen,
}

impl Phases {
    fn new(expected: u32) -> Self {
        Self { expected, pending: expected, bytes: 0, completed: 0, seen: NOTHING, known: NOTHING }
    }

    /// Begins the next phase if this one is complete.
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.completed += 1;
            self.pending = self.expected;
            self.known = self.seen;
        }
    }

    fn learn(&mut self, seen: &Seen) {
        self.seen = std::array::from_fn(|i| self.seen[i].max(seen[i]));
    }

    /// The opaque state: the phase, and how many arrivals it lacks.
    fn state(&self) -> u64 {
        self.completed << 20 | u64::from(self.pending)
    }
}

/// The barriers of a block.
#[derive(Debug)]
pub(super) struct Mbarriers {
    live: HashMap<u64, Phases>,
    cluster: Phases,
    /// Failed waits since somebody arrived.
    polls: u32,
}

impl Default for Mbarriers {
    fn default() -> Self {
        Self { live: HashMap::new(), cluster: Phases::new(0), polls: 0 }
    }
}

impl Mbarriers {
    /// Forgets everything, for a block of so many threads.
    pub fn start(&mut self, threads: u32) {
        self.live.clear();
        self.cluster = Phases::new(threads);
        self.polls = 0;
    }
}

/// Bits of `wide[1]`: how to arrive, and how to wait.
const EXPECT: Slot = 1;
const DROP: Slot = 2;
const RELAXED: Slot = 4;
const PARITY: Slot = 8;

pub(super) fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    let words = ["release", "acquire", "relaxed", "cta", "cluster", "shared", "shared::cta", "shared::cluster"];
    let what = ["init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "test_wait", "try_wait"];
    let how = ["parity", "noComplete", "pending_count"];
    d.only(ins, &[&words[..], &what, &how].concat())?;
    if ins.has("pending_count") {
        let rows = [d.dst(d.operand(ins, 0)?, Type::B32)?, d.src(d.operand(ins, 1)?, Type::B64)?];
        let exec = super::lanes::unary(|state: u64| state as u32 & MOST);
        return Ok(Inst::new(Class::Barrier, Act::Lanes(exec), &rows));
    }
    let bit = |word, bit| if ins.has(word) { bit } else { 0 };
    let arrives = ins.has("arrive") || ins.has("arrive_drop");
    let waits = ins.has("test_wait") || ins.has("try_wait");
    let mut flags = bit("arrive_drop", DROP) | bit("relaxed", RELAXED) | bit("parity", PARITY);
    if arrives {
        flags |= bit("expect_tx", EXPECT);
    }
    // The address is the first operand, unless there is a result.
    let first = usize::from(arrives || waits);
    let address = d.address(d.operand(ins, first)?)?;
    let value = match ins.operands.get(first + 1) {
        Some(operand) if waits && !ins.has("parity") => d.src(operand, Type::B64)?,
        Some(operand) => d.src(operand, Type::B32)?,
        None => d.constant(Type::B32, 1),
    };
    let result = match (arrives, waits) {
        (true, _) => d.dst(d.operand(ins, 0)?, Type::B64)?,
        (_, true) => d.dst_predicate(d.operand(ins, 0)?)?,
        _ => 0,
    };
    let exec = match () {
        () if ins.has("init") => initialise,
        () if ins.has("inval") => invalidate,
        () if arrives => arrive,
        () if waits => wait,
        () if ins.has("expect_tx") => expect,
        () if ins.has("complete_tx") => complete,
        () => return d.unsupported(ins),
    };
    let wide = vec![place(&address, ins), flags];
    Ok(Inst::new(Class::Barrier, Act::Lanes(exec), &[address.base, value, result]).imm(address.offset).wide(wide))
}

/// How an address is given: 1 for a row of 32 bits, 2 for a generic address.
pub(super) fn place(address: &Address, ins: &Instruction) -> Slot {
    let generic = !ins.modifiers.iter().any(|word| space(word) == Some(Space::Shared));
    Slot::from(address.narrow) | Slot::from(generic) << 1
}

/// `cp.async.mbarrier.arrive`: the arrival comes when the thread's copies have.
pub(super) fn decode_behind_copies(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    d.only(ins, &["async", "mbarrier", "arrive", "noinc", "shared", "shared::cta"])?;
    let address = d.address(d.operand(ins, 0)?)?;
    let wide = vec![place(&address, ins), Slot::from(ins.has("noinc"))];
    let act = Act::Lanes(arrive_behind_copies);
    Ok(Inst::new(Class::Barrier, act, &[address.base]).imm(address.offset).wide(wide))
}

/// `barrier.cluster.arrive` and `.wait`: a cluster is one block.
pub(super) fn decode_cluster(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst> {
    d.only(ins, &["cluster", "arrive", "wait", "release", "acquire", "relaxed", "aligned"])?;
    let exec = if ins.has("arrive") { arrive_at_cluster } else { wait_for_cluster };
    Ok(Inst::new(Class::Barrier, Act::Lanes(exec), &[]).wide(vec![Slot::from(ins.has("relaxed"))]))
}

/// The offsets in shared memory that the lanes' addresses name.
///
/// # Safety
/// `base` is a row of addresses as [`place`] says.
pub(super) unsafe fn offsets(core: &Core<'_>, base: Slot, place: Slot, offset: i64) -> [u64; 32] {
    // SAFETY: the caller's promise.
    let at = unsafe { addresses(core, base, place & 1 != 0, offset) };
    // Addresses outside the window stay where they are, which no shared memory holds.
    if place & 2 == 0 { at } else { at.map(|address| address.wrapping_sub(SHARED_WINDOW)) }
}

impl Core<'_> {
    /// The barrier at `address`, for `lane`, whose access is looked at like any other.
    fn mbarrier(&mut self, address: u64, mode: Mode, lane: usize) -> std::result::Result<&mut Phases, Stop> {
        let lane = lane as u32;
        if !address.is_multiple_of(8) {
            return Err(self.fault(lane, Kind::Misaligned { address, bytes: 8, write: mode == Mode::Write }));
        }
        self.shared_lane(address, 8, mode, lane)?;
        if mode == Mode::Write {
            return Ok(self.common.mbarriers.live.entry(address).or_insert_with(|| Phases::new(0)));
        }
        if !self.common.mbarriers.live.contains_key(&address) {
            return Err(self.mbarrier_fault(lane, address, "not initialised".into()));
        }
        Ok(self.common.mbarriers.live.entry(address).or_insert_with(|| Phases::new(0)))
    }

    #[cold]
    fn mbarrier_fault(&self, lane: u32, address: u64, what: String) -> Stop {
        self.fault(lane, Kind::Mbarrier { address, what })
    }

    /// `bytes` have arrived for the barrier at `address`, from an agent that has seen `seen`. (That agent is
    /// no thread: its look at the barrier races with none.)
    pub(super) fn complete_bytes(&mut self, address: u64, bytes: u32, seen: &Seen, lane: usize) -> Done {
        let Some(barrier) = self.common.mbarriers.live.get_mut(&address) else {
            return Err(self.mbarrier_fault(lane as u32, address, "not initialised".into()));
        };
        barrier.bytes -= i64::from(bytes);
        barrier.learn(seen);
        barrier.settle();
        self.common.mbarriers.polls = 0;
        Ok(())
    }

    /// A wait failed: others have their turn.
    fn poll(&mut self, lane: u32, address: u64, phases: impl Fn(&Self) -> Option<Phases>) -> Stop {
        self.common.mbarriers.polls += 1;
        if self.common.mbarriers.polls < PATIENCE {
            return Stop::Wait;
        }
        let what = match phases(self) {
            Some(Phases { pending, bytes, completed, .. }) => format!(
                "phase {completed} lacks {pending} arrivals and {bytes} bytes, and nobody comes: {PATIENCE} waits failed"
            ),
            None => "not initialised".to_owned(),
        };
        self.mbarrier_fault(lane, address, what)
    }
}

unsafe fn initialise(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0 and a row of u32 in 1.
    let (at, counts) = unsafe { (offsets(core, inst.a[0], inst.wide[0], inst.imm), core.row::<u32>(inst.a[1])) };
    for lane in lanes(mask) {
        let count = counts[lane];
        if !(1..=MOST).contains(&count) {
            let what = format!("initialised with {count} arrivals (1 to {MOST} are possible)");
            return Err(core.mbarrier_fault(lane as u32, at[lane], what));
        }
        *core.mbarrier(at[lane], Mode::Write, lane)? = Phases::new(count);
    }
    Ok(())
}

unsafe fn invalidate(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0.
    let at = unsafe { offsets(core, inst.a[0], inst.wide[0], inst.imm) };
    for lane in lanes(mask) {
        core.mbarrier(at[lane], Mode::Read, lane)?;
        core.mbarrier(at[lane], Mode::Write, lane)?;
        core.common.mbarriers.live.remove(&at[lane]);
    }
    Ok(())
}

unsafe fn arrive(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0 and a row of u32 in 1.
    let (at, values) = unsafe { (offsets(core, inst.a[0], inst.wide[0], inst.imm), core.row::<u32>(inst.a[1])) };
    let flags = inst.wide[1];
    // The lanes look at the barrier before the clock ticks: that, too, is known to those who wait.
    for lane in lanes(mask) {
        core.mbarrier(at[lane], Mode::Read, lane)?;
    }
    core.warp.clocks.tick();
    let seen = if flags & RELAXED == 0 { core.warp.clocks.seen() } else { NOTHING };
    let mut states = [0; 32];
    for lane in lanes(mask) {
        let (count, bytes) = if flags & EXPECT != 0 { (1, values[lane]) } else { (values[lane], 0) };
        let Some(barrier) = core.common.mbarriers.live.get_mut(&at[lane]) else {
            continue; // It was there a moment ago.
        };
        let pending = barrier.pending;
        if count == 0 || count > pending {
            let what = format!("{count} arrivals where {pending} are pending");
            return Err(core.mbarrier_fault(lane as u32, at[lane], what));
        }
        states[lane] = barrier.state();
        barrier.bytes += i64::from(bytes);
        barrier.pending -= count;
        if flags & DROP != 0 {
            barrier.expected -= count;
        }
        barrier.learn(&seen);
        barrier.settle();
    }
    core.common.mbarriers.polls = 0;
    // SAFETY: the decoder made operand 2 a row of u64.
    unsafe { core.set_row(inst.a[2], states, mask) };
    Ok(())
}

unsafe fn arrive_behind_copies(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0.
    let at = unsafe { offsets(core, inst.a[0], inst.wide[0], inst.imm) };
    // The copies count as arrived from here on: others learn of them by the barrier alone.
    core.deliver_all();
    for lane in lanes(mask) {
        core.mbarrier(at[lane], Mode::Read, lane)?;
    }
    core.warp.clocks.tick();
    let seen = core.warp.clocks.seen();
    for lane in lanes(mask) {
        let Some(barrier) = core.common.mbarriers.live.get_mut(&at[lane]) else {
            continue; // It was there a moment ago.
        };
        barrier.learn(&seen);
        // Without `noinc` one more is expected first, and nothing is left to count.
        if inst.wide[1] != 0 {
            if barrier.pending == 0 {
                let what = "an arrival behind copies where none is pending".to_owned();
                return Err(core.mbarrier_fault(lane as u32, at[lane], what));
            }
            barrier.pending -= 1;
            barrier.settle();
        }
    }
    core.common.mbarriers.polls = 0;
    Ok(())
}

unsafe fn expect(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0 and a row of u32 in 1.
    let (at, bytes) = unsafe { (offsets(core, inst.a[0], inst.wide[0], inst.imm), core.row::<u32>(inst.a[1])) };
    for lane in lanes(mask) {
        core.mbarrier(at[lane], Mode::Read, lane)?.bytes += i64::from(bytes[lane]);
    }
    Ok(())
}

unsafe fn complete(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    // SAFETY: the decoder put an address row in operand 0 and a row of u32 in 1.
    let (at, bytes) = unsafe { (offsets(core, inst.a[0], inst.wide[0], inst.imm), core.row::<u32>(inst.a[1])) };
    // The instruction moves no data and orders none.
    lanes(mask).try_for_each(|lane| core.complete_bytes(at[lane], bytes[lane], &NOTHING, lane))
}

unsafe fn wait(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let flags = inst.wide[1];
    // SAFETY: the decoder put an address row in operand 0 and in 1 a row of u32 (a parity) or of u64 (a state).
    let (at, phases) = unsafe {
        let at = offsets(core, inst.a[0], inst.wide[0], inst.imm);
        let parity = flags & PARITY != 0;
        (at, if parity { core.row::<u32>(inst.a[1]).map(u64::from) } else { core.row::<u64>(inst.a[1]) })
    };
    let mut done = 0u32;
    for lane in lanes(mask) {
        let barrier = core.mbarrier(at[lane], Mode::Read, lane)?;
        let completed = if flags & PARITY != 0 {
            barrier.completed & 1 != phases[lane] & 1
        } else {
            barrier.completed > phases[lane] >> 20
        };
        let known = barrier.known;
        if completed {
            done |= 1 << lane;
            if flags & RELAXED == 0 {
                core.warp.clocks.see(&known);
            }
        }
    }
    // SAFETY: the decoder made operand 2 a predicate.
    unsafe { core.set_predicate(inst.a[2], done, mask) };
    let failed = mask & !done;
    if failed == 0 {
        return Ok(());
    }
    let lane = failed.trailing_zeros();
    let address = at[lane as usize];
    Err(core.poll(lane, address, |core| core.common.mbarriers.live.get(&address).cloned()))
}

unsafe fn arrive_at_cluster(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    core.warp.clocks.tick();
    let seen = if inst.wide[0] == 0 { core.warp.clocks.seen() } else { NOTHING };
    let count = mask.count_ones();
    core.warp.cluster_phase = core.common.mbarriers.cluster.completed;
    let barrier = &mut core.common.mbarriers.cluster;
    barrier.pending = barrier.pending.saturating_sub(count);
    barrier.learn(&seen);
    barrier.settle();
    core.common.mbarriers.polls = 0;
    Ok(())
}

unsafe fn wait_for_cluster(core: &mut Core<'_>, _: &Inst, mask: u32) -> Done {
    let barrier = &core.common.mbarriers.cluster;
    if barrier.completed > core.warp.cluster_phase {
        let known = barrier.known;
        core.warp.clocks.see(&known);
        return Ok(());
    }
    core.warp.repeat();
    Err(core.poll(mask.trailing_zeros(), 0, |core| Some(core.common.mbarriers.cluster.clone())))
}
