//! The data gradient of a convolution that skips pixels: the transposed product, scattered (col2im).
//!
//! `patches [pixels, R·S·C] = dy · w` holds what each output pixel sends back to the inputs under its window. A task owns
//! a group of whole images and adds their patches in order, so no two tasks meet.

use super::{Source, TILE};
use crate::device::ConvShape;
use crate::device::DeviceError;
use crate::device::cpu::factor::Factor;
use crate::device::cpu::matmul::Matrix;
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::panels::ROWS;
use crate::device::cpu::reduce::{Partials, Tiles};
use crate::device::cpu::rows;
use crate::device::cpu::scratch::Scratch;
use rayon::prelude::*;
use std::ops::Range;

/// Most columns of a tile of patches.
const MOST_COLUMNS: usize = 512;

/// `dx = convᵀ(dy, w)`, or `+=`; then `finish(first pixel, tile, partial)` on each tile of `dx`.
pub(super) fn backward_data<E: Factor>(
    device: &Cpu,
    dx: &mut [E],
    accumulate: bool,
    dy: &Source<E>,
    w: &[f32],
    shape: &ConvShape,
    finish: impl Fn(usize, &mut [f32], &mut [f64]) + Sync,
) -> Result<Partials, DeviceError> {
    let ConvShape { n, h, w: width, c, k, p, q, .. } = *shape;
    let columns = shape.r * shape.s * c;
    let images = Tiles::even(n, TILE.div_ceil(p * q));
    let mut partials = Partials::of(images, c);
    // One product for each block of columns.
    let blocks: Vec<Range<usize>> =
        (0..columns).step_by(MOST_COLUMNS).map(|from| from..(from + MOST_COLUMNS).min(columns)).collect();
    let w = Matrix::new(w, k, columns, columns);
    let mut packed = E::room(device, E::packed_len([k, columns]))?;
    E::pack(&mut packed, w);
    let packed = &packed[..];
    let panels = |cols: &Range<usize>| &packed[E::packed_len([k, cols.start])..E::packed_len([k, cols.end])];
    let tile = |index: usize, dx: &mut [f32], partial: &mut [f64]| {
        if !accumulate {
            dx.fill(0.0);
        }
        let group = images.range(index);
        let (mut paid, mut patches) = (Scratch::of(0), Scratch::new(0));
        let pixels = Tiles::blocks(group.len() * p * q, TILE, ROWS);
        for tile in 0..pixels.count() {
            let pixels = pixels.range(tile);
            let offset = group.start * p * q;
            let (dy, stride) = dy.factors(k, offset + pixels.start..offset + pixels.end, 0..k, &mut paid);
            let dy = E::left(dy, pixels.len(), k, stride);
            for cols in &blocks {
                patches.resize(pixels.len() * cols.len());
                E::multiply(&mut patches, false, dy, panels(cols), [k, cols.len()], 0..k, None);
                scatter(dx, &patches, pixels.clone(), cols.clone(), shape);
            }
        }
        for (tile, dx) in dx.chunks_mut(TILE * c).enumerate() {
            finish(group.start * h * width + tile * TILE, dx, partial);
        }
    };
    let tasks = dx.par_chunks_mut(images.tile * h * width * c).zip(partials.par_tiles()).enumerate();
    tasks.for_each(|(index, (dx, partial))| E::write(dx, accumulate, |dx| tile(index, dx, partial)));
    Ok(partials)
}

/// Adds columns `cols` of the patches of `pixels` to the inputs they came from; `dx` begins with the pixels' first image.
fn scatter(dx: &mut [f32], patches: &[f32], pixels: Range<usize>, cols: Range<usize>, shape: &ConvShape) {
    let ConvShape { h, w, c, s, stride, pad, p, q, .. } = *shape;
    for (patch, pixel) in patches.chunks_exact(cols.len()).zip(pixels) {
        let [image, p, q] = [pixel / (p * q), pixel / q % p, pixel % q];
        for tap in cols.start / c..cols.end.div_ceil(c) {
            let row = (p * stride + tap / s).wrapping_sub(pad);
            let col = (q * stride + tap % s).wrapping_sub(pad);
            if row >= h || col >= w {
                continue;
            }
            let (from, to) = (cols.start.max(tap * c), cols.end.min((tap + 1) * c));
            let start = ((image * h + row) * w + col) * c + from - tap * c;
            rows::add(&mut dx[start..start + (to - from)], &patch[from - cols.start..to - cols.start]);
        }
    }
}
