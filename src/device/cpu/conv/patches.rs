//! The left operand of a convolution's matrix product: one row per pixel, formed one tile at a time.
//!
//! Two debts are paid while a tile is formed. A value may be *owed* (a batch norm's scale, shift and ReLU going forward, the
//! affine form of its gradient going backward); and unless the filter is 1×1, a row is a *patch*, the R·S·C inputs under
//! the window, gathered from NHWC memory (im2col). For NHWC and KRSC a patch is R runs of S·C contiguous floats.

use crate::device::ConvShape;
use crate::device::cpu::factor::{BLOCK, Factor};
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::source::Source;
use std::ops::Range;

/// Most columns of a formed tile: with [`TILE`](super::TILE) rows it fills half of a second-level cache of 512 KiB.
const MOST_COLUMNS: usize = 512;

/// The longest run that is copied as if it were that long.
const SHORT: usize = 32;

/// Which inputs stand under the window of an output pixel.
#[derive(Clone, Copy)]
struct Window {
    h: usize,
    w: usize,
    c: usize,
    r: usize,
    s: usize,
    stride: usize,
    pad_h: usize,
    pad_w: usize,
    p: usize,
    q: usize,
}

/// All patches of a convolution, or of the transposed one that is its data gradient.
pub(super) struct Patches<'a, E> {
    source: Source<'a, E>,
    window: Window,
}

impl<'a, E: Factor> Patches<'a, E> {
    /// The patches of the input: a row an output pixel, R·S·C columns.
    pub(super) fn of_input(source: Source<'a, E>, shape: &ConvShape) -> Self {
        let ConvShape { h, w, c, r, s, stride, pad, p, q, .. } = *shape;
        Patches { source, window: Window { h, w, c, r, s, stride, pad_h: pad, pad_w: pad, p, q } }
    }

    /// The patches of the output's gradient: a row an input pixel, R·S·K columns, so that the data gradient is a forward
    /// convolution by the rotated filters. Only where the stride is 1 and the padding smaller than the filter; otherwise
    /// the gradient is handed back.
    pub(super) fn of_gradient(source: Source<'a, E>, shape: &ConvShape) -> Result<Self, Source<'a, E>> {
        let ConvShape { h, w, k, r, s, stride, pad, p, q, .. } = *shape;
        if stride != 1 || pad >= r || pad >= s {
            return Err(source);
        }
        let window = Window { h: p, w: q, c: k, r, s, stride, pad_h: r - 1 - pad, pad_w: s - 1 - pad, p: h, q: w };
        Ok(Patches { source, window })
    }

    /// What they are gathered from.
    pub(super) fn source(&self) -> &Source<'a, E> {
        &self.source
    }

    /// Columns of a patch.
    pub(super) fn columns(&self) -> usize {
        self.window.r * self.window.s * self.window.c
    }

    /// The ranges of columns that a product works through, none too wide to stay in cache.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<E> {
        let columns = self.columns();
        let width = match self.source {
            Source::Plain(_) if self.window.is_pointwise() => columns,
            _ => columns.div_ceil(columns.div_ceil(MOST_COLUMNS)).next_multiple_of(BLOCK),
        };
        (0..columns).step_by(width).map(move |from| from..(from + width).min(columns))
    }

    /// The patches of `pixels` of an input to which nothing is owed, whole, written to `out`.
    pub(super) fn form(&self, inputs: &[E], pixels: Range<usize>, out: &mut [E]) {
        self.window.gather(out, self.columns(), inputs, 0, pixels, 0..self.columns());
    }

    /// The patches of `pixels`, ready to be formed block by block.
    pub(super) fn tile(&self, pixels: Range<usize>) -> PatchTile<'_, E> {
        let mut first = 0;
        let inputs = match self.source {
            _ if self.window.is_pointwise() => Inputs::Pixels,
            Source::Plain(x) => Inputs::Finished(x),
            _ => {
                let rows = self.window.inputs(&pixels);
                first = rows.start;
                let mut paid = Scratch::of(rows.len() * self.window.c);
                self.source.write(&mut paid, self.window.c, rows);
                Inputs::Paid(paid)
            }
        };
        PatchTile { patches: self, pixels, inputs, first }
    }
}

/// Where a tile's patches are gathered from.
enum Inputs<'a, E> {
    /// Nowhere: the patches are the pixels themselves.
    Pixels,
    /// The whole activation, to which nothing is owed.
    Finished(&'a [E]),
    /// The pixels under the tile's windows, paid once for all blocks.
    Paid(Scratch<E>),
}

/// The patches of one tile of pixels.
pub(super) struct PatchTile<'a, E> {
    patches: &'a Patches<'a, E>,
    pixels: Range<usize>,
    inputs: Inputs<'a, E>,
    /// The input pixel that `inputs` begins with.
    first: usize,
}

