//! A piece of work captured once as a CUDA graph, and replayed: one call instead of hundreds of launches.

use super::Cuda;
use super::memory::Idle;
use crate::device::DeviceError;
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode, CUstreamCaptureStatus};
use std::rc::Rc;

/// What the device knows of a piece of work that repeats.
///
/// The work's buffers come from a list of the plan's own and stay in it: nobody else is given memory that a replay writes to.
/// The first run fills the list, so that the second, which is captured, allocates nothing and finds the same addresses.
#[derive(Default)]
pub struct Plan {
    idle: Rc<Idle>,
    warm: bool,
    captured: Option<Captured>,
}

struct Captured {
    graph: CudaGraph,
    /// Keeps the modules loaded whose kernels the graph launches.
    _device: Cuda,
}

impl Plan {
    /// Does the work: as it is the first time, captured the second, replayed from then on; but as it is while its launches are timed.
    pub(super) fn run<E: From<DeviceError>>(
        &mut self,
        device: &Cuda,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |call: &str, error| E::from(device.driver_error(call, error));
        if device.inner.clocks.profiler().is_on() {
            return self.with_own_buffers(device, work);
        }
        if self.captured.is_none() {
            if self.warm {
                let graph = self.capture(device, work)?;
                self.captured = Some(Captured { graph, _device: device.clone() });
            } else {
                self.with_own_buffers(device, work)?;
                self.warm = true;
                return Ok(());
            }
        }
        match &self.captured {
            Some(captured) => captured.graph.launch().map_err(|error| failed("launching a captured step", error)),
            None => Ok(()),
        }
    }

    fn capture<E: From<DeviceError>>(
        &self,
        device: &Cuda,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<CudaGraph, E> {
        let stream = &device.inner.compute;
        let failed = |call: &str, error| E::from(device.driver_error(call, error));
        // Relaxed: other threads may go on allocating, as the loader of a library may.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        stream.begin_capture(mode).map_err(|error| failed("capturing a step", error))?;
        let done = self.with_own_buffers(device, work);
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // Tickets and workspaces assume that the captured launches come one after the other (`scratch`).
        let joined = device.inner.copies.capture_status();
        let graph = stream.end_capture(flags);
        done?;
        let alone = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        if joined.map_err(|error| failed("ending the capture of a step", error))? != alone {
            let reason =
                "another stream has joined the capture of a step, whose launches must come one after the other";
            return Err(DeviceError::Shape { kernel: "replay", reason: reason.into() }.into());
        }
        let graph = graph.map_err(|error| failed("ending the capture of a step", error))?;
        let nothing = || DeviceError::Shape { kernel: "replay", reason: "the step launched no kernel".into() };
        graph.ok_or_else(|| nothing().into())
    }

    fn with_own_buffers<E: From<DeviceError>>(
        &self,
        device: &Cuda,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let pool = &device.inner.pool;
        let before = pool.out();
        let outside = pool.exchange(Rc::clone(&self.idle));
        let done = work();
        pool.exchange(outside);
        done?;
        if pool.out() != before {
            let reason = format!("{} buffers outlive the step that allocated them", pool.out().abs_diff(before));
            return Err(DeviceError::Shape { kernel: "replay", reason }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::{Precision, simulated};
    use crate::device::{Memory, Storage};

    #[test]
    fn a_captured_step_on_two_streams_is_refused() {
        simulated::open().unwrap();
        let device = Cuda::new(Precision::F32).unwrap();
        let mut x = device.allocate(1, Storage::Full).unwrap();
        let mut plan = Plan::default();
        let mut step = |second: bool| {
            plan.run(&device, || -> Result<(), DeviceError> {
                device.fill(Cuda::view_mut(&mut x, 0..1), 1.0)?;
                if second {
                    let so_far = device.inner.compute.record_event(None).unwrap();
                    device.inner.copies.wait(&so_far).unwrap();
                }
                Ok(())
            })
        };
        step(true).unwrap();
        let refused = step(true).unwrap_err().to_string();
        assert!(refused.contains("another stream has joined"), "{refused}");
        // Nothing is left of it.
        step(false).unwrap();
        step(false).unwrap();
    }
}
