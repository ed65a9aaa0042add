//! Vector clocks: what the warps of a block know of each other.
//!
//! Every warp has a clock, and knows how far it has seen the clocks of the others; a barrier makes its participants see
//! each other (FastTrack: Flanagan and Freund, 2009). What races is said by [`super::shared_race`] and
//! [`super::global_race`]; what blocks know of each other, by [`super::launch_order`].

use std::array;

/// Who has a clock: the 32 warps of a block, its bulk copies ([`BULK`]), and the tensor core of each of eight warpgroups
/// (from [`TENSOR`] on).
const AGENTS: usize = 41;
/// Bulk copies, which work beside the warps.
pub(crate) const BULK: u32 = 32;
/// Warpgroup products, which work beside their warps.
pub(crate) const TENSOR: u32 = 33;

/// Warps of a block, the first of the agents.
pub(super) const WARPS: usize = 32;

/// What a warp knows, all of it growing, so that barriers join it by maxima: how far the clocks of all agents have been
/// seen, for each the first value that has *not*; and for [`super::LaunchOrder`] from [`FENCED`] on how far fences came
/// after what each warp did, [`LOOKED`] and [`ACQUIRED`], when other blocks were looked at last, and when so with a fence
/// behind.
pub(crate) type Seen = [u32; ACQUIRED + 1];
pub(super) const FENCED: usize = AGENTS;
pub(super) const LOOKED: usize = FENCED + WARPS;
pub(super) const ACQUIRED: usize = LOOKED + 1;

/// What a warp knows that has met nobody.
pub(crate) const NOTHING: Seen = [0; ACQUIRED + 1];

/// What a warp knows: its `Seen`, and which of the clocks in it is its own.
#[derive(Clone)]
pub struct Clocks {
    pub(super) seen: Seen,
    own: u32,
}

impl Clocks {
    /// Of warp `own`, before any barrier.
    #[must_use]
    pub fn new(own: u32) -> Self {
        let mut seen = NOTHING;
        seen[own as usize] = 1;
        Self { seen, own }
    }

    /// The clock of this warp.
    #[inline]
    #[must_use]
    pub fn now(&self, own: u32) -> u32 {
        self.seen[own as usize]
    }

    /// Has this warp seen what `warp` did when its clock was `clock`?
    #[inline]
    #[must_use]
    pub fn saw(&self, warp: u32, clock: u32) -> bool {
        clock < self.seen[warp as usize]
    }

    /// What this warp has seen.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// The lanes of this warp have met.
    pub fn tick(&mut self) {
        self.seen[self.own as usize] += 1;
    }

    /// What all of these have seen together.
    pub(crate) fn join<'a>(all: impl Iterator<Item = &'a Self>) -> Seen {
        all.fold(NOTHING, |joined, clocks| array::from_fn(|i| joined[i].max(clocks.seen[i])))
    }

    /// Sees what `joined` has seen.
    pub(crate) fn see(&mut self, joined: &Seen) {
        self.seen = array::from_fn(|i| self.seen[i].max(joined[i]));
    }

    /// The warp's next atomic or strong store may make known what it has seen so far, and what it did itself.
    pub fn fence_before_release(&mut self) {
        for warp in 0..WARPS {
            let own = u32::from(warp == self.own as usize);
            self.seen[FENCED + warp] = self.seen[FENCED + warp].max(self.seen[warp] + own);
        }
    }

    /// What the warp does from now on comes after what it has looked at.
    pub fn fence_after_look(&mut self) {
        self.seen[ACQUIRED] = self.seen[ACQUIRED].max(self.seen[LOOKED]);
    }
}
