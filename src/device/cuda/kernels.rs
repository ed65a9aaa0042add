//! The one place that launches kernels, and what it knows of each launch.

use super::arguments::Arguments;
use super::gpu::{Gpu, Progress};
use super::modules::{Compiled, Module};
use super::{Cuda, Precision};
use crate::device::{DeviceError, Work};
use cudarc::driver::result;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: u32,
    /// Bytes of dynamic shared memory a block.
    pub shared: u32,
    /// What the launch must do at least.
    pub work: Work,
}

/// A launch as it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The kernel.
    pub kernel: &'static str,
    /// Its geometry and its work.
    pub launch: Launch,
}

/// The kernels of one precision.
pub(super) struct Kernels {
    modules: HashMap<Module, Arc<Compiled>>,
    /// The launches since somebody asked to know them.
    plan: RefCell<Option<Vec<Planned>>>,
}

impl Kernels {
    /// Those of a GPU, compiled now if they are not yet.
    pub(super) fn new(gpu: &Gpu, precision: Precision, watch: &mut dyn FnMut(Progress)) -> Result<Self, DeviceError> {
        gpu.compile(&[precision], watch)?;
        let loaded = |module| Ok((module, gpu.module(module, precision)?));
        let modules = Module::ALL.into_iter().map(loaded).collect::<Result<_, DeviceError>>()?;
        Ok(Kernels { modules, plan: RefCell::default() })
    }
}

impl Cuda {
    /// Puts a kernel on the compute stream. `arguments` is the one struct that every kernel of ours takes.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for a geometry that no launch can have, [`DeviceError::Driver`] if the driver refuses; a fault
    /// inside the kernel is reported by a later call.
    pub(super) fn launch<A: Arguments>(
        &self,
        module: Module,
        kernel: &'static str,
        launch: Launch,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        let Launch { grid: [x, y, z], block, shared, work } = launch;
        if x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || x > i32::MAX as u32 || block == 0 || block > 1024 {
            return Err(DeviceError::Shape { kernel, reason: format!("no GPU runs {launch:?}, for {arguments:?}") });
        }
        let compiled = &self.inner.kernels.modules[&module];
        let Some(function) = compiled.function(kernel) else {
            return Err(DeviceError::Shape { kernel, reason: format!("{} has no such kernel", compiled.name) });
        };
        if function.argument_bytes != size_of::<A>() {
            let reason =
                format!("it is told {} bytes, not the {} of {arguments:?}", function.argument_bytes, size_of::<A>());
            return Err(DeviceError::Shape { kernel, reason });
        }
        let failed = |error| self.driver_error(format!("{kernel} with {launch:?}, {arguments:?}"), error);
        self.inner.gpu.context.bind_to_thread().map_err(failed)?;
        let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        let (stream, handle) = (self.inner.compute.cu_stream(), function.handle);
        // SAFETY: the struct is the one the kernel declares, and its addresses come from live views of the lengths that the
        // caller has checked against its geometry. The module is loaded for as long as `Kernels` holds it.
        let launched =
            || unsafe { result::launch_kernel(handle, (x, y, z), (block, 1, 1), shared, stream, &mut parameters) };
        self.timed(kernel, work, launched).map_err(failed)?;
        if let Some(plan) = &mut *self.inner.kernels.plan.borrow_mut() {
            plan.push(Planned { kernel, launch });
        }
        Ok(())
    }

    /// Does something, and returns the launches it took beside its result. Replayed launches are none.
    pub fn planned<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Planned>) {
        let before = self.inner.kernels.plan.replace(Some(Vec::new()));
        let done = work();
        let plan = self.inner.kernels.plan.replace(before);
        (done, plan.unwrap_or_default())
    }
}
