//! What a launch must do, where in the network it belongs, and how long it takes.
//!
//! A device that can measure has a [`Profiler`], off until somebody starts it. While it is on, the engine tells it which
//! layer and pass comes next ([`Memory::enter`](super::Memory::enter)), the device times what it launches, and
//! [`Memory::measured`](super::Memory::measured) hands both out.

use std::cell::RefCell;
use std::rc::Rc;

/// What a launch must do at least: its floors. The launches of a step are its plan, and benches and tests hold the plan to
/// what is counted while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes it reads from the device's memory, each counted once: operands, and partial results that earlier launches left.
    pub reads: u64,
    /// Bytes it writes to the device's memory, each counted once, workspaces included.
    pub writes: u64,
    /// Multiplications and additions of its formula; none that padding, tails or masks add.
    pub flops: u64,
}

impl Work {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.reads + self.writes
    }
}

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// From the posters to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// From the gradients to the weights.
    Update,
}

impl Pass {
    /// As tables and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Update => "update",
        }
    }
}

/// Where in the network a launch belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The layer, by its name; or what else a step does: `loss`, `gradients` (set to zero, and their norm), `averages` (those of
    /// batch norm: kept, their norm, put back after a bad step), `adam`.
    pub layer: Rc<str>,
    /// The pass.
    pub pass: Pass,
}

/// A launch of a kernel, or a copy, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Where it belongs.
    pub scope: Scope,
    /// The kernel.
    pub kernel: &'static str,
    /// What it had to do.
    pub work: Work,
    /// From its beginning to its end.
    pub seconds: f64,
}

/// Whether launches are timed, and where in the network they belong.
#[derive(Debug, Default)]
pub struct Profiler {
    /// `None` while it is off.
    scope: RefCell<Option<Scope>>,
}

impl Profiler {
    /// Launches are timed from here on.
    pub fn start(&self) {
        *self.scope.borrow_mut() = Some(Scope { layer: "no layer".into(), pass: Pass::Forward });
    }

    /// Launches are no longer timed.
    pub fn stop(&self) {
        *self.scope.borrow_mut() = None;
    }

    /// Whether launches are timed.
    pub fn is_on(&self) -> bool {
        self.scope.borrow().is_some()
    }

    /// Where the next launch belongs; `None` while launches are not timed.
    pub fn scope(&self) -> Option<Scope> {
        self.scope.borrow().clone()
    }

    /// The next launches belong to a pass of `layer`.
    pub(super) fn enter(&self, layer: &str, pass: Pass) {
        if let Some(scope) = &mut *self.scope.borrow_mut() {
            *scope = Scope { layer: layer.into(), pass };
        }
    }
}

/// How fast a device can be at most, which is where the floors of launches come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Bytes a second from and to its memory.
    pub bytes: f64,
    /// Multiplications and additions a second, of the fastest kind that its precision allows.
    pub flops: f64,
    /// Where the two figures are from.
    pub source: String,
}

impl Rates {
    /// Seconds that a launch takes at least, if its operands come from memory.
    pub fn floor(&self, work: &Work) -> f64 {
        (work.bytes() as f64 / self.bytes).max(work.flops as f64 / self.flops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_only_while_it_is_on() {
        let profiler = Profiler::default();
        profiler.enter("conv1_conv", Pass::Backward);
        assert_eq!(profiler.scope(), None);
        profiler.start();
        profiler.enter("conv1_conv", Pass::Backward);
        assert_eq!(profiler.scope(), Some(Scope { layer: "conv1_conv".into(), pass: Pass::Backward }));
        profiler.stop();
        assert!(!profiler.is_on());
        profiler.start();
        assert_eq!(profiler.scope().map(|scope| scope.pass), Some(Pass::Forward), "it begins anew");
    }

    #[test]
    fn the_larger_of_both_floors_counts() {
        let rates = Rates { bytes: 10.0, flops: 100.0, source: String::new() };
        assert_eq!(rates.floor(&Work { reads: 15, writes: 5, flops: 100 }), 2.0);
        assert_eq!(rates.floor(&Work { reads: 15, writes: 5, flops: 300 }), 3.0);
    }
}
