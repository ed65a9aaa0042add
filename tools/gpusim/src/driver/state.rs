//! What the driver knows: one device, its memory, and everything that callers made.

use super::device::Device;
use super::events::Event;
use super::graph::Graph;
use super::late::Late;
use super::memory::Owned;
use super::modes::Modes;
use super::module::{Function, Loaded};
use super::stream::{Capture, Stream};
use super::{Answer, Code, Handle, report};
use crate::check::{Allocations, Arena};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// A context.
pub(super) struct Context {
    /// What a kernel did wrong in it: sticky.
    pub failed: Option<Code>,
    /// For the primary context, how often it is retained.
    pub retained: u32,
    pub primary: bool,
    pub flags: u32,
    pub limits: HashMap<u32, usize>,
}

/// The driver.
pub(super) struct Driver {
    pub device: Device,
    pub modes: Modes,
    pub arena: &'static Arena,
    pub allocations: Allocations,
    pub owned: HashMap<u64, Owned>,
    pub contexts: HashMap<Handle, Context>,
    pub primary: Option<Handle>,
    pub modules: HashMap<Handle, Loaded>,
    pub functions: HashMap<Handle, Function>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub graphs: HashMap<Handle, Graph>,
    pub executables: HashMap<Handle, Graph>,
    pub captures: HashMap<Handle, Capture>,
    pub links: HashMap<Handle, Vec<u8>>,
    /// Addresses that graphs have taken for their memory.
    pub reserved: HashSet<u64>,
    /// What streams have not done yet, if they run late.
    pub late: Option<Late>,
    /// Launches so far.
    pub launches: u32,
    next: Handle,
}

static DRIVER: OnceLock<Mutex<Driver>> = OnceLock::new();

/// Makes the driver, if nobody has.
pub(super) fn initialise() -> Answer {
    if DRIVER.get().is_some() {
        return Ok(());
    }
    static ARENA: OnceLock<Arena> = OnceLock::new();
    let arena = match ARENA.get() {
        Some(arena) => arena,
        None => {
            let arena = Arena::largest().map_err(|error| {
                report::say(&format!("the host refuses address space for device memory: {error}"));
                Code::OUT_OF_MEMORY
            })?;
            ARENA.get_or_init(|| arena)
        }
    };
    let device = Device::chosen()?;
    let modes = Modes::chosen(device.gpu.capability)?;
    let late = modes.late.then(Late::default);
    DRIVER.get_or_init(|| {
        Mutex::new(Driver {
            device,
            modes,
            arena,
            allocations: Allocations::new(arena.base(), arena.bytes() as u64),
            owned: HashMap::new(),
            contexts: HashMap::new(),
            primary: None,
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            captures: HashMap::new(),
            links: HashMap::new(),
            reserved: HashSet::new(),
            late,
            launches: 0,
            next: 0x1000,
        })
    });
    Ok(())
}

/// The driver, locked.
pub(super) fn get() -> Answer<MutexGuard<'static, Driver>> {
    DRIVER.get().map(|driver| driver.lock()).ok_or(Code::NOT_INITIALIZED)
}

/// The driver, locked, if there is one and nobody has it.
pub(super) fn try_get() -> Option<MutexGuard<'static, Driver>> {
    DRIVER.get()?.try_lock()
}

impl Driver {
    /// A handle that was never used.
    pub fn handle(&mut self) -> Handle {
        self.next += 16;
        self.next
    }

    /// The context is there and has not failed.
    pub fn healthy(&self, context: Handle) -> Answer {
        match self.contexts.get(&context) {
            None => Err(Code::CONTEXT_IS_DESTROYED),
            Some(Context { failed: Some(code), .. }) => Err(*code),
            Some(_) => Ok(()),
        }
    }

    /// Marks the context of a failed kernel.
    pub fn fail(&mut self, context: Handle, code: Code) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.failed.get_or_insert(code);
        }
    }
}
