//! Device memory: buffers from a pool, views that know what they hold, and the moves between host and device.

mod blocks;

pub(super) use blocks::clear;
pub use blocks::{Block, Idle, Pool};

use super::arguments::arguments;
use super::kernels::Launch;
use super::modules::Module;
use super::pixels::Pixels;
use super::slots::{Arriving, SLOT};
use super::{Cuda, Precision, replay};
use crate::device::counting::Habits;
use crate::device::{
    DeviceError, Elements, Measured, Memory, Placement, Profiler, Rates, Storage, Work, check_lengths,
};
use blocks::Loan;
use cudarc::driver::result;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

/// What a buffer's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Four bytes.
    F32,
    /// The upper two of them.
    Bf16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }

    /// Numbers from their bytes.
    pub(super) fn numbers(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Element::F32 => bytemuck::pod_collect_to_vec(bytes),
            Element::Bf16 => {
                bytemuck::pod_collect_to_vec::<u8, half::bf16>(bytes).into_iter().map(half::bf16::to_f32).collect()
            }
        }
    }
}

/// A buffer, which goes back to the pool when dropped. Kernels that still use it are ahead in the stream of whoever gets it next.
pub struct Buffer {
    wide: Loan,
    /// The bf16 copy of weights.
    narrow: Option<Loan>,
    len: usize,
    element: Element,
}

impl Buffer {
    /// So many bytes.
    pub(super) fn scratch(pool: &Rc<Pool>, bytes: usize) -> Result<Self, DeviceError> {
        let wide = Loan::new(pool, bytes)?;
        Ok(Buffer { wide, narrow: None, len: bytes.div_ceil(4), element: Element::F32 })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> u64 {
        self.wide.address()
    }

    fn locate(&self, range: Range<usize>) -> Location {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of a buffer of {}", self.len);
        Location {
            address: self.wide.address() + (range.start * self.element.bytes()) as u64,
            narrow: self.narrow.as_ref().map(|narrow| narrow.address() + 2 * range.start as u64),
            len: range.len(),
            element: self.element,
        }
    }
}

/// Where a view's elements are.
#[derive(Clone, Copy, Debug)]
struct Location {
    address: u64,
    narrow: Option<u64>,
    len: usize,
    element: Element,
}

/// A shared view of part of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    at: Location,
    buffer: PhantomData<&'a Buffer>,
}

/// An exclusive view of part of a buffer.
#[derive(Debug)]
pub struct ViewMut<'a> {
    at: Location,
    buffer: PhantomData<&'a mut Buffer>,
}

macro_rules! access {
    ($view:ident) => {
        impl $view<'_> {
            /// The first element's address.
            pub(super) fn address(&self) -> u64 {
                self.at.address
            }

            /// Elements.
            pub(super) fn len(&self) -> usize {
                self.at.len
            }

            /// What the elements are.
            pub(super) fn element(&self) -> Element {
                self.at.element
            }

            /// The address of the bf16 copy, if these are weights in mixed precision.
            pub(super) fn narrow(&self) -> Option<u64> {
                self.at.narrow
            }

            /// Bytes of all elements.
            pub(super) fn bytes(&self) -> usize {
                self.at.len * self.at.element.bytes()
            }
        }

        impl Elements for $view<'_> {
            fn count(&self) -> usize {
                self.at.len
            }
        }
    };
}
access!(View);
access!(ViewMut);

arguments! {
    /// Arguments of the element-wise kernels in `kernels/memory/memory.cu`.
    struct Elementwise {
        to: u64,
        from: u64,
        len: u64,
        value: f32,
    }
}

impl Cuda {
    /// A kernel over `len` elements, in blocks of 256 threads with up to 16 elements each.
    fn elementwise(&self, kernel: &'static str, elements: Elementwise) -> Result<(), DeviceError> {
        if elements.len == 0 {
            return Ok(());
        }
        let blocks = elements.len.div_ceil(256 * 16).min(8 * u64::from(self.multiprocessors())) as u32;
        // Bytes an element read and written.
        let (reads, writes) = match kernel {
            "fill_f32" => (0, 4),
            "fill_bf16" => (0, 2),
            "add_f32" => (8, 4),
            "add_bf16" => (4, 2),
            "narrow" => (4, 2),
            _ => (2, 4),
        };
        let work = Work { reads: reads * elements.len, writes: writes * elements.len, flops: 0 };
        self.launch(Module::Memory, kernel, Launch { grid: [blocks, 1, 1], block: 256, shared: 0, work }, &elements)
    }

