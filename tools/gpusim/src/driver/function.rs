//! Attributes of functions, and occupancy.

use super::module::Function;
use super::state::Driver;
use super::{Answer, Code, Handle, api, give, ready};
use crate::count::{Gpu, Registers, Source};
use std::ffi::{c_char, c_int};

/// Dynamic shared memory for a block size, as the caller computes it.
type SharedFor = Option<unsafe extern "C" fn(c_int) -> usize>;

impl Function {
    /// The most threads of a block: as the kernel says, and as many as there are registers for, where these are known.
    pub fn max_threads(&self, gpu: &Gpu) -> u32 {
        let most = self.kernel.max_threads.min(1024);
        match self.registers {
            Registers { source: Source::Declarations, .. } => most,
            Registers { each, source: Source::Ptxas } => most.min(gpu.resident_warps(each) * 32),
        }
    }
}

impl Driver {
    /// An attribute of a function, by its number in the header.
    pub fn function_attribute(&self, function: Handle, attribute: u32) -> Answer<c_int> {
        let found = self.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let kernel = &found.kernel;
        let number = match attribute {
            0 => found.max_threads(self.device.gpu),
            1 => kernel.shared_bytes as u32,
            3 => found.stack_bytes,
            4 => found.registers.each,
            5 => kernel.ptx_version,
            6 => kernel.target,
            8 => found.max_dynamic,
            9 => u32::MAX,
            // Constant memory, caching, clusters: none.
            2 | 7 | 10..=15 => 0,
            _ => return Err(Code::INVALID_VALUE),
        };
        Ok(number as c_int)
    }

    /// Sets an attribute that can be set.
    pub fn set_function_attribute(&mut self, function: Handle, attribute: u32, value: c_int) -> Answer {
        let limit = self.device.gpu.shared_bytes_per_block;
        let found = self.functions.get_mut(&function).ok_or(Code::INVALID_HANDLE)?;
        match attribute {
            8 => {
                let fixed = found.kernel.shared_bytes as u32;
                if value < 0 || value as u32 + fixed > limit {
                    return Err(Code::INVALID_VALUE);
                }
                found.max_dynamic = value as u32;
                Ok(())
            }
            // A preference for dividing a cache that isn't there; clusters of one block.
            9 if (-1..=100).contains(&value) => Ok(()),
            14 => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    }
}

/// Blocks of this function that fit on a multiprocessor.
fn resident(function: Handle, threads: c_int, dynamic: usize) -> Answer<u32> {
    let driver = ready()?;
    let function = driver.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
    if threads <= 0 {
        return Err(Code::INVALID_VALUE);
    }
    let shared = function.kernel.shared_bytes + dynamic;
    if shared > driver.device.gpu.shared_bytes_per_block as usize || threads as u32 > function.kernel.max_threads {
        return Ok(0);
    }
    Ok(driver.device.gpu.resident_blocks(threads as u32, shared as u32, function.registers.each))
}

fn best_block(
    grid: *mut c_int,
    block: *mut c_int,
    function: Handle,
    shared_for: SharedFor,
    dynamic: usize,
    limit: c_int,
) -> Answer {
    let (most, multiprocessors) = {
        let driver = ready()?;
        let found = driver.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        (found.max_threads(driver.device.gpu) as c_int, driver.device.gpu.multiprocessors)
    };
    let most = if limit > 0 { most.min(limit) } else { most };
    let (mut best, mut best_blocks, mut most_threads) = (most, 0, 0);
    let mut threads = most;
    while threads > 0 {
        // SAFETY: the caller gave a function of a block size.
        let shared = shared_for.map_or(dynamic, |shared_for| unsafe { shared_for(threads) });
        let blocks = resident(function, threads, shared)?;
        if blocks * threads as u32 > most_threads {
            (best, best_blocks, most_threads) = (threads, blocks, blocks * threads as u32);
        }
        threads = (threads - 1) / 32 * 32;
    }
    // SAFETY: the caller's promise.
    unsafe { give(grid, (best_blocks * multiprocessors) as c_int).and_then(|()| give(block, best)) }
}

api! {
    fn cuFuncGetAttribute(value: *mut c_int, attribute: u32, function: Handle) {
        let found = ready()?.function_attribute(function, attribute)?;
        // SAFETY: the caller's promise.
        unsafe { give(value, found) }
    }

    fn cuFuncSetAttribute(function: Handle, attribute: u32, value: c_int) {
        ready()?.set_function_attribute(function, attribute, value)
    }

    fn cuFuncSetCacheConfig(function: Handle, _config: u32) {
        ready()?.functions.get(&function).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }

    fn cuFuncGetModule(module: *mut Handle, function: Handle) {
        let found = ready()?.functions.get(&function).map(|f| f.module).ok_or(Code::INVALID_HANDLE)?;
        // SAFETY: the caller's promise.
        unsafe { give(module, found) }
    }

    fn cuFuncGetName(name: *mut *const c_char, function: Handle) {
        let driver = ready()?;
        let found = driver.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        // SAFETY: the caller's promise; the name lives as long as the function.
        unsafe { give(name, found.name.as_ptr()) }
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: *mut usize, bytes: *mut usize) {
        let driver = ready()?;
        let found = driver.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let parameter = *found.kernel.parameters.get(index).ok_or(Code::INVALID_VALUE)?;
        if !bytes.is_null() {
            // SAFETY: the caller's promise.
            unsafe { bytes.write(parameter.bytes) };
        }
        // SAFETY: the caller's promise.
        unsafe { give(offset, parameter.offset) }
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        dynamic: usize,
    ) {
        let found = resident(function, threads, dynamic)?;
        // SAFETY: the caller's promise.
        unsafe { give(blocks, found as c_int) }
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        dynamic: usize,
        _flags: u32,
    ) {
        let found = resident(function, threads, dynamic)?;
        // SAFETY: the caller's promise.
        unsafe { give(blocks, found as c_int) }
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        shared_for: SharedFor,
        dynamic: usize,
        limit: c_int,
    ) {
        best_block(grid, block, function, shared_for, dynamic, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        shared_for: SharedFor,
        dynamic: usize,
        limit: c_int,
        _flags: u32,
    ) {
        best_block(grid, block, function, shared_for, dynamic, limit)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: *mut usize,
        function: Handle,
        blocks: c_int,
        threads: c_int,
    ) {
        let driver = ready()?;
        let found = driver.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let gpu = driver.device.gpu;
        if blocks <= 0 || gpu.resident_blocks(threads.max(1) as u32, 0, found.registers.each) < blocks as u32 {
            return Err(Code::INVALID_VALUE);
        }
        let each = (gpu.shared_bytes / blocks as u32 / 128 * 128).saturating_sub(1024);
        let left = each.min(gpu.shared_bytes_per_block).saturating_sub(found.kernel.shared_bytes as u32);
        // SAFETY: the caller's promise.
        unsafe { give(bytes, left as usize) }
    }
}
