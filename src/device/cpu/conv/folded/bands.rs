//! Convolutions of bfloat16 numbers without patches: the input lies with zeros around it, line behind line, and then the pixels under one row of
//! the filter are the numbers that follow each other from the first of them on. So the left operand of the product is the input itself, in rows
//! that overlap, and for each row of the filter there is a run of columns further down in it.
//!
//! With a stride of 1 the pixels of all lines of a band are rows of one product, and what is multiplied for the zeros between two lines is left
//! out when the sums are stored. With a larger one each line is a product.

use super::rectangle::{End, Rectangles};
use super::{LEAST_COLUMNS, TASKS};
use crate::device::ConvShape;
use crate::device::cpu::factor::{BLOCK, Factor};
use crate::device::cpu::narrow_panels::{NarrowPanels, Pairs};
use crate::device::cpu::scratch::Scratch;
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Most pixels of a band's output, and how many sums of it stay in a second-level cache beside what they are made of.
const MOST_PIXELS: usize = 512;
const MOST_SUMS: usize = 64 * 1024;

/// Most bytes of the filters that a task multiplies by: they stay in that cache as well.
const MOST_FILTERS: usize = 512 << 10;

/// Fewer channels than these are those of an image: then a row of the filter is filled up with zeros. What they are multiplied by are the pixels
/// to the right, which are finite, as bytes are.
const FEW_CHANNELS: usize = 8;

/// How a convolution is cut into bands of lines, and the output channels into groups.
pub(super) struct Bands<'a> {
    shape: &'a ConvShape,
    /// From one line of the input to the next, in pixels.
    pitch: usize,
    /// Output lines of a band, and how many bands an image has.
    lines: usize,
    bands: usize,
    /// Output channels of a group, and how many groups there are.
    columns: usize,
    groups: usize,
}

impl<'a> Bands<'a> {
    /// Of a filter that suits: how long a row of it is, and how long once it is filled up. It has to be wider than a pixel, and a row of it whole
    /// blocks of a product, if it is not one of an image's.
    pub(super) fn run(shape: &ConvShape) -> Option<[usize; 2]> {
        let ConvShape { c, r, s, stride, pad, .. } = *shape;
        let (run, is_image) = (s * c, c < FEW_CHANNELS);
        // A padding as wide as the filter would have outputs on which no pixel has any influence: more of them than a line has room for.
        let suits = r * s > 1 && pad < s && (is_image || stride == 1 && run.is_multiple_of(BLOCK));
        suits.then_some([run, run.next_multiple_of(BLOCK)])
    }

    /// If the filter suits.
    pub(super) fn of(shape: &'a ConvShape) -> Option<Self> {
        let ConvShape { n, w, k, r, s, stride, pad, p, q, .. } = *shape;
        let [_, run] = Bands::run(shape)?;
        // The zeros to the right of a line are those to the left of the next one, if these are enough.
        let right = ((q - 1) * stride + s).saturating_sub(pad + w);
        let pitch = w + right.max(pad);
        let wanted = TASKS * rayon::current_num_threads();
        let fits = MOST_FILTERS / (r * run * size_of::<bf16>());
        let columns =
            fits.min(k.div_ceil(wanted.div_ceil(n))).max(LEAST_COLUMNS).next_multiple_of(LEAST_COLUMNS).min(k);
        let groups = k.div_ceil(columns);
        let most = MOST_PIXELS.min(MOST_SUMS / columns);
        let bands = p.div_ceil((most / (pitch / stride).max(1)).max(1)).max(wanted.div_ceil(n * groups)).min(p);
        let lines = p.div_ceil(bands);
        Some(Bands { shape, pitch, lines, bands: p.div_ceil(lines), columns, groups })
    }

    /// `y = end(conv(x, panels))`.
    pub(super) fn convolve(&self, y: &mut [bf16], x: &[bf16], panels: &[bf16], end: End) {
        let ConvShape { n, h, w, c, k, r, s, stride, p, q, .. } = *self.shape;
        let run = (s * c).next_multiple_of(BLOCK);
        let (pitch, depth) = (self.pitch, r * run);
        let out = Rectangles::new(y, end);
        (0..self.groups * n * self.bands).into_par_iter().for_each(|task| {
            // All of the images by the same filters, then by the next.
            let (group, image, band) = (task / (n * self.bands), task / self.bands % n, task % self.bands);
            let lines = band * self.lines..((band + 1) * self.lines).min(p);
            let columns = group * self.columns..((group + 1) * self.columns).min(k);
            let panels = &panels[bf16::packed_len([depth, columns.start])..bf16::packed_len([depth, columns.end])];
            let panels = NarrowPanels::new(panels, [depth, columns.len()]);
            let under = (lines.len() - 1) * stride + r;
            let mut input = Scratch::of(under * pitch * c + run);
            self.lay(&mut input, &x[image * h * w * c..], lines.start * stride);
            // Lines of one product, and the pixels from one of them to the next in it.
            let (together, step) = if stride == 1 { (lines.len(), pitch) } else { (1, q) };
            let pixels = (together - 1) * step + q;
            let mut sums = Scratch::new(pixels * columns.len());
            for top in (0..lines.len()).step_by(together) {
                let first = (image * p + lines.start + top) * q;
                let store = |rows: Range<usize>, sums: &[f32]| {
                    for line in rows.start / step..=(rows.end - 1) / step {
                        // The pixels of this line, without the zeros behind them.
                        let there = rows.start.max(line * step)..rows.end.min(line * step + q);
                        if there.is_empty() {
                            continue;
                        }
                        let of_line = |row: usize| (row - rows.start) * columns.len();
                        let pixel = |row: usize| first + line * q + row - line * step;
                        let sums = &sums[of_line(there.start)..of_line(there.end)];
                        // SAFETY: every task has lines and columns of its own.
                        unsafe { out.store(pixel(there.start)..pixel(there.end), columns.clone(), sums) };
                    }
                };
                let left = Pairs::by_runs(&input[top * stride * pitch * c..], pixels, stride * c, [r, run], pitch * c);
                panels.multiply(&mut sums, false, left, 0..depth, Some(&store));
            }
        });
    }

    /// The lines of an image from `first` on, counted from the topmost zeros, and zeros around them.
    fn lay(&self, out: &mut [bf16], image: &[bf16], first: usize) {
        let ConvShape { h, w, c, pad, .. } = *self.shape;
        for (at, out) in out.chunks_mut(self.pitch * c).enumerate() {
            let line = (first + at).checked_sub(pad).filter(|&line| line < h);
            match line {
                Some(line) if out.len() > pad * c => {
                    let (zeros, rest) = out.split_at_mut(pad * c);
                    zeros.fill(bf16::ZERO);
                    let there = rest.len().min(w * c);
                    let (pixels, zeros) = rest.split_at_mut(there);
                    pixels.copy_from_slice(&image[line * w * c..][..there]);
                    zeros.fill(bf16::ZERO);
                }
                _ => out.fill(bf16::ZERO),
            }
        }
    }
}
