//! What is done with a product's sums while they are stored: bias, the other way of a residual block, the activation.

use crate::device::Activation;
use crate::device::cpu::rows::bounded;
use crate::device::cpu::simd::simd;
use crate::device::cpu::view::Number;
use std::marker::PhantomData;
use std::ops::Range;

/// What follows a product.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    /// `[K]`.
    pub(super) bias: &'a [f32],
    pub(super) activation: Activation,
    /// Whether what is there is added in front of the activation.
    pub(super) accumulate: bool,
}

/// An activation `[pixels, K]` that tasks write rectangles of.
pub(super) struct Rectangles<'a, E> {
    start: *mut E,
    len: usize,
    end: End<'a>,
    borrowed: PhantomData<&'a mut [E]>,
}

// SAFETY: all that is done with it is to write rectangles, of which whoever does so promises that they do not meet.
unsafe impl<E: Send> Sync for Rectangles<'_, E> {}

impl<'a, E: Number> Rectangles<'a, E> {
    pub(super) fn new(y: &'a mut [E], end: End<'a>) -> Self {
        Rectangles { start: y.as_mut_ptr(), len: y.len(), end, borrowed: PhantomData }
    }

    /// `y = activation(sums + bias)`, or with `accumulate` `activation(y + sums + bias)`, in some columns of some pixels; `sums` has as many.
    ///
    /// # Safety
    ///
    /// No other thread writes to this rectangle.
    pub(super) unsafe fn store(&self, pixels: Range<usize>, columns: Range<usize>, sums: &[f32]) {
        let End { bias, activation, accumulate } = self.end;
        let width = bias.len();
        assert!(columns.end <= width && pixels.end * width <= self.len && sums.len() >= pixels.len() * columns.len());
        // SAFETY: the rows are inside, as was just seen, and nobody else's, as the caller promises.
        let start = unsafe { self.start.add(pixels.start * width + columns.start) };
        let rows = Rows { start, stride: width, width: columns.len(), rows: pixels.len(), borrowed: PhantomData };
        finish(rows, sums, &bias[columns], accumulate, activation);
    }
}

/// The rows of a rectangle: `width` numbers of every `stride`. Whoever makes one promises that they are there, and nobody else's meanwhile.
struct Rows<'a, E> {
    start: *mut E,
    stride: usize,
    width: usize,
    rows: usize,
    borrowed: PhantomData<&'a mut [E]>,
}

impl<E> Rows<'_, E> {
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [E] {
        debug_assert!(row < self.rows);
        // SAFETY: whoever made this promised that the row is there, and as this is borrowed no other one is lent.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

simd! {
    /// `out = activation(sums + bias)` of every row, or with `accumulate` `activation(out + sums + bias)`.
    fn finish<E: Number>(out: Rows<'_, E>, sums: &[f32], bias: &[f32], accumulate: bool, activation: Activation) {
        let (mut out, bounds) = (out, activation.bounds());
        for (row, sums) in (0..out.rows).zip(sums.chunks_exact(bias.len())) {
            for ((out, sum), bias) in out.row(row).iter_mut().zip(sums).zip(bias) {
                let other_way = if accumulate { out.wide() } else { 0.0 };
                *out = E::nearest(bounded(other_way + sum + bias, bounds));
            }
        }
    }
}
