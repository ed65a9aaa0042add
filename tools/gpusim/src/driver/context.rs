//! Contexts: which is current on a thread, the device's primary one, and their end.

use super::state::{Context, Driver};
use super::{Answer, Code, Handle, api, driver, give, ready, report};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;

thread_local! {
    /// The thread's stack of contexts; the last is current. Never dropped: a program may call the driver from the destructors
    /// of its own thread-locals, in whatever order a thread's end runs them.
    static STACK: RefCell<ManuallyDrop<Vec<Handle>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// The thread's current context.
pub(super) fn current() -> Option<Handle> {
    STACK.with_borrow(|stack| stack.last().copied()).filter(|&context| context != 0)
}

fn set_current(context: Handle) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        stack.push(context);
    });
}

impl Driver {
    fn make_context(&mut self, flags: u32, primary: bool) -> Handle {
        let handle = self.handle();
        self.contexts.insert(handle, Context { failed: None, retained: 1, primary, flags, limits: HashMap::new() });
        handle
    }

    /// Ends a context: what it still owns is freed, and named as leaked.
    fn end_context(&mut self, context: Handle) -> Answer {
        // An error is said, and goes with the context.
        let _ = self.run_context(context);
        let ended = self.contexts.remove(&context).ok_or(Code::INVALID_CONTEXT)?;
        if ended.primary {
            self.primary = None;
        }
        self.modules.retain(|_, module| module.context != context);
        self.functions.retain(|_, function| function.context != context);
        self.streams.retain(|_, stream| stream.context != context);
        self.events.retain(|_, event| event.context != context);
        self.free_all(context, ended.failed.is_none());
        Ok(())
    }
}

api! {
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let mut driver = driver()?;
        let handle = match driver.primary {
            Some(handle) => {
                if let Some(context) = driver.contexts.get_mut(&handle) {
                    context.retained += 1;
                }
                handle
            }
            None => {
                let handle = driver.make_context(0, true);
                driver.primary = Some(handle);
                handle
            }
        };
        // SAFETY: the caller's promise.
        unsafe { give(context, handle) }
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let mut driver = driver()?;
        let handle = driver.primary.ok_or(Code::INVALID_CONTEXT)?;
        let context = driver.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?;
        context.retained -= 1;
        if context.retained == 0 { driver.end_context(handle) } else { Ok(()) }
    }

    fn cuDevicePrimaryCtxReset_v2(device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let mut driver = driver()?;
        match driver.primary {
            Some(handle) => driver.end_context(handle),
            None => Ok(()),
        }
    }

    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut u32, active: *mut c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let driver = driver()?;
        let context = driver.primary.and_then(|handle| driver.contexts.get(&handle));
        // SAFETY: the caller's promise.
        unsafe {
            give(flags, context.map_or(0, |context| context.flags))?;
            give(active, c_int::from(context.is_some()))
        }
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: u32) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let mut driver = driver()?;
        if let Some(handle) = driver.primary
            && let Some(context) = driver.contexts.get_mut(&handle)
        {
            context.flags = flags;
        }
        Ok(())
    }

    fn cuCtxCreate_v2(context: *mut Handle, flags: u32, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        let handle = driver()?.make_context(flags, false);
        STACK.with_borrow_mut(|stack| stack.push(handle));
        // SAFETY: the caller's promise.
        unsafe { give(context, handle) }
    }

    fn cuCtxCreate_v3(context: *mut Handle, affinity: *mut c_void, count: c_int, flags: u32, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        if !affinity.is_null() || count != 0 {
            report::say("cuCtxCreate_v3 with execution affinity is not supported");
            return Err(Code::NOT_SUPPORTED);
        }
        let handle = driver()?.make_context(flags, false);
        STACK.with_borrow_mut(|stack| stack.push(handle));
        // SAFETY: the caller's promise.
        unsafe { give(context, handle) }
    }

    fn cuCtxCreate_v4(context: *mut Handle, parameters: *mut c_void, flags: u32, device: c_int) {
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        if !parameters.is_null() {
            report::say("cuCtxCreate_v4 with parameters is not supported");
            return Err(Code::NOT_SUPPORTED);
        }
        let handle = driver()?.make_context(flags, false);
        STACK.with_borrow_mut(|stack| stack.push(handle));
        // SAFETY: the caller's promise.
        unsafe { give(context, handle) }
    }

    fn cuCtxDestroy_v2(context: Handle) {
        driver()?.end_context(context)?;
        STACK.with_borrow_mut(|stack| {
            if stack.last() == Some(&context) {
                stack.pop();
            }
        });
        Ok(())
    }

    fn cuCtxGetCurrent(context: *mut Handle) {
        drop(driver()?);
        // SAFETY: the caller's promise.
        unsafe { give(context, current().unwrap_or(0)) }
    }

    fn cuCtxSetCurrent(context: Handle) {
        let driver = driver()?;
        if context != 0 && !driver.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
        if !driver()?.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: *mut Handle) {
        drop(driver()?);
        let popped = STACK.with_borrow_mut(|stack| stack.pop()).ok_or(Code::INVALID_CONTEXT)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { give(context, popped) }
    }

    fn cuCtxGetDevice(device: *mut c_int) {
        drop(driver()?);
        current().ok_or(Code::INVALID_CONTEXT)?;
        // SAFETY: the caller's promise.
        unsafe { give(device, 0) }
    }

    fn cuCtxGetFlags(flags: *mut u32) {
        let driver = driver()?;
        let context = current().and_then(|handle| driver.contexts.get(&handle)).ok_or(Code::INVALID_CONTEXT)?;
        // SAFETY: the caller's promise.
        unsafe { give(flags, context.flags) }
    }

    fn cuCtxSetFlags(flags: u32) {
        let mut driver = driver()?;
        let handle = current().ok_or(Code::INVALID_CONTEXT)?;
        driver.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?.flags = flags;
        Ok(())
    }

    fn cuCtxGetApiVersion(context: Handle, version: *mut u32) {
        if context != 0 && !driver()?.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        // SAFETY: the caller's promise.
        unsafe { give(version, 3020) }
    }

    fn cuCtxSynchronize() {
        let mut driver = ready()?;
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        driver.allow_waiting(context)?;
        driver.run_context(context)
    }

    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        drop(ready()?);
        // SAFETY: the caller's promise.
        unsafe { give(least, 0).and_then(|()| give(greatest, -5)) }
    }

    fn cuCtxGetLimit(value: *mut usize, limit: u32) {
        let driver = ready()?;
        let context = current().and_then(|handle| driver.contexts.get(&handle)).ok_or(Code::INVALID_CONTEXT)?;
        let standard = match limit {
            0 => 1024,
            1 => 1 << 20,
            2 => 8 << 20,
            5 => 64,
            _ => return Err(Code::INVALID_VALUE),
        };
        // SAFETY: the caller's promise.
        unsafe { give(value, context.limits.get(&limit).copied().unwrap_or(standard)) }
    }

    fn cuCtxSetLimit(limit: u32, value: usize) {
        let mut driver = ready()?;
        if !matches!(limit, 0 | 1 | 2 | 5) {
            return Err(Code::INVALID_VALUE);
        }
        let handle = current().ok_or(Code::INVALID_CONTEXT)?;
        driver.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?.limits.insert(limit, value);
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: *mut u32) {
        drop(ready()?);
        // SAFETY: the caller's promise.
        unsafe { give(config, 0) }
    }

    // A preference, not an order: there is no cache to divide.
    fn cuCtxSetCacheConfig(_config: u32) {
        ready().map(|_| ())
    }
}
