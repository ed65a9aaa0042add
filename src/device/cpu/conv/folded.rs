//! Convolutions of a network that only answers. Filters are packed once, with their batch norm's scale; what a task computes is a
//! rectangle of pixels and output channels, so that a single poster has work for all threads; and bias, the other way of a residual block
//! and the activation are added while the rectangle is stored. 3×3 filters are multiplied as they are: Winograd's transform with M = 2 took as
//! long, measured over ResNet-50, with filters nearly twice as large.

use super::patches::Patches;
use super::{TILE, TILE_FLOATS};
use crate::device::cpu::depthwise;
use crate::device::cpu::matmul::Matrix;
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::panels::{COLUMNS, Panels, ROWS, packed_len};
use crate::device::cpu::reduce::Tiles;
use crate::device::cpu::rows;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::slab::Piece;
use crate::device::cpu::source::Source;
use crate::device::cpu::view::{View, ViewMut, stored_as};
use crate::device::{
    Activation, ConvShape, DeviceError, Foldable, FoldedForward, FoldedKernels, FoldedShape, Precision, Real,
};
use rayon::prelude::*;
use std::ops::Range;

/// Most columns of a rectangle where there are several beside each other, and least.
const MOST_COLUMNS: usize = 128;
const LEAST_COLUMNS: usize = 2 * COLUMNS;

/// Rectangles a thread that are worth having: the last of them are waited for.
const TASKS: usize = 4;

/// Filters of a convolution, ready to be multiplied, and its bias.
pub struct Folded {
    filters: Filters,
    bias: Vec<f32>,
}

enum Filters {
    /// `[R·S·C, K]` in panels.
    Product(Piece),
    /// `[R, S, C]`.
    Depthwise(Vec<f32>),
}

impl FoldedKernels for Cpu {
    type Folded = Folded;

    fn folds(&self) -> bool {
        self.precision() == Precision::F32
    }

    fn fold<R: Real>(&self, filters: Foldable<'_, R>, shape: &FoldedShape) -> Result<Folded, DeviceError> {
        filters.check(shape)?;
        let Foldable { w, scale, bias } = filters;
        let scale: Vec<f32> = scale.iter().map(|&scale| scale as f32).collect();
        let bias = bias.iter().map(|&bias| bias as f32).collect();
        let filters = match shape {
            FoldedShape::Depthwise(shape) => {
                let of_pixel = |w: &[R]| w.iter().zip(&scale).map(|(&w, scale)| narrow(w) * scale).collect::<Vec<_>>();
                Filters::Depthwise(w.chunks_exact(shape.c).flat_map(of_pixel).collect())
            }
            FoldedShape::Full(shape) => {
                let extents = [shape.r * shape.s * shape.c, shape.k];
                let packed = self.slabs.piece(packed_len(extents), |out| pack(out, w, &scale, extents))?;
                Filters::Product(packed)
            }
        };
        Ok(Folded { filters, bias })
    }

    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Folded, View<'_>, ViewMut<'_>>,
        shape: &FoldedShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "folded_forward";
        operands.check(shape)?;
        let FoldedForward { y, accumulate, x, filters: Folded { filters, bias }, activation } = operands;
        let old = if accumulate { y.bytes() } else { 0 };
        let reads = shape.seen() * x.width() + size_of::<f32>() * (shape.weights_len() + bias.len()) + old;
        let _clock = self.clock(KERNEL, shape.flops(), reads, y.bytes());
        stored_as!(f32, KERNEL; y, x);
        let end = End { bias, activation, accumulate };
        match (filters, shape) {
            (Filters::Product(packed), FoldedShape::Full(shape)) => product(self, y, x, &packed.floats(), end, shape)?,
            (Filters::Depthwise(w), FoldedShape::Depthwise(shape)) => {
                depthwise::folded_forward(y, accumulate, x, w, shape, |row| {
                    rows::add_bias(row, bias);
                    rows::activate(row, activation);
                });
            }
            _ => {
                let reason = "filters were folded for a convolution of another kind".to_string();
                return Err(DeviceError::Shape { kernel: KERNEL, reason });
            }
        }
        Ok(())
    }
}

/// What is done with a product's sums.
#[derive(Clone, Copy)]
struct End<'a> {
    bias: &'a [f32],
    activation: Activation,
    accumulate: bool,
}

fn narrow<R: Real>(w: R) -> f32 {
    w.into() as f32
}

/// Filters that are packed side by side, and how many of their elements: what is read and written meanwhile stays in cache.
const ABREAST: usize = 4;
const BLOCK: usize = 64;

