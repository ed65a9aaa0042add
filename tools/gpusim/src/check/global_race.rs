//! Races for device memory, between the blocks of a launch and within one.
//!
//! A cell shadows a 32-byte sector: which bytes the last block wrote and read, which bytes the one before it did, and who
//! touched it last. Two blocks that touch the same byte, one writing, are unordered unless the first released (a fence, then an
//! atomic) and the second acquired after that (an atomic or a strong load): see [`LaunchOrder`]. Within a block, warps
//! are ordered by their vector clocks, exactly, but only the last access of a sector is remembered. Both rules can miss
//! a race; neither invents one. Atomic accesses order others and race with nothing.

use super::shared_race::Clocks;
use super::{Arena, SECTOR};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Who last touched a sector, and which bytes.
#[derive(Clone, Copy, Default)]
struct Last {
    bytes: u32,
    /// Index of the instruction.
    at: u32,
    /// The warp's clock (low 24 bits) and number.
    clock_warp: u32,
}

impl Last {
    fn new(bytes: u32, touch: &Touch<'_>) -> Self {
        Self { bytes, at: touch.at, clock_warp: touch.clocks.now(touch.warp) << 8 >> 8 | touch.warp << 24 }
    }

    fn add(&mut self, bytes: u32, touch: &Touch<'_>) {
        let new = Self::new(bytes, touch);
        let same = new.clock_warp == self.clock_warp && new.at == self.at;
        *self = Self { bytes: if same { bytes | self.bytes } else { bytes }, ..new };
    }

    fn clashes(&self, bytes: u32, touch: &Touch<'_>) -> bool {
        let (clock, warp) = (self.clock_warp & 0xff_ffff, self.clock_warp >> 24);
        self.bytes & bytes != 0 && warp != touch.warp && !touch.clocks.saw(warp, clock)
    }
}

/// A sector's history within one launch.
#[derive(Clone, Copy, Default)]
struct History {
    launch: u32,
    writer: u32,
    written: u32,
    reader: u32,
    read: u32,
    /// Bytes that the block before `writer` wrote, and that block.
    others_wrote: u32,
    other_writer: u32,
    others_read: u32,
    other_reader: u32,
    last_write: Last,
    last_read: Last,
}

/// The shadow of a sector. Zeroed memory is an unlocked, empty cell.
#[repr(C, align(64))]
pub(super) struct Cell {
    locked: AtomicBool,
    history: UnsafeCell<History>,
}

// SAFETY: the history is only reached while `locked` is held.
unsafe impl Sync for Cell {}

