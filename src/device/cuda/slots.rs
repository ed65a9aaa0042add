//! Small transfers that the host does not wait for: a step's labels and rate to the device, its loss back.
//!
//! They pass through page-locked memory, which the copy engine reads and writes by itself, on the compute stream, and so in the
//! order of the kernels.

use super::Cuda;
use super::memory::{Element, View};
use crate::device::DeviceError;
use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Bytes of a slot; larger transfers take other ways.
pub(super) const SLOT: usize = 64 * 1024;
/// Transfers under way at once, before the host waits for the first of them.
const MOST: usize = 8;

/// Page-locked memory for one transfer.
struct Slot {
    memory: PinnedHostSlice<u8>,
    /// When the transfer is done, if there was one.
    done: Option<CudaEvent>,
}

/// Slots that nobody holds, in the order of their transfers.
#[derive(Default)]
pub(super) struct Slots(RefCell<VecDeque<Slot>>);

impl Slots {
    /// A slot whose last transfer is done.
    fn take(&self, device: &Cuda) -> Result<Slot, DriverError> {
        let mut slots = self.0.borrow_mut();
        let free = match slots.front().and_then(|slot| slot.done.as_ref()) {
            Some(done) => slots.len() >= MOST || done.try_is_complete()?,
            None => true,
        };
        if let Some(mut slot) = if free { slots.pop_front() } else { None } {
            if let Some(done) = slot.done.take() {
                done.synchronize()?;
            }
            return Ok(slot);
        }
        // SAFETY: plain bytes, which a transfer's source writes before anybody reads them.
        let memory = unsafe { device.inner.gpu.context.alloc_pinned_with_flags::<u8>(SLOT, 0) }?;
        Ok(Slot { memory, done: None })
    }

    /// Sends at most [`SLOT`] bytes to the device, behind the kernels launched so far.
    pub(super) fn send(&self, device: &Cuda, to: u64, bytes: &[u8]) -> Result<(), DriverError> {
        let mut slot = self.take(device)?;
        let staged = &mut slot.memory.as_mut_slice()?[..bytes.len()];
        staged.copy_from_slice(bytes);
        let compute = &device.inner.compute;
        // SAFETY: `to` is as long in the caller's view, and the slot is not written again before `done`.
        unsafe { result::memcpy_htod_async(to, staged, compute.cu_stream()) }?;
        slot.done = Some(compute.record_event(None)?);
        self.0.borrow_mut().push_back(slot);
        Ok(())
    }
}

/// A few numbers on their way to the host.
pub struct Arriving {
    /// `None` only while dropping.
    slot: Option<Slot>,
    bytes: usize,
    element: Element,
    home: Rc<Slots>,
}

impl Arriving {
    /// Starts a copy of at most [`SLOT`] bytes, behind the kernels launched so far.
    pub(super) fn new(device: &Cuda, from: &View<'_>) -> Result<Self, DeviceError> {
        let bytes = from.bytes();
        if bytes > SLOT {
            let reason = format!("{bytes} bytes are more than a slot's {SLOT}; `download` takes any number");
            return Err(DeviceError::Shape { kernel: "fetch", reason });
        }
        let (home, compute) = (&device.inner.slots, &device.inner.compute);
        let begin = || -> Result<Slot, DriverError> {
            let mut slot = home.take(device)?;
            let staged = &mut slot.memory.as_mut_slice()?[..bytes];
            // SAFETY: the view's memory is live and as long, and nobody reads the slot before `done`.
            unsafe { result::memcpy_dtoh_async(staged, from.address(), compute.cu_stream()) }?;
            slot.done = Some(compute.record_event(None)?);
            Ok(slot)
        };
        let slot = begin().map_err(|error| device.driver_error(format!("fetching {bytes} bytes"), error))?;
        Ok(Arriving { slot: Some(slot), bytes, element: from.element(), home: Rc::clone(home) })
    }

    fn done(&self) -> Option<&CudaEvent> {
        self.slot.as_ref().and_then(|slot| slot.done.as_ref())
    }

    /// Whether they are here. An error counts as that: whoever waits for them is told.
    pub(super) fn is_here(&self) -> bool {
        self.done().is_none_or(|done| done.try_is_complete().unwrap_or(true))
    }

    /// The numbers, once they are here.
    pub(super) fn wait(self, device: &Cuda) -> Result<Vec<f32>, DeviceError> {
        let failed = |error| device.driver_error("waiting for the kernels launched so far", error);
        let Some(slot) = &self.slot else { return Ok(Vec::new()) };
        if let Some(done) = &slot.done {
            done.synchronize().map_err(failed)?;
        }
        let staged = &slot.memory.as_slice().map_err(failed)?[..self.bytes];
        Ok(self.element.numbers(staged))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.home.0.borrow_mut().push_back(slot);
        }
    }
}
