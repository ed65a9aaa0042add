//! The simulated GPU without a driver: memory, a module, a launch. For tests and benches of the interpreter itself.

use crate::check::{Allocations, Arena};
use crate::count::{Gpu, Registers, Summary, Tally};
use crate::exec::{BlockOrder, Launch, Setup, TensorSums};
use crate::fault::Fault;
use crate::program::{DecodeError, Kernel, Module};
use crate::ptx::ParseError;
use crate::tensor_map::TensorMap;
use std::sync::Arc;

/// What can go wrong before a kernel runs, and while it does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host gives no address space for device memory.
    #[error("no address space for device memory: {0}")]
    Memory(#[from] std::io::Error),
    /// Text that isn't PTX.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// An instruction that isn't supported.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A kernel that the module doesn't have.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// A kernel did wrong.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

/// Bytes of device memory.
const MEMORY: usize = 16 << 30;

/// A GPU with a module loaded.
pub struct Simulator {
    arena: Arena,
    allocations: Allocations,
    module: Module,
    launches: u32,
    /// How tensor cores add.
    pub sums: TensorSums,
    /// The order in which blocks begin.
    pub order: BlockOrder,
    /// May a `cp.async` of nothing but zeros name memory that isn't there?
    pub masked_anywhere: bool,
}

/// A kernel's arguments, packed as its parameters are.
#[derive(Clone, Debug, Default)]
pub struct Arguments(Vec<u8>);

impl Arguments {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a value of 4 or 8 bytes more, at its own alignment.
    #[must_use]
    pub fn with<const N: usize>(mut self, value: [u8; N]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(N), 0);
        self.0.extend(value);
        self
    }

    /// With a pointer more.
    #[must_use]
    pub fn pointer(self, address: u64) -> Self {
        self.with(address.to_le_bytes())
    }

    /// With a tensor map more, as a parameter by value.
    #[must_use]
    pub fn tensor_map(mut self, map: &TensorMap) -> Self {
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        self.0.extend(map.encode().iter().flat_map(|word| word.to_le_bytes()));
        self
    }

    /// With a 32-bit integer more.
    #[must_use]
    pub fn int(self, value: i32) -> Self {
        self.with(value.to_le_bytes())
    }

    /// With a single more.
    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.with(value.to_le_bytes())
    }
}

impl Simulator {
    /// A GPU with this PTX.
    ///
    /// # Errors
    /// Text that isn't PTX, or a host without address space.
    pub fn new(ptx: &str) -> Result<Self, Error> {
        let arena = Arena::of(MEMORY)?;
        let allocations = Allocations::new(arena.base(), arena.bytes() as u64);
        let (module, sums, order) = (Module::parse(ptx)?, TensorSums::default(), BlockOrder::default());
        let mut simulator = Self { arena, allocations, module, launches: 0, sums, order, masked_anywhere: false };
        let variables: Vec<_> = simulator.module.variables().cloned().collect();
        for variable in &variables {
            let address = simulator.allocate(variable.bytes().max(1))?;
            simulator.module.place(&variable.name, address);
        }
        for variable in &variables {
            if let Some(global) = simulator.module.global(&variable.name) {
                simulator.write(global.address, &simulator.module.image(variable));
            }
        }
        Ok(simulator)
    }

    /// Takes device memory, not initialised.
    ///
    /// # Errors
    /// None is left.
    pub fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.allocations.allocate(bytes as u64, "device");
        address.ok_or_else(|| Error::Memory(std::io::ErrorKind::OutOfMemory.into()))
    }

    /// Takes device memory with these bytes.
    ///
    /// # Errors
    /// None is left.
    pub fn upload(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let address = self.allocate(bytes.len())?;
        self.write(address, bytes);
        Ok(address)
    }

    /// Frees the memory at `address`.
    pub fn free(&mut self, address: u64) {
        if let Some(allocation) = self.allocations.free(address) {
            self.arena.forget(allocation.address, allocation.bytes);
        }
    }

    /// Writes device memory.
    ///
    /// # Panics
    /// Outside of an allocation.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        assert!(self.allocations.find(address, bytes.len() as u64).is_some(), "{address:#x} is not allocated");
        // SAFETY: the range is inside an allocation, and no launch runs: those borrow the simulator mutably.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        self.arena.mark(address, bytes.len() as u64, true);
    }

    /// Reads device memory.
    ///
    /// # Panics
    /// Outside of an allocation.
    #[must_use]
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        assert!(self.allocations.find(address, bytes as u64).is_some(), "{address:#x} is not allocated");
        // SAFETY: as in `write`.
        unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec()
    }

    /// A kernel of the module.
    ///
    /// # Errors
    /// There is none of this name, or it needs what isn't supported.
    pub fn kernel(&mut self, name: &str) -> Result<Arc<Kernel>, Error> {
        self.module.kernel(name)?.ok_or_else(|| Error::NoKernel(name.to_owned()))
    }

    /// Runs a kernel on `grid` blocks of `block` threads, and gives what was counted.
    ///
    /// # Errors
    /// What [`Self::kernel`] gives, or the kernel's fault.
    pub fn launch(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        arguments: &Arguments,
    ) -> Result<Tally, Error> {
        self.run(name, grid, block, dynamic_shared, arguments, |_, tally| tally)
    }

    /// Runs a kernel as [`Self::launch`] does, and gives what it did and its floors on `gpu`.
    ///
    /// # Errors
    /// What [`Self::launch`] gives.
    pub fn measure(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        arguments: &Arguments,
        gpu: &Gpu,
    ) -> Result<Summary, Error> {
        self.run(name, grid, block, dynamic_shared, arguments, |launch, tally| {
            Summary::new(launch, &tally, gpu, Registers::declared(launch.kernel))
        })
    }

    fn run<T>(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        arguments: &Arguments,
        counted: impl FnOnce(&Launch<'_>, Tally) -> T,
    ) -> Result<T, Error> {
        let kernel = self.kernel(name)?;
        self.launches += 1;
        let (sums, order, masked_anywhere) = (self.sums, self.order, self.masked_anywhere);
        let setup = Setup { grid, block, dynamic_shared, multiprocessors: 108, sums, order, masked_anywhere };
        let mut buffer = arguments.0.clone();
        buffer.resize(kernel.parameter_bytes.max(buffer.len()), 0);
        let launch = Launch::new(&kernel, setup, &buffer, &self.arena, &self.allocations, self.launches);
        let tally = launch.run()?;
        Ok(counted(&launch, tally))
    }
}
