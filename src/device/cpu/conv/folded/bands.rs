//! Convolutions of stride 1 without patches: the input lies with zeros around it, line behind line, and then the pixels under one row of
//! the filter are the numbers that follow each other from the first of them on. So for each row of the filter the left operand is the
//! input itself, in rows that overlap, and what is multiplied for the zeros between two lines is left out when the sums are stored.

use super::rectangle::{End, Finish, Rectangles};
use super::{LEAST_COLUMNS, TASKS};
use crate::device::ConvShape;
use crate::device::cpu::factor::{BLOCK, Factor};
use crate::device::cpu::scratch::Scratch;
use rayon::prelude::*;
use std::ops::Range;

/// Most pixels of a band's output, and how many sums of it stay in a second-level cache beside what they are made of.
const MOST_PIXELS: usize = 512;
const MOST_SUMS: usize = 64 * 1024;

/// Most bytes of the filters that a task multiplies by: they stay in that cache as well.
const MOST_FILTERS: usize = 512 << 10;

/// How a convolution is cut into bands of lines, and the output channels into groups.
pub(super) struct Bands<'a> {
    shape: &'a ConvShape,
    /// Output lines of a band, and how many bands an image has.
    lines: usize,
    bands: usize,
    /// Output channels of a group, and how many groups there are.
    columns: usize,
    groups: usize,
}

impl<'a> Bands<'a> {
    /// If the filters are wider than a pixel, and a row of them is whole blocks of a product.
    pub(super) fn of<E: Factor>(shape: &'a ConvShape) -> Option<Self> {
        let ConvShape { n, w, c, k, r, s, stride, pad, p, .. } = *shape;
        // A padding as wide as the filter would have outputs on which no pixel has any influence: more of them than a line has room for.
        if stride != 1 || r * s == 1 || pad >= s || !(s * c).is_multiple_of(BLOCK) {
            return None;
        }
        let wanted = TASKS * rayon::current_num_threads();
        let fits = MOST_FILTERS / (r * s * c * size_of::<E>());
        let columns =
            fits.min(k.div_ceil(wanted.div_ceil(n))).max(LEAST_COLUMNS).next_multiple_of(LEAST_COLUMNS).min(k);
        let groups = k.div_ceil(columns);
        let most = MOST_PIXELS.min(MOST_SUMS / columns);
        let bands = p.div_ceil((most / (w + pad)).max(1)).max(wanted.div_ceil(n * groups)).min(p);
        let lines = p.div_ceil(bands);
        Some(Bands { shape, lines, bands: p.div_ceil(lines), columns, groups })
    }

    /// `y = end(conv(x, panels))`.
    pub(super) fn convolve<E: Factor + Finish>(&self, y: &mut [E], x: &[E], panels: &[E], end: End) {
        let ConvShape { n, w, c, k, r, s, pad, p, q, .. } = *self.shape;
        let (pitch, run, depth) = (w + pad, s * c, r * s * c);
        let out = Rectangles::new(y, end);
        (0..self.groups * n * self.bands).into_par_iter().for_each(|task| {
            // All of the images by the same filters, then by the next.
            let (group, image, band) = (task / (n * self.bands), task / self.bands % n, task % self.bands);
            let lines = band * self.lines..((band + 1) * self.lines).min(p);
            let columns = group * self.columns..((group + 1) * self.columns).min(k);
            let panels = &panels[E::packed_len([depth, columns.start])..E::packed_len([depth, columns.end])];
            let mut input = Scratch::of(((lines.len() + r - 1) * pitch + pad) * c);
            self.lay(&mut input, &x[image * self.shape.h * w * c..], lines.clone());
            let pixels = (lines.len() - 1) * pitch + q;
            let mut sums = Scratch::new(pixels * columns.len());
            for tap in 0..r {
                let left = E::left(&input[tap * pitch * c..], pixels, run, c);
                let rows = tap * run..(tap + 1) * run;
                E::multiply(&mut sums, tap > 0, left, panels, [depth, columns.len()], rows);
            }
            for (line, sums) in lines.zip(sums.chunks(pitch * columns.len())) {
                let first = (image * p + line) * q;
                // SAFETY: every task has lines and columns of its own.
                unsafe { out.store(first..first + q, columns.clone(), sums) };
            }
        });
    }

    /// The lines of an image under these lines of the output, and zeros around them.
    fn lay<E: Factor>(&self, out: &mut [E], image: &[E], lines: Range<usize>) {
        let ConvShape { h, w, c, pad, .. } = *self.shape;
        for (at, out) in out.chunks_mut((w + pad) * c).enumerate() {
            let line = (lines.start + at).checked_sub(pad).filter(|&line| line < h);
            match line {
                Some(line) if out.len() > pad * c => {
                    let (zeros, pixels) = out.split_at_mut(pad * c);
                    zeros.fill(E::zeroed());
                    pixels.copy_from_slice(&image[line * w * c..][..w * c]);
                }
                _ => out.fill(E::zeroed()),
            }
        }
    }
}
