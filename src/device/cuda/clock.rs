//! Clocks of launches: two events around each, whose times are read once the device is done.
//!
//! An event is as early as the device is free for it, so what the host needs to submit a launch shows in the time of one that is
//! shorter than that.

use super::Cuda;
use crate::device::{DeviceError, Measured, Profiler, Scope, Work};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, DriverError};
use std::cell::RefCell;

/// Launches whose times nobody has read yet.
#[derive(Default)]
pub(super) struct Clocks {
    profiler: Profiler,
    running: RefCell<Vec<Running>>,
    /// Events to use again: making one takes longer than recording it.
    idle: RefCell<Vec<CudaEvent>>,
}

/// A launch between its events.
struct Running {
    scope: Scope,
    kernel: &'static str,
    work: Work,
    start: CudaEvent,
    end: CudaEvent,
}

impl Clocks {
    pub(super) fn profiler(&self) -> &Profiler {
        &self.profiler
    }
}

impl Cuda {
    /// Puts something on the compute stream, between two events if somebody asked for times.
    pub(super) fn timed(
        &self,
        kernel: &'static str,
        work: Work,
        launch: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let Some(scope) = self.inner.clocks.profiler.scope() else { return launch() };
        let start = self.mark()?;
        launch()?;
        let end = self.mark()?;
        self.inner.clocks.running.borrow_mut().push(Running { scope, kernel, work, start, end });
        Ok(())
    }

    /// An event that has just been recorded on the compute stream.
    fn mark(&self) -> Result<CudaEvent, DriverError> {
        let idle = self.inner.clocks.idle.borrow_mut().pop();
        let event = match idle {
            Some(event) => event,
            None => self.inner.gpu.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?,
        };
        event.record(&self.inner.compute)?;
        Ok(event)
    }

    /// The times of all launches since the last call, once they are done.
    pub(super) fn read_clocks(&self) -> Result<Vec<Measured>, DeviceError> {
        let mut measured = Vec::new();
        for Running { scope, kernel, work, start, end } in self.inner.clocks.running.take() {
            let ms = start.elapsed_ms(&end).map_err(|error| self.driver_error(format!("timing {kernel}"), error))?;
            measured.push(Measured { scope, kernel, work, seconds: f64::from(ms) / 1e3 });
            self.inner.clocks.idle.borrow_mut().extend([start, end]);
        }
        Ok(measured)
    }
}
