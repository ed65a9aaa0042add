//! `cuGetProcAddress`, and the profiler's switch.

use super::{Answer, Code, api, driver, text, unsupported};
use std::ffi::{CString, c_char, c_int, c_void};

/// The newest version of each entry point whose plain name means another one, and the API version that brought it.
const RENAMED: &[(&str, c_int, &str)] = &[
    ("cuGetProcAddress", 12_000, "cuGetProcAddress_v2"),
    ("cuGetProcAddress", 0, "cuGetProcAddress"),
    ("cuCtxCreate", 13_000, "cuCtxCreate_v4"),
    ("cuCtxCreate", 11_040, "cuCtxCreate_v3"),
    ("cuCtxCreate", 0, "cuCtxCreate_v2"),
    ("cuDeviceGetUuid", 11_040, "cuDeviceGetUuid_v2"),
    ("cuEventElapsedTime", 12_080, "cuEventElapsedTime_v2"),
];

/// The address of an exported symbol of this library.
fn symbol(name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: `dladdr` fills the structure for an address of ours; the handle that `dlopen` gives stays open, as this
    // library does; `dlsym` reads the name.
    unsafe {
        let mut here = std::mem::zeroed::<libc::Dl_info>();
        if libc::dladdr(symbol as *const c_void, &raw mut here) == 0 {
            return None;
        }
        let library = libc::dlopen(here.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        let found = libc::dlsym(library, name.as_ptr());
        (!found.is_null()).then_some(found)
    }
}

fn find(name: &str, version: c_int) -> Option<*mut c_void> {
    if let Some(&(.., renamed)) = RENAMED.iter().find(|(plain, since, _)| *plain == name && version >= *since) {
        return symbol(renamed);
    }
    // The second version of a call where there is one, unless only the first does anything.
    let second = format!("{name}_v2");
    let first = if unsupported::NAMES.contains(&second.as_str()) { symbol(name) } else { None };
    first.or_else(|| symbol(&second)).or_else(|| symbol(name))
}

fn look_up(name: *const c_char, place: *mut *mut c_void, version: c_int, status: *mut c_int) -> Answer {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name)? };
    if place.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let found = find(name, version);
    // SAFETY: the caller's promise; the status may be null.
    unsafe {
        place.write(found.unwrap_or(std::ptr::null_mut()));
        if !status.is_null() {
            status.write(c_int::from(found.is_none()));
        }
    }
    found.map(|_| ()).ok_or(Code::NOT_FOUND)
}

api! {
    fn cuGetProcAddress(name: *const c_char, place: *mut *mut c_void, version: c_int, _flags: u64) {
        look_up(name, place, version, std::ptr::null_mut())
    }

    fn cuGetProcAddress_v2(
        name: *const c_char,
        place: *mut *mut c_void,
        version: c_int,
        _flags: u64,
        status: *mut c_int,
    ) {
        look_up(name, place, version, status)
    }

    fn cuProfilerStart() {
        driver().map(|_| ())
    }

    fn cuProfilerStop() {
        driver().map(|_| ())
    }
}
