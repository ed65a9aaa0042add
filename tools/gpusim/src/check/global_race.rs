//! Races for device memory, between the blocks of a launch and within one.
//!
//! Two blocks that touch the same byte, one writing, are unordered unless the first released (a fence, then an atomic)
//! and the second acquired after that (an atomic or a strong load, then a fence): see [`LaunchOrder`]. Within a block,
//! warps are ordered by their vector clocks, exactly, but only the last access of a sector is remembered. Both rules can
//! miss a race; neither invents one. Atomic accesses order others and race with nothing.
//!
//! The shadow has two levels: the histories of whole lines, and those of the sectors of lines that were touched in part.
//! See [`super::line_history`] and [`super::sector_history`].

use super::clocks::Clocks;
use super::launch_order::LaunchOrder;
use super::line_history::{Held, LINE, Lines, SPLIT, WRITTEN};
use super::sector_history::moves;
use super::{Arena, SECTOR};

/// When a warp of some block did something.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Index of the instruction.
    pub at: u32,
    /// The warp's clock (low 24 bits) and number.
    clock_warp: u32,
}

impl Moment {
    pub fn warp(self) -> u32 {
        self.clock_warp >> 24
    }

    pub fn clock(self) -> u32 {
        self.clock_warp & 0xff_ffff
    }

    /// Is it of another warp of the block, which hasn't been waited for since?
    pub fn is_unseen(self, touch: &Touch<'_>) -> bool {
        self.warp() != touch.moment.warp() && !touch.clocks.saw(self.warp(), self.clock())
    }
}

/// Who touches: a warp, somewhere in its kernel.
pub struct Touch<'a> {
    /// The launch's number, from 1.
    pub(super) launch: u32,
    /// The block's linear index.
    pub(super) block: u32,
    pub(super) moment: Moment,
    pub(super) clocks: &'a Clocks,
    pub(super) order: &'a LaunchOrder,
}

impl<'a> Touch<'a> {
    /// Warp `warp` of block `block` of launch number `launch` at instruction `at`; `clocks` is what the warp has seen of
    /// the others in its block, `order` what blocks have seen of each other.
    #[must_use]
    pub fn new(launch: u32, block: u32, warp: u32, at: u32, clocks: &'a Clocks, order: &'a LaunchOrder) -> Self {
        let clock_warp = clocks.now(warp) << 8 >> 8 | warp << 24;
        Self { launch, block, moment: Moment { at, clock_warp }, clocks, order }
    }
}

/// What a request does to one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Address of the line.
    pub line: u64,
    /// The bytes of it, a bit each.
    pub bytes: u64,
    /// The first lane.
    pub lane: u32,
}

impl Run {
    /// The bytes in either sector.
    fn halves(self) -> [u32; 2] {
        [self.bytes as u32, (self.bytes >> 32) as u32]
    }

    /// How many of its sectors it touches.
    #[must_use]
    pub fn sectors(self) -> u64 {
        self.halves().into_iter().map(|half| u64::from(half != 0)).sum()
    }
}

/// An earlier access without order to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalRace {
    /// The other's block.
    pub block: u32,
    /// Its instruction, if it is still known.
    pub at: Option<u32>,
    /// Its warp, if known.
    pub warp: Option<u32>,
    /// Did it write?
    pub write: bool,
    /// The first byte that both touch.
    pub address: u64,
}

/// What kind of access a request is, to the race check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A read that may race.
    Read,
    /// A write that may race.
    Write,
    /// A read with an order, which races with nothing.
    OrderedRead,
    /// A write, or a read and a write at once, with an order.
    OrderedWrite,
}

