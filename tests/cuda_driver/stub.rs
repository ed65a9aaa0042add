//! A `libcuda.so` that answers as it is told: what `main.rs` compiles and puts in the driver's place.
//!
//! Each variable `STUB_…` is a number; a function that has none here fails with 999 (unknown error).

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::ffi::{c_char, c_int, c_uint, c_void};

fn told(name: &str, otherwise: i32) -> i32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_: c_uint) -> c_int {
    told("STUB_INIT", 0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller's promise, here and below.
    unsafe { version.write(told("STUB_VERSION", 12040)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { count.write(told("STUB_COUNT", 1)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { device.write(ordinal) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, _: c_int, _: c_int) -> c_int {
    // SAFETY: as above; callers give a hundred bytes and more.
    unsafe { std::ptr::copy_nonoverlapping(c"Stub".as_ptr(), name, 5) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let found = match attribute {
        75 => told("STUB_MAJOR", 9),
        76 => told("STUB_MINOR", 0),
        _ => 1,
    };
    // SAFETY: as above.
    unsafe { value.write(found) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { bytes.write(1 << 30) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { context.write(1) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> c_int {
    // SAFETY: as above.
    unsafe { context.write(1) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_: usize) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    let words = match code {
        34 => c"CUDA driver is a stub library",
        100 => c"no CUDA-capable device is detected",
        218 => c"a PTX JIT compilation failed",
        _ => return 1,
    };
    // SAFETY: as above.
    unsafe { text.write(words.as_ptr()) };
    0
}

/// Fails as the driver's compiler does, with its words in the log for errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    _: *mut usize,
    _: *const c_void,
    count: c_uint,
    options: *const c_uint,
    values: *const *mut c_void,
) -> c_int {
    let words = c"ptxas application ptx input, line 7; fatal   : Unsupported .target 'sm_80'";
    for option in 0..count as usize {
        // SAFETY: as above: as many options as values, and 5 is the log for errors.
        unsafe {
            if options.add(option).read() == 5 {
                std::ptr::copy_nonoverlapping(words.as_ptr(), values.add(option).read().cast(), words.count_bytes() + 1);
            }
        }
    }
    218
}
