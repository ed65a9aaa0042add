//! The NVIDIA driver's library: whether it is here, and is one that we can call.
//!
//! cudarc looks up a function when it is first called and panics if the library has none of that name. So everything that this
//! crate calls is asked for here, before the first call.

use super::words;
use crate::device::DeviceError;
use cudarc::driver::{DriverError, sys};

/// The CUDA version of the compiler that made the kernels' PTX, as the driver counts: only drivers of this one or newer take it.
const OLDEST: i32 = 11080;
/// The first driver of that version.
pub(super) const OLDEST_DRIVER: &str = "520";

/// All that this crate and cudarc's wrappers call. `tests/cuda_driver/` compares it with what a run asks the library for.
pub const SYMBOLS: [&str; 45] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// Whether the driver can be called, and is new enough: its CUDA version, 12.4 as 12040.
///
/// # Errors
/// [`DeviceError::Unavailable`] with what is wrong.
pub(super) fn check() -> Result<i32, DeviceError> {
    let unavailable = |reason: String| Err(DeviceError::Unavailable(reason));
    // SAFETY: asks only whether the library can be opened.
    if !unsafe { sys::is_culib_present() } {
        return unavailable("no NVIDIA driver here (libcuda.so was not found)".into());
    }
    // SAFETY: it can be opened, as was just asked.
    let library = unsafe { sys::culib() };
    let wanted = format!("the kernels need NVIDIA's driver {OLDEST_DRIVER} or newer");
    // SAFETY: only looks whether the names are there.
    let missing = |name: &&&str| unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err();
    match SYMBOLS.iter().filter(missing).collect::<Vec<_>>()[..] {
        [] => {}
        [one] => return unavailable(format!("the libcuda.so found here lacks {one}; {wanted}")),
        [first, ref others @ ..] => {
            let others = others.len();
            return unavailable(format!("the libcuda.so found here lacks {first} and {others} more; {wanted}"));
        }
    }
    let mut version = 0;
    // SAFETY: writes one number to where it is told.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    match asked {
        Ok(()) if version >= OLDEST => Ok(version),
        Ok(()) => unavailable(format!("the NVIDIA driver here is for CUDA {}; {wanted}", dotted(version))),
        Err(error) => unavailable(format!("the libcuda.so found here does not answer: {}", words(error))),
    }
}

/// The oldest driver that takes the kernels, in words.
pub fn needed() -> String {
    format!("{} (driver {OLDEST_DRIVER})", dotted(OLDEST))
}

/// A version of CUDA as people write it: 12040 is 12.4.
pub(super) fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// An error of the driver's while it is being opened.
pub(super) fn no_device(error: DriverError) -> DeviceError {
    DeviceError::Unavailable(format!("the NVIDIA driver has no device for us: {}", words(error)))
}
