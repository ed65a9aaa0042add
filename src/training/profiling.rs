//! Measuring some steps of a run, launch by launch.

use super::trainer::Event;
use crate::device::{Device, DeviceError, Measured};
use crate::profile::{Profile, ProfileError};
use std::cmp::Ordering;
use std::rc::Rc;

/// Steps that come before the first that is measured: they load kernels and find memory.
pub const WARM_UP: u64 = 3;

/// Watches a run and has its device time the launches of each training step after the first few.
///
/// The trainer must tell of each step before it submits the next
/// ([`Trainer::ask_at_once`](super::trainer::Trainer::ask_at_once)): what is timed between two such events is then one step. The
/// run takes the same steps to the same bits as without, but a device that replays captured steps does each as it is.
pub struct Profiling<D: Device> {
    device: Rc<D>,
    /// Steps seen.
    seen: u64,
    steps: Vec<Vec<Measured>>,
    /// Why times could not be read.
    failed: Option<DeviceError>,
}

impl<D: Device> Profiling<D> {
    /// For a run on `device`.
    pub fn new(device: Rc<D>) -> Self {
        Profiling { device, seen: 0, steps: Vec::new(), failed: None }
    }

    /// To be told all that happens in the run.
    pub fn watch(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { .. } => {
                self.seen += 1;
                match self.seen.cmp(&WARM_UP) {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        if let Some(profiler) = self.device.profiler() {
                            profiler.start();
                        }
                    }
                    Ordering::Greater => {
                        let launches = self.take();
                        self.steps.extend((!launches.is_empty()).then_some(launches));
                    }
                }
            }
            // No training step's: running averages, answers about validation posters, and where the best model sees their genres.
            Event::Averages { .. } | Event::Validation { .. } | Event::Epoch { .. } => drop(self.take()),
            Event::LeftOut { .. } | Event::RolledBack { .. } => {}
        }
    }

    fn take(&mut self) -> Vec<Measured> {
        self.device.measured().unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            Vec::new()
        })
    }

    /// What was measured. `step` says what a step is.
    ///
    /// # Errors
    /// [`ProfileError::Empty`] for a run that ended before its warm-up did, and the device's.
    pub fn end(self, step: String) -> Result<Profile, ProfileError> {
        if let Some(profiler) = self.device.profiler() {
            profiler.stop();
        }
        match self.failed {
            Some(error) => Err(error.into()),
            None => Profile::new(&*self.device, step, &self.steps),
        }
    }
}
