//! NVIDIA GPUs: launches of the hand-written kernels in `kernels/`, through the driver API.
//!
//! The kernels' PTX is part of the binary, so a machine needs the NVIDIA driver and nothing else; or no GPU at all, when the
//! driver is the simulated one ([`simulated`]). Nothing else in this folder knows the difference.
//!
//! - [`memory`]: the buffer pool, whose addresses repeat from step to step; views; copies; what a view's elements are.
//! - [`pixels`]: the next batch, on its way while a step runs.
//! - [`gpu`]: the GPU as a process sees it, one context for all devices on it; [`driver`]: whether the library can be called.
//! - [`modules`]: the PTX of each layer family, what the driver's compiler makes of it, and what that takes.
//! - [`choose`]: which kernel a launch gets, and why.
//! - `arguments`: what kernels are told, and that they understand it so.
//! - [`kernels`]: the one place that launches.
//! - `clock` and `rates`: how long launches take, and how long they must.
//! - [`slots`]: small transfers that the host does not wait for.
//! - [`replay`]: a training step captured once as a CUDA graph, and replayed.
//! - [`scratch`]: tickets and workspaces, and what they assume of the order of launches.
//! - `rows`: the grid of the passes over activations, one row per pixel.
//! - one file a layer family, as in every device: geometry and arguments of its launches.
//!
//! Kernels run in order on one stream. A second stream carries the next batch's pixels to the device meanwhile.

mod activation;
mod adam;
mod arguments;
mod batch_norm;
pub mod choose;
mod clock;
mod conv;
mod dense;
mod depthwise;
pub mod driver;
mod folded;
pub mod gpu;
mod image;
pub mod kernels;
mod loss;
pub mod memory;
pub mod modules;
pub mod pixels;
mod pool;
mod rates;
pub mod replay;
mod rows;
pub mod scratch;
pub mod simulated;
pub mod slots;

use super::DeviceError;
pub use super::Precision;
use choose::Target;
use clock::Clocks;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaStream, DriverError};
use gpu::{Gpu, Progress};
use kernels::Kernels;
use memory::{Element, Pool};
use pixels::Lanes;
use scratch::Tickets;
use slots::Slots;
use std::rc::Rc;
use std::sync::Arc;

/// One NVIDIA GPU, or the simulated one. Clones share its memory.
#[derive(Clone)]
pub struct Cuda {
    inner: Rc<Inner>,
}

struct Inner {
    name: String,
    precision: Precision,
    gpu: Arc<Gpu>,
    /// Where kernels run.
    compute: Arc<CudaStream>,
    /// Where pixels travel.
    copies: Arc<CudaStream>,
    kernels: Kernels,
    pool: Rc<Pool>,
    tickets: Tickets,
    lanes: Rc<Lanes>,
    slots: Rc<Slots>,
    clocks: Clocks,
}

impl Drop for Inner {
    /// Waits: what is under way uses modules, device memory and page-locked memory that go now.
    fn drop(&mut self) {
        for stream in [&self.compute, &self.copies] {
            // An error can only be an earlier fault's, after which nothing is under way.
            let _ = stream.synchronize();
        }
    }
}

impl Cuda {
    /// The first CUDA device.
    ///
    /// # Errors
    /// As for [`Gpu::open`] and [`on`](Self::on).
    pub fn new(precision: Precision) -> Result<Self, DeviceError> {
        Cuda::on(&Arc::new(Gpu::open()?), precision, &mut |_| {})
    }

    /// A device on a GPU, with streams and memory of its own; it may not leave its thread. Its kernels are compiled now if they
    /// are not yet, which takes seconds where the driver's cache has no result: `watch` is told how far that has come.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the driver does not take the kernels, or the GPU has no room.
    pub fn on(gpu: &Arc<Gpu>, precision: Precision, watch: &mut dyn FnMut(Progress)) -> Result<Self, DeviceError> {
        let kernels = Kernels::new(gpu, precision, watch)?;
        let name = gpu.name_with(precision.name());
        let stream = || gpu.context.new_stream().map_err(driver::no_device);
        let (compute, copies) = (stream()?, stream()?);
        let pool = Rc::new(Pool::new(&name, &gpu.context));
        let tickets = Tickets::new(&pool).map_err(|error| {
            DeviceError::Unavailable(match error {
                DeviceError::OutOfMemory { .. } => format!("{name} has no memory left for us"),
                error => error.to_string(),
            })
        })?;
        tickets.clear(&compute).map_err(driver::no_device)?;
        let (gpu, lanes, slots, clocks) = (Arc::clone(gpu), Rc::default(), Rc::default(), Clocks::default());
        let inner = Inner { name, precision, gpu, compute, copies, kernels, pool, tickets, lanes, slots, clocks };
        Ok(Cuda { inner: Rc::new(inner) })
    }

    /// The GPU it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.inner.gpu
    }

    /// The precision it was opened with.
    pub fn precision(&self) -> Precision {
        self.inner.precision
    }

    /// Bytes of the GPU's memory that nobody has taken yet.
    ///
    /// # Errors
    /// The driver's.
    pub fn free_memory(&self) -> Result<usize, DeviceError> {
        self.inner.gpu.free_memory()
    }

    /// Streaming multiprocessors: blocks of a launch are best a multiple of what these hold.
    fn multiprocessors(&self) -> u32 {
        self.inner.gpu.multiprocessors()
    }

    /// What the choice of a kernel depends on.
    pub fn target(&self) -> Target {
        Target {
            capability: self.inner.gpu.capability(),
            multiprocessors: self.multiprocessors() as usize,
            precision: self.precision(),
        }
    }

    /// What activations are stored in.
    fn activation_element(&self) -> Element {
        if self.precision() == Precision::Bf16 { Element::Bf16 } else { Element::F32 }
    }

    /// An error of the driver's, with what was asked of it.
    fn driver_error(&self, call: impl Into<String>, error: DriverError) -> DeviceError {
        let mut reason = words(error);
        match error.0 {
            // The driver takes memory for modules, graphs and page-locked buffers, too.
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => reason += "; try a smaller --batch or --image-size",
            // Launches return before they run, and whoever calls next is told.
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_LAUNCH_FAILED => reason += "; a kernel launched earlier did this",
            _ => {}
        }
        DeviceError::Driver { device: self.inner.name.clone(), call: call.into(), reason }
    }
}

/// An error in the driver's words, with its name.
fn words(error: DriverError) -> String {
    let DriverError(code) = error;
    match error.error_string() {
        Ok(text) => format!("{} ({code:?})", text.to_string_lossy().trim_end_matches('.')),
        Err(_) => format!("{code:?}"),
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.inner.name)
    }
}
