//! Order between the blocks of a launch.

use std::sync::atomic::{AtomicU32, Ordering};

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

    pub(super) fn ordered(&self, before: u32, after: u32) -> bool {
        let released = self.released[before as usize].load(Ordering::Acquire);
        released != 0 && released < self.acquired[after as usize].load(Ordering::Acquire)
    }
}
