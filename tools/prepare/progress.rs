//! How far `prepare` has come: a bar on a terminal, elsewhere a line for every tenth.

use indicatif::ProgressBar;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::console::Console;

/// The stage under way, and what was said of it.
pub struct Progress {
    console: Console,
    /// Set once somebody wants an end.
    stop: Arc<AtomicBool>,
    stage: &'static str,
    bar: ProgressBar,
    tenths: usize,
}

impl Progress {
    /// Nothing done yet.
    pub fn new(console: Console, stop: Arc<AtomicBool>) -> Progress {
        Progress { console, stop, stage: "", bar: ProgressBar::hidden(), tenths: 0 }
    }

    /// `done` of `of` in `stage`; whether to go on.
    pub fn show(&mut self, stage: &'static str, done: usize, of: usize) -> ControlFlow<()> {
        if let Some(line) = self.advance(stage, done, of)
            && !self.console.is_live()
        {
            self.console.say(line);
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Moves the bar; a line whenever another tenth is done.
    fn advance(&mut self, stage: &'static str, done: usize, of: usize) -> Option<String> {
        if self.stage != stage {
            let template = "{msg:>18} {bar:40} {human_pos}/{human_len} {per_sec}, {eta} left";
            (self.stage, self.bar, self.tenths) = (stage, self.console.bar(of as u64, template), 0);
            self.bar.set_message(stage);
        }
        self.bar.set_position(done as u64);
        if done == of {
            self.bar.finish();
        }
        let tenths = done * 10 / of;
        let is_another = tenths > self.tenths;
        self.tenths = tenths;
        is_another.then(|| format!("{stage}: {done} of {of}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_of_every_stage_is_a_line() {
        let mut progress = Progress::new(Console { quiet: true }, Arc::default());
        let mut lines = Vec::new();
        for stage in ["comparing posters", "writing posters"] {
            for done in 1..=25 {
                lines.extend(progress.advance(stage, done, 25));
                assert_eq!(progress.bar.is_finished(), done == 25, "{stage}, {done}");
            }
        }
        lines.extend((1..=3).filter_map(|done| progress.advance("fetching posters", done, 3)));
        assert_eq!(progress.bar.position(), 3);
        let tenths = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25];
        let of_25 = |stage| tenths.map(|done| format!("{stage}: {done} of 25"));
        let of_3 = [1, 2, 3].map(|done| format!("fetching posters: {done} of 3"));
        assert_eq!(lines, [&of_25("comparing posters")[..], &of_25("writing posters"), &of_3].concat());
    }
}
