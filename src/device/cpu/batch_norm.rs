//! Batch norm: per-channel formulas in `f64`, and passes over the activation that memory bounds.

use super::memory::{CHUNK, Cpu};
use super::reduce::{Partials, Tiles, channel_rows};
use super::rows::{self, pass, relu};
use super::simd::simd;
use crate::device::{
    BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormKernels, BatchNormStatistics, DeviceError, ResidualBackward, ResidualForward, Rows,
};
use rayon::prelude::*;

impl BatchNormKernels for Cpu {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<&[f32], &mut [f32]>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        let rows = 6 + usize::from(bias.is_some());
        let _clock = self.clock("batch_norm_finalise", 0, rows * channels, 6 * channels);
        let BatchNormConstants { momentum, epsilon } = constants;
        let average = |running: &mut f32, batch: f64| {
            *running = (momentum * f64::from(*running) + (1.0 - momentum) * batch) as f32;
        };
        for c in 0..channels {
            let (mean, variance) = (f64::from(stats[c]), f64::from(stats[channels + c]));
            let bias = bias.map_or(0.0, |bias| f64::from(bias[c]));
            store_norm(norm, c, mean, variance, epsilon, gamma[c], beta[c]);
            average(&mut running_mean[c], mean + bias);
            average(&mut running_variance[c], variance);
        }
        Ok(())
    }

    fn batch_norm_fold(
        &self,
        operands: BatchNormFold<&[f32], &mut [f32]>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        let rows = 4 + usize::from(bias.is_some());
        let _clock = self.clock("batch_norm_fold", 0, rows * channels, 4 * channels);
        for c in 0..channels {
            let mean = f64::from(running_mean[c]) - bias.map_or(0.0, |bias| f64::from(bias[c]));
            store_norm(norm, c, mean, f64::from(running_variance[c]), epsilon, gamma[c], beta[c]);
        }
        Ok(())
    }

    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<&[f32], &mut [f32]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormStatistics { stats, y } = operands;
        let channels = shape.channels;
        let _clock = self.clock("batch_norm_statistics", shape.statistics_flops(), y.len(), stats.len());
        let tiles = Tiles::streaming(shape.rows, channels);
        let mut partials = Partials::new(tiles.count(), channels);
        partials.par_tiles().zip(y.par_chunks(tiles.tile * channels)).for_each(|(partial, y)| {
            let (mean, squares) = partial.split_at_mut(channels);
            rows::moments(y, mean, squares);
        });
        partials.store_stats(stats, tiles);
        Ok(())
    }

    fn batch_norm_apply(&self, operands: BatchNormApply<&[f32], &mut [f32]>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormApply { a, y, norm, activation } = operands;
        let channels = shape.channels;
        let _clock = self.clock("batch_norm_apply", shape.apply_flops(), y.len() + 2 * channels, a.len());
        let [scale, shift] = channel_rows(norm, channels);
        let chunk = Tiles::streaming(shape.rows, channels).tile * channels;
        a.par_chunks_mut(chunk)
            .zip(y.par_chunks(chunk))
            .for_each(|(a, y)| rows::normalise(a, y, channels, scale, shift, activation));
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<&[f32], &mut [f32]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardReduce { dz, sums, da, y, norm, activation } = operands;
        let channels = shape.channels;
        let (reads, writes) = (da.len() + y.len() + 3 * channels, dz.len() + sums.len());
        let _clock = self.clock("batch_norm_backward_reduce", shape.backward_reduce_flops(), reads, writes);
        let [scale, shift, mean] = channel_rows(norm, channels);
        let tiles = Tiles::streaming(shape.rows, channels);
        let chunk = tiles.tile * channels;
        let mut partials = Partials::new(tiles.count(), channels);
        (dz.par_chunks_mut(chunk), partials.par_tiles(), da.par_chunks(chunk), y.par_chunks(chunk))
            .into_par_iter()
            .for_each(|(dz, partial, da, y)| {
                let (plain, centred) = partial.split_at_mut(channels);
                dz.copy_from_slice(da);
                rows::mask(dz, y, scale, shift, activation);
                rows::gradient_sums(dz, y, mean, plain, centred);
            });
        partials.store_sums(sums);
        Ok(())
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<&[f32], &mut [f32]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let channels = shape.channels;
        let _clock = self.clock("batch_norm_backward_finalise", 0, 7 * channels, 5 * channels);
        let pixels = shape.rows as f64;
        for c in 0..channels {
            let [plain, centred] = [0, 1].map(|row| f64::from(sums[row * channels + c]));
            let [mean, istd] = [2, 3].map(|row| f64::from(norm[row * channels + c]));
            let k0 = f64::from(gamma[c]) * istd;
            let k1 = -k0 * istd * istd * centred / pixels;
            k[c] = k0 as f32;
            k[channels + c] = k1 as f32;
            k[2 * channels + c] = (-k0 * plain / pixels - k1 * mean) as f32;
            dgamma[c] += (centred * istd) as f32;
            dbeta[c] += plain as f32;
        }
        Ok(())
    }

    fn residual_forward(&self, operands: ResidualForward<&[f32], &mut [f32]>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualForward { out, y, norm, shortcut, shortcut_norm } = operands;
        let channels = shape.channels;
        let (flops, rows) = match shortcut_norm {
            None => (shape.residual_forward_flops(false), 2),
            Some(_) => (shape.residual_forward_flops(true), 4),
        };
        let _clock = self.clock("residual_forward", flops, y.len() + shortcut.len() + rows * channels, out.len());
        let branch = channel_rows(norm, channels);
        let chunk = Tiles::streaming(shape.rows, channels).tile * channels;
        (out.par_chunks_mut(chunk), y.par_chunks(chunk), shortcut.par_chunks(chunk)).into_par_iter().for_each(
            |(out, y, shortcut)| match shortcut_norm {
                None => join(out, y, branch, shortcut),
                Some(norm) => join_projected(out, y, branch, shortcut, channel_rows(norm, channels)),
            },
        );
        Ok(())
    }

    fn residual_backward(
        &self,
        operands: ResidualBackward<&[f32], &mut [f32]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualBackward { dz, sums, dout, out, y, norm, projection } = operands;
        let channels = shape.channels;
        // A branch has its values, its mean and its sums.
        let branches = 1 + usize::from(projection.is_some());
        let (reads, writes) = ((2 + branches) * shape.len() + branches * channels, dz.len() + branches * sums.len());
        let flops = shape.residual_backward_flops(projection.is_some());
        let _clock = self.clock("residual_backward", flops, reads, writes);
        let tiles = Tiles::streaming(shape.rows, channels);
        let chunk = tiles.tile * channels;
        let mut partials = Partials::new(tiles.count(), channels);
        let reduce = |dz: &[f32], partial: &mut [f64], y: &[f32], norm: &[f32]| {
            let [_, _, mean] = channel_rows(norm, channels);
            let (plain, centred) = partial.split_at_mut(channels);
            rows::gradient_sums(dz, y, mean, plain, centred);
        };
        let branch = (dz.par_chunks_mut(chunk), partials.par_tiles(), y.par_chunks(chunk));
        let join = (dout.par_chunks(chunk), out.par_chunks(chunk));
        let Some(projection) = projection else {
            branch.into_par_iter().zip(join.into_par_iter()).for_each(|((dz, partial, y), (dout, out))| {
                rectify(dz, dout, out);
                reduce(dz, partial, y, norm);
            });
            partials.store_sums(sums);
            return Ok(());
        };
        let mut projected = Partials::new(tiles.count(), channels);
        branch
            .into_par_iter()
            .zip(join.into_par_iter())
            .zip((projected.par_tiles(), projection.y.par_chunks(chunk)).into_par_iter())
            .for_each(|(((dz, partial, y), (dout, out)), (projected, projection_y))| {
                rectify(dz, dout, out);
                reduce(dz, partial, y, norm);
                reduce(dz, projected, projection_y, projection.norm);
            });
        partials.store_sums(sums);
        projected.store_sums(projection.sums);
        Ok(())
    }
}

