//! The interpreter: warps of 32 lanes in lock step, an instruction family a file.

mod access;
mod arithmetic;
mod async_copy;
mod atomic;
mod banks;
mod barrier;
mod bits;
mod block;
mod block_order;
mod builtin;
mod bulk_copy;
mod bulk_memory;
mod compare;
mod convert;
mod device_access;
mod float;
mod half_float;
mod lanes;
mod launch;
mod load_store;
mod map_edit;
mod matrix;
mod mbarrier;
mod memory;
mod moves;
mod processor;
mod product;
#[cfg(target_arch = "x86_64")]
mod product_avx512;
mod rounding;
mod shuffle;
mod tensor_copy;
mod tensor_sums;
mod warp;
mod wgmma;

pub use block_order::BlockOrder;
pub use launch::{Launch, Setup};
pub(crate) use processor::is_processor;
pub use tensor_sums::TensorSums;

use crate::fault::{Fault, Kind};
use crate::program::{DecodeError, Decoder, Inst, Kernel};
use crate::ptx::ast::{Instruction, Operand};
use block::Common;
use warp::Warp;

/// Bits of a generic address that name a window; device memory has none of them.
pub(crate) const SHARED_WINDOW: u64 = 1 << 56;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 56;
pub(crate) const PARAM_WINDOW: u64 = 3 << 56;

/// Why a warp stops before its next instruction.
pub enum Stop {
    /// It did wrong.
    Fault(Box<Fault>),
    /// It waits at a barrier; the instruction is done.
    Wait,
}

/// What executing an instruction gives.
pub type Done = Result<(), Stop>;

/// An instruction's implementation.
///
/// # Safety
/// The instruction's rows must be of the register file in the [`Core`], of the sizes that the implementation reads; and
/// the processor must have the features it was compiled for. The decoder sees to both.
pub type Exec = unsafe fn(&mut Core<'_>, &Inst, u32) -> Done;

/// Everything an instruction can reach: its warp, its block, its launch.
pub struct Core<'a> {
    /// The warp's register file.
    registers: *mut u8,
    /// The launch.
    pub launch: &'a Launch<'a>,
    /// What the block's warps share.
    pub common: &'a mut Common,
    /// The warp.
    pub warp: &'a mut Warp,
    /// What is counted.
    pub tally: &'a mut crate::count::Tally,
    /// Index of the instruction.
    pub at: u32,
}

impl Core<'_> {
    fn kernel(&self) -> &Kernel {
        self.launch.kernel
    }

    /// A fault of `lane` at the instruction in hand.
    #[cold]
    fn fault(&self, lane: u32, kind: Kind) -> Stop {
        Stop::Fault(Box::new(Fault {
            kind,
            kernel: self.kernel().name.clone(),
            block: self.common.index,
            thread: self.launch.thread(self.warp.number, lane),
            line: self.line(self.at),
        }))
    }

    fn line(&self, at: u32) -> u32 {
        self.kernel().code.get(at as usize).map_or(0, |inst| inst.line)
    }
}

/// Decodes one instruction that isn't control flow.
///
/// # Errors
/// An instruction or a variant of one that isn't supported.
pub fn decode(d: &mut Decoder<'_>, ins: &Instruction) -> Result<Inst, DecodeError> {
    match ins.opcode.as_str() {
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "abs" | "neg" | "min" | "max" | "addc" | "subc"
        | "madc" | "mul24" | "mad24" | "sad" | "dp4a" | "dp2a" => arithmetic::decode(d, ins),
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "ex2" | "lg2" | "tanh" | "copysign" | "testp" => {
            float::decode(d, ins)
        }
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bfind" | "brev" | "clz"
        | "popc" | "prmt" | "lop3" | "bmsk" | "szext" | "fns" => bits::decode(d, ins),
        "setp" | "set" | "selp" | "slct" => compare::decode(d, ins),
        "mov" | "cvta" | "isspacep" | "mapa" | "getctarank" => moves::decode(d, ins),
        "cvt" => convert::decode(d, ins),
        "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "createpolicy" => {
            memory::decode(d, ins)
        }
        "atom" | "red" => atomic::decode(d, ins),
        "shfl" | "vote" | "match" | "activemask" | "redux" | "elect" => shuffle::decode(d, ins),
        "bar" | "barrier" | "membar" | "fence" | "trap" | "brkpt" | "nanosleep" | "griddepcontrol" | "setmaxnreg"
        | "pmevent" => barrier::decode(d, ins),
        "mbarrier" => mbarrier::decode(d, ins),
        "cp" => async_copy::decode(d, ins),
        "tensormap" => map_edit::decode(d, ins),
        "wgmma" => wgmma::decode(d, ins),
        "ldmatrix" | "stmatrix" | "mma" | "movmatrix" => matrix::decode(d, ins),
        _ => d.unsupported(ins),
    }
}

/// Decodes a call of a function that the driver provides.
///
/// # Errors
/// A function that it doesn't.
pub fn decode_builtin(d: &mut Decoder<'_>, name: &str, inputs: &[Operand]) -> Result<Inst, DecodeError> {
    builtin::decode(d, name, inputs)
}
