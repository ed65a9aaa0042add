//! Races for shared memory, by vector clocks.
//!
//! A cell shadows four bytes of shared memory with the last write and the last reads of two different warps; each
//! access asks its warp's [`Clocks`] whether they have seen those it could clash with. That misses a race only where three
//! warps read between two barriers and the forgotten one is the only one unordered.

use super::clocks::Clocks;

/// Lanes: one of 32, or several at once.
const MANY: u32 = 32;

/// An access, in 64 bits: clock 24, instruction 24, lane 6, warp (or another agent) 6, bytes 4.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp(u64);

/// The bits of the lane.
const LANE: u64 = 63 << 10;

impl Stamp {
    /// Of an access to whole words by several lanes of `warp` (or by another agent).
    #[inline]
    #[must_use]
    pub fn new(clock: u32, at: u32, warp: u32) -> Self {
        let clock = u64::from(clock & 0xff_ffff);
        let at = u64::from(at & 0xff_ffff);
        Self(clock << 40 | at << 16 | u64::from(MANY) << 10 | u64::from(warp) << 4 | 15)
    }

    /// The same by one lane.
    #[inline]
    #[must_use]
    pub fn of_lane(self, lane: u32) -> Self {
        Self(self.0 & !LANE | u64::from(lane) << 10)
    }

    /// The same to some bytes of a word (a mask of four).
    #[inline]
    #[must_use]
    pub fn of_bytes(self, bytes: u32) -> Self {
        Self(self.0 & !15 | u64::from(bytes))
    }

    fn clock(self) -> u32 {
        (self.0 >> 40) as u32
    }

    fn at(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff
    }

    fn lane(self) -> u32 {
        (self.0 >> 10) as u32 & 63
    }

    fn warp(self) -> u32 {
        (self.0 >> 4) as u32 & 63
    }

    fn bytes(self) -> u32 {
        self.0 as u32 & 15
    }

    #[inline]
    fn clashes(self, mine: Self, clocks: &Clocks) -> bool {
        if clocks.saw(self.warp(), self.clock()) || self.bytes() & mine.bytes() == 0 {
            return false;
        }
        let lanes_known = self.lane() != MANY && mine.lane() != MANY;
        let same_thread = self.warp() == mine.warp() && (!lanes_known || self.lane() == mine.lane());
        !same_thread
    }

    /// The same warp, clock and instruction, whatever the lane and bytes?
    fn same_moment(self, other: Self) -> bool {
        self.0 >> 16 == other.0 >> 16 && self.warp() == other.warp()
    }

    /// Both, when they are of one moment.
    #[inline]
    fn merged(self, other: Self) -> Self {
        let lane = if self.lane() == other.lane() { self.lane() } else { MANY };
        self.of_lane(lane).of_bytes(self.bytes() | other.bytes())
    }
}

/// Two accesses without an order between them: the other one's instruction, warp, lane and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Index of the other's instruction.
    pub at: u32,
    /// Its warp.
    pub warp: u32,
    /// Its lane, if it was one.
    pub lane: Option<u32>,
    /// Did it write?
    pub write: bool,
}

/// The shadow of four bytes of shared memory.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    write: Stamp,
    reads: [Stamp; 2],
}

impl Cell {
    /// Notes an access, and gives the clash if there is one.
    #[inline(always)]
    pub fn note(&mut self, mine: Stamp, write: bool, clocks: &Clocks) -> Option<Clash> {
        let last = if write { &mut self.write } else { &mut self.reads[0] };
        // The same bytes at the same moment: what is to be looked at was. (Lanes that store to one word with one
        // instruction: one of them wins, as PTX says; compilers do it with equal values.)
        if (last.0 ^ mine.0) & !LANE == 0 {
            *last = last.merged(mine);
            return None;
        }
        if write { self.note_write(mine, clocks) } else { self.note_read(mine, clocks) }
    }

    /// Notes a read of all four bytes by a warp that acts as one, of a cell whose bytes were only ever touched together;
    /// not if it clashes, which it then says.
    #[inline(always)]
    pub fn read_plain(&mut self, mine: Stamp, clocks: &Clocks) -> bool {
        if self.write.clashes(mine, clocks) {
            return false;
        }
        let last = self.reads[0];
        if last.warp() != mine.warp() {
            self.reads[1] = last;
        }
        self.reads[0] = mine;
        true
    }

    /// Takes a write that was noted before, and clashed with nothing, as one of now.
    #[inline(always)]
    pub fn write_now(&mut self, mine: Stamp) {
        self.write = if self.write.same_moment(mine) { self.write.merged(mine) } else { mine };
    }

    #[inline(always)]
    fn note_read(&mut self, mine: Stamp, clocks: &Clocks) -> Option<Clash> {
        if self.reads[0].same_moment(mine) {
            self.reads[0] = self.reads[0].merged(mine);
        } else {
            if self.reads[0].warp() != mine.warp() {
                self.reads[1] = self.reads[0];
            }
            self.reads[0] = mine;
        }
        clash(self.write, mine, clocks, true)
    }

