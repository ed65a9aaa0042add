//! Batch norm: per-channel formulas in `f64`, and passes over the activation that memory bounds.

use super::memory::{CHUNK, Cpu};
use super::reduce::{Partials, Tiles, channel_rows};
use super::rows::{self, bounded, pass};
use super::simd::simd;
use super::view::{Number, View, ViewMut, by_width, stored_as};
use crate::device::{
    Activation, BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants,
    BatchNormFinalise, BatchNormFold, BatchNormKernels, BatchNormStatistics, DeviceError, Masked, Projection,
    ResidualBackward, ResidualForward, Rows,
};
use rayon::prelude::*;

/// Bytes of a value per channel.
const FLOAT: usize = size_of::<f32>();

impl BatchNormKernels for Cpu {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<View<'_>, ViewMut<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_finalise";
        operands.check(channels)?;
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        let rows = 6 + usize::from(bias.is_some());
        let _clock = self.clock(KERNEL, 0, FLOAT * rows * channels, FLOAT * 6 * channels);
        stored_as!(f32, KERNEL; norm, running_mean, running_variance, stats, gamma, beta);
        let bias = bias.map(|bias| bias.of::<f32>(KERNEL)).transpose()?;
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
        operands: BatchNormFold<View<'_>, ViewMut<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_fold";
        operands.check(channels)?;
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        let rows = 4 + usize::from(bias.is_some());
        let _clock = self.clock(KERNEL, 0, FLOAT * rows * channels, FLOAT * 4 * channels);
        stored_as!(f32, KERNEL; norm, running_mean, running_variance, gamma, beta);
        let bias = bias.map(|bias| bias.of::<f32>(KERNEL)).transpose()?;
        for c in 0..channels {
            let mean = f64::from(running_mean[c]) - bias.map_or(0.0, |bias| f64::from(bias[c]));
            store_norm(norm, c, mean, f64::from(running_variance[c]), epsilon, gamma[c], beta[c]);
        }
        Ok(())
    }

    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_statistics";
        operands.check(shape)?;
        let BatchNormStatistics { stats, y } = operands;
        let channels = shape.channels;
        let _clock = self.clock(KERNEL, shape.statistics_flops(), y.bytes(), stats.bytes());
        stored_as!(f32, KERNEL; stats);
        let tiles = Tiles::streaming(shape.rows, channels);
        let mut partials = Partials::of(tiles, channels);
        by_width!(self, E => {
            stored_as!(E, KERNEL; y);
            partials.par_tiles().zip(y.par_chunks(tiles.tile * channels)).for_each(|(partial, y)| {
                let (mean, squares) = partial.split_at_mut(channels);
                rows::moments(y, mean, squares);
            });
        });
        partials.store_stats(stats);
        Ok(())
    }

    fn batch_norm_apply(
        &self,
        operands: BatchNormApply<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_apply";
        operands.check(shape)?;
        let BatchNormApply { a, y, norm, activation } = operands;
        let channels = shape.channels;
        let reads = y.bytes() + FLOAT * 2 * channels;
        let _clock = self.clock(KERNEL, shape.apply_flops(), reads, a.bytes());
        stored_as!(f32, KERNEL; norm);
        let [scale, shift] = channel_rows(norm, channels);
        let chunk = Tiles::streaming(shape.rows, channels).tile * channels;
        by_width!(self, E => {
            stored_as!(E, KERNEL; a, y);
            a.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).for_each(|(a, y)| {
                rows::normalise(a, y, channels, scale, shift, activation);
            });
        });
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_backward_reduce";
        operands.check(shape)?;
        let BatchNormBackwardReduce { dz, sums, da, y, norm, activation } = operands;
        let channels = shape.channels;
        let (reads, writes) = (da.bytes() + y.bytes() + FLOAT * 3 * channels, dz.bytes() + sums.bytes());
        let _clock = self.clock(KERNEL, shape.backward_reduce_flops(), reads, writes);
        stored_as!(f32, KERNEL; sums, norm);
        let [scale, shift, mean] = channel_rows(norm, channels);
        let tiles = Tiles::streaming(shape.rows, channels);
        let chunk = tiles.tile * channels;
        let mut partials = Partials::of(tiles, channels);
        by_width!(self, E => {
            stored_as!(E, KERNEL; dz, da, y);
            (dz.par_chunks_mut(chunk), partials.par_tiles(), da.par_chunks(chunk), y.par_chunks(chunk))
                .into_par_iter()
                .for_each(|(dz, partial, da, y)| {
                    let (plain, centred) = partial.split_at_mut(channels);
                    dz.copy_from_slice(da);
                    rows::mask(dz, y, scale, shift, activation);
                    rows::gradient_sums(dz, y, mean, plain, centred);
                });
        });
        partials.store_sums(sums);
        Ok(())
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_backward_finalise";
        operands.check(shape)?;
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let channels = shape.channels;
        let _clock = self.clock(KERNEL, 0, FLOAT * 7 * channels, FLOAT * 5 * channels);
        stored_as!(f32, KERNEL; k, dgamma, dbeta, sums, gamma, norm);
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

    fn residual_forward(
        &self,
        operands: ResidualForward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "residual_forward";
        operands.check(shape)?;
        let ResidualForward { out, y, norm, shortcut, shortcut_norm, relu } = operands;
        let channels = shape.channels;
        let (flops, rows) = match shortcut_norm {
            None => (shape.residual_forward_flops(false), 2),
            Some(_) => (shape.residual_forward_flops(true), 4),
        };
        let reads = y.bytes() + shortcut.bytes() + FLOAT * rows * channels;
        let _clock = self.clock(KERNEL, flops, reads, out.bytes());
        stored_as!(f32, KERNEL; norm);
        let shortcut_norm = shortcut_norm.map(|norm| norm.of::<f32>(KERNEL)).transpose()?;
        let branch = channel_rows(norm, channels);
        let bounds = if relu { Activation::Relu } else { Activation::Linear }.bounds();
        let chunk = Tiles::streaming(shape.rows, channels).tile * channels;
        by_width!(self, E => {
            stored_as!(E, KERNEL; out, y, shortcut);
            (out.par_chunks_mut(chunk), y.par_chunks(chunk), shortcut.par_chunks(chunk)).into_par_iter().for_each(
                |(out, y, shortcut)| match shortcut_norm {
                    None => join(out, y, branch, shortcut, bounds),
                    Some(norm) => join_projected(out, y, branch, shortcut, channel_rows(norm, channels), bounds),
                },
            );
        });
        Ok(())
    }

    fn residual_backward(
        &self,
        operands: ResidualBackward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "residual_backward";
        operands.check(shape)?;
        let ResidualBackward { masked, sums, dout, y, norm, projection } = operands;
        let channels = shape.channels;
        // A branch has its values, its mean and its sums.
        let branches = 1 + usize::from(projection.is_some());
        let (dz_bytes, out_bytes) = masked.as_ref().map_or((0, 0), |masked| (masked.dz.bytes(), masked.out.bytes()));
        let reads = dout.bytes() + out_bytes + branches * (y.bytes() + FLOAT * channels);
        let flops = shape.residual_backward_flops(projection.is_some());
        let _clock = self.clock(KERNEL, flops, reads, dz_bytes + branches * sums.bytes());
        stored_as!(f32, KERNEL; sums, norm);
        let tiles = Tiles::streaming(shape.rows, channels);
        let chunk = tiles.tile * channels;
        let [mut partials, mut projected] = [(); 2].map(|()| Partials::of(tiles, channels));
        by_width!(self, E => {
            stored_as!(E, KERNEL; dout, y);
            // What each tile has of what may be absent.
            let masks: Vec<Option<(&mut [E], &[E])>> = match masked {
                Some(Masked { dz, out }) => {
                    stored_as!(E, KERNEL; dz, out);
                    dz.chunks_mut(chunk).zip(out.chunks(chunk)).map(Some).collect()
                }
                None => (0..tiles.count()).map(|_| None).collect(),
            };
            let (projection_sums, projection) = match projection {
                Some(Projection { sums, y, norm }) => {
                    stored_as!(f32, KERNEL; sums, norm);
                    stored_as!(E, KERNEL; y);
                    (Some(sums), Some((y, norm)))
                }
                None => (None, None),
            };
            (masks, partials.par_tiles(), projected.par_tiles(), dout.par_chunks(chunk), y.par_chunks(chunk))
                .into_par_iter()
                .enumerate()
                .for_each(|(at, (mask, partial, projected, dout, y))| {
                    let dz = match mask {
                        Some((dz, out)) => {
                            rectify(dz, dout, out);
                            &*dz
                        }
                        None => dout,
                    };
                    let reduce = |partial: &mut [f64], y: &[E], norm: &[f32]| {
                        let [_, _, mean] = channel_rows(norm, channels);
                        let (plain, centred) = partial.split_at_mut(channels);
                        rows::gradient_sums(dz, y, mean, plain, centred);
                    };
                    reduce(partial, y, norm);
                    if let Some((y, norm)) = projection {
                        reduce(projected, &y[at * chunk..][..dz.len()], norm);
                    }
                });
            partials.store_sums(sums);
            if let Some(sums) = projection_sums {
                projected.store_sums(sums);
            }
        });
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
    fn rectify<E: Number>(dz: &mut [E], dy: &[E], y: &[E]) {
        for ((dz, dy), y) in dz.iter_mut().zip(dy).zip(y) {
            *dz = E::nearest(pass(y.wide(), dy.wide()));
        }
    }

    /// `out = scale·y + shift + shortcut`, kept between the bounds.
    fn join<E: Number>(out: &mut [E], y: &[E], norm: [&[f32]; 2], shortcut: &[E], bounds: [f32; 2]) {
        let [scale, shift] = norm;
        let width = scale.len();
        let pixels = out.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(shortcut.chunks_exact(width));
        for ((out, y), shortcut) in pixels {
            for (((out, y), shortcut), (scale, shift)) in
                out.iter_mut().zip(y).zip(shortcut).zip(scale.iter().zip(shift))
            {
                *out = E::nearest(bounded(scale * y.wide() + shift + shortcut.wide(), bounds));
            }
        }
    }

    /// [`join`] with a raw projection, which is owed its own scale and shift.
    fn join_projected<E: Number>(
        out: &mut [E],
        y: &[E],
        norm: [&[f32]; 2],
        shortcut: &[E],
        shortcut_norm: [&[f32]; 2],
        bounds: [f32; 2],
    ) {
        let [scale, shift] = norm;
        let [shortcut_scale, shortcut_shift] = shortcut_norm;
        let width = scale.len();
        let pixels = out.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(shortcut.chunks_exact(width));
        for ((out, y), shortcut) in pixels {
            let channels = scale.iter().zip(shift).zip(shortcut_scale.iter().zip(shortcut_shift));
            for (((out, y), shortcut), ((scale, shift), (shortcut_scale, shortcut_shift))) in
                out.iter_mut().zip(y).zip(shortcut).zip(channels)
            {
                let projected = shortcut_scale * shortcut.wide() + shortcut_shift;
                *out = E::nearest(bounded(scale * y.wide() + shift + projected, bounds));
            }
        }
    }
}
