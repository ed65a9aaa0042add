//! The clock: how long a launch takes on a real GPU, ours or cuDNN's.

use onesheet::device::cuda::Cuda;
use onesheet::device::{DeviceError, Memory, Storage};
use std::time::{Duration, Instant};

/// What a round should last, in seconds: so long that the host's part of it does not show.
const ROUND: f64 = 0.01;
/// Launches in one graph at the most.
const MOST: f64 = 500.0;
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 7;

/// Launches that are tried to find how long one takes.
pub const TRIED: usize = 16;

/// How many launches make a round, if those tried and the wait for them take so long.
pub fn launches(tried: Duration) -> usize {
    (ROUND / tried.as_secs_f64() * TRIED as f64).clamp(1.0, MOST) as usize
}

/// Milliseconds of a launch in the fastest round. A round replays a graph of so many launches and waits for its end; the first
/// is not counted, since it brings the graph to the device.
pub fn fastest<E>(launches: usize, mut round: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    round()?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3 / launches as f64);
    }
    Ok(best)
}

/// Milliseconds that what `run` launches takes on the device, once the caches are warm.
pub fn of(device: &Cuda, mut run: impl FnMut(&Cuda) -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
    let mut mark = device.allocate(1, Storage::Full)?;
    device.fill(Cuda::view_mut(&mut mark, 0..1), 1.0)?;
    let wait = || device.download(Cuda::view(&mark, 0..1)).map(drop);
    wait()?;
    // The first one loads the kernel.
    run(device)?;
    wait()?;
    let start = Instant::now();
    (0..TRIED).try_for_each(|_| run(device))?;
    wait()?;
    let launches = launches(start.elapsed());
    let mut plan = <Cuda as Memory>::Plan::default();
    let mut round = || {
        device.repeat(&mut plan, || (0..launches).try_for_each(|_| run(device)))?;
        wait()
    };
    // As it is, for the plan's buffers; from the second time on it is a graph.
    round()?;
    fastest(launches, round)
}
