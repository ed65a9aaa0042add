//! The weights in the orders that the products want, and their gradient.

use super::patches::Patches;
use crate::device::cpu::factor::Factor;
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::panels::COLUMNS;
use crate::device::cpu::reduce::Tiles;
use crate::device::cpu::rows;
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::source::Source;
use crate::device::{ConvShape, DeviceError};
use rayon::prelude::*;
use std::ops::Range;

/// Most filters and columns of `dw` that one task sums: as much of `dy` stays in cache as a tile of pixels has of them, and what is owed
/// to an operand is paid once for each block of the other.
const MOST_FILTERS: usize = 256;
const MOST_COLUMNS: usize = 512;

/// Pixels that are multiplied at a time.
const TILE: usize = 256;

/// Least pixels that one task sums over, and how many tasks are worth having.
const LEAST_PIXELS: usize = 2 * TILE;
const TASKS: usize = 16;

/// Most floats of all partial sums together, unless `dw` alone has more.
const MOST_PARTIALS: usize = 4 << 20;

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

/// One task: this block of `dw`, summed over these pixels.
struct Part<'a> {
    pixels: Range<usize>,
    filters: Range<usize>,
    cols: Range<usize>,
    sum: &'a mut [f32],
}

/// `dw += dyᵀ · patches`.
///
/// `dw` is cut into blocks, and pixels into chunks where there are many; each task sums its own block over its own chunk, and the
/// parts are added up chunk after chunk.
pub(super) fn backward<E: Factor>(
    device: &Cpu,
    dw: &mut [f32],
    dy: &Source<E>,
    patches: &Patches<E>,
    shape: &ConvShape,
) -> Result<(), DeviceError> {
    let (filters, columns) = (shape.k, patches.columns());
    let blocks = [Tiles::even(filters, MOST_FILTERS), Tiles::blocks(columns, MOST_COLUMNS, COLUMNS)];
    let pixels = shape.n * shape.p * shape.q;
    let chunks = TASKS.div_ceil(blocks[0].count() * blocks[1].count());
    let chunks = chunks.min(MOST_PARTIALS / dw.len()).min(pixels / LEAST_PIXELS).max(1);
    let chunks = Tiles::even(pixels, pixels.div_ceil(chunks));

    let mut partials = device.room(chunks.count() * dw.len())?;
    let mut parts = Vec::with_capacity(chunks.count() * blocks[0].count() * blocks[1].count());
    for (chunk, sums) in partials.chunks_exact_mut(dw.len()).enumerate() {
        for (block, sums) in sums.chunks_mut(blocks[0].tile * columns).enumerate() {
            let (filters, mut rest) = (blocks[0].range(block), sums);
            for block in 0..blocks[1].count() {
                let (pixels, cols) = (chunks.range(chunk), blocks[1].range(block));
                let (sum, behind) = rest.split_at_mut(filters.len() * cols.len());
                rest = behind;
                parts.push(Part { pixels, filters: filters.clone(), cols, sum });
            }
        }
    }
    parts.into_par_iter().for_each(|part| {
        let [mut gradient, mut transposed, mut patch, mut packed] = [(); 4].map(|()| Scratch::of(0));
        let tiles = Tiles::even(part.pixels.len(), TILE);
        for tile in 0..tiles.count() {
            let range = tiles.range(tile);
            let pixels = part.pixels.start + range.start..part.pixels.start + range.end;
            let (dy, stride) = dy.factors(filters, pixels.clone(), part.filters.clone(), &mut gradient);
            let dy = E::transposed(dy, range.len(), part.filters.len(), stride, &mut transposed);
            let tile = patches.tile(pixels);
            let (patch, stride) = tile.block(part.cols.clone(), &mut patch);
            let extents = [range.len(), part.cols.len()];
            packed.resize(E::packed_len(extents));
            E::pack_here(&mut packed, patch, extents, stride);
            E::multiply(part.sum, range.start > 0, dy, &packed, extents, 0..range.len(), None);
        }
    });

    let partials = &partials[..];
    dw.par_chunks_mut(columns).enumerate().for_each(|(filter, dw)| {
        let rows = blocks[0].range(filter / blocks[0].tile);
        for sums in partials.chunks_exact(filters * columns) {
            for block in 0..blocks[1].count() {
                let cols = blocks[1].range(block);
                let row = rows.start * columns + cols.start * rows.len() + (filter - rows.start) * cols.len();
                rows::add(&mut dw[cols.clone()], &sums[row..row + cols.len()]);
            }
        }
    });
    Ok(())
}