    /// Brings the bf16 copy of weights up to date with what was written to `to`.
    fn renew_narrow(&self, to: &ViewMut<'_>) -> Result<(), DeviceError> {
        let Some(narrow) = to.narrow() else { return Ok(()) };
        self.elementwise("narrow", Elementwise { to: narrow, from: to.address(), len: to.len() as u64, value: 0.0 })
    }

    fn copy_to_device(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let failed = |error| self.driver_error(format!("copying {} bytes to the device", bytes.len()), error);
        self.inner.gpu.context.bind_to_thread().map_err(failed)?;
        if bytes.len() <= SLOT {
            return self.inner.slots.send(self, to, bytes).map_err(failed);
        }
        let stream = &self.inner.compute;
        // SAFETY: the view's memory is live, and `bytes` outlives the copy, which is waited for: CUDA leaves open whether
        // pageable memory has been read when the call returns.
        unsafe { result::memcpy_htod_async(to, bytes, stream.cu_stream()) }.map_err(failed)?;
        stream.synchronize().map_err(failed)
    }
}

impl Memory for Cuda {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = View<'a>;
    type ViewMut<'a> = ViewMut<'a>;
    type Arriving = Arriving;
    type Pixels = Pixels;
    type Plan = replay::Plan;

    fn name(&self) -> String {
        self.inner.name.clone()
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        let mixed = self.inner.precision == Precision::Bf16;
        let element = if mixed && storage == Storage::Activation { Element::Bf16 } else { Element::F32 };
        let wide = Loan::new(&self.inner.pool, len * element.bytes())?;
        let narrow = match mixed && storage == Storage::Weights {
            true => Some(Loan::new(&self.inner.pool, len * Element::Bf16.bytes())?),
            false => None,
        };
        Ok(Buffer { wide, narrow, len, element })
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View<'_> {
        View { at: buffer.locate(range), buffer: PhantomData }
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> ViewMut<'_> {
        ViewMut { at: buffer.locate(range), buffer: PhantomData }
    }

