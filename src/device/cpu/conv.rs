//! Convolution as matrix products over tiles of pixels.
//!
//! - Forward: `y [pixels, K] = patches [pixels, R·S·C] · wᵀ`.
//! - Data gradient, stride 1: the same by the rotated filters, from patches of `dy`. Otherwise the transposed product,
//!   scattered ([`scatter`]): for a 1×1 filter of stride 2 that multiplies the sampled pixels and no others.
//! - Weight gradient: `dw [K, R·S·C] = dyᵀ · patches`, cut into chunks of pixels that are summed in order ([`weights`]).

mod patches;
mod scatter;
mod weights;

use super::matmul::{Matrix, Threads, matmul};
use super::memory::Cpu;
use super::reduce::{Partials, Tiles, channel_rows};
use super::rows;
use super::scratch::Scratch;
use super::source::{Source, gradient_len};
use crate::device::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError,
    InputTransform, Memory, ReduceEpilogue, Storage,
};
use patches::Patches;
use rayon::prelude::*;

/// Most pixels of a tile. The weights are packed anew for each, so fewer waste time; more would not stay in cache.
const TILE: usize = 128;

impl ConvKernels for Cpu {
    fn conv_forward(&self, operands: ConvForward<&[f32], &mut [f32]>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvForward { y, stats, x, transform, w, bias } = operands;
        let reads = shape.seen() + owed_to_input(transform, shape) + w.len() + bias.map_or(0, <[f32]>::len);
        let writes = y.len() + stats.as_ref().map_or(0, |stats| stats.len());
        let _clock = self.clock("conv_forward", shape.flops(), reads, writes);
        let patches = Patches::of_input(Source::input(x, transform, shape.c), shape);
        let mut by_column = self.allocate(w.len(), Storage::Full)?;
        weights::by_column(by_column.as_mut_slice(), w, shape);
        let tiles = Tiles::even(shape.n * shape.p * shape.q, TILE);
        let wants_stats = stats.is_some();
        let partials = convolve(y, false, &patches, by_column.as_slice(), shape.k, tiles, |_, tile, partial| {
            if let Some(bias) = bias {
                rows::add_bias(tile, bias);
            }
            if wants_stats {
                let (mean, squares) = partial.split_at_mut(shape.k);
                rows::moments(tile, mean, squares);
            }
        });
        if let Some(stats) = stats {
            partials.store_stats(stats, tiles);
        }
        Ok(())
    }

    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<&[f32], &mut [f32]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        // Without an epilogue, pixels that no tap reaches stay as they are.
        let touched = if accumulate && epilogue.is_none() { shape.seen() } else { dx.len() };
        let old = if accumulate { touched } else { 0 };
        let masks = epilogue.as_ref().map_or(0, |epilogue| epilogue.y.len() + 3 * shape.c);
        let sums = epilogue.as_ref().map_or(0, |epilogue| epilogue.sums.len());
        let reads = gradient_len(&dy) + w.len() + old + masks;
        let _clock = self.clock("conv_backward_data", shape.flops(), reads, touched + sums);
        // The batch norm in front, and where its sums go.
        let (front, sums) = match epilogue {
            Some(ReduceEpilogue { sums, y, norm, activation }) => (Some((y, norm, activation)), Some(sums)),
            None => (None, None),
        };
        let finish = |first: usize, tile: &mut [f32], partial: &mut [f64]| {
            if let Some((y, norm, activation)) = front {
                let [scale, shift, mean] = channel_rows(norm, shape.c);
                let y = &y[first * shape.c..][..tile.len()];
                let (plain, centred) = partial.split_at_mut(shape.c);
                rows::mask(tile, y, scale, shift, activation);
                rows::gradient_sums(tile, y, mean, plain, centred);
            }
        };
        let gradient = Source::gradient(dy, shape.k);
        let partials = match Patches::of_gradient(gradient, shape) {
            Ok(patches) => {
                let tiles = Tiles::even(shape.n * shape.h * shape.w, TILE);
                if shape.is_pointwise() {
                    convolve(dx, accumulate, &patches, w, shape.c, tiles, finish)
                } else {
                    let mut rotated = self.allocate(w.len(), Storage::Full)?;
                    weights::rotate(rotated.as_mut_slice(), w, shape);
                    convolve(dx, accumulate, &patches, rotated.as_slice(), shape.c, tiles, finish)
                }
            }
            Err(gradient) => scatter::backward_data(dx, accumulate, &gradient, w, shape, finish),
        };
        if let Some(sums) = sums {
            partials.store_sums(sums);
        }
        Ok(())
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<&[f32], &mut [f32]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let reads = gradient_len(&dy) + shape.seen() + owed_to_input(transform, shape) + dw.len();
        let _clock = self.clock("conv_backward_weights", shape.flops(), reads, dw.len());
        let patches = Patches::of_input(Source::input(x, transform, shape.c), shape);
        weights::backward(self, dw, &Source::gradient(dy, shape.k), &patches, shape)
    }

    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<&[f32], &mut [f32]>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardBias { dbias, dy } = operands;
        let flops = shape.output_len() as u64;
        let _clock = self.clock("conv_backward_bias", flops, gradient_len(&dy) + dbias.len(), dbias.len());
        let gradient = Source::gradient(dy, shape.k);
        let tiles = Tiles::streaming(shape.n * shape.p * shape.q, shape.k);
        let mut partials = Partials::new(tiles.count(), shape.k);
        partials.par_tiles().enumerate().for_each(|(index, partial)| {
            let mut scratch = Scratch::new(0);
            let dy = gradient.rows(shape.k, tiles.range(index), &mut scratch);
            rows::column_sums(dy, &mut partial[..shape.k]);
        });
        for (dbias, sum) in dbias.iter_mut().zip(partials.sum()) {
            *dbias += sum as f32;
        }
        Ok(())
    }
}

/// Elements of the scale and the shift that the input owes.
fn owed_to_input(transform: Option<InputTransform<&[f32]>>, shape: &ConvShape) -> usize {
    transform.map_or(0, |_| 2 * shape.c)
}

/// `out [pixels, width] = patches · weights [columns, width]`, or `+=`, tile by tile. While a tile is hot,
/// `finish(first pixel, tile, partial)` does what is fused behind the product.
fn convolve(
    out: &mut [f32],
    accumulate: bool,
    patches: &Patches,
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
        for cols in patches.blocks() {
            let weights = Matrix::new(&weights[cols.start * width..], cols.len(), width, width);
            let accumulate = accumulate || cols.start > 0;
            matmul(out, accumulate, tile.block(cols, &mut scratch), weights, Threads::One);
        }
        finish(pixels.start, out, partial);
    });
    partials
}
