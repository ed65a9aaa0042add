//! Convolution as matrix products over tiles of pixels.
//!
//! - Forward: `y [pixels, K] = patches [pixels, R·S·C] · wᵀ`.
//! - Data gradient, stride 1: the same by the rotated filters, from patches of `dy`. Otherwise the transposed product,
//!   scattered ([`scatter`]): for a 1×1 filter of stride 2 that multiplies the sampled pixels and no others.
//! - Weight gradient: `dw [K, R·S·C] = dyᵀ · patches`, cut into chunks of pixels that are summed in order ([`weights`]).

mod folded;
mod patches;
mod scatter;
mod weights;
mod winograd;

use super::epilogue::Epilogue;
use super::factor::Factor;
use super::matmul::Matrix;
use super::memory::Cpu;
use super::panels::ROWS;
use super::reduce::{Partials, Tiles};
use super::rows;
use super::scratch::Scratch;
use super::source::{Source, epilogue_bytes, gradient_bytes, owed_bytes};
use super::view::{Number, View, ViewMut, by_width, stored_as};
use crate::device::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError,
};
use patches::Patches;
use rayon::prelude::*;
use winograd::Grid;

/// Most pixels of a tile, and how many floats of its outputs stay in a second-level cache beside what they are made of.
const TILE: usize = 10 * ROWS;
const TILE_FLOATS: usize = 64 * 1024;

impl ConvKernels for Cpu {
    fn conv_forward(&self, operands: ConvForward<View<'_>, ViewMut<'_>>, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_forward";
        operands.check(shape)?;
        let ConvForward { y, stats, x, transform, w, bias, activation } = operands;
        let reads = shape.seen() * x.width() + owed_bytes(&transform) + w.bytes() + bias.map_or(0, |bias| bias.bytes());
        let writes = y.bytes() + stats.as_ref().map_or(0, ViewMut::bytes);
        let _clock = self.clock(KERNEL, shape.flops(), reads, writes);
        stored_as!(f32, KERNEL; w);
        let bias = bias.map(|bias| bias.of::<f32>(KERNEL)).transpose()?;
        let stats = stats.map(|stats| stats.of::<f32>(KERNEL)).transpose()?;
        let wants_stats = stats.is_some();
        let partials = by_width!(self, E => {
            stored_as!(E, KERNEL; y);
            let source = Source::<E>::input(KERNEL, x, transform, shape.c)?;
            let finish = |_: usize, tile: &mut [f32], partial: &mut [f64]| {
                if let Some(bias) = bias {
                    rows::add_bias(tile, bias);
                }
                rows::activate(tile, activation);
                if wants_stats {
                    let (mean, squares) = partial.split_at_mut(shape.k);
                    E::as_stored(tile);
                    rows::moments(tile, mean, squares);
                }
            };
            let columns = shape.r * shape.s * shape.c;
            let weights = Matrix::new(w, shape.k, columns, columns).transposed();
            match Grid::forward(shape).filter(|_| E::multiplies_less()) {
                Some(grid) => {
                    winograd::convolve(y, false, &source, &grid, &winograd::transformed(self, &grid, weights)?, finish)
                }
                None => convolve(self, y, false, &Patches::of_input(source, shape), weights, finish)?,
            }
        });
        if let Some(stats) = stats {
            partials.store_stats(stats);
        }
        Ok(())
    }

    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_data";
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        // Without an epilogue, pixels that no tap reaches stay as they are.
        let touched = if accumulate && epilogue.is_none() { shape.seen() * dx.width() } else { dx.bytes() };
        let old = if accumulate { touched } else { 0 };
        let [masks, sums] = epilogue_bytes(&epilogue);
        let reads = gradient_bytes(&dy) + w.bytes() + old + masks;
        let _clock = self.clock(KERNEL, shape.flops(), reads, touched + sums);
        stored_as!(f32, KERNEL; w);
        by_width!(self, E => {
            stored_as!(E, KERNEL; dx);
            let gradient = Source::<E>::gradient(KERNEL, dy, shape.k)?;
            let (epilogue, sums) = Epilogue::<E>::of(KERNEL, epilogue, shape.c)?;
            let finish = |first: usize, tile: &mut [f32], partial: &mut [f64]| {
                if let Some(epilogue) = &epilogue {
                    epilogue.finish(first * shape.c, tile, partial);
                }
            };
            let grid = Grid::backward_data(shape).filter(|_| E::multiplies_less());
            let partials = match (grid, Patches::of_gradient(gradient, shape)) {
                (None, Ok(patches)) if shape.is_pointwise() => {
                    convolve(self, dx, accumulate, &patches, Matrix::new(w, shape.k, shape.c, shape.c), finish)?
                }
                (grid, Ok(patches)) => {
                    let mut rotated = self.room(w.len())?;
                    weights::rotate(&mut rotated, w, shape);
                    let weights = Matrix::new(&rotated, patches.columns(), shape.c, shape.c);
                    match grid {
                        Some(grid) => {
                            let filters = winograd::transformed(self, &grid, weights)?;
                            winograd::convolve(dx, accumulate, patches.source(), &grid, &filters, finish)
                        }
                        None => convolve(self, dx, accumulate, &patches, weights, finish)?,
                    }
                }
                (_, Err(gradient)) => scatter::backward_data(self, dx, accumulate, &gradient, w, shape, finish)?,
            };
            if let Some(sums) = sums {
                partials.store_sums(sums);
            }
        });
        Ok(())
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_weights";
        operands.check(shape)?;
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let reads = gradient_bytes(&dy) + shape.seen() * x.width() + owed_bytes(&transform) + dw.bytes();
        let _clock = self.clock(KERNEL, shape.flops(), reads, dw.bytes());
        stored_as!(f32, KERNEL; dw);
        by_width!(self, E => {
            let (x, dy) = (Source::<E>::input(KERNEL, x, transform, shape.c)?, Source::gradient(KERNEL, dy, shape.k)?);
            match Grid::backward_weights(shape).filter(|_| E::multiplies_less()) {
                Some(grid) => winograd::backward_weights(self, dw, &dy, &x, &grid),
                None => weights::backward(self, dw, &dy, &Patches::of_input(x, shape), shape),
            }
        })
    }

    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_bias";
        operands.check(shape)?;
        let ConvBackwardBias { dbias, dy } = operands;
        let flops = shape.output_len() as u64;
        let reads = gradient_bytes(&dy) + dbias.bytes();
        let _clock = self.clock(KERNEL, flops, reads, dbias.bytes());
        stored_as!(f32, KERNEL; dbias);
        let tiles = Tiles::streaming(shape.n * shape.p * shape.q, shape.k);
        let mut partials = Partials::of(tiles, shape.k);
        by_width!(self, E => {
            let gradient = Source::<E>::gradient(KERNEL, dy, shape.k)?;
            partials.par_tiles().enumerate().for_each(|(index, partial)| {
                let mut scratch = Scratch::new(0);
                let dy = gradient.rows(shape.k, tiles.range(index), &mut scratch);
                rows::column_sums(dy, &mut partial[..shape.k]);
            });
        });
        for (dbias, sum) in dbias.iter_mut().zip(partials.sum()) {
            *dbias += sum as f32;
        }
        Ok(())
    }
}

