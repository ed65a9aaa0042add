//! A launch: a grid of blocks over the host's threads.

use super::Stop;
use super::block::{Block, Turn};
use super::block_order::{BlockOrder, Turns};
use super::tensor_sums::TensorSums;
use crate::check::{Allocations, Arena, LaunchOrder};
use crate::count::Tally;
use crate::fault::Fault;
use crate::program::Kernel;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Turns a block has before a worker looks at its other blocks.
const ROUNDS: u32 = 64;

/// What the caller chooses.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Multiprocessors of the device, as the kernel sees them.
    pub multiprocessors: u32,
    /// How tensor cores add.
    pub sums: TensorSums,
    /// The order in which blocks begin.
    pub order: BlockOrder,
    /// May a `cp.async` of nothing but zeros name memory that isn't there?
    pub masked_anywhere: bool,
}

/// A kernel with its arguments, about to run.
pub struct Launch<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The grid.
    pub setup: Setup,
    /// The arguments, laid out as the kernel's parameters.
    pub arguments: &'a [u8],
    /// Device memory.
    pub arena: &'a Arena,
    /// What of it is allocated.
    pub allocations: &'a Allocations,
    /// The launch's number, from 1.
    pub serial: u32,
    /// Order between its blocks.
    pub order: LaunchOrder,
}

impl<'a> Launch<'a> {
    /// Prepares a launch.
    #[must_use]
    pub fn new(
        kernel: &'a Kernel,
        setup: Setup,
        arguments: &'a [u8],
        arena: &'a Arena,
        allocations: &'a Allocations,
        serial: u32,
    ) -> Self {
        Self { kernel, setup, arguments, arena, allocations, serial, order: LaunchOrder::default() }
    }

    /// Threads a block.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.setup.block.iter().product()
    }

    /// Warps a block.
    #[must_use]
    pub fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    /// Blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.setup.grid.iter().product()
    }

    /// The thread that is lane `lane` of warp `warp`.
    #[must_use]
    pub fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let linear = warp * 32 + lane;
        let [x, y, _] = self.setup.block;
        [linear % x, linear / x % y, linear / x / y]
    }

    /// The block's place in the grid.
    #[must_use]
    pub fn block_index(&self, linear: u32) -> [u32; 3] {
        let [x, y, _] = self.setup.grid;
        [linear % x, linear / x % y, linear / x / y]
    }

    /// Where dynamic shared memory begins: behind the static, aligned as it is declared, and to a box of a tensor.
    #[must_use]
    pub fn dynamic_shared_start(&self) -> usize {
        self.kernel.shared_bytes.next_multiple_of(self.kernel.dynamic_align.max(128))
    }

    /// All shared memory of a block.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        match self.setup.dynamic_shared {
            0 => self.kernel.shared_bytes,
            bytes => self.dynamic_shared_start() + bytes as usize,
        }
    }

    /// Runs the grid.
    ///
    /// # Errors
    /// The first fault.
    pub fn run(&self) -> Result<Tally, Box<Fault>> {
        let total = Mutex::new(Tally::new(self.kernel.code.len()));
        let fault = Mutex::new(None);
        let (next, failed) = (AtomicU32::new(0), AtomicBool::new(false));
        let turns = self.setup.order.turns(self.blocks(), self.serial);
        let work = || {
            let mut tally = Tally::new(self.kernel.code.len());
            if let Err(Stop::Fault(found)) = self.work(&turns, &next, &failed, &mut tally) {
                failed.store(true, Ordering::Relaxed);
                fault.lock().get_or_insert(found);
            }
            total.lock().add(&tally);
        };
        let workers = rayon::current_num_threads().min(self.blocks() as usize);
        if workers <= 1 {
            work();
        } else {
            rayon::scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| work())));
        }
        match fault.into_inner() {
            Some(fault) => Err(fault),
            None => Ok(total.into_inner()),
        }
    }

    /// A worker's share: it takes the next block when its own are done, or have run long without an end (they may wait
    /// for a block that hasn't begun).
    fn work(&self, turns: &Turns, next: &AtomicU32, failed: &AtomicBool, tally: &mut Tally) -> Result<(), Stop> {
        let mut flying: VecDeque<Block> = VecDeque::new();
        let mut idle: Vec<Block> = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn < self.blocks() {
                let mut block = idle.pop().unwrap_or_else(|| Block::new(self));
                block.start(self, turns.block(turn), tally);
                flying.push_front(block);
            } else {
                next.fetch_sub(1, Ordering::Relaxed);
            }
            let Some(mut block) = flying.pop_front() else {
                return Ok(());
            };
            match block.run(self, tally, ROUNDS)? {
                Turn::Done => idle.push(block),
                Turn::More => flying.push_back(block),
            }
        }
        Ok(())
    }
}
