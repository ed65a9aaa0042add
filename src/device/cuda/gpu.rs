//! A GPU as a process sees it: one context, and the kernels that were compiled for it, for every [`Cuda`](super::Cuda) there.

use super::driver;
use super::modules::{Compiled, Module};
use super::{Precision, words};
use crate::device::DeviceError;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError};
use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The oldest compute capability that the kernels are written for: Ampere's.
const OLDEST: (i32, i32) = (8, 0);

/// One NVIDIA GPU, or the simulated one.
pub struct Gpu {
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
    devices: usize,
    driver: i32,
    pub(super) context: Arc<CudaContext>,
    compiled: Mutex<HashMap<&'static str, Arc<Compiled>>>,
}

/// How far the compiler has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Files compiled.
    pub done: usize,
    /// Files there are to compile.
    pub files: usize,
    /// The one that was just finished, and how long it took; none at the start.
    pub last: Option<(&'static str, Duration)>,
}

impl Gpu {
    /// The first CUDA device.
    ///
    /// # Errors
    /// As for [`at`](Self::at).
    pub fn open() -> Result<Self, DeviceError> {
        Gpu::at(0)
    }

    /// A CUDA device by its place among them, from 0.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if there is no driver or no such device, or an older one of either than the kernels need.
    pub fn at(ordinal: usize) -> Result<Self, DeviceError> {
        let driver = driver::check()?;
        let failed = driver::no_device;
        // Asked first, since CUDA's word for it is an error like any other.
        let devices = CudaContext::device_count().map_err(failed)?;
        if devices < 1 {
            return Err(DeviceError::Unavailable("the NVIDIA driver has no device for us: it lists none".into()));
        }
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: buffers come from our own pool, and the two streams of a device are ordered by events of our own.
        unsafe { context.disable_event_tracking() };
        let capability = context.compute_capability().map_err(failed)?;
        let name = context.name().map_err(failed)?;
        if capability < OLDEST {
            let ((major, minor), (oldest, point)) = (capability, OLDEST);
            return Err(DeviceError::Unavailable(format!(
                "{name} has compute capability {major}.{minor}; the kernels need {oldest}.{point} (Ampere) or newer"
            )));
        }
        let count = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(failed)?;
        let compiled = Mutex::default();
        let devices = devices as usize;
        Ok(Gpu { name, capability, multiprocessors: count as u32, devices, driver, context, compiled })
    }

    /// Its name and architecture.
    pub fn name(&self) -> String {
        let (major, minor) = self.capability;
        format!("{} (sm_{major}{minor})", self.name)
    }

    /// The name alone, and the architecture with something beside it.
    pub(super) fn name_with(&self, beside: &str) -> String {
        let (major, minor) = self.capability;
        format!("{} (sm_{major}{minor}, {beside})", self.name)
    }

    /// Its compute capability.
    pub(super) fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Streaming multiprocessors: blocks of a launch are best a multiple of what these hold.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// CUDA devices in the machine, this one included.
    pub fn devices(&self) -> usize {
        self.devices
    }

    /// Bytes of its memory.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory(&self) -> Result<usize, DeviceError> {
        self.context.total_mem().map_err(|error| self.failed("asking for its memory", error))
    }

    /// Bytes of its memory that nobody has taken yet.
    ///
    /// # Errors
    /// The driver's.
    pub fn free_memory(&self) -> Result<usize, DeviceError> {
        let free = self.context.mem_get_info().map(|(free, _)| free);
        free.map_err(|error| self.failed("asking for its free memory", error))
    }

    /// The CUDA version that its driver is for.
    pub fn driver(&self) -> String {
        driver::dotted(self.driver)
    }

    fn failed(&self, call: &str, error: DriverError) -> DeviceError {
        DeviceError::Driver { device: self.name(), call: call.into(), reason: words(error) }
    }

    /// Compiles the kernels of some precisions, but for what is there already. Each file has a thread of its own, and `watch` is
    /// told as they come in.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] with the words of the driver's compiler.
    pub fn compile(&self, precisions: &[Precision], watch: &mut dyn FnMut(Progress)) -> Result<(), DeviceError> {
        let mut sources: HashMap<&str, _> = HashMap::new();
        for &precision in precisions {
            for source in Module::ALL.map(|module| module.source(precision)) {
                sources.insert(source.name, source);
            }
        }
        let mut there = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|name, _| !there.contains_key(name));
        let files = sources.len();
        if files == 0 {
            return Ok(());
        }
        watch(Progress { done: 0, files, last: None });
        let (finished, arriving) = mpsc::channel();
        std::thread::scope(|scope| {
            for source in sources.into_values() {
                let finished = finished.clone();
                // Nobody listens any more once a file has failed.
                scope.spawn(move || drop(finished.send(Compiled::new(&self.context, source))));
            }
            drop(finished);
            for (index, compiled) in arriving.iter().enumerate() {
                let compiled = compiled?;
                watch(Progress { done: index + 1, files, last: Some((compiled.name, compiled.took)) });
                there.insert(compiled.name, Arc::new(compiled));
            }
            Ok(())
        })
    }

    /// A family's kernels in a precision.
    ///
    /// # Errors
    /// As for [`compile`](Self::compile).
    pub fn module(&self, module: Module, precision: Precision) -> Result<Arc<Compiled>, DeviceError> {
        let source = module.source(precision);
        let mut there = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = there.get(source.name) {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(Compiled::new(&self.context, source)?);
        there.insert(source.name, Arc::clone(&compiled));
        Ok(compiled)
    }
}
