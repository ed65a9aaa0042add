//! Order between the blocks of a launch, as PTX's memory model has it.
//!
//! What a warp did is known to a warp of another block if four things came after it: a fence of device scope; an atomic or
//! a strong store, by which the block releases; a look by the other block, an atomic or a strong load; and again a fence.
//! Each may be done by another warp than the one before, if a barrier stands between them; so fences and looks are part of
//! what warps tell each other there, and lie beside their clocks: see [`Clocks`].

use super::clocks::{ACQUIRED, Clocks, FENCED, LOOKED, WARPS};
use super::global_race::Moment;
use parking_lot::RwLock;
use std::array;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a block has released: since when, and of each of its warps the first clock value that no fence came after.
struct Released {
    since: u32,
    fenced: [u32; WARPS],
}

/// What the blocks of a launch have released, on one clock. Kept a block, not a release: what is ordered is
/// over-approximated.
#[derive(Default)]
pub struct LaunchOrder {
    clock: AtomicU32,
    released: RwLock<HashMap<u32, Released>>,
}

impl LaunchOrder {
    fn tick(&self) -> u32 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A warp of `block` makes known what it knows a fence to have come after.
    pub fn release(&self, block: u32, clocks: &Clocks) {
        let fenced: [u32; WARPS] = array::from_fn(|warp| clocks.seen[FENCED + warp]);
        if fenced == [0; WARPS] {
            return;
        }
        let since = self.tick();
        let mut released = self.released.write();
        let known = released.entry(block).or_insert(Released { since, fenced });
        known.fenced = array::from_fn(|warp| known.fenced[warp].max(fenced[warp]));
    }

    /// A warp looks at what blocks have made known.
    pub fn look(&self, clocks: &mut Clocks) {
        clocks.seen[LOOKED] = self.tick();
    }

    /// Does what `block` did, at `moment` if that is known, come before what a warp with these clocks does?
    pub(super) fn ordered(&self, block: u32, moment: Option<Moment>, clocks: &Clocks) -> bool {
        self.released.read().get(&block).is_some_and(|released| {
            let within = |moment: Moment| moment.clock() < released.fenced[moment.warp() as usize];
            released.since < clocks.seen[ACQUIRED] && moment.is_none_or(within)
        })
    }
}
