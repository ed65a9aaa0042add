//! Pooling: a window a row of outputs, channels side by side in the vector lanes.

use super::memory::Cpu;
use super::reduce::channel_rows;
use super::rows::{self, bounded};
use super::simd::simd;
use crate::device::{
    DeviceError, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape, InputTransform,
    MaxPoolBackward, MaxPoolForward, PoolKernels, PoolShape,
};
use rayon::prelude::*;

impl PoolKernels for Cpu {
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<&[f32], &mut [f32]>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolForward { y, x, transform } = operands;
        let owed = transform.map_or(0, |_| 2 * shape.c);
        let _clock = self.clock("max_pool_forward", shape.flops(), x.len() + owed, y.len());
        let norm = owed_norm(transform, shape);
        let image = shape.h * shape.w * shape.c;
        y.par_chunks_mut(shape.q * shape.c).enumerate().for_each(|(row, y)| {
            let x = &x[row / shape.p * image..][..image];
            max_pool_row(y, &mut vec![0; shape.c], x, norm, row % shape.p, shape);
        });
        Ok(())
    }

    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<&[f32], &mut [f32]>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        let owed = transform.map_or(0, |_| 2 * shape.c);
        let flops = shape.flops() + dy.len() as u64;
        let _clock = self.clock("max_pool_backward", flops, x.len() + dy.len() + owed, dx.len());
        let norm = owed_norm(transform, shape);
        let (inputs, outputs) = (shape.h * shape.w * shape.c, shape.p * shape.q * shape.c);
        // Windows overlap, so a task owns a whole image.
        (dx.par_chunks_mut(inputs), dy.par_chunks(outputs), x.par_chunks(inputs))
            .into_par_iter()
            .for_each(|(dx, dy, x)| max_pool_image_backward(dx, dy, x, norm, shape));
        Ok(())
    }

    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<&[f32], &mut [f32]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_average_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        let _clock = self.clock("global_average_pool_forward", x.len() as u64, x.len(), y.len());
        y.par_chunks_mut(shape.c).zip(x.par_chunks(shape.pixels * shape.c)).for_each(|(y, x)| {
            let mut sums = vec![0.0; shape.c];
            rows::column_sums(x, &mut sums);
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = (sum / shape.pixels as f64) as f32;
            }
        });
        Ok(())
    }

    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<&[f32], &mut [f32]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalAveragePoolBackward { dx, dy } = operands;
        let _clock = self.clock("global_average_pool_backward", dy.len() as u64, dy.len(), dx.len());
        dx.par_chunks_mut(shape.pixels * shape.c).zip(dy.par_chunks(shape.c)).for_each(|(dx, dy)| {
            for dx in dx.chunks_exact_mut(shape.c) {
                for (dx, dy) in dx.iter_mut().zip(dy) {
                    *dx = dy / shape.pixels as f32;
                }
            }
        });
        Ok(())
    }

    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<&[f32], &mut [f32]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_max_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        let _clock = self.clock("global_max_pool_forward", x.len() as u64, x.len(), y.len());
        y.par_chunks_mut(shape.c).zip(x.par_chunks(shape.pixels * shape.c)).for_each(|(y, x)| {
            let mut winner = vec![0; shape.c];
            for (pixel, x) in x.chunks_exact(shape.c).enumerate() {
                challenge(y, &mut winner, pixel as u32, pixel == 0, x.iter().copied());
            }
        });
        Ok(())
    }

    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<&[f32], &mut [f32]>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalMaxPoolBackward { dx, dy, x } = operands;
        let _clock = self.clock("global_max_pool_backward", x.len() as u64, x.len() + dy.len(), dx.len());
        let image = shape.pixels * shape.c;
        (dx.par_chunks_mut(image), dy.par_chunks(shape.c), x.par_chunks(image)).into_par_iter().for_each(
            |(dx, dy, x)| {
                let (mut best, mut winner) = (vec![0.0; shape.c], vec![0; shape.c]);
                for (pixel, x) in x.chunks_exact(shape.c).enumerate() {
                    challenge(&mut best, &mut winner, pixel as u32, pixel == 0, x.iter().copied());
                }
                dx.fill(0.0);
                for (c, (winner, dy)) in winner.into_iter().zip(dy).enumerate() {
                    dx[winner as usize * shape.c + c] = *dy;
                }
            },
        );
        Ok(())
    }
}

