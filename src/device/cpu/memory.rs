//! Buffers that return to a pool, so that a training step finds the addresses of the one before it.

use super::clock::Clocks;
use super::scratch::Scratch;
use super::view::{Number, View, ViewMut};
use super::{rates, rows, simd};
use crate::device::image::HostPixels;
use crate::device::{DeviceError, Elements, Measured, Memory, Placement, Precision, Profiler, Rates, Storage, check_lengths};
use half::bf16;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Elements a task of an elementwise kernel covers: 64 KiB, large against the cost of a task.
pub(super) const CHUNK: usize = 16 * 1024;

/// This machine's processor. Clones share one pool of buffers, and the times of their kernels.
#[derive(Clone, Debug)]
pub struct Cpu {
    precision: Precision,
    pool: Rc<Pool>,
    pub(super) clocks: Rc<Clocks>,
}

/// Buffers at rest, by length.
#[derive(Debug, Default)]
struct Pool {
    full: RefCell<HashMap<usize, Vec<Vec<f32>>>>,
    narrow: RefCell<HashMap<usize, Vec<Vec<bf16>>>>,
    /// Whether buffers are handed out full of NaN.
    poisoned: bool,
}

/// The numbers of an allocation.
#[derive(Debug)]
enum Data {
    Full(Vec<f32>),
    Narrow(Vec<bf16>),
}

/// An allocation, which goes back to its device's pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    data: Data,
    pool: Rc<Pool>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match &mut self.data {
            Data::Full(data) => rest(&self.pool.full, std::mem::take(data)),
            Data::Narrow(data) => rest(&self.pool.narrow, std::mem::take(data)),
        }
    }
}

fn rest<T>(idle: &RefCell<HashMap<usize, Vec<Vec<T>>>>, data: Vec<T>) {
    idle.borrow_mut().entry(data.len()).or_default().push(data);
}

impl Cpu {
    /// A device with an empty pool, computing in `f32`.
    pub fn new() -> Self {
        Cpu::with(Precision::F32, false)
    }

    /// A device that stores activations and their gradients in bfloat16. Products, sums and everything else are `f32`.
    pub fn narrow() -> Self {
        Cpu::with(Precision::Bf16, false)
    }

    /// A device whose buffers, fresh or recycled, are full of NaN, so that an element which no kernel wrote shows.
    pub fn poisoned(self) -> Self {
        Cpu::with(self.precision, true)
    }

    fn with(precision: Precision, poisoned: bool) -> Self {
        let pool = Rc::new(Pool { poisoned, ..Pool::default() });
        Cpu { precision, pool, clocks: Rc::default() }
    }

    /// What activations are stored in.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// `len` numbers from the pool, or new ones.
    fn take<T: Copy>(
        &self,
        idle: &RefCell<HashMap<usize, Vec<Vec<T>>>>,
        len: usize,
        [zero, nan]: [T; 2],
    ) -> Result<Vec<T>, DeviceError> {
        let idle = idle.borrow_mut().get_mut(&len).and_then(Vec::pop);
        let mut data = match idle {
            Some(data) => data,
            None => {
                let mut data = Vec::new();
                let bytes = len.saturating_mul(size_of::<T>());
                let full = |_| DeviceError::OutOfMemory { device: self.name(), bytes };
                data.try_reserve_exact(len).map_err(full)?;
                data.resize(len, zero);
                data
            }
        };
        if self.pool.poisoned {
            data.fill(nan);
        }
        Ok(data)
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

impl Memory for Cpu {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = View<'a>;
    type ViewMut<'a> = ViewMut<'a>;
    type Arriving = Vec<f32>;
    type Pixels = HostPixels;
    type Plan = ();

    fn name(&self) -> String {
        let precision = self.precision.name();
        format!("CPU ({} threads, {}, {precision})", rayon::current_num_threads(), simd::level())
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        let data = match (self.precision, storage) {
            (Precision::Bf16, Storage::Activation) => {
                Data::Narrow(self.take(&self.pool.narrow, len, [bf16::ZERO, bf16::NAN])?)
            }
            _ => Data::Full(self.take(&self.pool.full, len, [0.0, f32::NAN])?),
        };
        Ok(Buffer { data, pool: Rc::clone(&self.pool) })
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View<'_> {
        match &buffer.data {
            Data::Full(data) => View::Full(&data[range]),
            Data::Narrow(data) => View::Narrow(&data[range]),
        }
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> ViewMut<'_> {
        match &mut buffer.data {
            Data::Full(data) => ViewMut::Full(&mut data[range]),
            Data::Narrow(data) => ViewMut::Narrow(&mut data[range]),
        }
    }

    fn split_mut<'a>(view: ViewMut<'a>, at: usize) -> (ViewMut<'a>, ViewMut<'a>)
    where
        Self: 'a,
    {
        match view {
            ViewMut::Full(numbers) => {
                let (first, second) = numbers.split_at_mut(at);
                (ViewMut::Full(first), ViewMut::Full(second))
            }
            ViewMut::Narrow(numbers) => {
                let (first, second) = numbers.split_at_mut(at);
                (ViewMut::Narrow(first), ViewMut::Narrow(second))
            }
        }
    }

    fn upload(&self, to: ViewMut<'_>, from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("upload", &[("from", from.len(), to.count())])?;
        match to {
            ViewMut::Full(to) => to.copy_from_slice(from),
            ViewMut::Narrow(to) => bf16::write(to, false, |to| to.copy_from_slice(from)),
        }
        Ok(())
    }

    fn download(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        Ok(match from {
            View::Full(from) => from.to_vec(),
            View::Narrow(from) => from.iter().map(|x| x.to_f32()).collect(),
        })
    }

    fn fetch(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
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

    fn fill(&self, to: ViewMut<'_>, value: f32) -> Result<(), DeviceError> {
        let _clock = self.clock("fill", 0, 0, to.bytes());
        match to {
            ViewMut::Full(to) => to.par_chunks_mut(CHUNK).for_each(|to| to.fill(value)),
            ViewMut::Narrow(to) => to.par_chunks_mut(CHUNK).for_each(|to| to.fill(bf16::from_f32(value))),
        }
        Ok(())
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        check_lengths("copy", &[("from", from.count(), to.count())])?;
        let _clock = self.clock("copy", 0, from.bytes(), to.bytes());
        match to {
            ViewMut::Full(to) => copy_all(to, from.of("copy")?),
            ViewMut::Narrow(to) => copy_all(to, from.of("copy")?),
        }
        Ok(())
    }

    fn add(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        check_lengths("add", &[("from", from.count(), to.count())])?;
        let _clock = self.clock("add", 0, from.bytes() + to.bytes(), to.bytes());
        match to {
            ViewMut::Full(to) => add_all(to, from.of("add")?),
            ViewMut::Narrow(to) => add_all(to, from.of("add")?),
        }
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

fn copy_all<E: Number>(to: &mut [E], from: &[E]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
}

fn add_all<E: Number>(to: &mut [E], from: &[E]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        E::write(to, true, |to| rows::add(to, E::read(from, &mut Scratch::new(0))));
    });
}
