//! A warp: its registers, its paths, and the loop that executes them.

use super::{Core, Done, Stop};
use crate::check::Clocks;
use crate::fault::Kind;
use crate::program::{Act, Copy as Move, Fill, Kernel, NEVER, Slot, Special};

/// A set of lanes at one place, on the way to where they meet others.
#[derive(Clone, Copy, Debug)]
struct Path {
    at: u32,
    join: u32,
    mask: u32,
}

/// A call that hasn't returned.
#[derive(Clone, Copy, Debug)]
struct Frame {
    call: u32,
    back: u32,
    join: u32,
    mask: u32,
    depth: usize,
}

/// What a warp is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It can go on.
    Ready,
    /// It waits at this barrier.
    Waiting(u32),
    /// All its lanes are done.
    Done,
}

/// A chunk of the register file: the alignment of a cache line and of the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// 32 lanes in lock step.
pub struct Warp {
    registers: Box<[Line]>,
    pub(super) local: Box<[u128]>,
    pub(super) local_bytes: usize,
    /// Which warp of its block.
    pub(super) number: u32,
    /// Lanes that have not ended.
    pub(super) live: u32,
    path: Path,
    waiting: Vec<Path>,
    frames: Vec<Frame>,
    pub(super) state: State,
    pub(super) clocks: Clocks,
    /// Asynchronous copies that have not been waited for.
    pub(super) copies: super::async_copy::Groups,
    /// Bulk copies out of shared memory.
    pub(super) bulk: super::bulk_copy::Groups,
    /// Warpgroup products.
    pub(super) products: super::bulk_copy::Groups,
    /// The carry flag of `add.cc`, a bit a lane.
    pub(super) carry: u32,
    /// The phase of the cluster's barrier at which it arrived last.
    pub(super) cluster_phase: u64,
}

impl Warp {
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            registers: vec![Line([0; 64]); kernel.register_bytes / 64].into(),
            local: vec![0; (kernel.local_bytes * 32).div_ceil(16)].into(),
            local_bytes: kernel.local_bytes,
            number: 0,
            live: 0,
            path: Path { at: 0, join: NEVER, mask: 0 },
            waiting: Vec::new(),
            frames: Vec::new(),
            state: State::Done,
            clocks: Clocks::new(0),
            copies: super::async_copy::Groups::default(),
            bulk: super::bulk_copy::Groups::default(),
            products: super::bulk_copy::Groups::default(),
            carry: 0,
            cluster_phase: 0,
        }
    }

    pub(super) fn registers(&mut self) -> *mut u8 {
        self.registers.as_mut_ptr().cast()
    }

    /// Makes the warp the `number`th of a new block with `live` lanes.
    pub fn start(&mut self, number: u32, live: u32) {
        self.registers.fill(Line([0; 64]));
        self.number = number;
        self.live = live;
        self.path = Path { at: 0, join: NEVER, mask: live };
        self.waiting.clear();
        self.frames.clear();
        self.state = if live == 0 { State::Done } else { State::Ready };
        self.clocks = Clocks::new(number);
        self.copies.clear();
        self.bulk.clear();
        self.products.clear();
        self.carry = 0;
    }

    fn pop(&mut self) -> bool {
        while let Some(path) = self.waiting.pop() {
            if path.mask != 0 {
                self.path = path;
                // Calls whose threads have all ended won't return.
                while self.frames.last().is_some_and(|frame| frame.mask == 0) {
                    self.frames.pop();
                }
                return true;
            }
        }
        false
    }

    /// Index of the instruction executed last.
    pub(super) fn last(&self) -> u32 {
        self.path.at.saturating_sub(1)
    }

    /// Executes the last instruction again when the warp's turn comes.
    pub(super) fn repeat(&mut self) {
        self.path.at -= 1;
    }

    fn end_lanes(&mut self, mask: u32) {
        self.live &= !mask;
        self.path.mask &= !mask;
        for path in &mut self.waiting {
            path.mask &= !mask;
        }
        for frame in &mut self.frames {
            frame.mask &= !mask;
        }
    }

    /// Parts the lanes: `taken` go to `target`, the others on; both meet at `join`.
    fn part(&mut self, taken: u32, target: u32, join: u32) {
        let stay = self.path.mask & !taken;
        let next = self.path.at + 1;
        if self.path.join != join && join != NEVER {
            self.waiting.push(Path { at: join, ..self.path });
        }
        let join = if join == NEVER { self.path.join } else { join };
        if target == join {
            self.path = Path { at: next, join, mask: stay };
        } else {
            if next != join {
                self.waiting.push(Path { at: next, join, mask: stay });
            }
            self.path = Path { at: target, join, mask: taken };
        }
    }
}

