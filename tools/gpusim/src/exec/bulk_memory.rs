//! What bulk copies do to memory: checked and counted as anybody's accesses, in shared memory as those of an agent of its
//! own.

use super::access::{Mode, lanes};
use super::atomic::Reduction;
use super::{Core, Done, Stop};
use crate::check::{BULK, SECTOR};
use crate::ptx::ast::Space;

/// Bytes that a copy moves as one.
pub(super) const PIECE: usize = 16;

impl Core<'_> {
    /// Begins a copy, which has seen what its warp has done so far; gives its clock.
    pub(super) fn begin_bulk(&mut self) -> u32 {
        self.warp.clocks.tick();
        let clock = self.common.bulk_clock;
        self.common.bulk_clock += 1;
        clock
    }

    /// A fault of a request that stands for the bytes of one lane's copy.
    pub(super) fn of_lane(&self, lane: usize, stop: Stop) -> Stop {
        match stop {
            Stop::Fault(mut fault) => {
                fault.thread = self.launch.thread(self.warp.number, lane as u32);
                Stop::Fault(fault)
            }
            Stop::Wait => Stop::Wait,
        }
    }

    /// Asks for a range of device memory in requests of up to 32 units, which end where sectors do; `each` gets the
    /// place of a unit on the host, and its offset in the range.
    fn device_range(
        &mut self,
        start: u64,
        bytes: usize,
        unit: usize,
        mode: Mode,
        lane: usize,
        mut each: impl FnMut(*mut u8, usize),
    ) -> Done {
        let mut done = 0;
        while done < bytes {
            let first = start + done as u64;
            let here = (32 * unit - (first % SECTOR) as usize).min(bytes - done);
            let mut at: [u64; 32] = std::array::from_fn(|i| first + (i * unit) as u64);
            let mask = u32::MAX >> (32 - here / unit);
            self.locate(Space::Global, &mut at, mask, unit as u32, mode).map_err(|stop| self.of_lane(lane, stop))?;
            lanes(mask).for_each(|i| each(at[i] as *mut u8, done + i * unit));
            done += here;
        }
        Ok(())
    }

    /// Reads a range of device memory.
    pub(super) fn bulk_read(&mut self, from: u64, data: &mut [u8], lane: usize) -> Done {
        let unit = widest(from, data.len());
        self.device_range(from, data.len(), unit, Mode::Read, lane, |host, at| {
            // SAFETY: `locate` found the unit readable, and `data` holds it.
            unsafe { std::ptr::copy_nonoverlapping(host, data[at..].as_mut_ptr(), unit) };
        })
    }

    /// Writes a range of device memory.
    pub(super) fn bulk_write(&mut self, to: u64, data: &[u8], lane: usize) -> Done {
        let unit = widest(to, data.len());
        self.device_range(to, data.len(), unit, Mode::Write, lane, |host, at| {
            // SAFETY: `locate` found the unit writable, and `data` holds it.
            unsafe { std::ptr::copy_nonoverlapping(data[at..].as_ptr(), host, unit) };
        })
    }

    /// Updates a range of device memory, each element at once.
    pub(super) fn bulk_reduce(&mut self, to: u64, data: &[u8], operation: Reduction, lane: usize) -> Done {
        let unit = operation.size();
        self.device_range(to, data.len(), unit, Mode::Atomic, lane, |host, at| {
            // SAFETY: `locate` found the element writable and aligned.
            unsafe { operation.update(host as u64, &data[at..at + unit]) };
        })
    }

    /// The range is in one live allocation.
    pub(super) fn check_allocated(&self, address: u64, bytes: u32, lane: usize) -> Done {
        match self.launch.allocations.find(address, bytes.into()) {
            Some(_) => Ok(()),
            None => Err(self.missed(Space::Global, lane as u32, address, bytes, Mode::Read)),
        }
    }

    /// Writes a piece of shared memory.
    pub(super) fn put_piece(&mut self, offset: u64, piece: &[u8], lane: usize) -> Done {
        self.agent_touch(offset, PIECE as u32, true, BULK, self.common.bulk_clock - 1, lane as u32)?;
        // SAFETY: `agent_touch` found the piece in shared memory.
        unsafe {
            let place = self.common.shared.pointer().add(offset as usize);
            std::ptr::copy_nonoverlapping(piece.as_ptr(), place, PIECE);
        }
        Ok(())
    }

    /// Reads bytes of shared memory, all of one piece.
    pub(super) fn get_part(&mut self, offset: u64, part: &mut [u8], lane: usize) -> Done {
        let unit = widest(offset, part.len());
        for at in (offset..offset + part.len() as u64).step_by(unit) {
            self.agent_touch(at, unit as u32, false, BULK, self.common.bulk_clock - 1, lane as u32)?;
        }
        // SAFETY: `agent_touch` found all of these bytes in shared memory.
        unsafe {
            let place = self.common.shared.pointer().add(offset as usize);
            std::ptr::copy_nonoverlapping(place, part.as_mut_ptr(), part.len());
        }
        Ok(())
    }

    /// Shared memory serves 128 bytes at once.
    pub(super) fn count_bulk(&mut self, bytes: u32) {
        let wavefronts = bytes.div_ceil(128);
        self.tally.shared(self.at, wavefronts, wavefronts);
    }
}

/// The widest unit, up to a piece, that a range is made of.
fn widest(start: u64, bytes: usize) -> usize {
    1 << (start | bytes as u64).trailing_zeros().min(4)
}
