//! Libraries and kernels: the newer names of modules and functions. Here a library is its module, a kernel its function.

use super::module::give_global;
use super::{Code, Handle, api, driver, give, jit, ready, text};
use std::ffi::{c_char, c_int, c_void};

api! {
    fn cuLibraryLoadData(
        library: *mut Handle,
        code: *const c_void,
        options: *mut u32,
        values: *mut *mut c_void,
        count: u32,
        _library_options: *mut u32,
        _library_values: *mut *mut c_void,
        _library_count: u32,
    ) {
        // The library's own options say when to load: now.
        // SAFETY: the caller's promise.
        unsafe { give(library, jit::load(code, count, options, values)?) }
    }

    fn cuLibraryUnload(library: Handle) {
        driver()?.unload(library)
    }

    fn cuLibraryGetKernel(kernel: *mut Handle, library: Handle, name: *const c_char) {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name)? };
        let handle = ready()?.function(library, name)?;
        // SAFETY: the caller's promise.
        unsafe { give(kernel, handle) }
    }

    fn cuLibraryGetKernelCount(count: *mut u32, library: Handle) {
        // SAFETY: the caller's promise.
        unsafe { give(count, ready()?.kernels_of(library)? as u32) }
    }

    fn cuLibraryGetModule(module: *mut Handle, library: Handle) {
        ready()?.kernels_of(library)?;
        // SAFETY: the caller's promise.
        unsafe { give(module, library) }
    }

    fn cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: Handle, name: *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { give_global(address, bytes, library, name) }
    }

    fn cuKernelGetFunction(function: *mut Handle, kernel: Handle) {
        if !ready()?.functions.contains_key(&kernel) {
            return Err(Code::INVALID_HANDLE);
        }
        // SAFETY: the caller's promise.
        unsafe { give(function, kernel) }
    }

    fn cuKernelGetLibrary(library: *mut Handle, kernel: Handle) {
        let found = ready()?.functions.get(&kernel).map(|f| f.module).ok_or(Code::INVALID_HANDLE)?;
        // SAFETY: the caller's promise.
        unsafe { give(library, found) }
    }

    fn cuKernelGetAttribute(value: *mut c_int, attribute: u32, kernel: Handle, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let found = ready()?.function_attribute(kernel, attribute)?;
        // SAFETY: the caller's promise.
        unsafe { give(value, found) }
    }

    fn cuKernelSetAttribute(attribute: u32, value: c_int, kernel: Handle, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        ready()?.set_function_attribute(kernel, attribute, value)
    }
}