impl Core<'_> {
    /// Fills the rows that have a value from the start.
    pub fn fill(&mut self) {
        self.set_registers();
        let launch = self.launch;
        for &(slot, fill) in &launch.kernel.fills {
            // SAFETY: the slot is a row of this kernel, of the size that the fill says.
            unsafe {
                match fill {
                    Fill::Bits { size: 0, bits } => self.set_predicate(slot, bits as u32, u32::MAX),
                    Fill::Bits { size: 2, bits } => self.set_row(slot, [bits as u16; 32], u32::MAX),
                    Fill::Bits { size: 4, bits } => self.set_row(slot, [bits as u32; 32], u32::MAX),
                    Fill::Bits { bits, .. } => self.set_row(slot, [bits; 32], u32::MAX),
                    Fill::DynamicShared => self.set_row(slot, [launch.dynamic_shared_start() as u64; 32], u32::MAX),
                    Fill::Special(special) => {
                        let row = self.special(special);
                        self.set_row(slot, row, u32::MAX);
                    }
                }
            }
        }
    }

    fn special(&self, special: Special) -> [u32; 32] {
        let (launch, warp) = (self.launch, self.warp.number);
        let lanes: [u32; 32] = std::array::from_fn(|lane| lane as u32);
        match special {
            Special::Tid(axis) => lanes.map(|lane| launch.thread(warp, lane)[axis as usize]),
            Special::Ntid(axis) => [launch.setup.block[axis as usize]; 32],
            Special::Ctaid(axis) => [self.common.index[axis as usize]; 32],
            Special::Nctaid(axis) => [launch.setup.grid[axis as usize]; 32],
            Special::LaneId => lanes,
            Special::WarpId => [warp; 32],
            Special::NwarpId => [launch.warps(); 32],
            Special::LanemaskEq => lanes.map(|lane| 1 << lane),
            Special::LanemaskLt => lanes.map(|lane| (1 << lane) - 1),
            Special::LanemaskLe => lanes.map(|lane| u32::MAX >> (31 - lane)),
            Special::LanemaskGe => lanes.map(|lane| u32::MAX << lane),
            Special::LanemaskGt => lanes.map(|lane| u32::MAX << lane << 1),
            Special::SmId => [self.common.linear % launch.setup.multiprocessors; 32],
            Special::NsmId => [launch.setup.multiprocessors; 32],
            Special::GridId => [launch.serial; 32],
            Special::DynamicSharedSize => [launch.setup.dynamic_shared; 32],
            Special::TotalSharedSize => [launch.shared_bytes() as u32; 32],
            Special::Zero => [0; 32],
            Special::One => [1; 32],
        }
    }

    /// Runs the warp until it waits, ends, or has executed `budget` instructions; gives how many are left.
    ///
    /// # Errors
    /// What it did wrong.
    pub fn run(&mut self, mut budget: u64) -> Result<u64, Stop> {
        self.set_registers();
        let kernel = self.launch.kernel;
        let code = &kernel.code[..];
        while budget > 0 {
            while self.warp.path.at == self.warp.path.join || self.warp.path.mask == 0 {
                if !self.warp.pop() {
                    self.warp.state = State::Done;
                    return Ok(budget);
                }
            }
            budget -= 1;
            let at = self.warp.path.at;
            let inst = &code[at as usize];
            let mut mask = self.warp.path.mask;
            if let Some(guard) = inst.guard {
                // SAFETY: the decoder made the guard's slot a predicate.
                let value = unsafe { self.predicate(guard.get() as Slot) };
                mask &= if inst.negated { !value } else { value };
            }
            self.at = at;
            self.tally.executed(at, mask);
            match inst.act {
                Act::Lanes(exec) => {
                    self.warp.path.at = at + 1;
                    if mask != 0 {
                        // SAFETY: the decoder chose `exec` for this instruction's rows and this processor.
                        match unsafe { exec(self, inst, mask) } {
                            Ok(()) => {}
                            Err(Stop::Wait) => return Ok(budget),
                            Err(fault) => return Err(fault),
                        }
                    }
                }
                Act::Branch { target, join } => {
                    if mask == self.warp.path.mask {
                        self.warp.path.at = target;
                    } else if mask == 0 {
                        self.warp.path.at = at + 1;
                    } else {
                        self.warp.part(mask, target, join);
                    }
                }
                Act::Switch { table, join } => self.switch(inst.a[0], &kernel.tables[table as usize], join, mask)?,
                Act::Exit => {
                    self.warp.path.at = at + 1;
                    self.warp.end_lanes(mask);
                }
                Act::Call(call) => self.enter(call, mask)?,
                Act::Return => self.leave()?,
            }
        }
        Ok(budget)
    }

    fn switch(&mut self, index: Slot, table: &[u32], join: u32, mask: u32) -> Done {
        // SAFETY: the decoder made operand 0 a row of u32.
        let indices = unsafe { self.row::<u32>(index) };
        let mut left = mask;
        let whole = self.warp.path;
        if mask != whole.mask {
            return Err(self.fault(mask.trailing_zeros(), Kind::Unsupported("a guarded brx".into())));
        }
        if join != NEVER && whole.join != join {
            self.warp.waiting.push(Path { at: join, ..whole });
        }
        let join = if join == NEVER { whole.join } else { join };
        while left != 0 {
            let lane = left.trailing_zeros();
            let index = indices[lane as usize];
            let Some(&target) = table.get(index as usize) else {
                return Err(self.fault(lane, Kind::Unsupported(format!("brx with index {index} of {}", table.len()))));
            };
            let same = (0..32).filter(|&l| indices[l as usize] == index).fold(0u32, |m, l| m | 1 << l) & left;
            left &= !same;
            if target != join {
                self.warp.waiting.push(Path { at: target, join, mask: same });
            }
        }
        self.warp.path.mask = 0;
        Ok(())
    }

    fn enter(&mut self, call: u32, mask: u32) -> Done {
        if mask == 0 {
            self.warp.path.at += 1;
            return Ok(());
        }
        if mask != self.warp.path.mask {
            return Err(self.fault(mask.trailing_zeros(), Kind::Unsupported("a guarded call".into())));
        }
        let kernel = self.launch.kernel;
        let site = &kernel.calls[call as usize];
        self.move_parameters(&site.inputs, mask);
        let Path { at, join, mask } = self.warp.path;
        let depth = self.warp.waiting.len();
        self.warp.frames.push(Frame { call, back: at + 1, join, mask, depth });
        self.warp.path = Path { at: site.entry, join: NEVER, mask };
        Ok(())
    }

    fn leave(&mut self) -> Done {
        let kernel = self.launch.kernel;
        let lane = self.warp.path.mask.trailing_zeros();
        let Some(frame) = self.warp.frames.last().copied() else {
            return Err(self.fault(lane, Kind::Unsupported("a return without a call".into())));
        };
        // A path that left early waits here for the others of its call.
        if self.warp.path.mask != frame.mask {
            let rest = self.warp.path;
            let others = self.warp.waiting[frame.depth..].iter_mut().find(|path| path.mask & !rest.mask != 0);
            let Some(_) = others else {
                return Err(self.fault(lane, Kind::Unsupported("a function whose threads never meet again".into())));
            };
            // Put it under the others, so that it goes on last, with them.
            let at = frame.depth;
            match self.warp.waiting.get_mut(at) {
                Some(bottom) if bottom.at == rest.at && bottom.join == NEVER => bottom.mask |= rest.mask,
                _ => self.warp.waiting.insert(at, Path { join: NEVER, ..rest }),
            }
            self.warp.path.mask = 0;
            return Ok(());
        }
        self.warp.frames.pop();
        self.move_parameters(&kernel.calls[frame.call as usize].outputs, frame.mask);
        self.warp.path = Path { at: frame.back, join: frame.join, mask: frame.mask };
        Ok(())
    }

    fn move_parameters(&mut self, moves: &[Move], mask: u32) {
        let stride = self.warp.local_bytes;
        let bytes = self.warp.local.len() * 16;
        // SAFETY: the slice covers the same memory, as bytes.
        let local = unsafe { std::slice::from_raw_parts_mut(self.warp.local.as_mut_ptr().cast::<u8>(), bytes) };
        for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
            for &Move { from, to, bytes } in moves {
                let start = lane * stride + from as usize;
                local.copy_within(start..start + bytes as usize, lane * stride + to as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warp(at: u32, mask: u32) -> Warp {
        Warp {
            registers: Box::new([]),
            local: Box::new([]),
            local_bytes: 0,
            number: 0,
            live: mask,
            path: Path { at, join: NEVER, mask },
            waiting: Vec::new(),
            frames: Vec::new(),
            state: State::Ready,
            clocks: Clocks::new(0),
            copies: super::super::async_copy::Groups::default(),
            bulk: super::super::bulk_copy::Groups::default(),
            products: super::super::bulk_copy::Groups::default(),
            carry: 0,
            cluster_phase: 0,
        }
    }

    #[test]
    fn parted_lanes_meet_at_the_join() {
        let mut warp = warp(3, 0b1111);
        warp.part(0b0011, 8, 12);
        assert_eq!((warp.path.at, warp.path.mask), (8, 0b0011));
        assert!(warp.pop());
        assert_eq!((warp.path.at, warp.path.mask), (4, 0b1100));
        assert!(warp.pop());
        assert_eq!((warp.path.at, warp.path.mask, warp.path.join), (12, 0b1111, NEVER));
    }

    #[test]
    fn a_loop_that_lanes_leave_one_by_one_keeps_a_short_stack() {
        let mut warp = warp(5, u32::MAX);
        for lane in 0..31 {
            warp.path.at = 5;
            // Stay in the loop (target 1): all but the lanes up to this one; leave to 6, the join.
            warp.part(u32::MAX << lane << 1, 1, 6);
        }
        assert_eq!(warp.waiting.len(), 1);
    }
}
