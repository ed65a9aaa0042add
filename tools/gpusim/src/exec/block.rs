//! A block: its warps, what they share, and the order in which they run.

use super::barrier::Barrier;
use super::launch::Launch;
use super::warp::{State, Warp};
use super::{Core, Stop};
use crate::check::Shared;
use crate::count::Tally;
use crate::fault::Kind;

/// Instructions a warp executes before another of its block has a turn.
const TURN: u64 = 20_000;

/// What the warps of a block share.
pub struct Common {
    /// The block's place in the grid.
    pub index: [u32; 3],
    /// The same as one number.
    pub linear: u32,
    /// Shared memory.
    pub shared: Shared,
    /// The barriers.
    pub(super) barriers: [Barrier; 16],
    /// The last device allocation that was written, so that neighbours are found quickly: first byte and end.
    pub(super) written: (u64, u64),
    /// By instruction, where it last touched whole lines in a row: the next time is often as far on.
    pub(super) spans: Box<[u64]>,
    /// The barriers in shared memory, and the cluster's.
    pub(super) mbarriers: super::mbarrier::Mbarriers,
    /// The clocks of its bulk copies and of its warpgroup products.
    pub(super) bulk_clock: u32,
    pub(super) tensor_clock: u32,
}

/// A block in flight.
pub struct Block {
    common: Common,
    warps: Vec<Warp>,
}

/// What a turn of a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is done.
    Done,
    /// It has more to do.
    More,
}

impl Block {
    /// Memory for a block of this launch.
    pub fn new(launch: &Launch<'_>) -> Self {
        let common = Common {
            index: [0; 3],
            linear: 0,
            shared: Shared::new(launch.shared_bytes()),
            barriers: std::array::from_fn(|_| Barrier::default()),
            written: (0, 0),
            spans: vec![0; launch.kernel.code.len()].into(),
            bulk_clock: 0,
            tensor_clock: 0,
            mbarriers: super::mbarrier::Mbarriers::default(),
        };
        Self { common, warps: (0..launch.warps()).map(|_| Warp::new(launch.kernel)).collect() }
    }

    /// Makes it block `linear` of the grid, from the start.
    pub fn start(&mut self, launch: &Launch<'_>, linear: u32, tally: &mut Tally) {
        self.common.linear = linear;
        self.common.index = launch.block_index(linear);
        self.common.shared.clear();
        self.common.bulk_clock = 0;
        self.common.tensor_clock = 0;
        self.common.mbarriers.start(launch.threads());
        self.common.barriers = std::array::from_fn(|_| Barrier::default());
        let threads = launch.threads();
        for (number, warp) in (0..).zip(&mut self.warps) {
            let lanes = (threads - number * 32).min(32);
            warp.start(number, u32::MAX >> (32 - lanes));
            Core { registers: std::ptr::null_mut(), launch, common: &mut self.common, warp, tally, at: 0 }.fill();
        }
    }

    /// Runs each warp in turn until all are done, or have had `rounds` turns.
    ///
    /// # Errors
    /// What a warp did wrong, or a deadlock.
    pub fn run(&mut self, launch: &Launch<'_>, tally: &mut Tally, rounds: u32) -> Result<Turn, Stop> {
        for _ in 0..rounds {
            let mut ran = false;
            for index in 0..self.warps.len() {
                if self.warps[index].state != State::Ready {
                    continue;
                }
                ran = true;
                let warp = &mut self.warps[index];
                let mut core =
                    Core { registers: std::ptr::null_mut(), launch, common: &mut self.common, warp, tally, at: 0 };
                core.run(TURN)?;
                self.settle();
            }
            if self.warps.iter().all(|warp| warp.state == State::Done) {
                return Ok(Turn::Done);
            }
            if !ran {
                return Err(self.deadlock(launch, tally));
            }
        }
        Ok(Turn::More)
    }

    /// Opens the barriers that are complete.
    fn settle(&mut self) {
        // Warps that have ended no longer count.
        let living = 32 * self.warps.iter().filter(|warp| warp.state != State::Done).count() as u32;
        for (number, barrier) in (0..).zip(&mut self.common.barriers) {
            let expected = match barrier.expected {
                None => continue,
                Some(0) => living,
                Some(threads) => threads,
            };
            if barrier.arrived >= expected {
                barrier.open(number, &mut self.warps);
            }
        }
    }

    fn deadlock(&mut self, launch: &Launch<'_>, tally: &mut Tally) -> Stop {
        let waits: Vec<String> = self
            .warps
            .iter()
            .filter_map(|warp| match warp.state {
                State::Waiting(barrier) => Some(format!("warp {} at barrier {barrier}", warp.number)),
                _ => None,
            })
            .collect();
        let Some(index) = self.warps.iter().position(|warp| warp.state != State::Done) else {
            unreachable!("a block whose warps are all done is done");
        };
        let warp = &mut self.warps[index];
        let lane = warp.live.trailing_zeros() % 32;
        let at = warp.last();
        let core = Core { registers: std::ptr::null_mut(), launch, common: &mut self.common, warp, tally, at };
        core.fault(lane, Kind::Deadlock(format!("{} wait, and nobody else runs", waits.join(", "))))
    }
}
