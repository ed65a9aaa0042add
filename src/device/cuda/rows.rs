//! A matrix of rows of channels, and the grid that walks it (`kernels/primitives/rows.cuh`).

use super::kernels::Launch;
use super::memory::Element;
use super::{Cuda, Precision};
use crate::device::{DeviceError, Work};

/// Threads a block.
const THREADS: usize = 256;
/// Groups of channels across a block, at most.
const COLUMNS: usize = 16;
/// Rows a thread has under way at once.
const UNROLL: usize = 2;
/// Elements that the kernels' indices reach; what a grid steps past the end stays below 2³¹ as well.
const MOST_ELEMENTS: usize = 1 << 30;

/// Mirror of `Rows`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    rows: i32,
    channels: i32,
    columns: i32,
    wide: i32,
}

/// How blocks share a matrix: by slices of its channels, and by rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// What the kernel is told.
    pub(super) extents: Extents,
    /// Bytes of the whole matrix.
    pub(super) bytes: u64,
    slices: usize,
    lines: usize,
}

impl Walk {
    /// Over `rows` of `channels`, for a kernel whose activations begin at the given addresses.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] for an empty matrix, one larger than the kernels' indices reach, and activations that aren't
    /// stored as this device stores them.
    pub(super) fn new(
        device: &Cuda,
        kernel: &'static str,
        rows: usize,
        channels: usize,
        activations: &[(u64, Element)],
    ) -> Result<Self, DeviceError> {
        let element = if device.precision() == Precision::Bf16 { Element::Bf16 } else { Element::F32 };
        let refuse = |reason| Err(DeviceError::Shape { kernel, reason });
        if activations.iter().any(|activation| activation.1 != element) {
            return refuse(format!("activations are stored as {element:?} here, not as {activations:?}"));
        }
        let elements = rows.saturating_mul(channels);
        if elements == 0 || elements > MOST_ELEMENTS {
            return refuse(format!("{rows} rows of {channels} channels; 1 to 2³⁰ elements fit"));
        }
        let lane = 16 / element.bytes();
        let wide = channels.is_multiple_of(lane) && activations.iter().all(|(address, _)| address.is_multiple_of(16));
        let groups = if wide { channels / lane } else { channels };
        // Slices of equal width: the last of unequal ones would leave most of its block idle.
        let columns = groups.div_ceil(groups.div_ceil(COLUMNS));
        let extents =
            Extents { rows: rows as i32, channels: channels as i32, columns: columns as i32, wide: i32::from(wide) };
        let bytes = (elements * element.bytes()) as u64;
        Ok(Walk { extents, bytes, slices: groups.div_ceil(columns), lines: THREADS / columns })
    }

    /// The same for one image of several: `pixels` of the rows.
    pub(super) fn one_image(self, pixels: usize) -> Self {
        Walk { extents: Extents { rows: pixels as i32, ..self.extents }, ..self }
    }

    /// Slices of the channels.
    pub(super) fn slices(&self) -> usize {
        self.slices
    }

    /// Blocks that share the rows: as many as `most` a multiprocessor allow, unless threads would have less than they can
    /// have under way.
    pub(super) fn blocks(&self, device: &Cuda, most: usize) -> usize {
        let wanted = (self.extents.rows as usize).div_ceil(UNROLL * self.lines);
        wanted.min(most * device.multiprocessors() as usize / self.slices).max(1)
    }

    /// The launch of so many blocks a slice.
    pub(super) fn launch(&self, blocks: usize, work: Work) -> Launch {
        Launch { grid: [self.slices as u32, blocks as u32, 1], block: THREADS as u32, shared: 0, work }
    }
}
