//! What ends a tool from outside: Ctrl-C, TERM, and a terminal that is closed.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Signals that ask for a clean end. A second Ctrl-C or TERM ends the tool at once; a second hang-up does not, for shell and
/// system may each send one when a terminal is closed.
pub struct Signals {
    /// Set once the tool is to end.
    pub stop: Arc<AtomicBool>,
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches them from here on; the hang-up unless it is ignored, for that is what `nohup` asks for.
    ///
    /// # Errors
    /// The system's.
    pub fn catch() -> io::Result<Signals> {
        let signals = Signals { stop: Arc::default(), caught: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            // In this order: what is registered first runs first, and must not yet see the flag that its own signal sets.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            signals.heed(signal)?;
        }
        if !is_in(ignored(), SIGHUP) {
            signals.heed(SIGHUP)?;
        }
        Ok(signals)
    }

    /// Has `signal` ask for a clean end.
    fn heed(&self, signal: i32) -> io::Result<()> {
        flag::register_usize(signal, Arc::clone(&self.caught), signal as usize)?;
        flag::register(signal, Arc::clone(&self.stop))?;
        Ok(())
    }

    /// The signal that came last.
    pub fn caught(&self) -> i32 {
        self.caught.load(Ordering::Relaxed) as i32
    }
}

/// Whether a signal is one of those in `mask`, the first in the lowest bit.
fn is_in(mask: u64, signal: i32) -> bool {
    mask & (1 << (signal - 1)) != 0
}

/// The signals that this process was started to ignore, as [`is_in`] reads them. Where the system does not say, none.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_signal() {
        let found = |mask| [SIGHUP, SIGINT, 7, SIGTERM].map(|signal| is_in(mask, signal));
        assert_eq!(found(0b1), [true, false, false, false]);
        assert_eq!(found(0b10), [false, true, false, false]);
        assert_eq!(found(0b100_0000), [false, false, true, false]);
        assert_eq!(found(0x4000), [false, false, false, true]);
        assert_eq!(found(0), [false; 4]);
    }
}
