//! The weights in the orders that the products want, and their gradient.

use super::TILE;
use super::patches::Patches;
use crate::device::cpu::matmul::{Threads, matmul};
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::reduce::Tiles;
use crate::device::cpu::rows;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::source::Source;
use crate::device::cpu::view::Number;
use crate::device::{ConvShape, DeviceError};
use rayon::prelude::*;
use std::ops::Range;

/// Side of the square blocks of a transposition: both sides of one fit in the first-level cache.
const BLOCK: usize = 32;

/// Most columns of `dw` that one task sums: a tile of patches so wide stays in cache.
const MOST_COLUMNS: usize = 576;

/// Least pixels that one task sums over, and how many tasks are worth having.
const LEAST_PIXELS: usize = 4 * TILE;
const TASKS: usize = 16;

/// Most floats of all partial sums together, unless `dw` alone has more.
const MOST_PARTIALS: usize = 4 << 20;

/// `out [R·S·C, K] = wᵀ`.
pub(super) fn by_column(out: &mut [f32], w: &[f32], shape: &ConvShape) {
    let (filters, columns) = (shape.k, shape.r * shape.s * shape.c);
    out.par_chunks_mut(BLOCK * filters).enumerate().for_each(|(index, out)| {
        let from = index * BLOCK;
        for filter in (0..filters).step_by(BLOCK) {
            let end = (filter + BLOCK).min(filters);
            for (column, out) in out.chunks_exact_mut(filters).enumerate() {
                for (k, out) in (filter..end).zip(&mut out[filter..end]) {
                    *out = w[k * columns + from + column];
                }
            }
        }
    });
}

/// `out [R·S·K, C]`: the filters turned by half a circle, inputs and outputs exchanged.
pub(super) fn rotate(out: &mut [f32], w: &[f32], shape: &ConvShape) {
    let ConvShape { c, k, r, s, .. } = *shape;
    let taps = r * s;
    out.par_chunks_mut(k * c).enumerate().for_each(|(tap, out)| {
        for (filter, out) in out.chunks_exact_mut(c).enumerate() {
            out.copy_from_slice(&w[(filter * taps + taps - 1 - tap) * c..][..c]);
        }
    });
}

/// One task: these columns of `dw`, summed over these pixels.
struct Part<'a> {
    pixels: Range<usize>,
    cols: Range<usize>,
    sum: &'a mut [f32],
}

/// `dw += dyᵀ · patches`.
///
/// Columns are cut where a tile of patches grows too wide, pixels where there are many; each task sums its own part of
/// `dw` and the parts are added up chunk after chunk.
pub(super) fn backward<E: Number>(
    device: &Cpu,
    dw: &mut [f32],
    dy: &Source<E>,
    patches: &Patches<E>,
    shape: &ConvShape,
) -> Result<(), DeviceError> {
    let (filters, columns) = (shape.k, patches.columns());
    let blocks = Tiles::even(columns, MOST_COLUMNS);
    let pixels = shape.n * shape.p * shape.q;
    let chunks = TASKS.div_ceil(blocks.count()).min(MOST_PARTIALS / dw.len()).min(pixels / LEAST_PIXELS).max(1);
    let chunks = Tiles::even(pixels, pixels.div_ceil(chunks));

    let mut partials = device.room(chunks.count() * dw.len())?;
    let mut parts = Vec::with_capacity(chunks.count() * blocks.count());
    for (chunk, sum) in partials.chunks_exact_mut(dw.len()).enumerate() {
        for (block, sum) in sum.chunks_mut(blocks.tile * filters).enumerate() {
            parts.push(Part { pixels: chunks.range(chunk), cols: blocks.range(block), sum });
        }
    }
    parts.into_par_iter().for_each(|part| {
        let (mut gradient, mut patch) = (Scratch::new(0), Scratch::new(0));
        let tiles = Tiles::even(part.pixels.len(), 2 * TILE);
        for tile in 0..tiles.count() {
            let range = tiles.range(tile);
            let pixels = part.pixels.start + range.start..part.pixels.start + range.end;
            let dy = dy.matrix(filters, pixels.clone(), 0..filters, &mut gradient);
            let tile = patches.tile(pixels);
            let patch = tile.block(part.cols.clone(), &mut patch);
            matmul(part.sum, range.start > 0, dy.transposed(), patch, Threads::One);
        }
    });

    let partials = &partials[..];
    dw.par_chunks_mut(columns).enumerate().for_each(|(filter, dw)| {
        for sum in partials.chunks_exact(filters * columns) {
            for block in 0..blocks.count() {
                let cols = blocks.range(block);
                let row = cols.start * filters + filter * cols.len();
                rows::add(&mut dw[cols.clone()], &sum[row..row + cols.len()]);
            }
        }
    });
    Ok(())
}