impl<E: Factor> PatchTile<'_, E> {
    /// Columns `cols` of the tile's patches, formed in `scratch` unless they lie in memory just so. With them comes how far it is from
    /// one patch to the next.
    pub(super) fn block<'s>(&'s self, cols: Range<usize>, scratch: &'s mut Scratch<E>) -> (&'s [E], usize) {
        let Patches { source, window } = self.patches;
        let inputs: &[E] = match &self.inputs {
            Inputs::Pixels => return source.factors(window.c, self.pixels.clone(), cols, scratch),
            Inputs::Finished(x) => x,
            Inputs::Paid(scratch) => scratch,
        };
        let stride = E::filled(cols.len());
        scratch.resize(self.pixels.len() * stride);
        window.gather(scratch, stride, inputs, self.first, self.pixels.clone(), cols);
        (scratch, stride)
    }

    /// The same as a left operand.
    pub(super) fn left<'s>(&'s self, cols: Range<usize>, scratch: &'s mut Scratch<E>) -> E::Left<'s> {
        let is_formed = !matches!(self.inputs, Inputs::Pixels);
        let width = if is_formed { E::filled(cols.len()) } else { cols.len() };
        let (block, stride) = self.block(cols, scratch);
        E::left(block, self.pixels.len(), width, stride)
    }
}

impl Window {
    fn is_pointwise(&self) -> bool {
        self.r == 1 && self.s == 1 && self.stride == 1 && [self.p, self.q] == [self.h, self.w]
    }

    /// The image, row and column of an output pixel.
    fn position(&self, pixel: usize) -> [usize; 3] {
        [pixel / (self.p * self.q), pixel / self.q % self.p, pixel % self.q]
    }

    /// A range of input pixels, whole rows of whole images in between, that covers the windows of `pixels`.
    fn inputs(&self, pixels: &Range<usize>) -> Range<usize> {
        let [n, p, _] = self.position(pixels.start);
        let start = n * self.h + (p * self.stride).saturating_sub(self.pad_h).min(self.h);
        let [n, p, _] = self.position(pixels.end - 1);
        let end = n * self.h + (p * self.stride + self.r).saturating_sub(self.pad_h).min(self.h);
        start * self.w..end.max(start) * self.w
    }

    /// im2col: columns `cols` of the patches of `pixels`, from `inputs`, which begin with the pixel `first`. A patch comes every `stride`
    /// numbers, with zeros behind it.
    fn gather<E: Factor>(
        &self,
        out: &mut [E],
        stride: usize,
        inputs: &[E],
        first: usize,
        pixels: Range<usize>,
        cols: Range<usize>,
    ) {
        let run = self.s * self.c;
        let filter_rows = cols.start / run..cols.end.div_ceil(run);
        for (patch, pixel) in out.chunks_exact_mut(stride).zip(pixels) {
            let [n, p, q] = self.position(pixel);
            // The columns of the image under the window, and the part of each run that they are.
            let left = (q * self.stride).max(self.pad_w) - self.pad_w;
            let right = (q * self.stride + self.s).saturating_sub(self.pad_w).min(self.w).max(left);
            let before = (self.pad_w.saturating_sub(q * self.stride)).min(self.s) * self.c;
            let inside = before..before + (right - left) * self.c;
            for r in filter_rows.clone() {
                // The part of this run that `cols` asks for, and the part of that inside the image.
                let asked = cols.start.max(r * run) - r * run..cols.end.min((r + 1) * run) - r * run;
                let at = r * run + asked.start - cols.start;
                let row = (p * self.stride + r).wrapping_sub(self.pad_h);
                let from = inside.start.clamp(asked.start, asked.end);
                let to = inside.end.clamp(from, asked.end);
                if row >= self.h || from == to {
                    patch[at..at + asked.len()].fill(E::zeroed());
                    continue;
                }
                let start = ((n * self.h + row) * self.w + left - first) * self.c + from - inside.start;
                // A copy of known length is a few moves. What it writes behind the run is overwritten by the next one.
                if from == asked.start
                    && to == asked.end
                    && asked.len() <= SHORT
                    && let (Some(piece), Some(inputs)) =
                        (patch[at..].first_chunk_mut(), inputs[start..].first_chunk::<SHORT>())
                {
                    *piece = *inputs;
                    continue;
                }
                let piece = &mut patch[at..at + asked.len()];
                piece[..from - asked.start].fill(E::zeroed());
                piece[from - asked.start..to - asked.start].copy_from_slice(&inputs[start..start + (to - from)]);
                piece[to - asked.start..].fill(E::zeroed());
            }
            patch[cols.len()..].fill(E::zeroed());
        }
    }
}