    #[inline(always)]
    fn note_write(&mut self, mine: Stamp, clocks: &Clocks) -> Option<Clash> {
        let before = self.write;
        if before.same_moment(mine) {
            self.write = before.merged(mine);
        } else {
            self.write = mine;
            let found = clash(before, mine, clocks, true);
            if found.is_some() {
                return found;
            }
        }
        self.reads.iter().find_map(|&read| clash(read, mine, clocks, false))
    }
}

fn clash(theirs: Stamp, mine: Stamp, clocks: &Clocks, write: bool) -> Option<Clash> {
    theirs.clashes(mine, clocks).then(|| Clash {
        at: theirs.at(),
        warp: theirs.warp(),
        lane: Some(theirs.lane()).filter(|&lane| lane != MANY),
        write,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(
        cell: &mut Cell,
        bytes: u32,
        write: bool,
        at: u32,
        warp: u32,
        lane: u32,
        clocks: &Clocks,
    ) -> Option<Clash> {
        cell.note(Stamp::new(clocks.now(warp), at, warp).of_lane(lane).of_bytes(bytes), write, clocks)
    }

    fn barrier(warps: &mut [Clocks]) {
        warps.iter_mut().for_each(Clocks::tick);
        let joined = Clocks::join(warps.iter());
        warps.iter_mut().for_each(|clocks| clocks.see(&joined));
    }

    #[test]
    fn lanes_that_share_a_word_are_all_remembered() {
        for write in [false, true] {
            let warps = [Clocks::new(0), Clocks::new(1)];
            let mut cell = Cell::default();
            // One instruction of warp 0, a byte each; then warp 1 writes the first of them.
            assert_eq!(touch(&mut cell, 0b0001, write, 7, 0, 0, &warps[0]), None);
            assert_eq!(touch(&mut cell, 0b0010, write, 7, 0, 1, &warps[0]), None);
            let clash = Some(Clash { at: 7, warp: 0, lane: None, write });
            assert_eq!(touch(&mut cell, 0b0001, true, 9, 1, 5, &warps[1]), clash);
        }
    }

    #[test]
    fn a_read_after_a_write_needs_a_barrier() {
        let mut warps = [Clocks::new(0), Clocks::new(1)];
        let mut cell = Cell::default();
        assert_eq!(touch(&mut cell, 15, true, 7, 0, 3, &warps[0]), None);
        let clash = touch(&mut cell, 15, false, 9, 1, 5, &warps[1]).unwrap();
        assert_eq!(clash, Clash { at: 7, warp: 0, lane: Some(3), write: true });
        barrier(&mut warps);
        assert_eq!(touch(&mut Cell::default(), 15, false, 9, 1, 5, &warps[1]), None);
        let mut cell = Cell::default();
        touch(&mut cell, 15, true, 7, 0, 3, &warps[0]);
        barrier(&mut warps);
        assert_eq!(touch(&mut cell, 15, false, 9, 1, 5, &warps[1]), None);
    }

    #[test]
    fn a_write_after_reads_of_two_warps_needs_a_barrier_with_both() {
        let mut warps = [Clocks::new(0), Clocks::new(1), Clocks::new(2)];
        let mut cell = Cell::default();
        touch(&mut cell, 15, false, 1, 0, 0, &warps[0]);
        touch(&mut cell, 15, false, 1, 1, 0, &warps[1]);
        barrier(&mut warps[1..]);
        assert_eq!(touch(&mut cell, 15, true, 2, 2, 0, &warps[2]).unwrap().warp, 0);
    }

    #[test]
    fn halves_of_a_word_are_different_places() {
        let warps = [Clocks::new(0), Clocks::new(1)];
        let mut cell = Cell::default();
        assert_eq!(touch(&mut cell, 0b0011, true, 1, 0, 0, &warps[0]), None);
        assert_eq!(touch(&mut cell, 0b1100, true, 1, 1, 0, &warps[1]), None);
    }

    #[test]
    fn lanes_may_store_together() {
        let clocks = Clocks::new(0);
        let mut cell = Cell::default();
        assert_eq!(touch(&mut cell, 15, true, 1, 0, 0, &clocks), None);
        assert_eq!(touch(&mut cell, 15, true, 1, 0, 1, &clocks), None);
        assert!(touch(&mut cell, 15, true, 2, 0, 1, &clocks).is_none(), "whose store it was is not known any more");
        let mut cell = Cell::default();
        touch(&mut cell, 15, true, 1, 0, 0, &clocks);
        assert!(touch(&mut cell, 15, true, 2, 0, 1, &clocks).is_some());
    }

    #[test]
    fn lanes_of_a_warp_need_a_warp_barrier() {
        let mut clocks = Clocks::new(0);
        let mut cell = Cell::default();
        touch(&mut cell, 15, true, 1, 0, 0, &clocks);
        assert!(touch(&mut cell, 15, false, 2, 0, 1, &clocks).is_some());
        let mut cell = Cell::default();
        touch(&mut cell, 15, true, 1, 0, 0, &clocks);
        clocks.tick();
        assert_eq!(touch(&mut cell, 15, false, 2, 0, 1, &clocks), None);
    }
}
