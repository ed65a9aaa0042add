//! Which kernel a launch gets, and why: a function for each layer family, of the GPU, the precision, the shape, what is to be fused
//! and how operands are aligned, and of nothing else. So a choice can be asked for without a GPU, and results repeat.
//!
//! Tiles, architectures and fallbacks are known here. The launches beside this folder ask, and do what they are told.

pub mod conv;
pub mod dense;
pub mod depthwise;
pub mod pool;
pub mod rows;

use super::Precision;

/// What a choice depends on beside the work itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The GPU's compute capability. Every kernel so far is written for 8.0 and runs on what came after.
    pub capability: (i32, i32),
    /// Its streaming multiprocessors.
    pub multiprocessors: usize,
    /// What it computes in.
    pub precision: Precision,
}

impl Target {
    /// Bytes of an activation's element.
    pub fn element_bytes(&self) -> usize {
        if self.precision == Precision::Bf16 { 2 } else { 4 }
    }

    /// Elements in the 16 bytes of the widest load.
    pub fn lane(&self) -> usize {
        16 / self.element_bytes()
    }
}

/// A choice, with its reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice<K> {
    /// The kernel, and how the work is cut up for it.
    pub kernel: K,
    /// Why it is this one.
    pub reason: &'static str,
    /// Why it is not another: the kernel's name, or what several names begin with and a `*`.
    pub refused: Vec<(&'static str, Refusal)>,
}

/// Why a kernel was not chosen.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The kernel is for tensor cores.
    #[error("f32 is not multiplied on tensor cores")]
    NotForF32,
    /// The kernel is for CUDA cores, in a precision that has tensor cores.
    #[error("it exists in f32 only")]
    OnlyForF32,
    /// Channels are loaded by 16 bytes.
    #[error("{channels} channels are no multiple of {multiple}")]
    Channels {
        /// How many there are.
        channels: usize,
        /// Of how many there must be a multiple.
        multiple: usize,
    },
    /// So are filters.
    #[error("{filters} filters are no multiple of {multiple}")]
    Filters {
        /// How many there are.
        filters: usize,
        /// Of how many there must be a multiple.
        multiple: usize,
    },
    /// Operands are loaded by 16 bytes.
    #[error("an operand does not begin at a multiple of 16 bytes")]
    Unaligned,
    /// A view of f32 numbers that no convolution has asked for in bf16.
    #[error("the weights have no copy in bf16")]
    NoNarrowWeights,
    /// A pixel's taps are bits of a word.
    #[error("filters of {r}×{s} taps, of which at most 15×15 fit")]
    Taps {
        /// Rows.
        r: usize,
        /// Columns.
        s: usize,
    },
    /// The stem's kernels have its numbers built in.
    #[error("it is for 7×7 filters over 3 channels with stride 2 and padding 3, and no others")]
    NotTheStem,
    /// The kernel reads what is finished.
    #[error("its input owes no batch norm")]
    OwedInput,
    /// The taps that reach a pixel depend on the pixel.
    #[error("with a stride it takes filters of 1×1 without padding only")]
    StridedFilter,
    /// Each pixel of dy is one of dx.
    #[error("with a stride it is not for outputs that see only padding")]
    StridedPadding,
    /// Pixels that the stride skips are not computed.
    #[error("with a stride it has no epilogue")]
    StridedEpilogue,
    /// The estimate is against it.
    #[error("{}", slower(*percent))]
    Slower {
        /// Of the estimated time of the kernel that was chosen; 100 for a tie.
        percent: u32,
    },
    /// The kernels that slide have their filter built in.
    #[error("it is for filters of 3×3 with stride 1 or 2, and no others")]
    NotThisFilter,
    /// The kernel has its window built in.
    #[error("it is for windows of 3×3 in steps of 2, and no others")]
    NotThisWindow,
}

fn slower(percent: u32) -> String {
    match percent {
        ..=100 => "no faster by the estimate".to_owned(),
        _ => format!("slower: {percent} % of the chosen one's time by the estimate"),
    }
}

impl Refusal {
    /// For a kernel that takes `cost` where the chosen one takes `best`.
    fn slower(cost: f64, best: f64) -> Self {
        Refusal::Slower { percent: (100.0 * cost / best).round() as u32 }
    }
}
