//! A block's shared memory with its shadows.
//!
//! The race shadow has a cell a word. But what moves most bytes (vector accesses, `cp.async`, `ldmatrix`) moves granules
//! of 16, whose four cells stay equal; so one cell stands for all four until a smaller access splits the granule, and
//! again once they have become equal.

use super::shared_race::{Cell, Clash, Clocks, MANY, Stamp};

/// Bytes of a granule.
const GRANULE: u32 = 16;

/// Shared memory.
pub struct Shared {
    data: Box<[u128]>,
    bytes: usize,
    initialised: Box<[u64]>,
    /// The cell of all words of a granule, while it is not split.
    granules: Box<[Cell]>,
    split: Box<[bool]>,
    /// The cells of the words of split granules.
    words: Box<[[Cell; 4]]>,
}

impl Shared {
    /// Of so many bytes, none initialised.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            data: vec![0; bytes.div_ceil(16)].into(),
            bytes,
            initialised: vec![0; bytes.div_ceil(64)].into(),
            granules: vec![Cell::default(); bytes.div_ceil(16)].into(),
            split: vec![false; bytes.div_ceil(16)].into(),
            words: vec![[Cell::default(); 4]; bytes.div_ceil(16)].into(),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, for the next block.
    pub fn clear(&mut self) {
        self.initialised.fill(0);
        self.granules.fill(Cell::default());
        self.split.fill(false);
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

    /// Are `bytes` (not crossing a multiple of 64) from `offset` on initialised?
    #[inline]
    #[must_use]
    pub fn is_initialised(&self, offset: u64, bytes: u32) -> bool {
        let wanted = u64::MAX >> (64 - bytes);
        self.initialised[(offset / 64) as usize] >> (offset % 64) & wanted == wanted
    }

    /// Marks `bytes` (not crossing a multiple of 64) as initialised.
    #[inline]
    pub fn mark(&mut self, offset: u64, bytes: u32) {
        self.initialised[(offset / 64) as usize] |= u64::MAX >> (64 - bytes) << (offset % 64);
    }

    /// Notes an access of `bytes` (up to 16, naturally aligned) for the race check; `lane` is none when the whole warp
    /// acts as one.
    #[inline(always)]
    pub fn touch(
        &mut self,
        offset: u64,
        bytes: u32,
        write: bool,
        at: u32,
        warp: u32,
        lane: Option<u32>,
        clocks: &Clocks,
    ) -> Option<Clash> {
        let stamp = Stamp::new(clocks.now(warp), at, lane.unwrap_or(MANY), warp, word_mask(offset, bytes));
        self.note(offset, bytes, stamp, write, clocks)
    }

    /// As [`Self::touch`], by an agent that works beside the warps, at its `clock`.
    pub(crate) fn touch_beside(
        &mut self,
        offset: u64,
        bytes: u32,
        write: bool,
        at: u32,
        agent: u32,
        clock: u32,
        clocks: &Clocks,
    ) -> Option<Clash> {
        let stamp = Stamp::new(clock, at, MANY, agent, word_mask(offset, bytes));
        self.note(offset, bytes, stamp, write, clocks)
    }

    #[inline(always)]
    fn note(&mut self, offset: u64, bytes: u32, stamp: Stamp, write: bool, clocks: &Clocks) -> Option<Clash> {
        let granule = (offset / 16) as usize;
        if bytes == GRANULE && !self.split[granule] {
            return self.granules[granule].note(stamp, write, clocks);
        }
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

    /// Moves a write of `lane` that was noted when it was issued (whole words, naturally aligned) to now.
    #[inline]
    pub fn arrive(&mut self, offset: u64, bytes: u32, at: u32, warp: u32, lane: u32, clocks: &Clocks) {
        let granule = (offset / 16) as usize;
        let stamp = Stamp::new(clocks.now(warp), at, lane, warp, 15);
        if bytes == GRANULE && !self.split[granule] {
            self.granules[granule].write_now(stamp);
        } else {
            self.cells(offset, bytes).iter_mut().for_each(|cell| cell.write_now(stamp));
        }
    }

    /// The cells of the words of an access, their granule split.
    #[inline(always)]
    fn cells(&mut self, offset: u64, bytes: u32) -> &mut [Cell] {
        let (granule, first) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        let words = &mut self.words[granule];
        if !self.split[granule] {
            self.split[granule] = true;
            *words = [self.granules[granule]; 4];
        }
        &mut words[first..first + bytes.div_ceil(4) as usize]
    }

    /// Lets one cell stand for the four of a split granule, if they are equal.
    #[inline]
    fn unite(&mut self, granule: usize) {
        let [cell, others @ ..] = self.words[granule];
        if others.iter().all(|other| *other == cell) {
            self.granules[granule] = cell;
            self.split[granule] = false;
        }
    }
}

/// The bytes of its word, or of each of its words, that an access touches.
#[inline(always)]
fn word_mask(offset: u64, bytes: u32) -> u32 {
    if bytes < 4 { ((1 << bytes) - 1) << (offset % 4) } else { 15 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_of_a_granule_keeps_its_own_history() {
        let warps = [Clocks::new(0), Clocks::new(1)];
        let mut shared = Shared::new(64);
        assert_eq!(shared.touch(0, 16, false, 1, 0, Some(0), &warps[0]), None);
        let clash = Some(Clash { at: 1, warp: 0, lane: Some(0), write: false });
        assert_eq!(shared.touch(8, 4, true, 2, 1, Some(0), &warps[1]), clash);
        assert_eq!(shared.touch(16, 4, true, 3, 0, Some(0), &warps[0]), None);
        assert_eq!(shared.touch(20, 4, true, 3, 1, Some(0), &warps[1]), None, "another word of the granule");
        assert!(shared.touch(16, 16, false, 4, 1, Some(0), &warps[1]).is_some_and(|clash| clash.warp == 0));
    }

    #[test]
    fn a_split_granule_unites_when_its_words_are_equal() {
        let mut clocks = Clocks::new(0);
        let mut shared = Shared::new(16);
        for lane in 0..4 {
            assert_eq!(shared.touch(u64::from(4 * lane), 4, true, 1, 0, Some(lane), &clocks), None);
        }
        assert!(shared.split[0]);
        clocks.tick();
        assert_eq!(shared.touch(0, 16, true, 2, 0, Some(0), &clocks), None);
        assert!(!shared.split[0]);
    }
}
