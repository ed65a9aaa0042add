//! The next batch's pixels: through page-locked memory and a stream of their own, while the compute stream works.

use super::Cuda;
use super::memory::Block;
use crate::device::{DeviceError, Placement, check_lengths};
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of an image's [`Placement`].
const PLACEMENT: usize = size_of::<Placement>();

/// A batch of pixels on the device, or on its way there, with the placement of each image.
pub struct Pixels {
    /// `None` only while dropping.
    lane: Option<Lane>,
    pixels: usize,
    placements: usize,
    /// When it will be there; `None` once the compute stream has been told to wait.
    arrival: RefCell<Option<CudaEvent>>,
    home: Rc<Lanes>,
    compute: Arc<CudaStream>,
}

/// Host and device memory that batches of one size travel through.
struct Lane {
    staging: PinnedHostSlice<u8>,
    block: Block,
    bytes: usize,
    /// When the copy engine has read the host memory.
    sent: Option<CudaEvent>,
    /// When the compute stream has read the device memory.
    read: Option<CudaEvent>,
}

/// Lanes without a batch. Two are enough for training: one batch computed, one under way.
#[derive(Default)]
pub(super) struct Lanes(RefCell<Vec<Lane>>);

impl Pixels {
    /// The first pixel's address.
    pub(super) fn address(&self) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane.block.address())
    }

    /// The first placement's address: the next multiple of 16 behind the pixels.
    pub(super) fn placements_address(&self) -> u64 {
        self.address() + self.pixels.next_multiple_of(16) as u64
    }

    /// Bytes of pixels.
    pub(super) fn len(&self) -> usize {
        self.pixels
    }

    /// Images.
    pub(super) fn images(&self) -> usize {
        self.placements
    }

    /// Sends a batch on its way.
    pub(super) fn upload(device: &Cuda, pixels: &[u8], placements: &[Placement]) -> Result<Self, DeviceError> {
        let offset = pixels.len().next_multiple_of(16);
        let bytes = (offset + placements.len() * PLACEMENT).max(1);
        let failed = |error| device.driver_error(format!("sending {bytes} bytes of pixels"), error);
        let inner = &device.inner;
        let mut lane = Lane::take(device, bytes)?;

        if let Some(sent) = lane.sent.take() {
            sent.synchronize().map_err(failed)?;
        }
        let staging = lane.staging.as_mut_slice().map_err(failed)?;
        staging[..pixels.len()].copy_from_slice(pixels);
        staging[pixels.len()..offset].fill(0);
        for (to, placement) in staging[offset..].chunks_exact_mut(PLACEMENT).zip(placements) {
            let Placement { flip, shift_y, shift_x } = *placement;
            to.copy_from_slice(&[u8::from(flip), shift_y.cast_unsigned(), shift_x.cast_unsigned()]);
        }
        if let Some(read) = lane.read.take() {
            inner.copies.wait(&read).map_err(failed)?;
        }
        // SAFETY: both ends are the lane's, which is not used again before `sent` and `read` say so.
        unsafe { result::memcpy_htod_async(lane.block.address(), &staging[..bytes], inner.copies.cu_stream()) }
            .map_err(failed)?;
        lane.sent = Some(inner.copies.record_event(None).map_err(failed)?);
        let arrival = RefCell::new(Some(inner.copies.record_event(None).map_err(failed)?));
        let (home, compute) = (Rc::clone(&inner.lanes), Arc::clone(&inner.compute));
        Ok(Pixels { lane: Some(lane), pixels: pixels.len(), placements: placements.len(), arrival, home, compute })
    }

    /// Takes the contents of another batch of the same size, whose lane is free as soon as the copy is on the compute stream.
    pub(super) fn copy_from(&mut self, device: &Cuda, from: Pixels) -> Result<(), DeviceError> {
        let lengths = [("pixels", from.pixels, self.pixels), ("placements", from.placements, self.placements)];
        check_lengths("copy_pixels", &lengths)?;
        self.wait(device)?;
        from.wait(device)?;
        let bytes = self.pixels.next_multiple_of(16) + self.placements * PLACEMENT;
        let stream = device.inner.compute.cu_stream();
        // SAFETY: both blocks are live and at least that long.
        unsafe { result::memcpy_dtod_async(self.address(), from.address(), bytes, stream) }
            .map_err(|error| device.driver_error("copying pixels", error))
    }

    /// Makes the compute stream wait for the batch, once: what comes after on that stream has waited as well, and work that is
    /// captured may not wait for an event from outside.
    pub(super) fn wait(&self, device: &Cuda) -> Result<(), DeviceError> {
        let mut arrival = self.arrival.borrow_mut();
        if let Some(event) = &*arrival {
            device.inner.compute.wait(event).map_err(|error| device.driver_error("waiting for pixels", error))?;
            *arrival = None;
        }
        Ok(())
    }
}

impl Lane {
    /// An idle lane for `bytes`, or a new one.
    fn take(device: &Cuda, bytes: usize) -> Result<Self, DeviceError> {
        let inner = &device.inner;
        let mut idle = inner.lanes.0.borrow_mut();
        if let Some(index) = idle.iter().position(|lane| lane.bytes == bytes) {
            return Ok(idle.swap_remove(index));
        }
        let failed = |error| device.driver_error(format!("page-locking {bytes} bytes"), error);
        // SAFETY: `upload` writes what it sends.
        let staging = unsafe { inner.gpu.context.alloc_pinned::<u8>(bytes) }.map_err(failed)?;
        Ok(Lane { staging, block: inner.pool.block(bytes)?, bytes, sent: None, read: None })
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        let Some(mut lane) = self.lane.take() else { return };
        // Without these events nobody could tell when the lane is free: then it is not used again.
        if let Some(arrival) = self.arrival.get_mut()
            && self.compute.wait(arrival).is_err()
        {
            return;
        }
        if let Ok(read) = self.compute.record_event(None) {
            lane.read = Some(read);
            self.home.0.borrow_mut().push(lane);
        }
    }
}