impl Cell {
    fn with<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is ours.
        let result = look(unsafe { &mut *self.history.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

/// Who touches: a warp, somewhere in its kernel.
pub struct Touch<'a> {
    /// The launch's number, from 1.
    pub launch: u32,
    /// The block's linear index.
    pub block: u32,
    /// The warp's.
    pub warp: u32,
    /// Index of the instruction.
    pub at: u32,
    /// What the warp has seen of the others in its block.
    pub clocks: &'a Clocks,
    /// What blocks have seen of each other.
    pub order: &'a LaunchOrder,
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

impl Arena {
    /// Notes that `bytes` (a mask) of the sector at `address` are read or written.
    ///
    /// Gives whether memory must move the sector for it, and the race if there is one: for the launch's first write of a
    /// sector, and for its first read of one that it hasn't written.
    pub fn touch(&self, address: u64, bytes: u32, write: bool, touch: &Touch<'_>) -> (bool, Option<GlobalRace>) {
        let sector = address / SECTOR * SECTOR;
        self.cell(sector).with(|history| {
            history.begin(touch);
            let read = if write { 0 } else { history.read | history.others_read };
            let moved = history.written | history.others_wrote | read != 0;
            let race = history
                .race(bytes, write, touch)
                .map(|(common, race)| GlobalRace { address: sector + u64::from(common.trailing_zeros()), ..race });
            history.note(bytes, write, touch);
            (!moved, race)
        })
    }

    /// As [`Self::touch`] for an access that races with nothing: gives whether it is the launch's first to the sector.
    pub fn visit(&self, address: u64, touch: &Touch<'_>) -> bool {
        self.cell(address / SECTOR * SECTOR).with(|history| history.begin(touch))
    }
}

impl History {
    /// Forgets what earlier launches did; gives whether there was none of this launch.
    fn begin(&mut self, touch: &Touch<'_>) -> bool {
        let first = self.launch != touch.launch;
        if first {
            *self = Self { launch: touch.launch, writer: touch.block, reader: touch.block, ..Self::default() };
        }
        first
    }

    #[inline]
    fn race(&self, bytes: u32, write: bool, touch: &Touch<'_>) -> Option<(u32, GlobalRace)> {
        // The usual case: nobody else had to do with these bytes, or all only read them.
        let read = if write { self.read | self.others_read } else { 0 };
        if (self.written | self.others_wrote | read) & bytes == 0 {
            return None;
        }
        self.race_with(bytes, write, touch)
    }

    fn race_with(&self, bytes: u32, write: bool, touch: &Touch<'_>) -> Option<(u32, GlobalRace)> {
        // (bytes, block, is it a write, the last access if it was that block's)
        let writes = [(self.written, self.writer, Some(self.last_write)), (self.others_wrote, self.other_writer, None)];
        let reads = [(self.read, self.reader, Some(self.last_read)), (self.others_read, self.other_reader, None)];
        let writes = writes.into_iter().map(|(b, block, last)| (b, block, last, true));
        let reads = reads.into_iter().map(|(b, block, last)| (b, block, last, false));
        for (theirs, block, last, their_write) in writes.chain(reads) {
            if !(write || their_write) || theirs & bytes == 0 {
                continue;
            }
            let clash = if block == touch.block {
                last.is_some_and(|last| last.clashes(bytes, touch))
            } else {
                !touch.order.ordered(block, touch.block)
            };
            if clash {
                let at = last.map(|last| last.at);
                let warp = last.map(|last| last.clock_warp >> 24);
                return Some((theirs & bytes, GlobalRace { block, at, warp, write: their_write, address: 0 }));
            }
        }
        None
    }

    fn note(&mut self, bytes: u32, write: bool, touch: &Touch<'_>) {
        if write {
            if self.writer != touch.block {
                let (mine, others) =
                    ((&mut self.written, &mut self.writer), (&mut self.others_wrote, &mut self.other_writer));
                hand_over(mine, others, touch.block);
            }
            self.written |= bytes;
            self.last_write.add(bytes, touch);
        } else {
            if self.reader != touch.block {
                let (mine, others) =
                    ((&mut self.read, &mut self.reader), (&mut self.others_read, &mut self.other_reader));
                hand_over(mine, others, touch.block);
            }
            self.read |= bytes;
            self.last_read.add(bytes, touch);
        }
    }
}

/// Block `to` touches a sector after another one: the other's bytes become those of the others, with its name. If `to` is
/// the block that stood there, the two change places, so that no block's own bytes are ever held against it; a third
/// block's bytes are forgotten for the same reason.
fn hand_over((bytes, block): (&mut u32, &mut u32), (others, other): (&mut u32, &mut u32), to: u32) {
    if *other == to {
        std::mem::swap(bytes, others);
        *other = *block;
    } else if *bytes != 0 {
        (*others, *other) = (*bytes, *block);
        *bytes = 0;
    }
    *block = to;
}

/// Order between blocks of a launch: when each first released and last acquired, on one clock.
pub struct LaunchOrder {
    clock: AtomicU32,
    released: Vec<AtomicU32>,
    acquired: Vec<AtomicU32>,
}

impl LaunchOrder {
    /// Of a launch with so many blocks.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        let zeros = || (0..blocks).map(|_| AtomicU32::new(0)).collect();
        Self { clock: AtomicU32::new(0), released: zeros(), acquired: zeros() }
    }

    fn tick(&self) -> u32 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// `block` made what it did so far known to whoever looks.
    pub fn release(&self, block: u32) {
        // Only the first counts: what it orders is over-approximated.
        let _ = self.released[block as usize].compare_exchange(0, self.tick(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// `block` looked.
    pub fn acquire(&self, block: u32) {
        self.acquired[block as usize].fetch_max(self.tick(), Ordering::AcqRel);
    }

    fn ordered(&self, before: u32, after: u32) -> bool {
        let released = self.released[before as usize].load(Ordering::Acquire);
        released != 0 && released < self.acquired[after as usize].load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first access, of (block, bytes, is it a write), that races with those before it.
    fn race(accesses: &[(u32, u32, bool)]) -> Option<usize> {
        let (clocks, order) = (Clocks::new(1), LaunchOrder::new(4));
        let mut history = History::default();
        accesses.iter().position(|&(block, bytes, write)| {
            let touch = Touch { launch: 1, block, warp: 0, at: 0, clocks: &clocks, order: &order };
            history.begin(&touch);
            let race = history.race(bytes, write, &touch);
            history.note(bytes, write, &touch);
            race.is_some()
        })
    }

    #[test]
    fn neighbours_in_a_sector_do_not_race_however_they_take_turns() {
        let turns = [0, 1, 0, 2, 1, 3, 0, 1];
        let read_then_write =
            turns.map(|block| [(block, 0xf << (4 * block), false), (block, 0xf << (4 * block), true)]);
        assert_eq!(race(read_then_write.as_flattened()), None);
        let reads = turns.map(|block| (block, 0xf << (4 * block), false));
        let writes = turns.map(|block| (block, 0xf << (4 * block), true));
        assert_eq!(race(&[reads, writes].concat()), None);
    }

    #[test]
    fn the_same_byte_is_a_race_also_for_a_block_that_comes_back() {
        assert_eq!(race(&[(0, 0xf, true), (1, 0xf0, true), (1, 0x1, false)]), Some(2));
        assert_eq!(race(&[(0, 0xf, false), (1, 0xf0, false), (0, 0xf, false), (1, 0x1, true)]), Some(3));
        assert_eq!(race(&[(0, 0xf, false), (1, 0xf0, false), (0, 0xf0, true)]), Some(2));
    }
}