/// `out [pixels, width] = patches · weights [columns, width]`, or `+=`, tile by tile. While a tile is hot,
/// `finish(first pixel, tile, partial)` does what is fused behind the product.
fn convolve<E: Factor>(
    device: &Cpu,
    out: &mut [E],
    accumulate: bool,
    patches: &Patches<E>,
    weights: Matrix,
    finish: impl Fn(usize, &mut [f32], &mut [f64]) + Sync,
) -> Result<Partials, DeviceError> {
    let [_, width] = weights.extents();
    let most = (TILE_FLOATS / width).clamp(TILE / 5, TILE) / ROWS * ROWS;
    let tiles = Tiles::blocks(out.len() / width, most, ROWS);
    let mut partials = Partials::of(tiles, width);
    let extents = weights.extents();
    let mut packed = E::room(device, E::packed_len(extents))?;
    E::pack(&mut packed, weights);
    let packed = &packed[..];
    out.par_chunks_mut(tiles.tile * width).zip(partials.par_tiles()).enumerate().for_each(|(index, (out, partial))| {
        let pixels = tiles.range(index);
        let tile = patches.tile(pixels.clone());
        let mut scratch = Scratch::of(0);
        E::write(out, accumulate, |out| {
            for cols in patches.blocks() {
                let accumulate = accumulate || cols.start > 0;
                let block = tile.left(cols.clone(), &mut scratch);
                E::multiply(out, accumulate, block, packed, extents, cols, None);
            }
            finish(pixels.start, out, partial);
        });
    });
    Ok(partials)
}
