//! Steps launch by launch: as tables and CSV, or one alone for a profiler of the vendor's.

use super::Work;
use anyhow::Context;
use onesheet::device::Memory;
use onesheet::profile::Profile;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

/// Measures so many training steps and as many inferences, prints their tables on standard error, and writes their launches
/// to `path`.
pub fn write(work: &mut Work, path: &Path, steps: usize) -> anyhow::Result<()> {
    let posters = work.data.placements.len();
    let device = Rc::clone(&work.device);
    let profiler = device.profiler().context("this device has no clocks")?;
    profiler.start();
    let train = (0..steps).map(|_| {
        let pixels = work.upload()?;
        work.submit(pixels)?;
        work.learner.outcome()?;
        Ok(device.measured()?)
    });
    let train = train.collect::<anyhow::Result<Vec<_>>>()?;
    let infer =
        (0..steps).map(|_| work.infer().and_then(|_| Ok(device.measured()?))).collect::<anyhow::Result<Vec<_>>>()?;
    profiler.stop();
    let mut file = File::create(path).with_context(|| format!("--profile {}", path.display()))?;
    for (step, launches, headed) in [("a training step", train, true), ("inference", infer, false)] {
        let profile = Profile::new(&*device, format!("{step} at batch {posters}"), &launches)?;
        eprintln!("\n{profile}");
        profile.write(&mut file, headed)?;
    }
    eprintln!("launch by launch: {}", path.display());
    Ok(())
}

/// One training step as it is, between the marks that tell a profiler where to look.
pub fn once(work: &mut Work) -> anyhow::Result<()> {
    let pixels = work.upload()?;
    cudarc::driver::profiler_start().context("marking the beginning of the step")?;
    work.submit(pixels)?;
    let loss = work.learner.outcome()?.loss;
    cudarc::driver::profiler_stop().context("marking the end of the step")?;
    eprintln!("one step, loss {loss:.4}");
    Ok(())
}
