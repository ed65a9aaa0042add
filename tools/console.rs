//! What every tool says on stderr, and how numbers look.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Narration, which goes to stderr and can be switched off; results go to stdout.
#[derive(Clone, Copy)]
pub struct Console {
    /// Says nothing but errors.
    pub quiet: bool,
}

impl Console {
    /// Prints a line of narration.
    pub fn say(self, line: impl Display) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Whether somebody watches, so that lines may be drawn over.
    pub fn is_live(self) -> bool {
        !self.quiet && stderr().is_terminal()
    }

    /// A bar over `length` of something, hidden unless somebody watches.
    pub fn bar(self, length: u64, template: &str) -> ProgressBar {
        if !self.is_live() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).expect("the template is right");
        let bar = ProgressBar::new(length).with_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }
}

/// When the program started.
static STARTED: OnceLock<Instant> = OnceLock::new();

/// Remembers the start of the program; the first thing that it does.
pub fn start_clock() {
    STARTED.get_or_init(Instant::now);
}

/// Time since the start of the program.
pub fn since_start() -> Duration {
    STARTED.get_or_init(Instant::now).elapsed()
}

/// This program as it was called, so that the commands it suggests can be typed as they stand: `onesheet` where it is on the
/// path, `target/release/onesheet` behind `cargo run`.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "onesheet".into())
}

/// 83 seconds as `1:23`, 3723 as `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.4, 59.6, 83.0, 3723.0].map(clock), ["0:00", "1:00", "1:23", "1:02:03"]);
    }
}
