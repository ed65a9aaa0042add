//! `--batch auto`: as many posters a step as there is memory for.

use crate::console::Console;
use crate::device::Opened;
use anyhow::bail;
use onesheet::device::Memory;
use onesheet::network::Architecture;
use onesheet::plan::Plan;
use onesheet::training::config::RunConfig;
use onesheet::training::dry_run;
use std::str::FromStr;

/// Posters a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many.
    Posters(usize),
    /// As many as without the flag, halved until a step fits into the memory that is free.
    Auto,
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(BatchSize::Auto),
            number => {
                number.parse().map(BatchSize::Posters).map_err(|_| "a batch is a number of posters, or auto".into())
            }
        }
    }
}

/// What a run leaves of the memory that is free: as others come and go, and what is allocated lies in pieces.
const LEFT: f64 = 0.1;

/// With `auto`, halves the posters of a step of a run on posters of so many `genres` until it fits into the memory of `device`.
///
/// # Errors
/// Where not even one poster fits, and where nobody knows how much memory there is.
pub fn settle(
    asked: Option<BatchSize>,
    config: &mut RunConfig,
    genres: usize,
    device: &Opened,
    console: Console,
) -> anyhow::Result<()> {
    if asked != Some(BatchSize::Auto) {
        return Ok(());
    }
    let Some(free) = device.free_memory() else {
        bail!("nobody says how much memory is free here, so --batch auto cannot choose; give a number of posters")
    };
    let habits = match device {
        Opened::Cpu(device, _) => device.habits(),
        Opened::Cuda(device) => device.habits(),
    };
    let model = config.model(genres);
    let plan = Plan::new(&Architecture::new(&model)?, model.momentum)?;
    let plan = if config.recompute { plan.recomputing() } else { plan };
    let needed = |batch| {
        let costs = dry_run::costs_of(&model, habits, batch, plan.clone(), &config.recipe)?;
        anyhow::Ok(costs.most_bytes as u64)
    };
    let room = (free as f64 * (1.0 - LEFT)) as u64;
    let Some((batch, bytes)) = fitting(config.batch, room, needed)? else {
        bail!(
            "not even a step on one poster fits into {} MiB of memory; --recompute or a smaller --network takes less",
            free >> 20
        )
    };
    console.say(format_args!(
        "--batch auto: {batch} posters a step take {} of {} MiB that are free\n",
        bytes >> 20,
        free >> 20
    ));
    config.batch = batch;
    Ok(())
}

/// The first of `most`, a half of it, a quarter and so on whose need is at most `room`, and its need.
fn fitting(
    most: usize,
    room: u64,
    needed: impl Fn(usize) -> anyhow::Result<u64>,
) -> anyhow::Result<Option<(usize, u64)>> {
    let mut batch = most;
    while batch > 0 {
        let bytes = needed(batch)?;
        if bytes <= room {
            return Ok(Some((batch, bytes)));
        }
        batch /= 2;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_halved_until_it_fits() {
        let of = |room| fitting(100, room, |batch| Ok(10 + batch as u64)).unwrap();
        assert_eq!(of(1000), Some((100, 110)));
        assert_eq!(of(110), Some((100, 110)));
        assert_eq!(of(109), Some((50, 60)));
        assert_eq!(of(22), Some((12, 22)));
        assert_eq!(of(11), Some((1, 11)));
        assert_eq!(of(10), None);
    }
}
