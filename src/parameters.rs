//! The arenas: every parameter in one buffer, every gradient in a second, the batch-norm averages in a third.
//!
//! A parameter is a span of an arena. So one kernel updates everything, one buffer is exchanged between GPUs, and
//! freezing the first layers of the network is taking a suffix.

use crate::device::{Device, DeviceError, Pass, SquaredNorm, Storage};
use std::ops::Range;

/// Where a tensor lies in an arena. A parameter's weights, gradient and Adam moments lie at the same span of their arenas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    offset: usize,
    len: usize,
}

impl Span {
    /// The span's elements.
    pub fn range(self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Hands out neighbouring spans of an arena while a model is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    len: usize,
}

impl Layout {
    /// The next `len` elements.
    pub fn span(&mut self, len: usize) -> Span {
        let offset = self.len;
        self.len += len;
        Span { offset, len }
    }

    /// Elements so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no span was handed out.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One buffer that holds a tensor for every span of a layout.
pub struct Arena<D: Device> {
    len: usize,
    buffer: D::Buffer,
}

impl<D: Device> Arena<D> {
    /// An arena for `layout`, all zero.
    pub fn zeros(device: &D, layout: Layout, storage: Storage) -> Result<Self, DeviceError> {
        let mut arena = Arena { len: layout.len, buffer: device.allocate(layout.len, storage)? };
        device.fill(arena.from_offset_mut(0), D::Real::default())?;
        Ok(arena)
    }

    /// The elements of a span.
    pub fn view(&self, span: Span) -> D::View<'_> {
        D::view(&self.buffer, span.range())
    }

    /// The elements of a span, to be written.
    pub fn view_mut(&mut self, span: Span) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, span.range())
    }

    /// The elements of two spans, to be written by one kernel.
    ///
    /// # Panics
    /// If `second` does not directly follow `first`: layouts put the tensors of a layer side by side.
    pub fn pair_mut(&mut self, first: Span, second: Span) -> (D::ViewMut<'_>, D::ViewMut<'_>) {
        assert_eq!(first.range().end, second.offset, "neighbours in the arena");
        D::split_mut(D::view_mut(&mut self.buffer, first.offset..second.range().end), first.len)
    }

    /// The elements from `range.start` to `range.end`.
    pub fn range(&self, range: Range<usize>) -> D::View<'_> {
        D::view(&self.buffer, range)
    }

    /// The elements from `range.start` to `range.end`, to be written.
    pub fn range_mut(&mut self, range: Range<usize>) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, range)
    }

    /// Everything from an offset to the end.
    pub fn from_offset(&self, offset: usize) -> D::View<'_> {
        D::view(&self.buffer, offset..self.len)
    }

    /// Everything from an offset to the end, to be written.
    pub fn from_offset_mut(&mut self, offset: usize) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, offset..self.len)
    }
}

/// The arenas of one model on one device.
pub struct Parameters<D: Device> {
    /// Every trainable tensor, in Keras's layer order.
    pub weights: Arena<D>,
    /// The gradient of each, at the same span.
    pub gradients: Arena<D>,
    /// Batch norm's running averages.
    pub averages: Arena<D>,
    /// The running averages as the step under way found them, for the way back if it proves bad.
    pub(crate) averages_before: Arena<D>,
    /// Tensors that begin before this offset of `weights` are frozen.
    pub trainable_from: usize,
}

impl<D: Device> Parameters<D> {
    /// Arenas for two layouts, all zero.
    pub fn new(device: &D, weights: Layout, averages: Layout, trainable_from: usize) -> Result<Self, DeviceError> {
        Ok(Parameters {
            weights: Arena::zeros(device, weights, Storage::Weights)?,
            gradients: Arena::zeros(device, weights, Storage::Full)?,
            averages: Arena::zeros(device, averages, Storage::Full)?,
            averages_before: Arena::zeros(device, averages, Storage::Full)?,
            trainable_from,
        })
    }

    /// The elements of `weights` that the optimiser moves, and of `gradients` that are computed.
    pub fn trained(&self) -> Range<usize> {
        self.trainable_from..self.weights.len
    }

    /// Whether the optimiser moves this tensor.
    pub fn is_trainable(&self, weights: Span) -> bool {
        weights.offset >= self.trainable_from
    }

    /// Sets every gradient to zero; what follows accumulates.
    pub fn clear_gradients(&mut self, device: &D) -> Result<(), DeviceError> {
        device.enter("gradients", Pass::Backward);
        device.fill(self.gradients.from_offset_mut(self.trainable_from), D::Real::default())
    }

    /// Remembers the running averages, which the forward pass is about to move.
    pub fn keep_averages(&mut self, device: &D) -> Result<(), DeviceError> {
        device.enter("averages", Pass::Forward);
        device.copy(self.averages_before.from_offset_mut(0), self.averages.from_offset(0))
    }

    /// The running averages as they were when they were kept.
    pub fn take_averages_back(&mut self, device: &D) -> Result<(), DeviceError> {
        device.copy(self.averages.from_offset_mut(0), self.averages_before.from_offset(0))
    }

    /// The squared norms of the trainable tensors' gradients and of the running averages, `[1]` each.
    pub fn norms(&self, device: &D, gradients: D::ViewMut<'_>, averages: D::ViewMut<'_>) -> Result<(), DeviceError> {
        device.enter("gradients", Pass::Backward);
        device.squared_norm(SquaredNorm { sum: gradients, x: self.gradients.from_offset(self.trainable_from) })?;
        device.enter("averages", Pass::Backward);
        device.squared_norm(SquaredNorm { sum: averages, x: self.averages.from_offset(0) })
    }
}
