//! The linker: it takes PTX and gives it back, since PTX is what a module is loaded from.

use super::{Code, Handle, api, driver, give, ready, report};
use std::ffi::{c_char, c_void};

/// `CU_JIT_INPUT_PTX`.
const PTX: u32 = 1;

api! {
    fn cuLinkCreate_v2(_count: u32, _options: *mut u32, _values: *mut *mut c_void, state: *mut Handle) {
        let mut driver = ready()?;
        let handle = driver.handle();
        driver.links.insert(handle, Vec::new());
        // SAFETY: the caller's promise.
        unsafe { give(state, handle) }
    }

    fn cuLinkAddData_v2(
        state: Handle,
        kind: u32,
        data: *const c_void,
        bytes: usize,
        _name: *const c_char,
        _count: u32,
        _options: *mut u32,
        _values: *mut *mut c_void,
    ) {
        let mut driver = ready()?;
        let image = driver.links.get_mut(&state).ok_or(Code::INVALID_HANDLE)?;
        if kind != PTX || !image.is_empty() {
            report::say("cuLinkAddData: only one input, of PTX text, is supported");
            return Err(Code::NOT_SUPPORTED);
        }
        if data.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        let given = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
        let text = given.split(|&byte| byte == 0).next().unwrap_or_default();
        image.extend_from_slice(text);
        image.push(0);
        Ok(())
    }

    fn cuLinkComplete(state: Handle, image: *mut *mut c_void, bytes: *mut usize) {
        let mut driver = ready()?;
        let linked = driver.links.get_mut(&state).ok_or(Code::INVALID_HANDLE)?;
        // SAFETY: the caller's promise; the image lives until the link is destroyed.
        unsafe {
            give(image, linked.as_mut_ptr().cast())?;
            if !bytes.is_null() {
                bytes.write(linked.len());
            }
        }
        Ok(())
    }

    fn cuLinkDestroy(state: Handle) {
        driver()?.links.remove(&state).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }
}
