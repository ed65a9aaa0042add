//! Copies and fills.

use super::graph::Operation;
use super::state::Driver;
use super::{Answer, Code, Handle, api, ready, report};
use std::ffi::{c_uchar, c_ushort, c_void};

/// Which ends of a copy are device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub from_device: bool,
    pub to_device: bool,
}

/// Rows of bytes to copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub to: u64,
    pub to_pitch: usize,
    pub from: u64,
    pub from_pitch: usize,
    pub width: usize,
    pub height: usize,
    pub ends: Ends,
}

/// Rows of elements to fill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub to: u64,
    pub pitch: usize,
    pub value: u32,
    /// Bytes of an element.
    pub size: usize,
    /// Elements a row.
    pub width: usize,
    pub height: usize,
}

const TO_DEVICE: Ends = Ends { from_device: false, to_device: true };
const FROM_DEVICE: Ends = Ends { from_device: true, to_device: false };
const WITHIN_DEVICE: Ends = Ends { from_device: true, to_device: true };

impl Driver {
    /// The device ends of a copy are inside of allocations.
    pub fn check_copy(&self, rows: &Rows) -> Answer {
        let Rows { to, to_pitch, from, from_pitch, width, height, ends } = *rows;
        let span = |pitch: usize| {
            if height == 0 || width == 0 { 0 } else { (height - 1).saturating_mul(pitch).saturating_add(width) }
        };
        if ends.from_device {
            self.check_range(from, span(from_pitch))?;
        }
        if ends.to_device {
            self.check_range(to, span(to_pitch))?;
        }
        Ok(())
    }

