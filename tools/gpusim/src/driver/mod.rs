//! The CUDA driver API: what `libcuda.so` exports.
//!
//! Calls take one lock and do their work at once, launches too: streams are in order because everything is, unless they
//! are to run as late as they may (`late`). A fault of a kernel is reported on standard error when it happens, and reaches
//! the caller as hardware would have it: the launch succeeds, and the next call that looks gets the error, as does every
//! call after it until the context is gone.

mod code;
mod context;
mod copy;
mod device;
mod entry;
mod events;
mod function;
mod graph;
mod graph_memory;
mod jit;
mod late;
mod launch;
mod library;
mod link;
mod memory;
mod modes;
mod module;
mod report;
mod state;
mod stream;
mod tensor_map;
mod unsupported;

pub use code::Code;

use state::Driver;

/// The result of a call.
type Answer<T = ()> = Result<T, Code>;

/// An opaque handle as the caller sees it: a pointer that nobody follows.
type Handle = u64;

/// Does the work of one exported function: errors become codes, and so do panics, which must not cross into C.
fn call(name: &str, work: impl FnOnce() -> Answer) -> u32 {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let answer = outcome.unwrap_or_else(|_| {
        report::say(&format!("{name}: a bug of gpusim (see the panic above)"));
        Err(Code::UNKNOWN)
    });
    match answer {
        Ok(()) => Code::SUCCESS.0,
        Err(code) => {
            report::trace(name, code);
            code.0
        }
    }
}

/// Exports functions of the driver API; each body gives an [`Answer`].
macro_rules! api {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of the CUDA driver API.")]
        ///
        /// # Safety
        /// As NVIDIA documents it: pointers are valid for what the function reads and writes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> u32 {
            $crate::driver::call(stringify!($name), || -> $crate::driver::Answer { $body })
        }
    )*};
}
use api;

/// Writes a result for the caller.
///
/// # Safety
/// `place` is null or valid.
unsafe fn give<T>(place: *mut T, value: T) -> Answer {
    if place.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// The driver, once `cuInit` was called.
fn driver() -> Answer<parking_lot::MutexGuard<'static, Driver>> {
    state::get()
}

/// The driver with a current context that has not failed.
fn ready() -> Answer<parking_lot::MutexGuard<'static, Driver>> {
    let driver = state::get()?;
    driver.healthy(context::current().ok_or(Code::INVALID_CONTEXT)?)?;
    Ok(driver)
}

/// Text from the caller.
///
/// # Safety
/// `text` is null or ends with a zero.
unsafe fn text<'a>(text: *const std::ffi::c_char) -> Answer<&'a str> {
    if text.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_str().map_err(|_| Code::INVALID_VALUE)
}
