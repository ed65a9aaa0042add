//! Clocks of kernels: each method of the vocabulary runs one, if somebody asked for times.

use super::memory::Cpu;
use crate::device::{Measured, Profiler, Scope, Work};
use std::cell::RefCell;
use std::time::Instant;

/// The times so far.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    profiler: Profiler,
    measured: RefCell<Vec<Measured>>,
}

impl Clocks {
    pub(super) fn profiler(&self) -> &Profiler {
        &self.profiler
    }

    /// The times since the last call.
    pub(super) fn take(&self) -> Vec<Measured> {
        self.measured.take()
    }
}

/// Runs until it is dropped.
pub(super) struct Clock<'a> {
    clocks: &'a Clocks,
    scope: Scope,
    kernel: &'static str,
    work: Work,
    start: Instant,
}

impl Cpu {
    /// Starts the clock of a kernel, if somebody asked for times. It reads and writes so many bytes, each counted once.
    pub(super) fn clock(&self, kernel: &'static str, flops: u64, reads: usize, writes: usize) -> Option<Clock<'_>> {
        let scope = self.clocks.profiler.scope()?;
        let work = Work { reads: reads as u64, writes: writes as u64, flops };
        Some(Clock { clocks: &self.clocks, scope, kernel, work, start: Instant::now() })
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let seconds = self.start.elapsed().as_secs_f64();
        let Clock { clocks, scope, kernel, work, .. } = self;
        clocks.measured.borrow_mut().push(Measured { scope: scope.clone(), kernel, work: *work, seconds });
    }
}