/// Writes column `c` of `norm [4, C]`.
fn store_norm(norm: &mut [f32], c: usize, mean: f64, variance: f64, epsilon: f64, gamma: f32, beta: f32) {
    let channels = norm.len() / 4;
    let istd = 1.0 / (variance + epsilon).sqrt();
    let scale = f64::from(gamma) * istd;
    for (row, value) in [scale, f64::from(beta) - mean * scale, mean, istd].into_iter().enumerate() {
        norm[row * channels + c] = value as f32;
    }
}

/// `dz = dy·[y > 0]`, where `y` is the output of a ReLU; over a whole activation.
pub(super) fn rectify_all(dz: &mut [f32], dy: &[f32], y: &[f32]) {
    (dz.par_chunks_mut(CHUNK), dy.par_chunks(CHUNK), y.par_chunks(CHUNK))
        .into_par_iter()
        .for_each(|(dz, dy, y)| rectify(dz, dy, y));
}

simd! {
    /// `dz = dy·[y > 0]`, where `y` is the output of a ReLU.
    fn rectify(dz: &mut [f32], dy: &[f32], y: &[f32]) {
        for ((dz, dy), y) in dz.iter_mut().zip(dy).zip(y) {
            *dz = pass(*y, *dy);
        }
    }

    /// `out = max(0, scale·y + shift + shortcut)`.
    fn join(out: &mut [f32], y: &[f32], norm: [&[f32]; 2], shortcut: &[f32]) {
        let [scale, shift] = norm;
        let width = scale.len();
        let pixels = out.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(shortcut.chunks_exact(width));
        for ((out, y), shortcut) in pixels {
            for (((out, y), shortcut), (scale, shift)) in
                out.iter_mut().zip(y).zip(shortcut).zip(scale.iter().zip(shift))
            {
                *out = relu(scale * y + shift + shortcut);
            }
        }
    }

    /// [`join`] with a raw projection, which is owed its own scale and shift.
    fn join_projected(out: &mut [f32], y: &[f32], norm: [&[f32]; 2], shortcut: &[f32], shortcut_norm: [&[f32]; 2]) {
        let [scale, shift] = norm;
        let [shortcut_scale, shortcut_shift] = shortcut_norm;
        let width = scale.len();
        let pixels = out.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(shortcut.chunks_exact(width));
        for ((out, y), shortcut) in pixels {
            let channels = scale.iter().zip(shift).zip(shortcut_scale.iter().zip(shortcut_shift));
            for (((out, y), shortcut), ((scale, shift), (shortcut_scale, shortcut_shift))) in
                out.iter_mut().zip(y).zip(shortcut).zip(channels)
            {
                *out = relu(scale * y + shift + (shortcut_scale * shortcut + shortcut_shift));
            }
        }
    }
}