/// Packs `w [K, R·S·C]` times its `scale [K]` as `[R·S·C, K]` into `out`, which holds zeros.
fn pack<R: Real>(out: &mut [f32], w: &[R], scale: &[f32], [depth, width]: [usize; 2]) {
    out.par_chunks_exact_mut(depth * COLUMNS).enumerate().for_each(|(panel, out)| {
        let filters = panel * COLUMNS..((panel + 1) * COLUMNS).min(width);
        for (block, out) in out.chunks_mut(BLOCK * COLUMNS).enumerate() {
            let rows = out.len() / COLUMNS;
            for first in filters.clone().step_by(ABREAST) {
                // Behind the last filter that one again, times 0.
                let lines: [&[R]; ABREAST] = std::array::from_fn(|i| {
                    let filter = (first + i).min(width - 1);
                    &w[filter * depth + block * BLOCK..][..rows]
                });
                let scales: [f32; ABREAST] = std::array::from_fn(|i| scale.get(first + i).copied().unwrap_or(0.0));
                for (row, out) in out.chunks_exact_mut(COLUMNS).enumerate() {
                    let line: [f32; ABREAST] = std::array::from_fn(|i| narrow(lines[i][row]) * scales[i]);
                    out[first - filters.start..][..ABREAST].copy_from_slice(&line);
                }
            }
        }
    });
}

/// A convolution as one matrix product.
fn product(
    device: &Cpu,
    y: &mut [f32],
    x: &[f32],
    panels: &[f32],
    end: End,
    shape: &ConvShape,
) -> Result<(), DeviceError> {
    let (depth, width) = (shape.r * shape.s * shape.c, shape.k);
    let pixels = y.len() / width;
    let wanted = TASKS * rayon::current_num_threads();
    let tiles = Tiles::blocks(pixels, TILE, ROWS);
    let side_by_side = width.min(MOST_COLUMNS).min((tiles.count() * width).div_ceil(wanted)).max(LEAST_COLUMNS);
    // Patches are formed once, so for several rectangles in memory: worth it for few of them, or where they are pixels.
    let patches = Patches::of_input(Source::Plain(x), shape);
    let is_split = width > LEAST_COLUMNS && (shape.r * shape.s == 1 || tiles.count() < wanted);
    let mut formed = device.room(if is_split && !shape.is_pointwise() { pixels * depth } else { 0 })?;
    formed.par_chunks_mut(ROWS * depth).enumerate().for_each(|(tile, out)| {
        let from = tile * ROWS;
        patches.form(x, from..from + out.len() / depth, out);
    });
    let whole = match (shape.is_pointwise(), is_split) {
        (true, _) => Some(x),
        (false, true) => Some(&formed[..]),
        (false, false) => None,
    };
    let (tiles, columns) = match is_split {
        true => (tiles, side_by_side.next_multiple_of(LEAST_COLUMNS)),
        false => {
            let most = (TILE_FLOATS / width).clamp(TILE / 5, TILE) / ROWS * ROWS;
            (Tiles::blocks(pixels, most, ROWS), width)
        }
    };
    let groups = width.div_ceil(columns);
    let out = Shared { start: y.as_mut_ptr(), len: y.len() };
    (0..tiles.count() * groups).into_par_iter().for_each(|task| {
        // Whichever there is less of goes round while the other stays in cache.
        let (tile, group) = match width > pixels {
            true => (task % tiles.count(), task / tiles.count()),
            false => (task / groups, task % groups),
        };
        let (pixels, columns) = (tiles.range(tile), group * columns..((group + 1) * columns).min(width));
        let panels = &panels[columns.start * depth..columns.end.next_multiple_of(COLUMNS) * depth];
        let panels = Panels::new(panels, [depth, columns.len()]);
        let mut sums = Scratch::new(pixels.len() * columns.len());
        match whole {
            Some(x) => {
                let x = Matrix::new(&x[pixels.start * depth..], pixels.len(), depth, depth);
                panels.multiply(&mut sums, false, x, 0..depth);
            }
            None => {
                let (tile, mut scratch) = (patches.tile(pixels.clone()), Scratch::new(0));
                for part in patches.blocks() {
                    let (block, stride) = tile.block(part.clone(), &mut scratch);
                    let block = Matrix::new(block, pixels.len(), part.len(), stride);
                    panels.multiply(&mut sums, part.start > 0, block, part);
                }
            }
        }
        let bias = &end.bias[columns.clone()];
        let finish = |place: Range<usize>, sums: &[f32]| {
            // SAFETY: every task has a rectangle of its own, and takes each part of it once.
            rows::finish(unsafe { out.part(place) }, sums, bias, end.accumulate, end.activation);
        };
        if columns.len() == width {
            return finish(pixels.start * width..pixels.end * width, &sums);
        }
        for (pixel, sums) in pixels.zip(sums.chunks_exact(columns.len())) {
            finish(pixel * width + columns.start..pixel * width + columns.end, sums);
        }
    });
    Ok(())
}

/// Memory that tasks write rectangles of.
struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: all that is done with it is to take parts, of which whoever takes them promises that they do not meet.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    ///
    /// Nobody else holds any of these floats, and the memory is borrowed as long as the part.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, place: Range<usize>) -> &mut [f32] {
        assert!(place.start <= place.end && place.end <= self.len);
        // SAFETY: inside, as was just seen, and nobody else's, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(place.start), place.len()) }
    }
}
