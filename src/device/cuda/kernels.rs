//! The kernels' PTX, a module a layer family, and the one place that launches them.

use super::{Cuda, Precision};
use crate::device::{DeviceError, Work};
use cudarc::driver::sys::CUfunction_attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DeviceRepr, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

/// A layer family's kernels: a file in `kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Module {
    /// `adam.cu`
    Adam,
    /// `batch_norm.cu`
    BatchNorm,
    /// `conv.cu`
    Conv,
    /// `dense.cu`
    Dense,
    /// `image.cu`
    Image,
    /// `loss.cu`
    Loss,
    /// `memory.cu`
    Memory,
    /// `pool.cu`
    Pool,
}

macro_rules! ptx {
    ($name:literal) => {
        include_str!(concat!("../../../kernels/ptx/", $name, ".ptx"))
    };
}

impl Module {
    /// Every family.
    pub const ALL: [Module; 8] = [
        Module::Adam,
        Module::BatchNorm,
        Module::Conv,
        Module::Dense,
        Module::Image,
        Module::Loss,
        Module::Memory,
        Module::Pool,
    ];

    /// The family's PTX for a precision.
    pub fn ptx(self, precision: Precision) -> &'static str {
        use Precision::{Bf16, F32, Tf32};
        match (self, precision) {
            (Module::Adam, _) => ptx!("adam"),
            (Module::BatchNorm, Bf16) => ptx!("batch_norm.bf16"),
            (Module::BatchNorm, F32 | Tf32) => ptx!("batch_norm.f32"),
            (Module::Conv, Bf16) => ptx!("conv.bf16"),
            (Module::Conv, Tf32) => ptx!("conv.tf32"),
            (Module::Conv, F32) => ptx!("conv.f32"),
            (Module::Dense, F32) => ptx!("dense.f32"),
            (Module::Dense, Bf16 | Tf32) => ptx!("dense.tf32"),
            (Module::Image, Bf16) => ptx!("image.bf16"),
            (Module::Image, F32 | Tf32) => ptx!("image.f32"),
            (Module::Loss, _) => ptx!("loss"),
            (Module::Memory, _) => ptx!("memory"),
            (Module::Pool, Bf16) => ptx!("pool.bf16"),
            (Module::Pool, F32 | Tf32) => ptx!("pool.f32"),
        }
    }
}

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

/// Dynamic shared memory that needs no leave: 48 KiB, in which what a kernel declares by itself must fit as well.
const FREE_SHARED: u32 = 47 * 1024;

/// Modules and functions, loaded when first asked for: the driver compiles a module's PTX then, and caches the result.
pub(super) struct Kernels {
    context: Arc<CudaContext>,
    precision: Precision,
    modules: RefCell<HashMap<Module, Arc<CudaModule>>>,
    functions: RefCell<HashMap<(Module, &'static str), CudaFunction>>,
    /// The launches since somebody asked to know them.
    plan: RefCell<Option<Vec<Planned>>>,
}

impl Kernels {
    pub(super) fn new(context: &Arc<CudaContext>, precision: Precision) -> Self {
        let (modules, functions, plan) = (RefCell::default(), RefCell::default(), RefCell::default());
        Kernels { context: Arc::clone(context), precision, modules, functions, plan }
    }

    /// Loads a small module: a driver that takes its PTX takes all of them, since they are made by one compiler.
    pub(super) fn try_out(&self) -> Result<(), DriverError> {
        self.function(Module::Memory, "fill_f32").map(drop)
    }

    fn function(&self, module: Module, name: &'static str) -> Result<CudaFunction, DriverError> {
        if let Some(function) = self.functions.borrow().get(&(module, name)) {
            return Ok(function.clone());
        }
        let loaded = self.modules.borrow().get(&module).cloned();
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => {
                let loaded = self.context.load_module(Ptx::from_src(module.ptx(self.precision)))?;
                self.modules.borrow_mut().insert(module, Arc::clone(&loaded));
                loaded
            }
        };
        let function = loaded.load_function(name)?;
        self.functions.borrow_mut().insert((module, name), function.clone());
        Ok(function)
    }
}

impl Cuda {
    /// Puts a kernel on the compute stream. `arguments` is the one struct that every kernel of ours takes.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for a geometry that no launch can have, [`DeviceError::Driver`] if the driver refuses; a fault
    /// inside the kernel is reported by a later call.
    pub(super) fn launch<A: DeviceRepr + Debug>(
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
        let failed = |error| self.driver_error(format!("{kernel} with {launch:?}, {arguments:?}"), error);
        let function = self.inner.kernels.function(module, kernel).map_err(failed)?;
        if shared > FREE_SHARED {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).map_err(failed)?;
        }
        let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (block, 1, 1), shared_mem_bytes: shared };
        let mut builder = self.inner.compute.launch_builder(&function);
        builder.arg(arguments);
        // SAFETY: the struct is the one the kernel declares, and its addresses come from live views of the lengths that the
        // caller has checked against its geometry.
        self.timed(kernel, work, || unsafe { builder.launch(config) }.map(drop)).map_err(failed)?;
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
