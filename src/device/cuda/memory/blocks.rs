//! Blocks of device memory, and the pool that gives them out again and again, so that addresses repeat.

use crate::device::DeviceError;
use crate::device::cuda::words;
use cudarc::driver::sys::{CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Memory from the driver, freed when dropped.
pub struct Block {
    address: CUdeviceptr,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Block {
    /// Where it begins: a multiple of 256.
    pub(in crate::device::cuda) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the address came from `malloc_sync` and is freed once. The call waits for kernels that still use it.
            // An error can only be an earlier fault's, which has been reported where it struck.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Blocks at rest, by size.
pub type Idle = RefCell<HashMap<usize, Vec<Block>>>;

/// Memory that is given out again and again.
pub struct Pool {
    device: String,
    context: Arc<CudaContext>,
    /// Where buffers come from and go back to at present: the shared list, or that of a [`Plan`](crate::device::cuda::replay::Plan).
    current: RefCell<Rc<Idle>>,
    /// The list of everything outside plans.
    shared: Rc<Idle>,
    /// Buffers given out and not yet back.
    out: Cell<usize>,
}

impl Pool {
    pub(in crate::device::cuda) fn new(device: &str, context: &Arc<CudaContext>) -> Self {
        let shared = Rc::new(Idle::default());
        let current = RefCell::new(Rc::clone(&shared));
        Pool { device: device.into(), context: Arc::clone(context), current, shared, out: Cell::new(0) }
    }

    /// A block straight from the driver; if it has no room, once more without the idle blocks.
    pub(in crate::device::cuda) fn block(&self, bytes: usize) -> Result<Block, DeviceError> {
        self.context.bind_to_thread().map_err(|error| self.refused(bytes, error))?;
        // SAFETY: plain memory; nothing reads it before a kernel or a copy has written it.
        let attempt = || unsafe { result::malloc_sync(bytes) };
        let address = attempt().or_else(|_| {
            self.shared.borrow_mut().clear();
            attempt()
        });
        let address = address.map_err(|error| self.refused(bytes, error))?;
        Ok(Block { address, bytes, context: Arc::clone(&self.context) })
    }

    fn refused(&self, bytes: usize, error: DriverError) -> DeviceError {
        let device = self.device.clone();
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory { device, bytes },
            _ => DeviceError::Driver { device, call: format!("allocating {bytes} bytes"), reason: words(error) },
        }
    }

    /// Takes buffers from `list` until the returned list is put back in its place.
    pub(in crate::device::cuda) fn exchange(&self, list: Rc<Idle>) -> Rc<Idle> {
        self.current.replace(list)
    }

    /// Buffers given out and not yet back.
    pub(in crate::device::cuda) fn out(&self) -> usize {
        self.out.get()
    }
}

/// A block on loan from the pool.
pub(super) struct Loan {
    block: Option<Block>,
    home: Rc<Idle>,
    pool: Rc<Pool>,
}

impl Loan {
    /// A block of that many bytes or some more.
    pub(super) fn new(pool: &Rc<Pool>, bytes: usize) -> Result<Self, DeviceError> {
        // Sizes are rounded up, so that tensors of nearly one size share blocks; nothing is smaller than a sector.
        let bytes = bytes.max(1).next_multiple_of(512);
        let home = Rc::clone(&pool.current.borrow());
        let idle = home.borrow_mut().get_mut(&bytes).and_then(Vec::pop);
        let block = match idle {
            Some(block) => block,
            None => pool.block(bytes)?,
        };
        pool.out.set(pool.out.get() + 1);
        Ok(Loan { block: Some(block), home, pool: Rc::clone(pool) })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> u64 {
        self.block.as_ref().map_or(0, Block::address)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.out.set(self.pool.out.get() - 1);
            self.home.borrow_mut().entry(block.bytes).or_default().push(block);
        }
    }
}

/// Sets a block to zero.
pub(in crate::device::cuda) fn clear(stream: &Arc<CudaStream>, block: &Block) -> Result<(), DriverError> {
    stream.context().bind_to_thread()?;
    // SAFETY: the block is ours and as long as it says.
    unsafe { result::memset_d8_async(block.address, 0, block.bytes, stream.cu_stream()) }
}
