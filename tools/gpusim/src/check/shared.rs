//! A block's shared memory with its shadows.
//!
//! The race shadow has a cell a word. But what moves most bytes (vector accesses, `cp.async`, `ldmatrix`) moves granules
//! of 16, whose four cells stay equal; so one cell stands for all four until a smaller access splits the granule, and
//! again once they have become equal.

use super::clocks::Clocks;
use super::shared_race::{Cell, Clash, Stamp};

/// Bytes of a granule.
const GRANULE: u32 = 16;

/// All bytes of a granule.
const WHOLE: u32 = 0xffff;
/// Its words have cells of their own.
const SPLIT: u32 = 1 << 16;
/// An asynchronous copy to some of it is under way.
const PENDING: u32 = 1 << 17;

/// What is known of 16 bytes.
#[derive(Clone, Copy, Default)]
struct Granule {
    /// A bit for each initialised byte, [`SPLIT`], [`PENDING`]: so that one look finds nothing of note.
    state: u32,
    /// The cell of all its words, while it is not split.
    cell: Cell,
}

/// Shared memory.
pub struct Shared {
    data: Box<[u128]>,
    bytes: usize,
    granules: Box<[Granule]>,
    /// The cells of the words of split granules.
    words: Box<[[Cell; 4]]>,
    /// For the words of pending granules, the PTX line of the copy; 0 for none.
    lines: Box<[[u32; 4]]>,
}

