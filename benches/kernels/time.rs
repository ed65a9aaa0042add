//! The time of a launch on a real GPU.

use onesheet::device::cuda::Cuda;
use onesheet::device::{DeviceError, Memory, Storage};
use std::time::Instant;

/// Launches in one graph: so many that the host's part of the time does not show.
pub const LAUNCHES: usize = 50;
/// Replays, of which the fastest counts.
pub const ROUNDS: usize = 7;

/// Milliseconds that what `run` launches takes on the device, once the caches are warm.
pub fn of(device: &Cuda, mut run: impl FnMut(&Cuda) -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
    let mut mark = device.allocate(1, Storage::Full)?;
    device.fill(Cuda::view_mut(&mut mark, 0..1), 1.0)?;
    let mut plan = <Cuda as Memory>::Plan::default();
    let mut best = f64::INFINITY;
    // The first round runs as it is and the second is captured.
    for round in 0..ROUNDS + 2 {
        device.download(Cuda::view(&mark, 0..1))?;
        let start = Instant::now();
        device.repeat(&mut plan, || (0..LAUNCHES).try_for_each(|_| run(device)))?;
        device.download(Cuda::view(&mark, 0..1))?;
        if round >= 2 {
            best = best.min(start.elapsed().as_secs_f64() * 1e3 / LAUNCHES as f64);
        }
    }
    Ok(best)
}
