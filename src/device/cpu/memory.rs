//! Buffers that return to a pool, so that a training step finds the addresses of the one before it.

use super::clock::Clocks;
use super::{rates, rows, simd};
use crate::device::image::HostPixels;
use crate::device::{DeviceError, Measured, Memory, Placement, Profiler, Rates, Storage, check_lengths};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Elements a task of an elementwise kernel covers: 64 KiB, large against the cost of a task.
pub(super) const CHUNK: usize = 16 * 1024;

/// This machine's processor. Clones share one pool of buffers, and the times of their kernels.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    pool: Rc<Pool>,
    pub(super) clocks: Rc<Clocks>,
}

/// Buffers at rest, by length.
#[derive(Debug, Default)]
struct Pool {
    idle: RefCell<HashMap<usize, Vec<Vec<f32>>>>,
    /// Whether buffers are handed out full of NaN.
    poisoned: bool,
}

/// An allocation, which goes back to its device's pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<f32>,
    pool: Rc<Pool>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        self.pool.idle.borrow_mut().entry(data.len()).or_default().push(data);
    }
}

impl Buffer {
    /// All elements.
    pub(super) fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All elements, exclusively.
    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

impl Cpu {
    /// A device with an empty pool.
    pub fn new() -> Self {
        Cpu::default()
    }

    /// A device whose buffers, fresh or recycled, are full of NaN, so that an element which no kernel wrote shows.
    pub fn poisoned() -> Self {
        Cpu { pool: Rc::new(Pool { poisoned: true, ..Pool::default() }), ..Cpu::default() }
    }
}

impl Memory for Cpu {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = &'a [f32];
    type ViewMut<'a> = &'a mut [f32];
    type Arriving = Vec<f32>;
    type Pixels = HostPixels;
    type Plan = ();

    fn name(&self) -> String {
        format!("CPU ({} threads, {}, f32)", rayon::current_num_threads(), simd::level())
    }

    fn allocate(&self, len: usize, _: Storage) -> Result<Buffer, DeviceError> {
        let idle = self.pool.idle.borrow_mut().get_mut(&len).and_then(Vec::pop);
        let mut data = match idle {
            Some(data) => data,
            None => {
                let mut data = Vec::new();
                data.try_reserve_exact(len).map_err(|_| DeviceError::OutOfMemory {
                    device: self.name(),
                    bytes: len.saturating_mul(size_of::<f32>()),
                })?;
                data.resize(len, 0.0);
                data
            }
        };
        if self.pool.poisoned {
            data.fill(f32::NAN);
        }
        Ok(Buffer { data, pool: Rc::clone(&self.pool) })
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> &[f32] {
        &buffer.data[range]
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> &mut [f32] {
        &mut buffer.data[range]
    }

    fn split_mut<'a>(view: &'a mut [f32], at: usize) -> (&'a mut [f32], &'a mut [f32])
    where
        Self: 'a,
    {
        view.split_at_mut(at)
    }

    fn upload(&self, to: &mut [f32], from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("upload", &[("from", from.len(), to.len())])?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn download(&self, from: &[f32]) -> Result<Vec<f32>, DeviceError> {
        Ok(from.to_vec())
    }

    fn fetch(&self, from: &[f32]) -> Result<Vec<f32>, DeviceError> {
        self.download(from)
    }

    fn is_here(&self, _: &Vec<f32>) -> bool {
        true
    }

    fn receive(&self, arriving: Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        Ok(arriving)
    }

    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<HostPixels, DeviceError> {
        Ok(HostPixels { pixels: pixels.to_vec(), placements: placements.to_vec() })
    }

    fn copy_pixels(&self, to: &mut HostPixels, from: HostPixels) -> Result<(), DeviceError> {
        *to = from;
        Ok(())
    }

    fn repeat<E: From<DeviceError>>(&self, (): &mut (), work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        work()
    }

    fn fill(&self, to: &mut [f32], value: f32) -> Result<(), DeviceError> {
        let _clock = self.clock("fill", 0, 0, to.len());
        to.par_chunks_mut(CHUNK).for_each(|to| to.fill(value));
        Ok(())
    }

    fn copy(&self, to: &mut [f32], from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("copy", &[("from", from.len(), to.len())])?;
        let _clock = self.clock("copy", 0, from.len(), to.len());
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    }

    fn add(&self, to: &mut [f32], from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("add", &[("from", from.len(), to.len())])?;
        let _clock = self.clock("add", 0, 2 * to.len(), to.len());
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| rows::add(to, from));
        Ok(())
    }

    fn profiler(&self) -> Option<&Profiler> {
        Some(self.clocks.profiler())
    }

    fn measured(&self) -> Result<Vec<Measured>, DeviceError> {
        Ok(self.clocks.take())
    }

    fn rates(&self) -> Result<Rates, DeviceError> {
        Ok(rates::measure())
    }
}
