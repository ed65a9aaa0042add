//! A block's shared memory with its shadows.

use super::shared_race::{Cell, Clash, Clocks, MANY, Stamp};

/// Shared memory.
pub struct Shared {
    data: Box<[u128]>,
    bytes: usize,
    initialised: Box<[u64]>,
    cells: Box<[Cell]>,
}

impl Shared {
    /// Of so many bytes, none initialised.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            data: vec![0; bytes.div_ceil(16)].into(),
            bytes,
            initialised: vec![0; bytes.div_ceil(64)].into(),
            cells: vec![Cell::default(); bytes.div_ceil(4)].into(),
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
        self.cells.fill(Cell::default());
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
    #[inline]
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
        let lane = lane.unwrap_or(MANY);
        let first = (offset / 4) as usize;
        let mask = if bytes < 4 { ((1 << bytes) - 1) << (offset % 4) } else { 15 };
        let stamp = Stamp::new(clocks.now(warp), at, lane, warp, mask);
        self.note(first, bytes.div_ceil(4) as usize, stamp, write, clocks)
    }

    /// As [`Self::touch`], by an agent that works beside the warps, of 16 bytes at its `clock`.
    pub(crate) fn touch_beside(
        &mut self,
        offset: u64,
        write: bool,
        at: u32,
        agent: u32,
        clock: u32,
        clocks: &Clocks,
    ) -> Option<Clash> {
        self.note((offset / 4) as usize, 4, Stamp::new(clock, at, MANY, agent, 15), write, clocks)
    }

    #[inline]
    fn note(&mut self, first: usize, words: usize, stamp: Stamp, write: bool, clocks: &Clocks) -> Option<Clash> {
        self.cells[first..first + words].iter_mut().find_map(|cell| cell.note(stamp, write, clocks))
    }
}
