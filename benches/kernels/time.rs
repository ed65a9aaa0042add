//! The clock: how long a launch takes on a real GPU, ours or cuDNN's.

use onesheet::device::cuda::Cuda;
use onesheet::device::{DeviceError, Memory, Storage};
use std::time::{Duration, Instant};

/// What a round should last, in seconds: so long that the host's part of it, some 20 µs, does not show.
const ROUND: f64 = 0.005;
/// Launches in one graph at the most.
const MOST: f64 = 1000.0;
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 5;

/// Launches that are tried to find how long one takes.
pub const TRIED: usize = 16;

/// How many launches make a round, if those tried and the wait for them take so long: whole turns through the copies of
/// the operands, where there is time for one.
pub fn launches(tried: Duration, copies: usize) -> usize {
    let launches = (ROUND / tried.as_secs_f64() * TRIED as f64).clamp(1.0, MOST) as usize;
    if launches < copies { launches } else { launches.next_multiple_of(copies) }
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

/// Launches `run` so often, with each copy of its operands in turn. What it makes lives until that copy's turn comes
/// again, so that the next one is made elsewhere.
pub fn in_turn<T, R, E>(
    copies: &mut [T],
    launches: usize,
    mut run: impl FnMut(&mut T) -> Result<R, E>,
) -> Result<(), E> {
    let mut made: Vec<Option<R>> = copies.iter().map(|_| None).collect();
    for launch in 0..launches {
        let turn = launch % copies.len();
        made[turn] = Some(run(&mut copies[turn])?);
    }
    Ok(())
}

/// Milliseconds that what `run` launches takes on the device.
pub fn of<T, R>(
    device: &Cuda,
    copies: &mut [T],
    run: impl Fn(&Cuda, &mut T) -> Result<R, DeviceError>,
) -> Result<f64, DeviceError> {
    let run = |copy: &mut T| run(device, copy);
    let mut mark = device.allocate(1, Storage::Full)?;
    device.fill(Cuda::view_mut(&mut mark, 0..1), 1.0)?;
    let wait = || device.download(Cuda::view(&mark, 0..1)).map(drop);
    wait()?;
    // The first one loads the kernel.
    in_turn(copies, 1, run)?;
    wait()?;
    let start = Instant::now();
    in_turn(copies, TRIED, run)?;
    wait()?;
    let launches = launches(start.elapsed(), copies.len());
    let mut plan = <Cuda as Memory>::Plan::default();
    let mut round = || {
        device.repeat(&mut plan, || in_turn(copies, launches, run))?;
        wait()
    };
    // As it is, for the plan's buffers; from the second time on it is a graph.
    round()?;
    fastest(launches, round)
}
