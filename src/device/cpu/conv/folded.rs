//! Convolutions of a network that only answers. Filters are packed once, with their batch norm's scale; what a task computes is a
//! rectangle of pixels and output channels, so that a single poster has work for all threads; and bias, the other way of a residual block
//! and the activation are added while the rectangle is stored ([`rectangle`]).
//!
//! In `f32` a 3×3 filter of stride 1 is multiplied by Winograd's transform where that pays: here with M = 4, since no gradient hangs on which
//! side of a ReLU a value falls. Otherwise the left operand of the product is formed as little as can be: of a 1×1 filter it is the input, and
//! in bfloat16 of a wider one of stride 1, or over an image, the input with zeros around it ([`bands`]). Only of the rest it is patches.

mod bands;
mod rectangle;

use super::patches::Patches;
use super::winograd::{self, Grid};
use super::{TILE, TILE_FLOATS};
use crate::device::cpu::depthwise;
use crate::device::cpu::factor::Factor;
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::narrow_panels::Then;
use crate::device::cpu::panels::COLUMNS;
use crate::device::cpu::reduce::Tiles;
use crate::device::cpu::rows;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::slab::Piece;
use crate::device::cpu::source::Source;
use crate::device::cpu::view::{View, ViewMut, by_width, stored_as};
use crate::device::{
    ConvShape, DeviceError, Foldable, FoldedForward, FoldedKernels, FoldedShape, Precision, Real, Storage,
};
use bands::Bands;
use half::bf16;
use rayon::prelude::*;
use rectangle::{End, Finish, Rectangles};
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
    /// `[R·S·C, K]` in panels, as wide as the convolution's input and output are stored.
    Full(Piece<f32>),
    Narrow(Piece<bf16>),
    /// As Winograd's form of the convolution wants them.
    Transformed(Piece<f32>),
    /// `[R, S, C]`.
    Depthwise(Vec<f32>),
}

impl FoldedKernels for Cpu {
    type Folded = Folded;

    fn folds(&self) -> bool {
        true
    }

    fn fold<R: Real>(&self, filters: Foldable<'_, R>, shape: &FoldedShape) -> Result<Folded, DeviceError> {
        filters.check(shape)?;
        let Foldable { w, scale, bias, storage } = filters;
        let scale: Vec<f32> = scale.iter().map(|&scale| scale as f32).collect();
        let bias = bias.iter().map(|&bias| bias as f32).collect();
        let is_narrow = storage == Storage::Activation && self.precision() == Precision::Bf16;
        let filters = match shape {
            FoldedShape::Depthwise(shape) => {
                let of_pixel = |w: &[R]| w.iter().zip(&scale).map(|(&w, scale)| narrow(w) * scale).collect::<Vec<_>>();
                Filters::Depthwise(w.chunks_exact(shape.c).flat_map(of_pixel).collect())
            }
            FoldedShape::Full(shape) if is_narrow => {
                let depth = shape.r * shape.s * shape.c;
                let [run, filled] = Bands::run(shape).unwrap_or([depth; 2]);
                Filters::Narrow(self.packed(w, &scale, [depth / run, run, filled])?)
            }
            FoldedShape::Full(shape) => match Grid::folded(shape) {
                Some(grid) => Filters::Transformed(self.transformed(w, &scale, &grid)?),
                None => {
                    let depth = shape.r * shape.s * shape.c;
                    Filters::Full(self.packed(w, &scale, [1, depth, depth])?)
                }
            },
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
        let weights = size_of_filters(filters) + size_of::<f32>() * bias.len();
        let _clock = self.clock(KERNEL, shape.flops(), shape.seen() * x.width() + weights + old, y.bytes());
        let end = End { bias, activation, accumulate };
        let of_another_kind = || {
            let reason = "filters were folded for a convolution of another kind".to_string();
            DeviceError::Shape { kernel: KERNEL, reason }
        };
        match (filters, shape) {
            (Filters::Full(packed), FoldedShape::Full(shape)) => {
                stored_as!(f32, KERNEL; y, x);
                product(self, y, x, &packed.numbers(), end, shape)?;
            }
            (Filters::Narrow(packed), FoldedShape::Full(shape)) => {
                stored_as!(bf16, KERNEL; y, x);
                match Bands::of(shape) {
                    Some(bands) => bands.convolve(y, x, &packed.numbers(), end),
                    None => product(self, y, x, &packed.numbers(), end, shape)?,
                }
            }
            (Filters::Transformed(filters), FoldedShape::Full(shape)) => {
                stored_as!(f32, KERNEL; y, x);
                let (grid, out) = (Grid::folded(shape).ok_or_else(of_another_kind)?, Rectangles::new(y, end));
                winograd::convolve_folded(x, &grid, &filters.numbers(), |pixels, columns, sums| {
                    // SAFETY: every task has pixels and columns of its own.
                    unsafe { out.store(pixels, columns, sums) }
                });
            }
            (Filters::Depthwise(w), FoldedShape::Depthwise(shape)) => by_width!(self, E => {
                stored_as!(E, KERNEL; y, x);
                depthwise::folded_forward(y, accumulate, x, w, shape, |row| {
                    rows::add_bias(row, bias);
                    rows::activate(row, activation);
                });
            }),
            _ => return Err(of_another_kind()),
        }
        Ok(())
    }
}

impl Cpu {
    /// The filters in panels. `runs` says how each is cut: into how many runs, how many numbers a run has, and how many with the zeros that are
    /// put behind it.
    fn packed<R: Real, E: Factor>(&self, w: &[R], scale: &[f32], runs: [usize; 3]) -> Result<Piece<E>, DeviceError> {
        let extents = [runs[0] * runs[2], scale.len()];
        self.slabs.piece(E::packed_len(extents), |out| pack(out, w, scale, runs))
    }

