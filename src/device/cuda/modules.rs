//! The kernels' PTX, a file a layer family and precision, and what the driver's compiler makes of it.

use super::driver::OLDEST_DRIVER;
use super::{Precision, words};
use crate::device::DeviceError;
use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as JitOption, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A layer family's kernels: a file in `kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Module {
    /// `adam/adam.cu`
    Adam,
    /// `norm/batch_norm.cu`
    BatchNorm,
    /// `conv/conv.cu`
    Conv,
    /// `dense/dense.cu`
    Dense,
    /// `depthwise/depthwise.cu`
    Depthwise,
    /// `image/image.cu`
    Image,
    /// `loss/loss.cu`
    Loss,
    /// `memory/memory.cu`
    Memory,
    /// `pool/pool.cu`
    Pool,
}

/// A file in `kernels/ptx/`.
#[derive(Clone, Copy, Debug)]
pub struct PtxFile {
    /// Its name, without the ending.
    pub name: &'static str,
    /// Its text.
    pub(super) ptx: &'static str,
}

macro_rules! source {
    ($name:literal) => {
        PtxFile { name: $name, ptx: include_str!(concat!("../../../kernels/ptx/", $name, ".ptx")) }
    };
}

impl Module {
    /// Every family.
    pub const ALL: [Module; 9] = [
        Module::Adam,
        Module::BatchNorm,
        Module::Conv,
        Module::Dense,
        Module::Depthwise,
        Module::Image,
        Module::Loss,
        Module::Memory,
        Module::Pool,
    ];

    /// The family's PTX for a precision.
    pub fn source(self, precision: Precision) -> PtxFile {
        use Precision::{Bf16, F32, Tf32};
        match (self, precision) {
            (Module::Adam, _) => source!("adam"),
            (Module::BatchNorm, Bf16) => source!("batch_norm.bf16"),
            (Module::BatchNorm, F32 | Tf32) => source!("batch_norm.f32"),
            (Module::Conv, Bf16) => source!("conv.bf16"),
            (Module::Conv, Tf32) => source!("conv.tf32"),
            (Module::Conv, F32) => source!("conv.f32"),
            (Module::Dense, F32) => source!("dense.f32"),
            (Module::Dense, Bf16 | Tf32) => source!("dense.tf32"),
            (Module::Depthwise, Bf16) => source!("depthwise.bf16"),
            (Module::Depthwise, F32 | Tf32) => source!("depthwise.f32"),
            (Module::Image, Bf16) => source!("image.bf16"),
            (Module::Image, F32 | Tf32) => source!("image.f32"),
            (Module::Loss, _) => source!("loss"),
            (Module::Memory, _) => source!("memory"),
            (Module::Pool, Bf16) => source!("pool.bf16"),
            (Module::Pool, F32 | Tf32) => source!("pool.f32"),
        }
    }
}

/// The version of the kernels' PTX, which a driver must know.
pub fn ptx_version() -> &'static str {
    let ptx = Module::Adam.source(Precision::F32).ptx;
    ptx.lines().find_map(|line| line.strip_prefix(".version ")).expect("kernels/build.py writes PTX").trim()
}

/// What a kernel takes of a multiprocessor, as the driver compiled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads of a block.
    pub threads: u32,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of local memory a thread: spills and stack. None of our kernels should have any.
    pub local_bytes: u32,
    /// Bytes of shared memory a block: declared, and asked for at the launch.
    pub shared_bytes: u32,
    /// Blocks that a multiprocessor holds at once.
    pub resident_blocks: u32,
}

/// A kernel that can be launched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub handle: sys::CUfunction,
    /// Bytes of the struct that it takes.
    pub argument_bytes: usize,
    pub resources: Resources,
}

// SAFETY: a name the driver has for a kernel; its calls may come from any thread.
unsafe impl Send for Function {}
// SAFETY: likewise.
unsafe impl Sync for Function {}

/// A module in the driver.
struct Handle {
    module: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a name the driver has for a module; its calls may come from any thread.
unsafe impl Send for Handle {}
// SAFETY: likewise.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: loaded once and unloaded once; whoever launches its kernels holds it.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// A file of PTX, compiled and loaded.
pub struct Compiled {
    /// The file's name, without the ending.
    pub name: &'static str,
    /// How long the driver took; next to nothing where its cache had the result.
    pub took: Duration,
    /// What its compiler remarked, if anything.
    pub remarks: String,
    functions: BTreeMap<&'static str, Function>,
    _module: Handle,
}

impl Compiled {
    /// Compiles and loads a file with all its kernels: the driver may put off either until it is asked for a kernel, and then
    /// the first step would pay, or the capture of a step fail.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] with the compiler's words.
    pub(super) fn new(context: &Arc<CudaContext>, source: PtxFile) -> Result<Self, DeviceError> {
        let start = Instant::now();
        let failed = |error: DriverError, log: &str| {
            let file = source.name;
            DeviceError::Unavailable(match error.0 {
                CUresult::CUDA_ERROR_OUT_OF_MEMORY => format!("the GPU has no memory left for our kernels ({file})"),
                _ => {
                    let log = if log.is_empty() { String::new() } else { format!("\n{log}") };
                    let words = words(error);
                    format!(
                        "the NVIDIA driver does not take our kernels ({file}), which need version {OLDEST_DRIVER} or \
                         newer: {words}{log}"
                    )
                }
            })
        };
        let plain = |error| failed(error, "");
        context.bind_to_thread().map_err(plain)?;
        let (module, remarks) = load(source.ptx).map_err(|(error, log)| failed(error, &log))?;
        let module = Handle { module, context: Arc::clone(context) };
        let mut functions = BTreeMap::new();
        for kernel in kernels_of(source.ptx) {
            functions.insert(kernel.name, Function::new(module.module, kernel).map_err(plain)?);
        }
        Ok(Compiled { name: source.name, took: start.elapsed(), remarks, functions, _module: module })
    }

