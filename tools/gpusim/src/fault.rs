//! What a kernel did wrong, where, and the CUDA error that its caller gets.

use crate::ptx::ast::Space;
use std::fmt;

/// One access, as a report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The block's index in the grid.
    pub block: [u32; 3],
    /// The thread's index in the block; none when the whole warp acted as one.
    pub thread: Option<[u32; 3]>,
    /// PTX line.
    pub line: u32,
    /// Did it write?
    pub write: bool,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let verb = if self.write { "write" } else { "read" };
        write!(f, "{verb} by block ({bx},{by},{bz})")?;
        if let Some([x, y, z]) = self.thread {
            write!(f, " thread ({x},{y},{z})")?;
        }
        write!(f, " at PTX line {}", self.line)
    }
}

/// The kinds of wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kind {
    /// An access outside every live allocation.
    #[error("{} of {bytes} bytes at {address:#x} ({space:?}) is out of bounds; {nearest}", verb(*write))]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Bytes a thread accesses.
        bytes: u32,
        /// The instruction's state space.
        space: Space,
        /// A store?
        write: bool,
        /// The allocation that it missed, in words.
        nearest: String,
    },
    /// An access to memory that was freed.
    #[error("{} of {bytes} bytes at {address:#x} after its memory was freed; {nearest}", verb(*write))]
    UseAfterFree {
        /// First byte.
        address: u64,
        /// Bytes a thread accesses.
        bytes: u32,
        /// A store?
        write: bool,
        /// The allocation as it was.
        nearest: String,
    },
    /// An address that isn't a multiple of the access's size.
    #[error("{} of {bytes} bytes at {address:#x} is misaligned", verb(*write))]
    Misaligned {
        /// First byte.
        address: u64,
        /// Bytes a thread accesses.
        bytes: u32,
        /// A store?
        write: bool,
    },
    /// A read of memory that nobody wrote.
    #[error("read of {bytes} bytes at {address:#x} ({space:?}) that were never written; {nearest}")]
    Uninitialised {
        /// First byte.
        address: u64,
        /// Bytes a thread accesses.
        bytes: u32,
        /// The instruction's state space.
        space: Space,
        /// The allocation, in words.
        nearest: String,
    },
    /// Two accesses without an order between them, at least one a write.
    #[error("race at {address:#x} ({space:?}) with a {other}")]
    Race {
        /// A byte both touch.
        address: u64,
        /// The memory's space.
        space: Space,
        /// The earlier access; the later one is where the fault stands.
        other: Access,
    },
    /// A read of what an asynchronous copy has not yet delivered, or a write under one.
    #[error(
        "access to shared memory at {address:#x} under a cp.async that nobody waited for (issued at PTX line {line})"
    )]
    AsyncPending {
        /// The byte.
        address: u64,
        /// Line of the copy.
        line: u32,
    },
    /// A barrier that not all threads of a warp reached together.
    #[error("divergent barrier: {there} of the warp's {live} live threads reached it together")]
    DivergentBarrier {
        /// Threads at the barrier.
        there: u32,
        /// Threads that should be.
        live: u32,
    },
    /// Warps wait for each other and nobody can go on.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// A collective instruction whose member mask disagrees with the threads that execute it.
    #[error("{name} with member mask {named:#010x} executed by threads {active:#010x}")]
    MemberMask {
        /// The instruction.
        name: String,
        /// The mask it was given.
        named: u32,
        /// The threads that executed it.
        active: u32,
    },
    /// A barrier in shared memory that isn't there, or counts more than it expects.
    #[error("mbarrier at {address:#x}: {what}")]
    Mbarrier {
        /// Its address in shared memory.
        address: u64,
        /// What is wrong.
        what: String,
    },
    /// A tensor map that isn't one, or not one for this instruction.
    #[error("tensor map at {address:#x}: {what}")]
    TensorMap {
        /// Its generic address.
        address: u64,
        /// What is wrong.
        what: String,
    },
    /// `trap`.
    #[error("the kernel executed `trap`")]
    Trap,
    /// `assert` failed.
    #[error("assertion failed: {0}")]
    Assert(String),
    /// Something that this GPU can't do.
    #[error("not supported: {0}")]
    Unsupported(String),
}

fn verb(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

/// A fault: what, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: Kind,
    /// The kernel.
    pub kernel: String,
    /// The block's index in the grid.
    pub block: [u32; 3],
    /// The thread's index in its block.
    pub thread: [u32; 3],
    /// The PTX line.
    pub line: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [x, y, z]) = (self.block, self.thread);
        write!(
            f,
            "kernel `{}`, block ({bx},{by},{bz}), thread ({x},{y},{z}), PTX line {}: {}",
            self.kernel, self.line, self.kind
        )
    }
}

impl std::error::Error for Fault {}