impl Shared {
    /// Of so many bytes, none initialised.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let count = bytes.div_ceil(GRANULE as usize);
        Self {
            data: vec![0; count].into(),
            bytes,
            granules: vec![Granule::default(); count].into(),
            words: vec![[Cell::default(); 4]; count].into(),
            lines: vec![[0; 4]; count].into(),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, for the next block.
    pub fn clear(&mut self) {
        self.granules.fill(Granule::default());
    }

    /// The memory itself.
    #[must_use]
    pub fn pointer(&mut self) -> *mut u8 {
        self.data.as_mut_ptr().cast()
    }

    /// Is all of this range here?
    #[inline]
    #[must_use]
    pub fn holds(&self, offset: u64, bytes: u32) -> bool {
        offset < self.bytes as u64 && u64::from(bytes) <= self.bytes as u64 - offset
    }

    /// Are `bytes` (in one granule) from `offset` on initialised?
    #[inline]
    #[must_use]
    pub fn is_initialised(&self, offset: u64, bytes: u32) -> bool {
        let wanted = WHOLE >> (GRANULE - bytes);
        self.granules[(offset / 16) as usize].state >> (offset % 16) & wanted == wanted
    }

    /// Marks `bytes` (in one granule) as initialised.
    #[inline]
    pub fn mark(&mut self, offset: u64, bytes: u32) {
        self.granules[(offset / 16) as usize].state |= WHOLE >> (GRANULE - bytes) << (offset % 16);
    }

    /// Notes that the copy of PTX line `line` will write here (whole words, in one granule).
    #[inline]
    pub fn promise(&mut self, offset: u32, bytes: u32, line: u32) {
        let (granule, first) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        let (state, lines) = (&mut self.granules[granule].state, &mut self.lines[granule]);
        if bytes == GRANULE {
            *lines = [line; 4];
        } else {
            if *state & PENDING == 0 {
                *lines = [0; 4];
            }
            lines[first..first + bytes as usize / 4].fill(line);
        }
        *state |= PENDING;
    }

    /// The line of the copy under way to any of these bytes (in one granule).
    #[inline]
    #[must_use]
    pub fn promised(&self, offset: u64, bytes: u32) -> Option<u32> {
        let (granule, first) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        if self.granules[granule].state & PENDING == 0 {
            return None;
        }
        let lines = &self.lines[granule][first..first + bytes.div_ceil(4) as usize];
        lines.iter().copied().find(|&line| line != 0)
    }

    /// A promised copy has come: what `stamp` noted when it was issued is a write of now.
    #[inline]
    pub fn arrive(&mut self, offset: u32, bytes: u32, stamp: Stamp) {
        let (granule, first) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        let Granule { state, cell } = &mut self.granules[granule];
        if bytes == GRANULE && *state & SPLIT == 0 {
            *state &= !PENDING;
            return cell.write_now(stamp);
        }
        let lines = &mut self.lines[granule];
        lines[first..first + bytes as usize / 4].fill(0);
        if *lines == [0; 4] {
            *state &= !PENDING;
        }
        self.cells(offset.into(), bytes).iter_mut().for_each(|cell| cell.write_now(stamp));
    }

    /// Notes an access of `bytes` (up to 16, naturally aligned) for the race check.
    #[inline(always)]
    pub fn touch(&mut self, offset: u64, bytes: u32, write: bool, stamp: Stamp, clocks: &Clocks) -> Option<Clash> {
        let granule = (offset / 16) as usize;
        if bytes == GRANULE && self.granules[granule].state & SPLIT == 0 {
            return self.granules[granule].cell.note(stamp, write, clocks);
        }
        let stamp = if bytes < 4 { stamp.of_bytes(((1 << bytes) - 1) << (offset % 4)) } else { stamp };
        for cell in self.cells(offset, bytes) {
            let clash = cell.note(stamp, write, clocks);
            if clash.is_some() {
                return clash;
            }
        }
        if bytes == GRANULE {
            self.unite(granule);
        }
        None
    }

    /// Checks and notes reads of granules by a warp that acts as one: as many, from the first on, as there is nothing to
    /// say about. Gives their number.
    #[inline(always)]
    pub fn read_plain(&mut self, offsets: &[u64], stamp: Stamp, clocks: &Clocks) -> usize {
        for (done, &offset) in offsets.iter().enumerate() {
            let plain = match self.granules.get_mut((offset / 16) as usize) {
                // All of it is initialised, so all of it is there.
                Some(Granule { state: WHOLE, cell }) => cell.read_plain(stamp, clocks),
                _ => false,
            };
            if !plain {
                return done;
            }
        }
        offsets.len()
    }

    /// The cells of the words of an access, their granule split.
    #[inline(always)]
    fn cells(&mut self, offset: u64, bytes: u32) -> &mut [Cell] {
        let (granule, first) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        let words = &mut self.words[granule];
        let Granule { state, cell } = &mut self.granules[granule];
        if *state & SPLIT == 0 {
            *state |= SPLIT;
            *words = [*cell; 4];
        }
        &mut words[first..first + bytes.div_ceil(4) as usize]
    }

    /// Lets one cell stand for the four of a split granule, if they are equal.
    #[inline]
    fn unite(&mut self, granule: usize) {
        let [first, others @ ..] = self.words[granule];
        if others.iter().all(|other| *other == first) {
            let Granule { state, cell } = &mut self.granules[granule];
            (*state, *cell) = (*state & !SPLIT, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(clocks: &Clocks, at: u32, warp: u32, lane: u32) -> Stamp {
        Stamp::new(clocks.now(warp), at, warp).of_lane(lane)
    }

    fn split(shared: &Shared) -> bool {
        shared.granules[0].state & SPLIT != 0
    }

    #[test]
    fn one_word_of_a_granule_keeps_its_own_history() {
        let warps = [Clocks::new(0), Clocks::new(1)];
        let mut shared = Shared::new(64);
        assert_eq!(shared.touch(0, 16, false, stamp(&warps[0], 1, 0, 0), &warps[0]), None);
        let clash = Some(Clash { at: 1, warp: 0, lane: Some(0), write: false });
        assert_eq!(shared.touch(8, 4, true, stamp(&warps[1], 2, 1, 0), &warps[1]), clash);
        assert_eq!(shared.touch(16, 4, true, stamp(&warps[0], 3, 0, 0), &warps[0]), None);
        assert_eq!(
            shared.touch(20, 4, true, stamp(&warps[1], 3, 1, 0), &warps[1]),
            None,
            "another word of the granule"
        );
        assert!(shared.touch(16, 16, false, stamp(&warps[1], 4, 1, 0), &warps[1]).is_some_and(|clash| clash.warp == 0));
    }

    #[test]
    fn the_next_block_begins_without_a_history() {
        let warps = [Clocks::new(0), Clocks::new(1)];
        let mut shared = Shared::new(16);
        assert_eq!(shared.touch(0, 16, true, stamp(&warps[0], 1, 0, 0), &warps[0]), None);
        shared.clear();
        assert_eq!(shared.touch(0, 16, true, stamp(&warps[1], 2, 1, 0), &warps[1]), None);
        assert!(shared.touch(0, 16, true, stamp(&warps[0], 3, 0, 0), &warps[0]).is_some());
    }

    #[test]
    fn a_split_granule_unites_when_its_words_are_equal() {
        let mut clocks = Clocks::new(0);
        let mut shared = Shared::new(16);
        for lane in 0..4 {
            assert_eq!(shared.touch(u64::from(4 * lane), 4, true, stamp(&clocks, 1, 0, lane), &clocks), None);
        }
        assert!(split(&shared));
        clocks.tick();
        assert_eq!(shared.touch(0, 16, true, stamp(&clocks, 2, 0, 0), &clocks), None);
        assert!(!split(&shared));
    }
}
