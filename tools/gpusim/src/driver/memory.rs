//! Allocation: device, stream-ordered, pinned and managed memory, which are all one here.

use super::context::current;
use super::graph_memory::on_stream;
use super::late::Work;
use super::state::Driver;
use super::{Answer, Code, Handle, api, driver, give, ready, report};
use std::ffi::{c_int, c_void};

/// Who made an allocation, and how it may be freed.
pub(super) struct Owned {
    pub context: Handle,
    pub kind: Kind,
}

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Device,
    Pinned,
    Managed,
    /// A variable of a module.
    Variable,
    /// Allocated by a graph, which has its address.
    Graph,
}

impl Driver {
    pub fn allocate(&mut self, bytes: usize, kind: Kind, what: &str) -> Answer<u64> {
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        let bytes = bytes as u64;
        if self.check_room(bytes).is_err() {
            // Streams may have memory to free.
            self.run_context(context)?;
            self.check_room(bytes)?;
        }
        let address = self.allocations.allocate(bytes, what).ok_or(Code::OUT_OF_MEMORY)?;
        // The host writes pinned and managed memory without a word to the driver.
        if matches!(kind, Kind::Pinned | Kind::Managed) {
            self.arena.mark(address, bytes, true);
        }
        self.owned.insert(address, Owned { context, kind });
        Ok(address)
    }

    /// The device has so many bytes left.
    pub fn check_room(&self, bytes: u64) -> Answer {
        let fits = self.allocations.used().saturating_add(bytes) <= self.device.gpu.memory_bytes as u64;
        if fits { Ok(()) } else { Err(Code::OUT_OF_MEMORY) }
    }

    /// The kind of an allocation that a caller may free, as one of the host or of the device.
    fn freed_kind(&self, address: u64, host: bool) -> Answer<Kind> {
        let kind = self.owned.get(&address).ok_or(Code::INVALID_VALUE)?.kind;
        match (host, kind) {
            (true, Kind::Pinned) | (false, Kind::Device | Kind::Managed | Kind::Graph) => Ok(kind),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// Is this memory that the host reads and writes, too, without a copy?
    pub fn is_host_memory(&self, address: u64) -> bool {
        let found = self.allocations.find(address, 0).and_then(|allocation| self.owned.get(&allocation.address));
        found.is_some_and(|owned| matches!(owned.kind, Kind::Pinned | Kind::Managed))
    }

    /// Frees an allocation of any kind.
    pub fn give_back(&mut self, address: u64) -> Answer {
        if self.owned.get(&address).is_some_and(|owned| owned.kind == Kind::Graph) {
            return self.free_reserved(address);
        }
        self.owned.remove(&address);
        let allocation = self.allocations.free(address).ok_or(Code::INVALID_VALUE)?;
        self.arena.forget(allocation.address, allocation.bytes);
        Ok(())
    }

    /// Frees what a context still owns at its end, and says so.
    pub fn free_all(&mut self, context: Handle, report_leaks: bool) {
        let mut left: Vec<u64> =
            self.owned.iter().filter(|(_, owned)| owned.context == context).map(|(&address, _)| address).collect();
        left.sort_unstable();
        let leaked: Vec<u64> =
            left.iter().copied().filter(|address| self.owned[address].kind != Kind::Variable).collect();
        if report_leaks && !leaked.is_empty() {
            let bytes: u64 = leaked.iter().filter_map(|&a| self.allocations.find(a, 0)).map(|a| a.bytes).sum();
            let first = self.allocations.nearest(leaked[0]);
            report::say(&format!(
                "leak: the context ends with {} allocations of {bytes} bytes not freed; the first: {first}",
                leaked.len()
            ));
        }
        for address in left {
            // Known to be there: it is owned.
            let _ = self.give_back(address);
        }
    }

    /// The device range is inside one allocation.
    pub fn check_range(&self, address: u64, bytes: usize) -> Answer {
        if bytes == 0 || self.allocations.find(address, bytes as u64).is_some() {
            return Ok(());
        }
        let nearest = self
            .allocations
            .freed(address)
            .map_or_else(|| self.allocations.nearest(address), |was| format!("{was}, which was freed"));
        report::say(&format!("a copy or memset of {bytes} bytes at {address:#x} is out of bounds: {nearest}"));
        Err(Code::INVALID_VALUE)
    }
}

/// Allocates outside of any stream's order.
fn allocate_unseen(bytes: usize, kind: Kind, what: &str) -> Answer<u64> {
    let mut driver = ready()?;
    driver.allow_unseen()?;
    driver.allocate(bytes, kind, what)
}

/// Frees outside of any stream's order: waits for all of them.
fn release_unseen(address: u64, host: bool) -> Answer {
    let mut driver = ready()?;
    driver.allow_unseen()?;
    driver.freed_kind(address, host)?;
    driver.run_context(current().ok_or(Code::INVALID_CONTEXT)?)?;
    driver.give_back(address)
}

api! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let driver = ready()?;
        let all = driver.device.gpu.memory_bytes;
        // SAFETY: the caller's promise.
        unsafe { give(free, all - driver.allocations.used() as usize).and_then(|()| give(total, all)) }
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        let found = allocate_unseen(bytes, Kind::Device, "device")?;
        // SAFETY: the caller's promise.
        unsafe { give(address, found) }
    }

