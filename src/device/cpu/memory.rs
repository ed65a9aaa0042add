//! Buffers that return to a pool, so that a training step finds the addresses of the one before it.

use super::clock::Clocks;
use super::pooled::{Pool, Pooled};
use super::scratch::Scratch;
use super::simd::Products;
use super::slab::Slabs;
use super::view::{Number, View, ViewMut, by_width};
use super::{rates, rows, simd};
use crate::device::counting::Habits;
use crate::device::image::HostPixels;
use crate::device::{
    DeviceError, Elements, Measured, Memory, Placement, Precision, Profiler, Rates, Storage, check_lengths,
};
use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;
use std::rc::Rc;

/// Elements a task of an elementwise kernel covers: 64 KiB, large against the cost of a task.
pub(super) const CHUNK: usize = 16 * 1024;

/// This machine's processor. Clones share the pool of buffers, and the times of their kernels.
#[derive(Clone, Debug)]
pub struct Cpu {
    precision: Precision,
    pool: Rc<Pool>,
    pub(super) slabs: Slabs,
    /// Whether buffers are handed out full of NaN.
    poisoned: bool,
    pub(super) clocks: Rc<Clocks>,
}

/// An allocation.
#[derive(Debug)]
pub enum Buffer {
    /// Of `f32`.
    Full(Pooled<f32>),
    /// Of bfloat16.
    Narrow(Pooled<bf16>),
}

impl Cpu {
    /// A device with an empty pool, computing in `f32`.
    pub fn new() -> Self {
        Cpu::storing(Precision::F32)
    }

    /// A device that stores activations and their gradients as this precision does. In bfloat16 the factors of a convolution's products are
    /// rounded likewise, the weights among them, unless Winograd's form of it multiplies sums of them in `f32`. Sums and everything else
    /// are `f32`.
    pub fn storing(precision: Precision) -> Self {
        Cpu::with(precision, false)
    }

    /// A device in the precision that this processor is fastest in, bfloat16 or `f32`.
    pub fn fastest() -> Self {
        Cpu::storing(if Cpu::is_fastest_in_bf16() { Precision::Bf16 } else { Precision::F32 })
    }

    /// Such a device whose buffers, fresh or recycled, are full of NaN, so that an element which no kernel wrote shows.
    pub fn poisoned(&self) -> Self {
        Cpu::with(self.precision, true)
    }

    fn with(precision: Precision, poisoned: bool) -> Self {
        Cpu { precision, pool: Rc::default(), slabs: Slabs::default(), poisoned, clocks: Rc::default() }
    }

    /// Whether this processor has instructions that multiply bfloat16 numbers: AVX-512 BF16, or AMX that the system lets this process use.
    /// Without them [`Precision::Bf16`] saves memory and costs time.
    pub fn multiplies_bf16() -> bool {
        simd::products() != Products::Widened
    }

    /// Whether these instructions are faster than those for `f32`: those of AMX, and AVX-512 BF16's but on Intel's processors.
    pub fn is_fastest_in_bf16() -> bool {
        simd::products().outdo_f32()
    }

    /// Refuses a value of `ONESHEET_PROCESSOR` that is unknown. Kernels use no more of the processor than the variable names:
    /// `portable`, `avx2`, `avx512` or `avx512-bf16`, everything but AMX. So one machine tests the kernels of lesser processors.
    pub fn check_environment() -> Result<(), DeviceError> {
        simd::refusal().map_or(Ok(()), |reason| Err(DeviceError::Unavailable(reason)))
    }

    /// What activations are stored in.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes that buffers had in use at the worst of times.
    pub fn most_bytes(&self) -> usize {
        self.pool.most_in_use()
    }

    /// Bytes of memory that buffers have ever lain in. None is given back while the device is there.
    pub fn held_bytes(&self) -> usize {
        self.pool.held()
    }

    /// Room for `len` numbers, with unspecified content.
    pub(super) fn room(&self, len: usize) -> Result<Pooled<f32>, DeviceError> {
        self.take(len, f32::NAN)
    }

    /// The same in bfloat16.
    pub(super) fn narrow_room(&self, len: usize) -> Result<Pooled<bf16>, DeviceError> {
        self.take(len, bf16::NAN)
    }

    /// `len` numbers from the pool.
    fn take<T: Pod>(&self, len: usize, nan: T) -> Result<Pooled<T>, DeviceError> {
        let bytes = len.saturating_mul(size_of::<T>());
        let mut numbers = self.pool.take(len).ok_or_else(|| DeviceError::OutOfMemory { device: self.name(), bytes })?;
        if self.poisoned {
            numbers.fill(nan);
        }
        Ok(numbers)
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
        let (threads, precision) = (rayon::current_num_threads(), self.precision.name());
        if self.precision == Precision::Bf16 && Cpu::multiplies_bf16() {
            format!("CPU ({threads} threads, {}, {precision})", simd::products())
        } else {
            format!("CPU ({threads} threads, {}, {precision})", simd::level())
        }
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        match (self.precision, storage) {
            (Precision::Bf16, Storage::Activation) => Ok(Buffer::Narrow(self.take(len, bf16::NAN)?)),
            _ => Ok(Buffer::Full(self.room(len)?)),
        }
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View<'_> {
        match buffer {
            Buffer::Full(numbers) => View::Full(&numbers[range]),
            Buffer::Narrow(numbers) => View::Narrow(&numbers[range]),
        }
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> ViewMut<'_> {
        match buffer {
            Buffer::Full(numbers) => ViewMut::Full(&mut numbers[range]),
            Buffer::Narrow(numbers) => ViewMut::Narrow(&mut numbers[range]),
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
        match (to, from) {
            (ViewMut::Full(to), View::Full(from)) => copy_all(to, from),
            (ViewMut::Full(to), View::Narrow(from)) => copy_all(to, from),
            (ViewMut::Narrow(to), View::Full(from)) => copy_all(to, from),
            (ViewMut::Narrow(to), View::Narrow(from)) => copy_all(to, from),
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

    fn habits(&self) -> Habits {
        Habits::Processor(self.precision)
    }

    fn profiler(&self) -> Option<&Profiler> {
        Some(self.clocks.profiler())
    }

    fn measured(&self) -> Result<Vec<Measured>, DeviceError> {
        Ok(self.clocks.take())
    }

    fn rates(&self) -> Result<Rates, DeviceError> {
        Ok(by_width!(self, E => rates::measure::<E>()))
    }
}

fn copy_all<T: Number, F: Number>(to: &mut [T], from: &[F]) {
    let chunks = to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK));
    chunks.for_each(|(to, from)| T::write(to, false, |to| F::widen(to, from)));
}

fn add_all<E: Number>(to: &mut [E], from: &[E]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        E::write(to, true, |to| rows::add(to, E::read(from, &mut Scratch::new(0))));
    });
}
