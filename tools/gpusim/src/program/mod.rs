//! A kernel made ready to run: names resolved to register rows, instructions to function pointers, branches to indices.

mod calls;
mod decode;
mod flow;
mod module;
mod names;
mod operands;

pub use decode::{DecodeError, Decoder};
pub use module::Module;
pub use operands::Address;

use crate::exec::Exec;

/// The place of a register row: a byte offset into a warp's register file.
///
/// A row holds one value a lane (32 of them), except for a predicate, which is one `u32` mask.
pub type Slot = u32;

/// No join: the paths meet again nowhere but at the end.
pub const NEVER: u32 = u32::MAX;

/// What an instruction costs, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer and bit arithmetic, comparisons, selections.
    Integer,
    /// Half-, bfloat- and single-precision arithmetic.
    Float,
    /// Double precision.
    Double,
    /// Reciprocals, roots, exponentials and other approximations.
    Special,
    /// Conversions.
    Convert,
    /// Moves.
    Move,
    /// Loads and stores.
    Memory,
    /// Atomics and reductions.
    Atomic,
    /// Shuffles, votes, matches.
    Exchange,
    /// Tensor-core products and their fragment loads.
    Matrix,
    /// Barriers and fences.
    Barrier,
    /// Branches, calls, exits.
    Control,
}

/// What an instruction does.
#[derive(Clone, Copy)]
pub enum Act {
    /// Work on the active lanes.
    Lanes(Exec),
    /// A branch, conditional when guarded; paths that part here meet at `join`.
    Branch {
        /// Index of the target.
        target: u32,
        /// Index of the immediate post-dominator.
        join: u32,
    },
    /// A branch through a table, by the lane's index in operand 0.
    Switch {
        /// Which table of [`Kernel::tables`].
        table: u32,
        /// Index of the immediate post-dominator.
        join: u32,
    },
    /// A call of a device function: which of [`Kernel::calls`].
    Call(u32),
    /// The end of a device function.
    Return,
    /// The end of a thread.
    Exit,
}

/// A decoded instruction.
pub struct Inst {
    /// What it does.
    pub act: Act,
    /// Row of its predicate, if guarded.
    pub guard: Option<std::num::NonZero<u32>>,
    /// Is the guard negated?
    pub negated: bool,
    /// What it costs.
    pub class: Class,
    /// Line in the module's text.
    pub line: u32,
    /// The first operands, destination first.
    pub a: [Slot; 5],
    /// An immediate: an address offset, a lookup table, a packed description.
    pub imm: i64,
    /// More rows, where five are too few.
    pub wide: Box<[Slot]>,
    /// Floating-point operations of a whole-warp matrix instruction.
    pub flops: u32,
    /// The same in time: as many operations on 16-bit floats take as long.
    pub tensor_cost: u32,
}

impl Inst {
    /// An instruction that does `act` on `rows`.
    ///
    /// # Panics
    /// On more than five rows.
    #[must_use]
    pub fn new(class: Class, act: Act, rows: &[Slot]) -> Self {
        let mut a = [0; 5];
        a[..rows.len()].copy_from_slice(rows);
        Self {
            act,
            guard: None,
            negated: false,
            class,
            line: 0,
            a,
            imm: 0,
            wide: Box::default(),
            flops: 0,
            tensor_cost: 0,
        }
    }

    /// With an immediate.
    #[must_use]
    pub fn imm(mut self, imm: i64) -> Self {
        self.imm = imm;
        self
    }

    /// With more rows.
    #[must_use]
    pub fn wide(mut self, wide: Vec<Slot>) -> Self {
        self.wide = wide.into();
        self
    }
}

/// A row that is filled when a warp starts.
#[derive(Clone, Copy, Debug)]
pub enum Fill {
    /// A constant of `size` bytes in every lane.
    Bits {
        /// Bytes of an element.
        size: u8,
        /// The value.
        bits: u64,
    },
    /// Where dynamic shared memory begins.
    DynamicShared,
    /// A special register.
    Special(Special),
}

/// Special registers whose value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are PTX's own")]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    SmId,
    NsmId,
    GridId,
    DynamicSharedSize,
    TotalSharedSize,
    Zero,
    One,
}

/// A kernel's parameter in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Bytes that a call moves between parameter spaces, within a thread's local memory.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// From this offset.
    pub from: u32,
    /// To this one.
    pub to: u32,
    /// So many bytes.
    pub bytes: u32,
}

/// A call of a device function.
#[derive(Debug)]
pub struct CallSite {
    /// Index of its first instruction.
    pub entry: u32,
    /// Arguments, before.
    pub inputs: Vec<Copy>,
    /// Results, after.
    pub outputs: Vec<Copy>,
}

/// A kernel with all it calls.
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its instructions, then those of its functions.
    pub code: Vec<Inst>,
    /// Tables of indirect branches.
    pub tables: Vec<Vec<u32>>,
    /// Its calls.
    pub calls: Vec<CallSite>,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Bytes of its parameters.
    pub parameter_bytes: usize,
    /// Bytes of a warp's register file.
    pub register_bytes: usize,
    /// 32-bit registers a thread declares in PTX: an upper bound, since nothing is allocated.
    pub declared_registers: u32,
    /// Rows to fill when a warp starts.
    pub fills: Vec<(Slot, Fill)>,
    /// Bytes of local memory a thread.
    pub local_bytes: usize,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    /// Alignment of dynamic shared memory.
    pub dynamic_align: usize,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// `.maxntid`, or 1024.
    pub max_threads: u32,
    /// `.version` of its module, as major × 10 + minor.
    pub ptx_version: u32,
    /// The number in its module's `.target`: 80 for `sm_80`.
    pub target: u32,
}