    fn cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, _element: u32) {
        let row = width.next_multiple_of(512);
        let found = allocate_unseen(row * height, Kind::Device, "device, pitched")?;
        // SAFETY: the caller's promise.
        unsafe { give(pitch, row).and_then(|()| give(address, found)) }
    }

    fn cuMemFree_v2(address: u64) {
        if address == 0 {
            return Ok(());
        }
        release_unseen(address, false)
    }

    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) {
        let found = on_stream(&mut *ready()?, bytes, stream)?;
        // SAFETY: the caller's promise.
        unsafe { give(address, found) }
    }

    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: Handle, stream: Handle) {
        if pool != POOL {
            return Err(Code::INVALID_VALUE);
        }
        let found = on_stream(&mut *ready()?, bytes, stream)?;
        // SAFETY: the caller's promise.
        unsafe { give(address, found) }
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        if address == 0 {
            return Ok(());
        }
        let mut driver = ready()?;
        if driver.capture_free(address, stream)? {
            return Ok(());
        }
        let kind = driver.freed_kind(address, false)?;
        if driver.late.is_some() && kind != Kind::Graph {
            return driver.enqueue(stream, Work::Free(address), None).map(|_| ());
        }
        driver.run_stream(stream)?;
        driver.give_back(address)
    }

    fn cuMemAllocManaged(address: *mut u64, bytes: usize, flags: u32) {
        if !matches!(flags, 1 | 2) {
            return Err(Code::INVALID_VALUE);
        }
        let found = allocate_unseen(bytes, Kind::Managed, "managed")?;
        // SAFETY: the caller's promise.
        unsafe { give(address, found) }
    }

    fn cuMemHostAlloc(place: *mut *mut c_void, bytes: usize, _flags: u32) {
        let found = allocate_unseen(bytes, Kind::Pinned, "pinned host")?;
        // SAFETY: the caller's promise.
        unsafe { give(place, found as *mut c_void) }
    }

    fn cuMemAllocHost_v2(place: *mut *mut c_void, bytes: usize) {
        let found = allocate_unseen(bytes, Kind::Pinned, "pinned host")?;
        // SAFETY: the caller's promise.
        unsafe { give(place, found as *mut c_void) }
    }

    fn cuMemFreeHost(place: *mut c_void) {
        release_unseen(place as u64, true)
    }

    fn cuMemHostGetDevicePointer_v2(address: *mut u64, place: *mut c_void, flags: u32) {
        let driver = ready()?;
        if flags != 0 || driver.allocations.find(place as u64, 0).is_none() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        unsafe { give(address, place as u64) }
    }

    fn cuMemHostGetFlags(flags: *mut u32, place: *mut c_void) {
        let driver = ready()?;
        if !driver.owned.get(&(place as u64)).is_some_and(|owned| owned.kind == Kind::Pinned) {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        unsafe { give(flags, 2) }
    }

    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let driver = ready()?;
        let found = driver.allocations.find(address, 0).ok_or(Code::NOT_FOUND)?;
        // SAFETY: the caller's promise; either may be null.
        unsafe {
            if !base.is_null() {
                base.write(found.address);
            }
            if !bytes.is_null() {
                bytes.write(found.bytes as usize);
            }
        }
        Ok(())
    }

    fn cuPointerGetAttribute(data: *mut c_void, attribute: u32, address: u64) {
        let driver = driver()?;
        let found = driver.allocations.find(address, 0).ok_or(Code::INVALID_VALUE)?;
        let owned = driver.owned.get(&found.address).ok_or(Code::INVALID_VALUE)?;
        // SAFETY: the caller's promise: each attribute has its type.
        unsafe {
            match attribute {
                1 => give(data.cast(), owned.context),
                2 => give(data.cast(), if owned.kind == Kind::Pinned { 1u32 } else { 2 }),
                3 => give(data.cast(), address),
                4 if owned.kind != Kind::Device => give(data.cast(), address),
                7 => give(data.cast(), found.serial),
                8 => give(data.cast(), u32::from(owned.kind == Kind::Managed)),
                9 => give(data.cast::<c_int>(), 0),
                11 => give(data.cast(), found.address),
                12 => give(data.cast(), found.bytes),
                13 => give(data.cast(), 1u32),
                _ => Err(Code::INVALID_VALUE),
            }
        }
    }

    fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: c_int) {
        drop(driver()?);
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        // SAFETY: the caller's promise.
        unsafe { give(pool, POOL) }
    }

    fn cuDeviceGetMemPool(pool: *mut Handle, device: c_int) {
        drop(driver()?);
        if device != 0 {
            return Err(Code::INVALID_DEVICE);
        }
        // SAFETY: the caller's promise.
        unsafe { give(pool, POOL) }
    }

    fn cuMemPoolTrimTo(pool: Handle, _keep: usize) {
        drop(driver()?);
        // Freed memory is never kept.
        if pool == POOL { Ok(()) } else { Err(Code::INVALID_VALUE) }
    }

    fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: *mut c_void) {
        let driver = driver()?;
        let used = driver.allocations.used();
        // SAFETY: the caller's promise: each attribute has its type.
        unsafe {
            match attribute {
                _ if pool != POOL => Err(Code::INVALID_VALUE),
                1..=3 => give(value.cast(), 1u32),
                4 => give(value.cast(), 0u64),
                5..=8 => give(value.cast(), used),
                _ => Err(Code::INVALID_VALUE),
            }
        }
    }

    fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, _value: *mut c_void) {
        drop(driver()?);
        // How much to keep and when to reuse: nothing is kept.
        if pool == POOL && matches!(attribute, 1..=4 | 6 | 8) { Ok(()) } else { Err(Code::INVALID_VALUE) }
    }
}

/// The only memory pool.
const POOL: Handle = 0x800;
