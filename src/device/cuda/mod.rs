//! NVIDIA GPUs: launches of the hand-written kernels in `kernels/`, through the driver API.
//!
//! The kernels' PTX is part of the binary, so a machine needs the NVIDIA driver and nothing else; or no GPU at all, when the
//! driver is the simulated one ([`simulated`]). Nothing else in this folder knows the difference.
//!
//! - [`memory`]: the buffer pool, whose addresses repeat from step to step; views; copies; what a view's elements are.
//! - [`pixels`]: the next batch, on its way while a step runs.
//! - [`kernels`]: the PTX of each layer family, its functions, and the one place that launches them.
//! - `clock` and `rates`: how long launches take, and how long they must.
//! - [`replay`]: a training step captured once as a CUDA graph, and replayed.
//! - `rows`: the grid of the passes over activations, a row a pixel.
//! - one file a layer family, as in every device: geometry and arguments of its launches.
//!
//! Kernels run in order on one stream. A second stream carries the next batch's pixels to the device meanwhile.

mod adam;
mod batch_norm;
mod clock;
mod conv;
mod dense;
mod image;
pub mod kernels;
mod loss;
pub mod memory;
pub mod pixels;
mod pool;
mod rates;
pub mod replay;
mod rows;
pub mod simulated;

use super::DeviceError;
use clock::Clocks;
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError};
use kernels::Kernels;
use memory::{Block, Pool};
use pixels::Lanes;
use std::rc::Rc;
use std::sync::Arc;

/// What convolutions multiply and activations are stored in. Sums, statistics, parameters and losses are `f32` in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `f32` throughout, on CUDA cores.
    F32,
    /// `f32` storage; tensor cores multiply with 10 bits of mantissa.
    Tf32,
    /// Activations, their gradients and a copy of the weights in bfloat16, on tensor cores.
    Bf16,
}

/// Counters that kernels draw tickets from, to find out which of their blocks is the last. A launch uses the first few of
/// them and leaves them zero.
pub const TICKETS: usize = 4096;

/// One NVIDIA GPU, or the simulated one. Clones share its memory.
#[derive(Clone)]
pub struct Cuda {
    inner: Rc<Inner>,
}

struct Inner {
    name: String,
    precision: Precision,
    multiprocessors: u32,
    context: Arc<CudaContext>,
    /// Where kernels run.
    compute: Arc<CudaStream>,
    /// Where pixels travel.
    copies: Arc<CudaStream>,
    kernels: Kernels,
    pool: Rc<Pool>,
    tickets: Block,
    lanes: Rc<Lanes>,
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
    /// [`DeviceError::Unavailable`] if there is no driver, no device, an older one of either than the kernels need, or no room
    /// on it.
    pub fn new(precision: Precision) -> Result<Self, DeviceError> {
        let unavailable = |reason: String| DeviceError::Unavailable(reason);
        // SAFETY: asks only whether the library can be opened.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(unavailable("no NVIDIA driver here (libcuda.so was not found)".into()));
        }
        let failed = |error| unavailable(format!("the NVIDIA driver has no device for us: {}", words(error)));
        let context = CudaContext::new(0).map_err(failed)?;
        // SAFETY: buffers come from our own pool, and the two streams are ordered by events of our own.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let gpu = context.name().map_err(failed)?;
        if major < 8 {
            let reason =
                format!("{gpu} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or newer");
            return Err(unavailable(reason));
        }
        let precision_name = match precision {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        };
        let name = format!("{gpu} (sm_{major}{minor}, {precision_name})");
        let attribute = |attribute| context.attribute(attribute).map_err(failed);
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        let (compute, copies) = (context.new_stream().map_err(failed)?, context.new_stream().map_err(failed)?);
        let kernels = Kernels::new(&context, precision);
        let full = || unavailable(format!("{name} has no memory left for us"));
        kernels.try_out().map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => full(),
            _ => unavailable(format!(
                "the NVIDIA driver does not take our kernels, which need version 520 or newer: {}",
                words(error)
            )),
        })?;
        let pool = Rc::new(Pool::new(&name, &context));
        let tickets = pool.block(TICKETS * size_of::<u32>()).map_err(|error| match error {
            DeviceError::OutOfMemory { .. } => full(),
            error => unavailable(error.to_string()),
        })?;
        memory::clear(&compute, &tickets).map_err(failed)?;
        let lanes = Rc::default();
        let clocks = Clocks::default();
        let inner =
            Inner { name, precision, multiprocessors, context, compute, copies, kernels, pool, tickets, lanes, clocks };
        Ok(Cuda { inner: Rc::new(inner) })
    }

    /// The precision it was opened with.
    pub fn precision(&self) -> Precision {
        self.inner.precision
    }

    /// Streaming multiprocessors: blocks of a launch are best a multiple of what these hold.
    fn multiprocessors(&self) -> u32 {
        self.inner.multiprocessors
    }

    /// The address of [`TICKETS`] counters, all zero between launches.
    fn tickets(&self) -> u64 {
        self.inner.tickets.address()
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