impl Manner {
    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::OrderedWrite)
    }

    pub(super) fn races(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

impl Arena {
    /// Notes a request. Gives how many sectors memory must move for it: those that this launch writes for the first time,
    /// or reads for the first time and hasn't written.
    ///
    /// # Errors
    /// The race, and the lane that is part of it.
    #[inline(always)]
    pub fn touch(
        &self,
        runs: impl Iterator<Item = Run>,
        manner: Manner,
        touch: &Touch<'_>,
    ) -> Result<u64, (u32, GlobalRace)> {
        let mut moved = 0;
        let mut held: Option<Held<'_>> = None;
        for run in runs {
            let pair = self.pair(run.line);
            let held = match held {
                Some(ref mut held) if held.holds(pair) => held,
                _ => {
                    // One lock at a time.
                    held = None;
                    held.insert(Held::new(pair, touch.launch))
                }
            };
            moved += match held.lines().touch_whole(run, manner, touch) {
                Some(moved) => moved,
                None => self.touch_closely(held, run, manner, touch)?,
            };
        }
        Ok(moved)
    }

    /// As [`Self::touch`] for a run that needs a look at the sectors, or at who did what before.
    #[inline(never)]
    fn touch_closely(
        &self,
        held: &mut Held<'_>,
        run: Run,
        manner: Manner,
        touch: &Touch<'_>,
    ) -> Result<u64, (u32, GlobalRace)> {
        let which = (run.line / LINE % 2) as usize;
        let Lines { flags, lines } = held.lines();
        let (flags, line) = (&mut flags[which], &mut lines[which]);
        let write = manner.writes();
        let named = |offset: u64, (common, race): (u32, GlobalRace)| {
            let address = run.line + offset + u64::from(common.trailing_zeros());
            (run.lane, GlobalRace { address, ..race })
        };
        if *flags & SPLIT == 0
            && run.bytes == u64::MAX
            && !(write && *flags & WRITTEN != 0 && line.writer != touch.block)
        {
            if let Some(race) = line.history(*flags).race(u32::MAX, write, touch) {
                return Err(named(0, race));
            }
            return Ok(line.note(flags, write, touch));
        }
        let mut moved = 0;
        for (offset, bytes) in [0, SECTOR].into_iter().zip(run.halves()) {
            // SAFETY: the lock of the pair is ours, and with it the histories of its sectors.
            let history = unsafe { &mut *self.history(run.line + offset) };
            if *flags & SPLIT == 0 {
                *history = line.history(*flags);
            }
            if bytes == 0 {
                continue;
            }
            moved += u64::from(moves(&mut history.moved, write));
            if !manner.races() {
                continue;
            }
            if let Some(race) = history.race(bytes, write, touch) {
                return Err(named(offset, race));
            }
            history.note(bytes, write, touch);
        }
        *flags |= SPLIT;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sector_history::History;
    use super::*;

    const WHOLE: u64 = u64::MAX;

    /// An arena, four blocks of two warps, and functions by which these touch the first line and tell each other.
    struct Scene {
        arena: Arena,
        order: LaunchOrder,
        warps: [[Clocks; 2]; 4],
    }

    impl Scene {
        fn new() -> Self {
            let warps = std::array::from_fn(|_| [Clocks::new(0), Clocks::new(1)]);
            Self { arena: Arena::of(1 << 20).unwrap(), order: LaunchOrder::default(), warps }
        }

        fn release(&mut self, block: u32, warp: u32) {
            let clocks = &mut self.warps[block as usize][warp as usize];
            clocks.fence_before_release();
            self.order.release(block, clocks);
        }

        fn acquire(&mut self, block: u32, warp: u32) {
            let clocks = &mut self.warps[block as usize][warp as usize];
            self.order.look(clocks);
            clocks.fence_after_look();
        }

        fn touch(&self, bytes: u64, manner: Manner, block: u32, warp: u32) -> Result<u64, (u32, GlobalRace)> {
            let clocks = &self.warps[block as usize][warp as usize];
            let touch = Touch::new(1, block, warp, 7, clocks, &self.order);
            self.arena.touch([Run { line: self.arena.base(), bytes, lane: 5 }].into_iter(), manner, &touch)
        }
    }

    #[test]
    fn a_sector_moves_once_for_readers_and_once_for_writers() {
        use Manner::{OrderedRead, OrderedWrite, Read, Write};
        for (accesses, moved) in [
            // Read, whole or in part, and then written.
            ([(0xf0, Read), (WHOLE, Read), (WHOLE, OrderedRead), (0xf0, Write)], [1, 1, 0, 1]),
            ([(WHOLE, Read), (0xf0, OrderedRead), (WHOLE, OrderedWrite), (WHOLE, Write)], [2, 0, 2, 0]),
            ([(WHOLE, OrderedRead), (WHOLE, Read), (0xf0, OrderedWrite), (WHOLE, Write)], [2, 0, 1, 1]),
            // Written: what is read back doesn't move.
            ([(WHOLE, Write), (WHOLE, Read), (0xf0, Write), (0xf0, Read)], [2, 0, 0, 0]),
            ([(WHOLE, OrderedWrite), (0xf0, OrderedWrite), (0xf0, OrderedRead), (WHOLE, Read)], [2, 0, 0, 0]),
            ([(0xf0, Write), (WHOLE, Write), (0xf0, Read), (WHOLE, Read)], [1, 1, 0, 0]),
        ] {
            let scene = Scene::new();
            let found = accesses.map(|(bytes, manner)| scene.touch(bytes, manner, 0, 0));
            assert_eq!(found, moved.map(Ok), "{accesses:x?}");
        }
    }

    /// Every kind of history before, whole or in part, and every access after it: what is found depends on the bytes
    /// that both touch and on nothing else.
    #[test]
    fn whole_lines_and_parts_find_the_same_races() {
        let manners = [Manner::Read, Manner::Write, Manner::OrderedRead, Manner::OrderedWrite];
        for before in manners {
            for after in manners {
                for (block, warp) in [(0, 0), (0, 1), (1, 0)] {
                    for (first, second) in [(WHOLE, WHOLE), (WHOLE, 0xf00), (0xff00, WHOLE), (0xff00, 0xf00), (1, 2)] {
                        let scene = Scene::new();
                        scene.touch(first, before, 0, 0).unwrap();
                        let found = scene.touch(second, after, block, warp);
                        let races = before.races()
                            && after.races()
                            && (before == Manner::Write || after == Manner::Write)
                            && (block, warp) != (0, 0)
                            && first & second != 0;
                        let race = GlobalRace {
                            block: 0,
                            at: Some(7),
                            warp: Some(0),
                            write: before == Manner::Write,
                            address: scene.arena.base() + u64::from((first & second).trailing_zeros() % 64),
                        };
                        let expected = races.then_some((5, race));
                        assert_eq!(
                            found.err(),
                            expected,
                            "{before:?} {first:x}, {after:?} {second:x} of {block}, {warp}"
                        );
                    }
                }
            }
        }
    }

    /// Whatever happens to a line, it is as if its sectors had histories of their own from the start.
    #[test]
    fn lines_remember_what_sectors_do() {
        let mut seed = 1u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let mut races = 0;
        for _ in 0..10_000 {
            let mut scene = Scene::new();
            let mut sectors = [History::default(); 2];
            for _ in 0..10 {
                let (block, warp) = (below(4) as u32, below(2) as u32);
                match below(8) {
                    0 => scene.release(block, warp),
                    1 => scene.acquire(block, warp),
                    _ => {}
                }
                let manner =
                    [Manner::Read, Manner::Write, Manner::OrderedRead, Manner::OrderedWrite][below(4) as usize];
                let bytes = [WHOLE, WHOLE, WHOLE, 0xff << 28, 0xff00, 1 << (16 * block)][below(6) as usize];
                let clocks = &scene.warps[block as usize][warp as usize];
                let touch = Touch::new(1, block, warp, 7, clocks, &scene.order);
                let mut expected = Ok(0);
                for (i, bytes) in (0..).zip([bytes as u32, (bytes >> 32) as u32]) {
                    let (Ok(moved), history) = (&mut expected, &mut sectors[i as usize]) else { break };
                    if bytes == 0 {
                        continue;
                    }
                    *moved += u64::from(moves(&mut history.moved, manner.writes()));
                    match history.race(bytes, manner.writes(), &touch) {
                        Some((common, race)) if manner.races() => {
                            let address = scene.arena.base() + SECTOR * i + u64::from(common.trailing_zeros());
                            expected = Err((5, GlobalRace { address, ..race }));
                        }
                        None if manner.races() => history.note(bytes, manner.writes(), &touch),
                        _ => {}
                    }
                }
                assert_eq!(scene.touch(bytes, manner, block, warp), expected);
                if expected.is_err() {
                    races += 1;
                    break;
                }
            }
        }
        assert!((1000..10_000).contains(&races), "{races} races");
    }

    #[test]
    fn what_an_earlier_launch_did_is_forgotten() {
        for (first, second) in [(WHOLE, WHOLE), (WHOLE, 0xf00), (0xff00, WHOLE), (0xff00, 0xf00)] {
            let scene = Scene::new();
            let sectors = scene.touch(first, Manner::Write, 0, 0).unwrap();
            assert_eq!(sectors, Run { bytes: first, ..Run::default() }.sectors());
            let touch = Touch::new(2, 1, 0, 7, &scene.warps[1][0], &scene.order);
            let run = Run { line: scene.arena.base(), bytes: second, lane: 5 };
            assert_eq!(scene.arena.touch([run].into_iter(), Manner::Write, &touch), Ok(run.sectors()));
        }
    }

    #[test]
    fn neighbours_in_a_line_do_not_race_however_they_take_turns() {
        let scene = Scene::new();
        for manner in [Manner::Read, Manner::Write] {
            for block in [0, 1, 0, 2, 1, 3, 0, 1] {
                assert!(scene.touch(0xffff << (16 * block), manner, block, 0).is_ok(), "{manner:?} of {block}");
            }
        }
    }

    #[test]
    fn a_reader_before_the_last_is_remembered() {
        for bytes in [WHOLE, 0xffff] {
            let mut scene = Scene::new();
            scene.touch(WHOLE, Manner::Read, 1, 0).unwrap();
            scene.touch(bytes, Manner::Read, 2, 0).unwrap();
            scene.release(2, 0);
            scene.acquire(3, 0);
            assert_eq!(scene.touch(WHOLE, Manner::Write, 3, 0).unwrap_err().1.block, 1);
        }
    }

    /// Blocks meet by tickets: each warp of one writes and fences or not, a barrier, one warp's atomic; an atomic of the
    /// other block, a barrier, fences, reads.
    #[test]
    fn a_ticket_orders_what_fences_stand_around() {
        fn barrier(warps: &mut [Clocks; 2]) {
            warps.iter_mut().for_each(Clocks::tick);
            let joined = Clocks::join(warps.iter());
            warps.iter_mut().for_each(|clocks| clocks.see(&joined));
        }
        // Which warps of the writer fence before the barrier, whether the one with the atomic does after it; and the same of
        // the reader, the other way round.
        for (before, late, early, after) in [
            ([true, true], false, false, [true, true]),
            ([false, false], true, true, [false, false]),
            ([true, false], false, true, [false, false]),
            ([false, true], false, true, [false, false]),
            ([false, false], false, true, [false, false]),
            ([false, false], true, false, [true, false]),
            ([false, false], true, false, [false, false]),
        ] {
            let mut scene = Scene::new();
            for warp in [0, 1] {
                scene.touch(0xf << (4 * warp), Manner::Write, 0, warp).unwrap();
                if before[warp as usize] {
                    scene.warps[0][warp as usize].fence_before_release();
                }
            }
            barrier(&mut scene.warps[0]);
            if late {
                scene.warps[0][0].fence_before_release();
            }
            scene.order.release(0, &scene.warps[0][0]);
            scene.order.look(&mut scene.warps[1][0]);
            if early {
                scene.warps[1][0].fence_after_look();
            }
            barrier(&mut scene.warps[1]);
            for reader in [0, 1] {
                if after[reader as usize] {
                    scene.warps[1][reader as usize].fence_after_look();
                }
                // The last write's warp is known, that of the one before isn't.
                let known = late || before[1];
                let fine = known && (early || after[reader as usize]);
                assert_eq!(
                    scene.touch(0xf0, Manner::Read, 1, reader).is_ok(),
                    fine,
                    "{before:?} {late} {early} {after:?}"
                );
            }
        }
    }
}