    /// Its kernels by name, and what each takes.
    pub fn kernels(&self) -> impl Iterator<Item = (&'static str, Resources)> + '_ {
        self.functions.iter().map(|(name, function)| (*name, function.resources))
    }

    pub(super) fn function(&self, kernel: &str) -> Option<Function> {
        self.functions.get(kernel).copied()
    }
}

/// A kernel as its PTX declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Declared {
    name: &'static str,
    /// Bytes of the struct that it takes.
    argument_bytes: usize,
    /// Bytes of dynamic shared memory that it is launched with, where the file says so.
    dynamic_shared: u32,
}

/// The kernels of a file. `NAME_shared_bytes` is a constant of those that take more shared memory than PTX can declare.
fn kernels_of(text: &'static str) -> Vec<Declared> {
    let after = |line: &'static str, word: &str| line.split_once(word).map(|(_, rest)| rest);
    let mut dynamic: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("_shared_bytes = ")) {
        if let Some((name, value)) = line.split_once("_shared_bytes = ")
            && let (Some(name), Ok(bytes)) = (name.split_whitespace().last(), value.trim_end_matches(';').parse())
        {
            dynamic.insert(name, bytes);
        }
    }
    // `.visible .entry NAME(`, and on the next line `.param .align 8 .b8 NAME_param_0[BYTES]`.
    let entries = text.lines().zip(text.lines().skip(1));
    let kernels = entries.filter_map(|(line, parameter)| {
        let name = after(line, ".visible .entry ")?.split('(').next()?;
        let argument_bytes = after(parameter, "_param_0[")?.split(']').next()?.parse().ok()?;
        Some(Declared { name, argument_bytes, dynamic_shared: dynamic.get(name).copied().unwrap_or(0) })
    });
    kernels.collect()
}

impl Function {
    fn new(module: sys::CUmodule, kernel: Declared) -> Result<Self, DriverError> {
        let name = CString::new(kernel.name).expect("a name has no zero");
        // SAFETY: the module is loaded.
        let handle = unsafe { result::module::get_function(module, name) }?;
        // SAFETY: the function was just found.
        let attribute = |attribute| unsafe { result::function::get_function_attribute(handle, attribute) };
        let threads = attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let declared = attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic = kernel.dynamic_shared as i32;
        if dynamic > 0 {
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(handle, most, dynamic) }?;
        }
        let mut blocks = 0;
        // SAFETY: writes one number to where it is told.
        let asked =
            unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, handle, threads, dynamic as usize) };
        asked.result()?;
        let resources = Resources {
            threads: threads as u32,
            registers: attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)? as u32,
            local_bytes: attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)? as u32,
            shared_bytes: (declared + dynamic) as u32,
            resident_blocks: blocks as u32,
        };
        Ok(Function { handle, argument_bytes: kernel.argument_bytes, resources })
    }
}

/// Hands PTX to the driver, and returns what its compiler remarked beside the module, or beside the error.
fn load(ptx: &str) -> Result<(sys::CUmodule, String), (DriverError, String)> {
    /// As much as a few errors need; a driver stops writing where it ends.
    const LOG: usize = 16 * 1024;
    let ptx = CString::new(ptx).expect("PTX has no zero");
    let (mut remarks, mut complaints) = ([0u8; LOG], [0u8; LOG]);
    let mut options = [
        JitOption::CU_JIT_INFO_LOG_BUFFER,
        JitOption::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        JitOption::CU_JIT_ERROR_LOG_BUFFER,
        JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // A size is given as the pointer's own value.
    let mut values: [*mut c_void; 4] = [
        remarks.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(LOG),
        complaints.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(LOG),
    ];
    let mut module = std::ptr::null_mut();
    let count = options.len() as u32;
    // SAFETY: the text ends in a zero, there are as many values as options, and the logs are as long as they say.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(&mut module, ptx.as_ptr().cast(), count, options.as_mut_ptr(), values.as_mut_ptr())
    };
    let text = |log: &[u8]| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        String::from_utf8_lossy(&log[..end]).trim().to_owned()
    };
    match loaded.result() {
        Ok(()) => Ok((module, text(&remarks))),
        Err(error) => Err((error, text(&complaints))),
    }
}

/// The folder in which the driver keeps what it has compiled, so that the next start need not; none if it is told not to.
pub fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if variable("CUDA_CACHE_DISABLE").is_some_and(|value| value == "1") {
        return None;
    }
    let home = || Some(PathBuf::from(variable("HOME")?).join(".nv/ComputeCache"));
    variable("CUDA_CACHE_PATH").map(PathBuf::from).or_else(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_of_a_file_are_those_that_it_declares() {
        let kernels = kernels_of(Module::Conv.source(Precision::Bf16).ptx);
        let found = |name: &str| kernels.iter().find(|kernel| kernel.name == name).copied();
        assert_eq!(found("conv_backward_bias").map(|kernel| kernel.dynamic_shared), Some(0));
        let tile = found("conv_forward_128x128").expect("it is the main one");
        assert!(tile.dynamic_shared > 32 * 1024, "{tile:?}");
        assert!(tile.argument_bytes > 64, "{tile:?}");
        for module in Module::ALL {
            for precision in Precision::ALL {
                let ptx = module.source(precision).ptx;
                assert_eq!(kernels_of(ptx).len(), ptx.matches(".entry").count(), "{module:?} {precision:?}");
            }
        }
    }
}