    fn split_mut<'a>(view: ViewMut<'a>, at: usize) -> (ViewMut<'a>, ViewMut<'a>)
    where
        Self: 'a,
    {
        let whole = view.at;
        assert!(at <= whole.len, "split at {at} of {}", whole.len);
        let first = Location { len: at, ..whole };
        let second = Location {
            address: whole.address + (at * whole.element.bytes()) as u64,
            narrow: whole.narrow.map(|narrow| narrow + 2 * at as u64),
            len: whole.len - at,
            element: whole.element,
        };
        (ViewMut { at: first, buffer: PhantomData }, ViewMut { at: second, buffer: PhantomData })
    }

    fn upload(&self, to: ViewMut<'_>, from: &[f32]) -> Result<(), DeviceError> {
        check_lengths("upload", &[("from", from.len(), to.len())])?;
        match to.element() {
            Element::F32 => self.copy_to_device(to.address(), bytemuck::cast_slice(from))?,
            Element::Bf16 => {
                let narrow: Vec<half::bf16> = from.iter().map(|&value| half::bf16::from_f32(value)).collect();
                self.copy_to_device(to.address(), bytemuck::cast_slice(&narrow))?;
            }
        }
        self.renew_narrow(&to)
    }

    fn download(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        let stream = &self.inner.compute;
        let mut bytes = vec![0u8; from.bytes()];
        let failed = |error| self.driver_error("waiting for the kernels launched so far", error);
        self.inner.gpu.context.bind_to_thread().map_err(failed)?;
        if !bytes.is_empty() {
            // SAFETY: the view's memory is live, and `bytes` outlives the copy, which is waited for.
            unsafe { result::memcpy_dtoh_async(&mut bytes, from.address(), stream.cu_stream()) }.map_err(failed)?;
        }
        stream.synchronize().map_err(failed)?;
        Ok(from.element().numbers(&bytes))
    }

    fn fetch(&self, from: View<'_>) -> Result<Arriving, DeviceError> {
        Arriving::new(self, &from)
    }

    fn is_here(&self, arriving: &Arriving) -> bool {
        arriving.is_here()
    }

    fn receive(&self, arriving: Arriving) -> Result<Vec<f32>, DeviceError> {
        arriving.wait(self)
    }

    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<Pixels, DeviceError> {
        Pixels::upload(self, pixels, placements)
    }

    fn copy_pixels(&self, to: &mut Pixels, from: Pixels) -> Result<(), DeviceError> {
        to.copy_from(self, from)
    }

    fn repeat<E: From<DeviceError>>(
        &self,
        plan: &mut replay::Plan,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        plan.run(self, work)
    }

    fn fill(&self, to: ViewMut<'_>, value: f32) -> Result<(), DeviceError> {
        let failed = |error| self.driver_error(format!("filling {} elements", to.len()), error);
        if value.to_bits() == 0 {
            self.inner.gpu.context.bind_to_thread().map_err(failed)?;
            let stream = self.inner.compute.cu_stream();
            for (address, bytes) in [(Some(to.address()), to.bytes()), (to.narrow(), 2 * to.len())] {
                if let (Some(address), 1..) = (address, bytes) {
                    let work = Work { writes: bytes as u64, ..Work::default() };
                    // SAFETY: the view is exclusive and its memory live.
                    self.timed("memset", work, || unsafe { result::memset_d8_async(address, 0, bytes, stream) })
                        .map_err(failed)?;
                }
            }
            return Ok(());
        }
        let kernel = match to.element() {
            Element::F32 => "fill_f32",
            Element::Bf16 => "fill_bf16",
        };
        self.elementwise(kernel, Elementwise { to: to.address(), from: 0, len: to.len() as u64, value })?;
        self.renew_narrow(&to)
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        check_lengths("copy", &[("from", from.len(), to.len())])?;
        let elements = Elementwise { to: to.address(), from: from.address(), len: to.len() as u64, value: 0.0 };
        match (to.element(), from.element()) {
            (Element::Bf16, Element::F32) => self.elementwise("narrow", elements)?,
            (Element::F32, Element::Bf16) => self.elementwise("widen", elements)?,
            _ if to.len() == 0 => {}
            _ => {
                let failed = |error| self.driver_error(format!("copying {} elements", to.len()), error);
                self.inner.gpu.context.bind_to_thread().map_err(failed)?;
                let stream = self.inner.compute.cu_stream();
                let (bytes, [to, from]) = (to.bytes(), [to.address(), from.address()]);
                let work = Work { reads: bytes as u64, writes: bytes as u64, flops: 0 };
                // SAFETY: both views are live, of one length, and the target is exclusive.
                self.timed("memcpy", work, || unsafe { result::memcpy_dtod_async(to, from, bytes, stream) })
                    .map_err(failed)?;
            }
        }
        self.renew_narrow(&to)
    }

    fn add(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        check_lengths("add", &[("from", from.len(), to.len())])?;
        let kernel = match (to.element(), from.element()) {
            (Element::F32, Element::F32) => "add_f32",
            (Element::Bf16, Element::Bf16) => "add_bf16",
            (to, from) => {
                let reason = format!("adds {from:?} to {to:?}; both must be stored alike");
                return Err(DeviceError::Shape { kernel: "add", reason });
            }
        };
        self.elementwise(
            kernel,
            Elementwise { to: to.address(), from: from.address(), len: to.len() as u64, value: 0.0 },
        )?;
        self.renew_narrow(&to)
    }

    fn habits(&self) -> Habits {
        Habits::Gpu(self.target())
    }

    fn profiler(&self) -> Option<&Profiler> {
        Some(self.inner.clocks.profiler())
    }

    fn measured(&self) -> Result<Vec<Measured>, DeviceError> {
        self.read_clocks()
    }

    fn rates(&self) -> Result<Rates, DeviceError> {
        self.best_rates()
    }
}