    pub fn copy(&mut self, rows: &Rows) -> Answer {
        self.check_copy(rows)?;
        let Rows { to, to_pitch, from, from_pitch, width, height, ends } = *rows;
        for row in 0..height {
            let (to, from) = (to + (row * to_pitch) as u64, from + (row * from_pitch) as u64);
            // SAFETY: device ends were checked; the caller answers for host ends. The ranges may overlap.
            unsafe { std::ptr::copy(from as *const u8, to as *mut u8, width) };
            match ends {
                WITHIN_DEVICE => self.arena.copy_marks(from, to, width as u64),
                TO_DEVICE => self.arena.mark(to, width as u64, true),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is filled is inside of an allocation.
    pub fn check_fill(&self, fill: &Fill) -> Answer {
        let Fill { to, pitch, size, width, height, .. } = *fill;
        let bytes = width.saturating_mul(size);
        if height == 0 || bytes == 0 {
            return Ok(());
        }
        // Each row begins at an element.
        if !to.is_multiple_of(size as u64) || (height > 1 && !pitch.is_multiple_of(size)) {
            return Err(Code::INVALID_VALUE);
        }
        self.check_range(to, (height - 1).saturating_mul(pitch).saturating_add(bytes))
    }

    pub fn fill(&mut self, fill: &Fill) -> Answer {
        self.check_fill(fill)?;
        let Fill { to, pitch, value, size, width, height } = *fill;
        let bytes = width * size;
        for row in 0..height {
            let to = to + (row * pitch) as u64;
            // SAFETY: the range is inside a live allocation, and aligned to the element.
            unsafe {
                match size {
                    1 => std::ptr::write_bytes(to as *mut u8, value as u8, width),
                    2 => (0..width).for_each(|i| (to as *mut u16).add(i).write(value as u16)),
                    _ => (0..width).for_each(|i| (to as *mut u32).add(i).write(value)),
                }
            }
            self.arena.mark(to, bytes as u64, true);
        }
        Ok(())
    }
}

/// How a copy is called for.
#[derive(Clone, Copy)]
enum Call {
    /// The host waits for it.
    Synchronous,
    /// On this stream.
    On(Handle),
}

impl Call {
    fn copy(self, rows: Rows) -> Answer {
        let mut driver = ready()?;
        match self {
            Self::Synchronous => driver.copy_synchronously(&rows),
            Self::On(stream) => driver.submit(stream, Operation::Copy(rows)),
        }
    }
}

fn line(to: u64, from: u64, bytes: usize, ends: Ends, call: Call) -> Answer {
    call.copy(Rows { to, to_pitch: bytes, from, from_pitch: bytes, width: bytes, height: 1, ends })
}

fn fill(to: u64, value: u32, size: usize, count: usize, stream: Handle) -> Answer {
    let fill = Fill { to, pitch: 0, value, size, width: count, height: 1 };
    ready()?.submit(stream, Operation::Fill(fill))
}

fn fill_rows(to: u64, pitch: usize, value: u32, size: usize, width: usize, height: usize, stream: Handle) -> Answer {
    ready()?.submit(stream, Operation::Fill(Fill { to, pitch, value, size, width, height }))
}

/// A copy between any two places: those in the device's range are the device's.
fn unified(to: u64, from: u64, bytes: usize, call: Call) -> Answer {
    let ends = {
        let driver = ready()?;
        let inside = |address| driver.arena.holds(address, 1);
        Ends { from_device: inside(from), to_device: inside(to) }
    };
    line(to, from, bytes, ends, call)
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Copy2d {
    src_x: usize,
    src_y: usize,
    src_kind: u32,
    src_host: *const c_void,
    src_device: u64,
    src_array: *const c_void,
    src_pitch: usize,
    dst_x: usize,
    dst_y: usize,
    dst_kind: u32,
    dst_host: *mut c_void,
    dst_device: u64,
    dst_array: *mut c_void,
    dst_pitch: usize,
    width: usize,
    height: usize,
}

fn rows(copy: *const Copy2d, call: Call) -> Answer {
    if copy.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let copy = unsafe { &*copy };
    let end = |kind: u32, host: u64, device: u64| match kind {
        1 => Ok((host, false)),
        2 | 4 => Ok((device, true)),
        _ => {
            report::say("copies from and to arrays are not supported");
            Err(Code::NOT_SUPPORTED)
        }
    };
    let (from, from_device) = end(copy.src_kind, copy.src_host as u64, copy.src_device)?;
    let (to, to_device) = end(copy.dst_kind, copy.dst_host as u64, copy.dst_device)?;
    // A row ends before the next begins.
    let fits = |x: usize, pitch: usize| copy.height <= 1 || x.saturating_add(copy.width) <= pitch;
    if !fits(copy.src_x, copy.src_pitch) || !fits(copy.dst_x, copy.dst_pitch) {
        return Err(Code::INVALID_VALUE);
    }
    let first = |base: u64, x: usize, y: usize, pitch: usize| {
        let offset = y.checked_mul(pitch).and_then(|rows| rows.checked_add(x)).map(|offset| offset as u64);
        offset.and_then(|offset| base.checked_add(offset)).ok_or(Code::INVALID_VALUE)
    };
    call.copy(Rows {
        to: first(to, copy.dst_x, copy.dst_y, copy.dst_pitch)?,
        to_pitch: copy.dst_pitch,
        from: first(from, copy.src_x, copy.src_y, copy.src_pitch)?,
        from_pitch: copy.src_pitch,
        width: copy.width,
        height: copy.height,
        ends: Ends { from_device, to_device },
    })
}

api! {
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        line(to, from as u64, bytes, TO_DEVICE, Call::Synchronous)
    }

    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        line(to as u64, from, bytes, FROM_DEVICE, Call::Synchronous)
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        line(to, from, bytes, WITHIN_DEVICE, Call::Synchronous)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) {
        line(to, from as u64, bytes, TO_DEVICE, Call::On(stream))
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) {
        line(to as u64, from, bytes, FROM_DEVICE, Call::On(stream))
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        line(to, from, bytes, WITHIN_DEVICE, Call::On(stream))
    }

    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        unified(to, from, bytes, Call::Synchronous)
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        unified(to, from, bytes, Call::On(stream))
    }

    fn cuMemcpyPeer(to: u64, _to_context: Handle, from: u64, _from_context: Handle, bytes: usize) {
        line(to, from, bytes, WITHIN_DEVICE, Call::Synchronous)
    }

    fn cuMemcpyPeerAsync(
        to: u64,
        _to_context: Handle,
        from: u64,
        _from_context: Handle,
        bytes: usize,
        stream: Handle,
    ) {
        line(to, from, bytes, WITHIN_DEVICE, Call::On(stream))
    }

    fn cuMemcpy2D_v2(copy: *const Copy2d) {
        rows(copy, Call::Synchronous)
    }

    fn cuMemcpy2DUnaligned_v2(copy: *const Copy2d) {
        rows(copy, Call::Synchronous)
    }

    fn cuMemcpy2DAsync_v2(copy: *const Copy2d, stream: Handle) {
        rows(copy, Call::On(stream))
    }

    fn cuMemsetD8_v2(to: u64, value: c_uchar, count: usize) {
        fill(to, value.into(), 1, count, 0)
    }

    fn cuMemsetD16_v2(to: u64, value: c_ushort, count: usize) {
        fill(to, value.into(), 2, count, 0)
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill(to, value, 4, count, 0)
    }

    fn cuMemsetD8Async(to: u64, value: c_uchar, count: usize, stream: Handle) {
        fill(to, value.into(), 1, count, stream)
    }

    fn cuMemsetD16Async(to: u64, value: c_ushort, count: usize, stream: Handle) {
        fill(to, value.into(), 2, count, stream)
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) {
        fill(to, value, 4, count, stream)
    }

    fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: c_uchar, width: usize, height: usize) {
        fill_rows(to, pitch, value.into(), 1, width, height, 0)
    }

    fn cuMemsetD2D16_v2(to: u64, pitch: usize, value: c_ushort, width: usize, height: usize) {
        fill_rows(to, pitch, value.into(), 2, width, height, 0)
    }

    fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill_rows(to, pitch, value, 4, width, height, 0)
    }

    fn cuMemsetD2D8Async(to: u64, pitch: usize, value: c_uchar, width: usize, height: usize, stream: Handle) {
        fill_rows(to, pitch, value.into(), 1, width, height, stream)
    }

    fn cuMemsetD2D16Async(to: u64, pitch: usize, value: c_ushort, width: usize, height: usize, stream: Handle) {
        fill_rows(to, pitch, value.into(), 2, width, height, stream)
    }

    fn cuMemsetD2D32Async(to: u64, pitch: usize, value: u32, width: usize, height: usize, stream: Handle) {
        fill_rows(to, pitch, value, 4, width, height, stream)
    }
}
