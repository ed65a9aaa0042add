//! Races for device memory, between the blocks of a launch and within one.
//!
//! Two blocks that touch the same byte, one writing, are unordered unless the first released (a fence, then an atomic)
//! and the second acquired after that (an atomic or a strong load): see [`LaunchOrder`]. Within a block, warps are
//! ordered by their vector clocks, exactly, but only the last access of a sector is remembered. Both rules can miss a
//! race; neither invents one. Atomic accesses order others and race with nothing.
//!
//! The shadow has two levels. Most memory is read and written by whole lines of 64 bytes, whose two sectors then have
//! one history, without masks of bytes: two such lines and a lock share 64 bytes of shadow. The first access to less
//! splits a line for the rest of the launch: from then on its sectors have a [`History`] each.

use super::launch_order::LaunchOrder;
use super::sector_history::{History, LOADED, Last, STORED, moves};
use super::shared_race::Clocks;
use super::{Arena, SECTOR};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a line.
pub const LINE: u64 = 64;

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

    /// Is it of another warp of the block, which hasn't been waited for since?
    pub fn is_unseen(self, touch: &Touch<'_>) -> bool {
        self.warp() != touch.moment.warp() && !touch.clocks.saw(self.warp(), self.clock_warp & 0xff_ffff)
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

/// Of a [`Pair`] whose lock is taken, instead of a launch's number.
const LOCKED: u32 = u32::MAX;

// What has happened to a line in this launch, besides [`LOADED`] and [`STORED`], by accesses that may race.
const WRITTEN: u8 = 4;
const READ: u8 = 8;
const OTHERS_READ: u8 = 16;
/// Its sectors have histories of their own.
const SPLIT: u8 = 32;

/// The history of a line that was touched as a whole, as [`History`] has it.
#[derive(Clone, Copy, Default)]
struct Line {
    writer: u32,
    reader: u32,
    other_reader: u32,
    last_write: Moment,
    last_read: Moment,
}

#[derive(Clone, Copy, Default)]
struct Lines {
    flags: [u8; 2],
    lines: [Line; 2],
}

/// The shadow of two neighbouring lines. Zeroed memory is unlocked and empty.
#[repr(C, align(64))]
pub(super) struct Pair {
    /// The launch that touched them last, or [`LOCKED`].
    launch: AtomicU32,
    lines: UnsafeCell<Lines>,
}

const _: () = assert!(size_of::<Pair>() == 64);

// SAFETY: the lines are only reached while the lock is held.
unsafe impl Sync for Pair {}

/// A [`Pair`] that nobody else looks at; with it, the histories of its sectors.
struct Held<'a> {
    pair: &'a Pair,
    launch: u32,
}

impl<'a> Held<'a> {
    #[inline]
    fn new(pair: &'a Pair, launch: u32) -> Self {
        let before = loop {
            let found = pair.launch.swap(LOCKED, Ordering::Acquire);
            if found != LOCKED {
                break found;
            }
            std::hint::spin_loop();
        };
        let mut held = Self { pair, launch };
        if before != launch {
            held.lines().flags = [0; 2];
        }
        held
    }

    #[inline]
    fn lines(&mut self) -> &mut Lines {
        // SAFETY: the lock is ours.
        unsafe { &mut *self.pair.lines.get() }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.pair.launch.store(self.launch, Ordering::Release);
    }
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
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::OrderedWrite)
    }

    fn races(self) -> bool {
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
                Some(ref mut held) if std::ptr::eq(held.pair, pair) => held,
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

impl Lines {
    /// Notes an access that is to a whole line, unsplit, and races with nothing at first sight; gives how many of its
    /// sectors memory must move.
    #[inline(always)]
    fn touch_whole(&mut self, run: Run, manner: Manner, touch: &Touch<'_>) -> Option<u64> {
        let which = (run.line / LINE % 2) as usize;
        let flags = &mut self.flags[which];
        let whole = run.bytes == u64::MAX;
        match manner {
            Manner::Read if whole && *flags & (SPLIT | WRITTEN) == 0 => {}
            Manner::Write if whole && *flags & (SPLIT | WRITTEN | READ | OTHERS_READ) == 0 => {}
            // It leaves no trace but in the traffic.
            Manner::OrderedRead | Manner::OrderedWrite if *flags & SPLIT == 0 => {
                let mut after = *flags;
                let moved = moves(&mut after, manner.writes());
                if moved && !whole {
                    return None;
                }
                *flags = after;
                return Some(2 * u64::from(moved));
            }
            _ => return None,
        }
        Some(self.lines[which].note(flags, manner.writes(), touch))
    }
}

impl Line {
    #[inline(always)]
    fn note(&mut self, flags: &mut u8, write: bool, touch: &Touch<'_>) -> u64 {
        if write {
            (self.writer, self.last_write) = (touch.block, touch.moment);
            *flags |= WRITTEN;
        } else {
            if *flags & READ != 0 && self.reader != touch.block {
                self.other_reader = self.reader;
                *flags |= OTHERS_READ;
            }
            (self.reader, self.last_read) = (touch.block, touch.moment);
            *flags |= READ;
        }
        2 * u64::from(moves(flags, write))
    }

    /// The same as the history of either sector.
    fn history(&self, flags: u8) -> History {
        let all = |flag: u8| if flags & flag != 0 { u32::MAX } else { 0 };
        History {
            moved: flags & (LOADED | STORED),
            writer: self.writer,
            written: all(WRITTEN),
            reader: self.reader,
            read: all(READ),
            others_wrote: 0,
            other_writer: 0,
            others_read: all(OTHERS_READ),
            other_reader: self.other_reader,
            last_write: Last { bytes: all(WRITTEN), moment: self.last_write },
            last_read: Last { bytes: all(READ), moment: self.last_read },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = u64::MAX;

    /// An arena, and a function that touches its first line.
    struct Scene {
        arena: Arena,
        order: LaunchOrder,
        warps: [Clocks; 2],
    }

    impl Scene {
        fn new() -> Self {
            let warps = [Clocks::new(0), Clocks::new(1)];
            Self { arena: Arena::of(1 << 20).unwrap(), order: LaunchOrder::new(4), warps }
        }

        fn touch(&self, bytes: u64, manner: Manner, block: u32, warp: u32) -> Result<u64, (u32, GlobalRace)> {
            let touch = Touch::new(1, block, warp, 7, &self.warps[warp as usize], &self.order);
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

    #[test]
    fn what_an_earlier_launch_did_is_forgotten() {
        for (first, second) in [(WHOLE, WHOLE), (WHOLE, 0xf00), (0xff00, WHOLE), (0xff00, 0xf00)] {
            let scene = Scene::new();
            let sectors = scene.touch(first, Manner::Write, 0, 0).unwrap();
            assert_eq!(sectors, Run { bytes: first, ..Run::default() }.sectors());
            let touch = Touch::new(2, 1, 0, 7, &scene.warps[0], &scene.order);
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
            let scene = Scene::new();
            scene.touch(WHOLE, Manner::Read, 1, 0).unwrap();
            scene.touch(bytes, Manner::Read, 2, 0).unwrap();
            scene.order.release(2);
            scene.order.acquire(3);
            assert_eq!(scene.touch(WHOLE, Manner::Write, 3, 0).unwrap_err().1.block, 1);
        }
    }
}
