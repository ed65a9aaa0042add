//! What launches share and nobody sees: tickets, by which a kernel's blocks find out which of them is the last, and workspaces for
//! partial results.
//!
//! Both assume that one kernel of a device runs at a time, since every launch uses the same tickets from the first on, and a
//! workspace goes back to the pool as soon as its launch is on the stream. It holds because all launches are on the compute
//! stream, which is never forked ([`replay`](super::replay) refuses a capture that another stream has joined), and no launch is a
//! programmatic dependent one, which would begin before its predecessor has ended.

use super::Cuda;
use super::memory::{Block, Buffer, Pool, clear};
use crate::device::DeviceError;
use cudarc::driver::{CudaStream, DriverError};
use std::sync::Arc;

/// Counters of a device. A launch draws from the first few of them and leaves them zero.
pub const TICKETS: usize = 4096;

/// The counters in device memory, all zero between launches.
pub(super) struct Tickets(Block);

impl Tickets {
    pub(super) fn new(pool: &Pool) -> Result<Self, DeviceError> {
        Ok(Tickets(pool.block(TICKETS * size_of::<u32>())?))
    }

    /// Sets them to zero, before the first launch.
    pub(super) fn clear(&self, stream: &Arc<CudaStream>) -> Result<(), DriverError> {
        clear(stream, &self.0)
    }
}

impl Cuda {
    /// The address of the counters, for a launch that draws from the first `drawn` of them.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if there are not as many.
    pub(super) fn tickets(&self, kernel: &'static str, drawn: usize) -> Result<u64, DeviceError> {
        if drawn > TICKETS {
            let reason = format!("it would draw {drawn} tickets, and there are {TICKETS}: too many channels");
            return Err(DeviceError::Shape { kernel, reason });
        }
        Ok(self.inner.tickets.0.address())
    }

    /// Scratch memory for one launch, which may be dropped as soon as the launch is on its stream.
    pub(super) fn workspace(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        Buffer::scratch(&self.inner.pool, bytes)
    }
}