/// The scale and the shift owed to the input, and the bounds of the activation.
type Norm<'a> = Option<([&'a [f32]; 2], [f32; 2])>;

fn owed_norm<'a>(transform: Option<InputTransform<&'a [f32]>>, shape: &PoolShape) -> Norm<'a> {
    transform.map(|InputTransform { norm, activation }| (channel_rows(norm, shape.c), activation.bounds()))
}

simd! {
    /// Row `p` of one image's output, and with it the number of the tap that won each channel of the last window.
    fn max_pool_row(y: &mut [f32], winner: &mut [u32], x: &[f32], norm: Norm<'_>, p: usize, shape: &PoolShape) {
        for (q, y) in y.chunks_exact_mut(shape.c).enumerate() {
            find_winners(y, winner, x, norm, p, q, shape);
        }
    }

    /// The gradient of one image.
    fn max_pool_image_backward(dx: &mut [f32], dy: &[f32], x: &[f32], norm: Norm<'_>, shape: &PoolShape) {
        let (mut best, mut winner) = (vec![0.0; shape.c], vec![0; shape.c]);
        dx.fill(0.0);
        for (pixel, dy) in dy.chunks_exact(shape.c).enumerate() {
            let (p, q) = (pixel / shape.q, pixel % shape.q);
            find_winners(&mut best, &mut winner, x, norm, p, q, shape);
            for tap in 0..shape.window * shape.window {
                let Some(start) = input_of(tap, p, q, shape) else { continue };
                let dx = &mut dx[start..start + shape.c];
                for ((dx, dy), winner) in dx.iter_mut().zip(dy).zip(&winner) {
                    *dx += if *winner == tap as u32 { *dy } else { 0.0 };
                }
            }
        }
    }
}

/// Where in the image the tap of a window begins, unless it lies in the padding.
#[inline(always)]
fn input_of(tap: usize, p: usize, q: usize, shape: &PoolShape) -> Option<usize> {
    let row = (p * shape.stride + tap / shape.window).wrapping_sub(shape.pad);
    let col = (q * shape.stride + tap % shape.window).wrapping_sub(shape.pad);
    (row < shape.h && col < shape.w).then(|| (row * shape.w + col) * shape.c)
}

/// The largest of each channel under a window, and the tap that holds it.
#[inline(always)]
fn find_winners(
    best: &mut [f32],
    winner: &mut [u32],
    x: &[f32],
    norm: Norm<'_>,
    p: usize,
    q: usize,
    shape: &PoolShape,
) {
    for tap in 0..shape.window * shape.window {
        let number = tap as u32;
        match (input_of(tap, p, q, shape).map(|start| &x[start..start + shape.c]), norm) {
            (None, _) => challenge(best, winner, number, tap == 0, std::iter::repeat_n(0.0, shape.c)),
            (Some(x), None) => challenge(best, winner, number, tap == 0, x.iter().copied()),
            (Some(x), Some(([scale, shift], bounds))) => {
                let owed = scale.iter().zip(shift);
                let values = x.iter().zip(owed).map(|(x, (scale, shift))| bounded(scale * x + shift, bounds));
                challenge(best, winner, number, tap == 0, values);
            }
        }
    }
}

/// Replaces the channels whose best so far is smaller, or all of them when there is none so far. A tie
/// changes nothing, and NaN beats any number.
#[inline(always)]
fn challenge(best: &mut [f32], winner: &mut [u32], number: u32, first: bool, values: impl Iterator<Item = f32>) {
    for ((best, winner), value) in best.iter_mut().zip(winner).zip(values) {
        let wins = first || value > *best || (value.is_nan() && !best.is_nan());
        *best = if wins { value } else { *best };
        *winner = if wins { number } else { *winner };
    }
}
