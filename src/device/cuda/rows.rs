//! A matrix of rows of channels, and the grid that walks it (`kernels/primitives/rows.cuh`).

use super::Cuda;
use super::arguments::arguments;
use super::choose::rows::{self as choose, RowBlocks, THREADS, UNROLL};
use super::kernels::Launch;
use super::memory::Element;
use crate::device::{DeviceError, Work};

/// Elements that the kernels' indices reach; what a grid steps past the end stays below 2³¹ as well.
pub(super) const MOST_ELEMENTS: usize = 1 << 30;

arguments! {
    /// What a walk is told: the matrix, and how a block lies across it.
    struct WalkShape {
        rows: i32,
        channels: i32,
        columns: i32,
        wide: i32,
    }
}

/// How blocks share a matrix: by slices of its channels, and by rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// What the kernel is told.
    pub(super) shape: WalkShape,
    /// Bytes of the whole matrix.
    pub(super) bytes: u64,
    across: RowBlocks,
    threads: usize,
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
        let element = device.activation_element();
        let refuse = |reason| Err(DeviceError::Shape { kernel, reason });
        if activations.iter().any(|activation| activation.1 != element) {
            return refuse(format!("activations are stored as {element:?} here, not as {activations:?}"));
        }
        let elements = rows.saturating_mul(channels);
        if elements == 0 || elements > MOST_ELEMENTS {
            return refuse(format!("{rows} rows of {channels} channels; 1 to 2³⁰ elements fit"));
        }
        let aligned = activations.iter().all(|(address, _)| address.is_multiple_of(16));
        let across = choose::walk(&device.target(), channels, aligned).kernel;
        Ok(Walk::across(rows, channels, (elements * element.bytes()) as u64, across))
    }

    fn across(rows: usize, channels: usize, bytes: u64, across: RowBlocks) -> Self {
        let shape = WalkShape {
            rows: rows as i32,
            channels: channels as i32,
            columns: across.columns as i32,
            wide: i32::from(across.wide),
        };
        Walk { shape, bytes, across, threads: THREADS }
    }

    /// The same channels over other rows, such as those of one image of several.
    pub(super) fn over(self, rows: usize) -> Self {
        Walk { shape: WalkShape { rows: rows as i32, ..self.shape }, ..self }
    }

    /// The same channels in blocks that lie across them otherwise, over other rows.
    pub(super) fn laid(self, across: RowBlocks, threads: usize, rows: usize) -> Self {
        Walk { threads, ..Walk::across(rows, self.shape.channels as usize, self.bytes, across) }
    }

    /// Slices of the channels.
    pub(super) fn slices(&self) -> usize {
        self.across.slices
    }

    /// Blocks that share the rows: as many as `most` a multiprocessor allow, unless threads would have less than they can
    /// have under way.
    pub(super) fn blocks(&self, device: &Cuda, most: usize) -> usize {
        self.blocks_of(device, most, UNROLL)
    }

    /// The same, of at least `each` rows per thread.
    pub(super) fn blocks_of(&self, device: &Cuda, most: usize, each: usize) -> usize {
        self.across.sharing(&device.target(), self.shape.rows as usize, most, each)
    }

    /// The launch of so many blocks a slice.
    pub(super) fn launch(&self, blocks: usize, work: Work) -> Launch {
        Launch { grid: [self.across.slices as u32, blocks as u32, 1], block: self.threads as u32, shared: 0, work }
    }
}
