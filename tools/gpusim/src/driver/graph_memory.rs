//! Memory of graphs: allocations that were captured. Their addresses are taken when they are captured and belong to the
//! graph; memory is there from the node that allocates to the one that frees, in each replay anew.

use super::context::current;
use super::graph::{Graph, Operation};
use super::memory::{Kind, Owned};
use super::state::Driver;
use super::{Answer, Code, Handle, report};
use std::sync::Arc;

/// Addresses that a graph and its executables have taken: starts and sizes.
pub(super) type Reserved = Arc<Vec<(u64, u64)>>;

impl Driver {
    /// Notes an allocation in the capture of `stream`; none if it isn't captured.
    pub fn capture_allocation(&mut self, bytes: usize, stream: Handle) -> Answer<Option<u64>> {
        if self.capture_of(stream)?.is_none() {
            return Ok(None);
        }
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let bytes = bytes as u64;
        let address = self.allocations.reserve(bytes).ok_or(Code::OUT_OF_MEMORY)?;
        self.reserved.insert(address);
        if let Some(capture) = self.capture_of(stream)? {
            capture.reserved.push((address, bytes));
            capture.operations.push(Operation::Allocate { address, bytes });
        }
        Ok(Some(address))
    }

    /// Notes that memory of a graph is freed, in the capture of `stream`; false if it isn't captured.
    pub fn capture_free(&mut self, address: u64, stream: Handle) -> Answer<bool> {
        if self.capture_of(stream)?.is_none() {
            return Ok(false);
        }
        if !self.reserved.contains(&address) {
            report::say(&format!("cuMemFreeAsync in a capture: {address:#x} was not allocated in one"));
            return Err(Code::INVALID_VALUE);
        }
        if let Some(capture) = self.capture_of(stream)? {
            capture.operations.push(Operation::Free { address });
        }
        Ok(true)
    }

    /// A graph's node that allocates.
    pub fn allocate_reserved(&mut self, context: Handle, address: u64, bytes: u64) -> Answer {
        if self.owned.contains_key(&address) {
            report::say(&format!(
                "a graph is launched again before its memory at {address:#x} was freed (a flag of its instantiation \
                 frees it: CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)"
            ));
            return Err(Code::INVALID_VALUE);
        }
        self.check_room(bytes)?;
        self.allocations.occupy(address, bytes, "of a graph");
        self.owned.insert(address, Owned { context, kind: Kind::Graph });
        Ok(())
    }

    /// Ends an allocation of a graph; its address stays the graph's. Replays free by this, and everybody else.
    pub fn free_reserved(&mut self, address: u64) -> Answer {
        self.owned.remove(&address).ok_or(Code::INVALID_VALUE)?;
        let allocation = self.allocations.vacate(address).ok_or(Code::INVALID_VALUE)?;
        self.arena.forget(allocation.address, allocation.bytes);
        Ok(())
    }

    /// Frees what a launch of this graph has left.
    pub fn free_left(&mut self, graph: &Graph) -> Answer {
        let left: Vec<u64> =
            graph.reserved.iter().map(|&(address, _)| address).filter(|a| self.owned.contains_key(a)).collect();
        left.into_iter().try_for_each(|address| self.free_reserved(address))
    }

    /// A graph or an executable is gone. With the last that has them its addresses are free again; memory that is
    /// still there becomes its context's, to be freed like any other.
    pub fn drop_reserved(&mut self, reserved: Reserved) {
        let Some(ranges) = Arc::into_inner(reserved) else { return };
        for (address, bytes) in ranges {
            self.reserved.remove(&address);
            match self.owned.get_mut(&address) {
                Some(owned) => owned.kind = Kind::Device,
                None => self.allocations.release(address, bytes),
            }
        }
    }

    /// A graph that may run beside another of the same memory: none may.
    pub fn check_alone(&self, graph: &Graph) -> Answer {
        if graph.reserved.is_empty() || Arc::strong_count(&graph.reserved) == 1 {
            return Ok(());
        }
        report::say("a graph that allocates memory is instantiated while another executable of it is there");
        Err(Code::INVALID_VALUE)
    }
}

/// Allocates on a stream: now, or in each replay of the graph that is captured.
pub(super) fn on_stream(driver: &mut Driver, bytes: usize, stream: Handle) -> Answer<u64> {
    current().ok_or(Code::INVALID_CONTEXT)?;
    match driver.capture_allocation(bytes, stream)? {
        Some(address) => Ok(address),
        None => driver.allocate(bytes, Kind::Device, "device"),
    }
}
