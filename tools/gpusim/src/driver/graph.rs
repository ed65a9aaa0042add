//! Work: what a stream is given, at once or as a graph to be replayed.

use super::context::current;
use super::graph_memory::Reserved;
use super::late::Work;
use super::state::Driver;
use super::{Answer, Code, Handle, api, driver, give, ready, report};
use crate::exec::Setup;
use std::ffi::{c_char, c_ulonglong, c_void};

/// A host function of the caller.
pub(super) type HostFunction = unsafe extern "C" fn(*mut c_void);

/// A piece of work.
#[derive(Clone)]
pub(super) enum Operation {
    /// Run a kernel.
    Launch { function: Handle, setup: Setup, arguments: Vec<u8> },
    /// Copy rows of bytes; device addresses are host addresses.
    Copy(super::copy::Rows),
    /// Fill rows of elements.
    Fill(super::copy::Fill),
    /// Call a function of the host.
    Host { function: HostFunction, data: u64 },
    /// Allocate memory of the graph.
    Allocate { address: u64, bytes: u64 },
    /// Free memory of a graph.
    Free { address: u64 },
}

/// Operations in an order that respects every dependence: the order of the calls that were captured.
#[derive(Clone, Default)]
pub(super) struct Graph {
    pub operations: Vec<Operation>,
    /// What its allocations have taken.
    pub reserved: Reserved,
    /// Before each launch, free what the last one left.
    frees_first: bool,
}

impl Graph {
    pub fn new(operations: Vec<Operation>, reserved: Vec<(u64, u64)>) -> Self {
        Self { operations, reserved: Reserved::new(reserved), frees_first: false }
    }

    /// The functions that it launches.
    pub fn functions(&self) -> impl Iterator<Item = Handle> {
        self.operations.iter().filter_map(|operation| match operation {
            Operation::Launch { function, .. } => Some(*function),
            _ => None,
        })
    }
}

impl Driver {
    /// Does a piece of work now, or notes it if its stream is captured or runs late.
    pub fn submit(&mut self, stream: Handle, operation: Operation) -> Answer {
        if let Some(capture) = self.capture_of(stream)? {
            capture.operations.push(operation);
            return Ok(());
        }
        if self.late.is_some() {
            return self.defer(stream, operation);
        }
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        self.perform(context, &operation)
    }

    /// Does several pieces of work, as far as they go well.
    pub fn perform_all(&mut self, context: Handle, operations: &[Operation]) -> Answer {
        for operation in operations {
            self.perform(context, operation)?;
            if self.healthy(context).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub fn perform(&mut self, context: Handle, operation: &Operation) -> Answer {
        match operation {
            Operation::Launch { function, setup, arguments } => self.run_kernel(context, *function, *setup, arguments),
            Operation::Copy(rows) => self.copy(rows),
            Operation::Fill(fill) => self.fill(fill),
            Operation::Host { function, data } => {
                // SAFETY: the caller gave a function for this data. It may not call the driver, CUDA says.
                unsafe { function(*data as *mut c_void) };
                Ok(())
            }
            Operation::Allocate { address, bytes } => self.allocate_reserved(context, *address, *bytes),
            Operation::Free { address } => self.free_reserved(*address),
        }
    }
}

fn instantiate(executable: *mut Handle, graph: Handle, flags: u64) -> Answer {
    let mut driver = ready()?;
    let graph = driver.graphs.get(&graph).ok_or(Code::INVALID_VALUE)?;
    driver.check_alone(graph)?;
    let graph = Graph { frees_first: flags & FREE_FIRST != 0, ..graph.clone() };
    let handle = driver.handle();
    driver.executables.insert(handle, graph);
    // SAFETY: the caller's promise.
    unsafe { give(executable, handle) }
}

/// The instantiation flag for [`Graph::frees_first`].
const FREE_FIRST: u64 = 1;
/// That one, and those that change nothing here: upload, node priorities.
const KNOWN_FLAGS: u64 = FREE_FIRST | 2 | 8;

api! {
    fn cuGraphCreate(graph: *mut Handle, flags: u32) {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let mut driver = ready()?;
        let handle = driver.handle();
        driver.graphs.insert(handle, Graph::default());
        // SAFETY: the caller's promise.
        unsafe { give(graph, handle) }
    }

    fn cuGraphDestroy(graph: Handle) {
        let mut driver = driver()?;
        let graph = driver.graphs.remove(&graph).ok_or(Code::INVALID_VALUE)?;
        driver.drop_reserved(graph.reserved);
        Ok(())
    }

    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: c_ulonglong) {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Code::INVALID_VALUE);
        }
        instantiate(executable, graph, flags)
    }

    fn cuGraphInstantiate_v2(
        executable: *mut Handle,
        graph: Handle,
        _node: *mut Handle,
        _log: *mut c_char,
        _bytes: usize,
    ) {
        instantiate(executable, graph, 0)
    }

    fn cuGraphUpload(executable: Handle, stream: Handle) {
        let driver = ready()?;
        driver.stream(stream)?;
        driver.executables.get(&executable).map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        let mut driver = ready()?;
        let graph = driver.executables.get(&executable).ok_or(Code::INVALID_VALUE)?.clone();
        if let Some(capture) = driver.capture_of(stream)? {
            if !graph.reserved.is_empty() {
                report::say("cuGraphLaunch in a capture: a graph that allocates memory can't be part of another");
                return Err(Code::NOT_SUPPORTED);
            }
            capture.operations.extend(graph.operations);
            return Ok(());
        }
        if driver.late.is_some() && graph.reserved.is_empty() {
            return driver.enqueue(stream, Work::Graph(graph.operations), None).map(|_| ());
        }
        driver.run_stream(stream)?;
        if graph.frees_first {
            driver.free_left(&graph)?;
        }
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        driver.perform_all(context, &graph.operations)
    }

    fn cuGraphExecDestroy(executable: Handle) {
        let mut driver = driver()?;
        let graph = driver.executables.remove(&executable).ok_or(Code::INVALID_VALUE)?;
        driver.drop_reserved(graph.reserved);
        Ok(())
    }

    fn cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize) {
        let driver = driver()?;
        let graph = driver.graphs.get(&graph).ok_or(Code::INVALID_VALUE)?;
        if !nodes.is_null() {
            report::say("cuGraphGetNodes: the nodes of a graph have no handles; only their count is known");
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the caller's promise.
        unsafe { give(count, graph.operations.len()) }
    }

    fn cuLaunchHostFunc(stream: Handle, function: Option<HostFunction>, data: *mut c_void) {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        ready()?.submit(stream, Operation::Host { function, data: data as u64 })
    }
}
