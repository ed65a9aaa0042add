//! What is checked while a kernel runs: that memory is there, initialised, and not raced for.

mod allocations;
mod arena;
mod clocks;
mod global_race;
mod launch_order;
mod line_history;
mod sector_history;
mod shared;
mod shared_race;

pub use allocations::{Allocation, Allocations};
pub use arena::{Arena, SECTOR};
pub use clocks::Clocks;
pub(crate) use clocks::{BULK, NOTHING, Seen, TENSOR};
pub use global_race::{GlobalRace, Manner, Run, Touch};
pub use launch_order::LaunchOrder;
pub use line_history::LINE;
pub use shared::Shared;
pub use shared_race::{Clash, Stamp};
