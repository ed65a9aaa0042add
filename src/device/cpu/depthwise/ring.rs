//! The rows under a filter: a ring of the latest few, and for a row of results the taps over them.

use crate::device::DepthwiseShape;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::source::Source;
use crate::device::cpu::view::Number;

/// One tap over a row: where the row's first pixel under it begins, and where its weights do.
pub(super) type Tap = [usize; 2];

/// The latest few rows of an activation, ready to be read.
pub(super) struct Ring<'a, E> {
    source: &'a Source<'a, E>,
    height: usize,
    width: usize,
    channels: usize,
    /// Zeros to the left, and pixels of a ready row with all zeros.
    left: usize,
    pixels: usize,
    pub(super) ready: Scratch,
    /// Which row is in each place, numbered through all images.
    holds: Vec<Option<usize>>,
}

impl<'a, E: Number> Ring<'a, E> {
    /// Room for `rows` neighbouring rows of the images.
    fn new(
        source: &'a Source<'a, E>,
        [height, width, channels]: [usize; 3],
        rows: usize,
        left: usize,
        pixels: usize,
    ) -> Self {
        let mut ready = Scratch::new(rows * pixels * channels);
        ready.fill(0.0);
        Ring { source, height, width, channels, left, pixels, ready, holds: vec![None; rows] }
    }

    /// Where a row of an image begins; pays it if it isn't there.
    fn row(&mut self, image: usize, row: usize) -> usize {
        let (place, number) = (row % self.holds.len(), image * self.height + row);
        let start = place * self.pixels * self.channels;
        if self.holds[place] != Some(number) {
            // A stride may skip the last columns, and a padding wider than the filter all of them.
            let seen = self.width.min(self.pixels.saturating_sub(self.left));
            let first = number * self.width;
            let to = &mut self.ready[start + self.left.min(self.pixels) * self.channels..][..seen * self.channels];
            self.source.write(to, self.channels, first..first + seen);
            self.holds[place] = Some(number);
        }
        start
    }
}

/// The input under the windows of output rows.
pub(super) struct Windows<'a, E> {
    pub(super) ring: Ring<'a, E>,
    shape: &'a DepthwiseShape,
    /// Those over the row that was looked at last.
    pub(super) taps: Vec<Tap>,
}

impl<'a, E: Number> Windows<'a, E> {
    pub(super) fn new(x: &'a Source<'a, E>, shape: &'a DepthwiseShape) -> Self {
        let pixels = (shape.q - 1) * shape.stride + shape.s;
        let ring = Ring::new(x, [shape.h, shape.w, shape.c], shape.r, shape.pad, pixels);
        Windows { ring, shape, taps: Vec::with_capacity(shape.r * shape.s) }
    }

    /// Makes ready what output row `row` of all images sees. Taps in the padding above and below are left out.
    pub(super) fn look(&mut self, row: usize) {
        let &DepthwiseShape { h, c, r, s, stride, pad, p, .. } = self.shape;
        self.taps.clear();
        for tap in 0..r {
            let under = (row % p * stride + tap).wrapping_sub(pad);
            if under < h {
                let start = self.ring.row(row / p, under);
                self.taps.extend((0..s).map(|column| [start + column * c, (tap * s + column) * c]));
            }
        }
    }
}

/// The output's gradient under the taps of input rows.
pub(super) struct Gradients<'a, E> {
    pub(super) ring: Ring<'a, E>,
    shape: &'a DepthwiseShape,
    /// Those over the row that was looked at last.
    pub(super) taps: Vec<Tap>,
}

impl<'a, E: Number> Gradients<'a, E> {
    pub(super) fn new(dy: &'a Source<'a, E>, shape: &'a DepthwiseShape) -> Self {
        let &DepthwiseShape { w, c, r, s, stride, pad, p, q, .. } = shape;
        let left = (s - 1).saturating_sub(pad) / stride;
        let pixels = left + q.max((w - 1 + pad) / stride + 1);
        let ring = Ring::new(dy, [p, q, c], r.div_ceil(stride), left, pixels);
        Gradients { ring, shape, taps: Vec::with_capacity(r * s) }
    }

    /// Makes ready what the pixels `column`, `column + stride`, … of input row `row` of all images get.
    pub(super) fn look(&mut self, row: usize, column: usize) {
        let &DepthwiseShape { h, c, r, s, stride, pad, p, .. } = self.shape;
        let (below, right) = (row % h + pad, column + pad);
        self.taps.clear();
        for tap in (below % stride..r.min(below + 1)).step_by(stride) {
            let from = (below - tap) / stride;
            if from < p {
                let start = self.ring.row(row / h, from);
                let beside = |tap: usize| (self.ring.left * stride + right - tap) / stride;
                let columns = (right % stride..s).step_by(stride);
                self.taps.extend(columns.map(|column| [start + beside(column) * c, (tap * s + column) * c]));
            }
        }
    }
}