    fn transformed<R: Real>(&self, w: &[R], scale: &[f32], grid: &Grid) -> Result<Piece<f32>, DeviceError> {
        let extents = [w.len() / scale.len(), scale.len()];
        let mut panels = self.room(f32::packed_len(extents))?;
        panels.fill(0.0);
        pack(&mut panels, w, scale, [1, extents[0], extents[0]]);
        let panel = f32::packed_len([extents[0], COLUMNS]);
        self.slabs.piece(grid.filters_len(), |out| {
            let panels = &panels[..];
            winograd::transform_filters(out, grid, |at, out| out.copy_from_slice(&panels[at * panel..][..panel]));
        })
    }
}

/// Bytes that filters are read from.
fn size_of_filters(filters: &Filters) -> usize {
    match filters {
        Filters::Full(numbers) | Filters::Transformed(numbers) => size_of_val(&*numbers.numbers()),
        Filters::Narrow(panels) => size_of_val(&*panels.numbers()),
        Filters::Depthwise(w) => size_of_val(&w[..]),
    }
}

fn narrow<R: Real>(w: R) -> f32 {
    w.into() as f32
}

/// Filters that are packed side by side, and how many of their elements: what is read and written meanwhile stays in cache.
const ABREAST: usize = 4;
const BLOCK: usize = 64;

/// Packs `w [K, runs·run]` times its `scale [K]` as `[runs·filled, K]` into `out`, which holds zeros.
fn pack<R: Real, E: Factor>(out: &mut [E], w: &[R], scale: &[f32], [runs, run, filled]: [usize; 3]) {
    let (depth, width) = (runs * run, scale.len());
    out.par_chunks_exact_mut(E::packed_len([runs * filled, COLUMNS])).enumerate().for_each(|(panel, out)| {
        let filters = panel * COLUMNS..((panel + 1) * COLUMNS).min(width);
        let blocks = (0..runs).flat_map(|at| (0..run).step_by(BLOCK).map(move |block| (at, block)));
        for (at, block) in blocks {
            let rows = BLOCK.min(run - block);
            for first in filters.clone().step_by(ABREAST) {
                // Behind the last filter that one again, times 0.
                let lines: [&[R]; ABREAST] = std::array::from_fn(|i| {
                    let filter = (first + i).min(width - 1);
                    &w[filter * depth + at * run + block..][..rows]
                });
                let scales: [f32; ABREAST] = std::array::from_fn(|i| scale.get(first + i).copied().unwrap_or(0.0));
                for ((i, line), scale) in lines.iter().enumerate().zip(scales) {
                    for (row, &w) in line.iter().enumerate() {
                        let row = at * filled + block + row;
                        out[E::place(row, first - filters.start + i)] = E::nearest(narrow(w) * scale);
                    }
                }
            }
        }
    });
}

/// A convolution as one matrix product.
fn product<E: Factor + Finish>(
    device: &Cpu,
    y: &mut [E],
    x: &[E],
    panels: &[E],
    end: End,
    shape: &ConvShape,
) -> Result<(), DeviceError> {
    let (depth, width) = (shape.r * shape.s * shape.c, shape.k);
    let pixels = y.len() / width;
    let wanted = TASKS * rayon::current_num_threads();
    let tiles = Tiles::blocks(pixels, TILE.max(E::ROWS), E::ROWS);
    let side_by_side = width.min(MOST_COLUMNS).min((tiles.count() * width).div_ceil(wanted)).max(LEAST_COLUMNS);
    // Patches are formed once, so for several rectangles in memory: worth it for few of them, or where they are pixels.
    let patches = Patches::of_input(Source::Plain(x), shape);
    let is_split = width > LEAST_COLUMNS && (shape.r * shape.s == 1 || tiles.count() < wanted);
    let mut formed = E::room(device, if is_split && !shape.is_pointwise() { pixels * depth } else { 0 })?;
    formed.par_chunks_mut(E::ROWS * depth).enumerate().for_each(|(tile, out)| {
        let from = tile * E::ROWS;
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
            let most = (TILE_FLOATS / width).clamp(TILE / 5, TILE).next_multiple_of(E::ROWS);
            (Tiles::blocks(pixels, most, E::ROWS), width)
        }
    };
    let groups = width.div_ceil(columns);
    let out = Rectangles::new(y, end);
    (0..tiles.count() * groups).into_par_iter().for_each(|task| {
        // Whichever there is less of goes round while the other stays in cache.
        let (tile, group) = match width > pixels {
            true => (task % tiles.count(), task / tiles.count()),
            false => (task / groups, task % groups),
        };
        let (pixels, columns) = (tiles.range(tile), group * columns..((group + 1) * columns).min(width));
        let panels = &panels[E::packed_len([depth, columns.start])..E::packed_len([depth, columns.end])];
        let extents = [depth, columns.len()];
        let mut sums = Scratch::new(pixels.len() * columns.len());
        let store = |rows: Range<usize>, sums: &[f32]| {
            let pixels = pixels.start + rows.start..pixels.start + rows.end;
            // SAFETY: every task has a rectangle of its own.
            unsafe { out.store(pixels, columns.clone(), sums) };
        };
        let (tile, mut scratch) = (patches.tile(pixels.clone()), Scratch::of(0));
        // In the same parts wherever they lie: how a sum is cut decides its last bits, and threads decide where patches lie.
        for part in patches.blocks() {
            let block = match whole {
                Some(x) => E::left(&x[pixels.start * depth + part.start..], pixels.len(), part.len(), depth),
                None => tile.left(part.clone(), &mut scratch),
            };
            let then = (part.end == depth).then_some(&store as &Then);
            E::multiply(&mut sums, part.start > 0, block, panels, extents, part, then);
        }
    });
    Ok(())
}
