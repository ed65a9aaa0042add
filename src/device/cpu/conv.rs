//! Convolution as matrix products over tiles of pixels.
//!
//! - Forward: `y [pixels, K] = patches [pixels, R·S·C] · wᵀ`.
//! - Data gradient, stride 1: the same by the rotated filters, from patches of `dy`. Otherwise the transposed product,
//!   scattered ([`scatter`]): for a 1×1 filter of stride 2 that multiplies the sampled pixels and no others.
//! - Weight gradient: `dw [K, R·S·C] = dyᵀ · patches`, cut into chunks of pixels that are summed in order ([`weights`]).

mod patches;
mod scatter;
mod weights;

use super::epilogue::Epilogue;
use super::matmul::{Matrix, Threads, matmul};
use super::memory::Cpu;
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

/// Most pixels of a tile. The weights are packed anew for each, so fewer waste time; more would not stay in cache.
const TILE: usize = 128;

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
        let mut by_column = self.room(w.len())?;
        weights::by_column(&mut by_column, w, shape);
        let tiles = Tiles::even(shape.n * shape.p * shape.q, TILE);
        let wants_stats = stats.is_some();
        let partials = by_width!(self, E => {
            stored_as!(E, KERNEL; y);
            let patches = Patches::<E>::of_input(Source::input(KERNEL, x, transform, shape.c)?, shape);
            convolve(y, false, &patches, &by_column, shape.k, tiles, |_, tile, partial| {
                if let Some(bias) = bias {
                    rows::add_bias(tile, bias);
                }
                rows::activate(tile, activation);
                if wants_stats {
                    let (mean, squares) = partial.split_at_mut(shape.k);
                    E::as_stored(tile);
                    rows::moments(tile, mean, squares);
                }
            })
        });
        if let Some(stats) = stats {
            partials.store_stats(stats, tiles);
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
            let partials = match Patches::of_gradient(gradient, shape) {
                Ok(patches) => {
                    let tiles = Tiles::even(shape.n * shape.h * shape.w, TILE);
                    if shape.is_pointwise() {
                        convolve(dx, accumulate, &patches, w, shape.c, tiles, finish)
                    } else {
                        let mut rotated = self.room(w.len())?;
                        weights::rotate(&mut rotated, w, shape);
                        convolve(dx, accumulate, &patches, &rotated, shape.c, tiles, finish)
                    }
                }
                Err(gradient) => scatter::backward_data(dx, accumulate, &gradient, w, shape, finish),
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
            let patches = Patches::<E>::of_input(Source::input(KERNEL, x, transform, shape.c)?, shape);
            weights::backward(self, dw, &Source::gradient(KERNEL, dy, shape.k)?, &patches, shape)
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
        let mut partials = Partials::new(tiles.count(), shape.k);
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
fn convolve<E: Number>(
    out: &mut [E],
    accumulate: bool,
    patches: &Patches<E>,
    weights: &[f32],
    width: usize,
    tiles: Tiles,
    finish: impl Fn(usize, &mut [f32], &mut [f64]) + Sync,
) -> Partials {
    let mut partials = Partials::new(tiles.count(), width);
    out.par_chunks_mut(tiles.tile * width).zip(partials.par_tiles()).enumerate().for_each(|(index, (out, partial))| {
        let pixels = tiles.range(index);
        let tile = patches.tile(pixels.clone());
        let mut scratch = Scratch::new(0);
        E::write(out, accumulate, |out| {
            for cols in patches.blocks() {
                let weights = Matrix::new(&weights[cols.start * width..], cols.len(), width, width);
                let accumulate = accumulate || cols.start > 0;
                matmul(out, accumulate, tile.block(cols, &mut scratch), weights, Threads::One);
            }
            finish(pixels.start, out, partial);
        });
    });
    partials
}
