//! Pooling: a window a row of outputs, channels side by side in the vector lanes.

use super::memory::Cpu;
use super::reduce::channel_rows;
use super::rows::{self, bounded};
use super::scratch::Scratch;
use super::simd::simd;
use super::source::owed_bytes;
use super::view::{Number, View, ViewMut, by_width, stored_as};
use crate::device::{
    DeviceError, Elements, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape,
    InputTransform, MaxPoolBackward, MaxPoolForward, Outside, PoolKernels, PoolShape,
};
use rayon::prelude::*;

impl PoolKernels for Cpu {
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "max_pool_forward";
        operands.check(shape)?;
        let MaxPoolForward { y, x, transform } = operands;
        let reads = x.bytes() + owed_bytes(&transform);
        let _clock = self.clock(KERNEL, shape.flops(), reads, y.bytes());
        let norm = owed_norm(KERNEL, transform, shape)?;
        let line = shape.w * shape.c;
        by_width!(self, E => {
            stored_as!(E, KERNEL; y, x);
            y.par_chunks_mut(shape.q * shape.c).enumerate().for_each(|(row, y)| {
                let (image, row) = (&x[row / shape.p * shape.h * line..][..shape.h * line], row % shape.p);
                // The rows of the image under the windows.
                let first = (row * shape.stride).saturating_sub(shape.pad).min(shape.h) * line;
                let last = (row * shape.stride + shape.window).saturating_sub(shape.pad).min(shape.h) * line;
                max_pool_row(y, &image[first..last.max(first)], first, norm, row, shape);
            });
        });
        Ok(())
    }

    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "max_pool_backward";
        operands.check(shape)?;
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        let flops = shape.flops() + dy.count() as u64;
        let reads = x.bytes() + dy.bytes() + owed_bytes(&transform);
        let _clock = self.clock(KERNEL, flops, reads, dx.bytes());
        let norm = owed_norm(KERNEL, transform, shape)?;
        let (inputs, outputs) = (shape.h * shape.w * shape.c, shape.p * shape.q * shape.c);
        // Windows overlap, so a task owns a whole image.
        by_width!(self, E => {
            stored_as!(E, KERNEL; dx, dy, x);
            (dx.par_chunks_mut(inputs), dy.par_chunks(outputs), x.par_chunks(inputs)).into_par_iter().for_each(
                |(dx, dy, x)| {
                    let (mut first, mut second) = (Scratch::new(0), Scratch::new(0));
                    let (dy, x) = (E::read(dy, &mut first), E::read(x, &mut second));
                    E::write(dx, false, |dx| max_pool_image_backward(dx, dy, x, norm, shape));
                },
            );
        });
        Ok(())
    }

    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_average_pool_forward";
        operands.check(KERNEL, shape)?;
        let GlobalPoolForward { y, x } = operands;
        let _clock = self.clock(KERNEL, x.count() as u64, x.bytes(), y.bytes());
        stored_as!(f32, KERNEL; y);
        by_width!(self, E => {
            stored_as!(E, KERNEL; x);
            y.par_chunks_mut(shape.c).zip(x.par_chunks(shape.pixels * shape.c)).for_each(|(y, x)| {
                let mut sums = vec![0.0; shape.c];
                rows::column_sums(E::read(x, &mut Scratch::new(0)), &mut sums);
                for (y, sum) in y.iter_mut().zip(sums) {
                    *y = (sum / shape.pixels as f64) as f32;
                }
            });
        });
        Ok(())
    }

    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_average_pool_backward";
        operands.check(shape)?;
        let GlobalAveragePoolBackward { dx, dy } = operands;
        let _clock = self.clock(KERNEL, dy.count() as u64, dy.bytes(), dx.bytes());
        stored_as!(f32, KERNEL; dy);
        by_width!(self, E => {
            stored_as!(E, KERNEL; dx);
            dx.par_chunks_mut(shape.pixels * shape.c).zip(dy.par_chunks(shape.c)).for_each(|(dx, dy)| {
                E::write(dx, false, |dx| {
                    for dx in dx.chunks_exact_mut(shape.c) {
                        for (dx, dy) in dx.iter_mut().zip(dy) {
                            *dx = dy / shape.pixels as f32;
                        }
                    }
                });
            });
        });
        Ok(())
    }

    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_max_pool_forward";
        operands.check(KERNEL, shape)?;
        let GlobalPoolForward { y, x } = operands;
        let _clock = self.clock(KERNEL, x.count() as u64, x.bytes(), y.bytes());
        stored_as!(f32, KERNEL; y);
        by_width!(self, E => {
            stored_as!(E, KERNEL; x);
            y.par_chunks_mut(shape.c).zip(x.par_chunks(shape.pixels * shape.c)).for_each(|(y, x)| {
                find_largest(y, &mut vec![0; shape.c], E::read(x, &mut Scratch::new(0)));
            });
        });
        Ok(())
    }

    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_max_pool_backward";
        operands.check(shape)?;
        let GlobalMaxPoolBackward { dx, dy, x } = operands;
        let reads = x.bytes() + dy.bytes();
        let _clock = self.clock(KERNEL, x.count() as u64, reads, dx.bytes());
        stored_as!(f32, KERNEL; dy);
        let image = shape.pixels * shape.c;
        by_width!(self, E => {
            stored_as!(E, KERNEL; dx, x);
            (dx.par_chunks_mut(image), dy.par_chunks(shape.c), x.par_chunks(image)).into_par_iter().for_each(
                |(dx, dy, x)| {
                    let (mut best, mut winner) = (vec![0.0; shape.c], vec![0; shape.c]);
                    find_largest(&mut best, &mut winner, E::read(x, &mut Scratch::new(0)));
                    E::write(dx, false, |dx| {
                        dx.fill(0.0);
                        for (c, (winner, dy)) in winner.into_iter().zip(dy).enumerate() {
                            dx[winner as usize * shape.c + c] = *dy;
                        }
                    });
                },
            );
        });
        Ok(())
    }
}

/// The scale and the shift owed to the input, and the bounds of the activation.
type Norm<'a> = Option<([&'a [f32]; 2], [f32; 2])>;

fn owed_norm<'a>(
    kernel: &'static str,
    transform: Option<InputTransform<View<'a>>>,
    shape: &PoolShape,
) -> Result<Norm<'a>, DeviceError> {
    let Some(InputTransform { norm, activation }) = transform else { return Ok(None) };
    Ok(Some((channel_rows(norm.of(kernel)?, shape.c), activation.bounds())))
}

/// The largest of each channel over an image, and the pixel that holds it.
fn find_largest(best: &mut [f32], winner: &mut [u32], x: &[f32]) {
    for (pixel, x) in x.chunks_exact(winner.len()).enumerate() {
        match pixel {
            0 => {
                best.copy_from_slice(x);
                winner.fill(0);
            }
            _ => challenge(best, winner, pixel as u32, x),
        }
    }
}

simd! {
    /// Row `p` of one image's output. Element `first` of the image is the first of `x`. First the largest of each column of the image under the
    /// windows, which are neighbours in memory, and of those the largest under each window.
    fn max_pool_row<E: Number>(y: &mut [E], x: &[E], first: usize, norm: Norm<'_>, p: usize, shape: &PoolShape) {
        let PoolShape { h, w, c, window, stride, pad, .. } = *shape;
        // Less than any number, until there is one.
        let none_yet = |is_inside: bool| match shape.outside {
            Outside::Zeros if !is_inside => 0.0,
            _ => f32::NEG_INFINITY,
        };
        let under = |at: usize, extent: usize| {
            let inside = (at * stride).max(pad) - pad..(at * stride + window).saturating_sub(pad).min(extent);
            let is_inside = inside.len() == window;
            (inside, is_inside)
        };
        let (rows, is_inside) = under(p, h);
        let mut line = Scratch::new(w * c);
        line.fill(none_yet(is_inside));
        for row in rows {
            let x = &x[row * w * c - first..][..w * c];
            match norm {
                None => line.iter_mut().zip(x).for_each(|(best, x)| *best = larger(*best, x.wide())),
                Some(([scale, shift], bounds)) => {
                    for (best, x) in line.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        for ((best, x), (scale, shift)) in best.iter_mut().zip(x).zip(scale.iter().zip(shift)) {
                            *best = larger(*best, bounded(scale * x.wide() + shift, bounds));
                        }
                    }
                }
            }
        }
        let mut best = Scratch::new(c);
        for (q, y) in y.chunks_exact_mut(c).enumerate() {
            let (columns, is_inside) = under(q, w);
            best.fill(none_yet(is_inside));
            for column in columns {
                let largest = &line[column * c..][..c];
                best.iter_mut().zip(largest).for_each(|(best, largest)| *best = larger(*best, *largest));
            }
            y.iter_mut().zip(&*best).for_each(|(y, best)| *y = E::nearest(*best));
        }
    }

    /// The gradient of one image.
    fn max_pool_image_backward(dx: &mut [f32], dy: &[f32], x: &[f32], norm: Norm<'_>, shape: &PoolShape) {
        let (mut best, mut line, mut winner) = (Scratch::new(shape.c), Scratch::new(shape.c), vec![0; shape.c]);
        dx.fill(0.0);
        for (pixel, dy) in dy.chunks_exact(shape.c).enumerate() {
            let (p, q) = (pixel / shape.q, pixel % shape.q);
            find_winners([&mut best, &mut line], &mut winner, x, 0, norm, [p, q], shape);
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

/// The larger of the two, the first if neither is, and NaN if either is.
#[inline(always)]
fn larger(best: f32, value: f32) -> f32 {
    if (value > best) | value.is_nan() { value } else { best }
}

/// Where in the image the tap of a window begins, unless it lies outside.
#[inline(always)]
fn input_of(tap: usize, p: usize, q: usize, shape: &PoolShape) -> Option<usize> {
    let row = (p * shape.stride + tap / shape.window).wrapping_sub(shape.pad);
    let col = (q * shape.stride + tap % shape.window).wrapping_sub(shape.pad);
    (row < shape.h && col < shape.w).then(|| (row * shape.w + col) * shape.c)
}

/// The largest of each channel under a window, and the tap that holds it; `line` has room for a pixel.
#[inline(always)]
fn find_winners(
    [best, line]: [&mut [f32]; 2],
    winner: &mut [u32],
    x: &[f32],
    first: usize,
    norm: Norm<'_>,
    [p, q]: [usize; 2],
    shape: &PoolShape,
) {
    let mut none_yet = true;
    for tap in 0..shape.window * shape.window {
        let values = match (input_of(tap, p, q, shape).map(|start| &x[start - first..][..shape.c]), norm) {
            (None, _) if shape.outside == Outside::Nothing => continue,
            (None, _) => {
                line.fill(0.0);
                &*line
            }
            (Some(x), None) => x,
            (Some(x), Some(([scale, shift], bounds))) => {
                for ((line, x), (scale, shift)) in line.iter_mut().zip(x).zip(scale.iter().zip(shift)) {
                    *line = bounded(scale * x + shift, bounds);
                }
                &*line
            }
        };
        if none_yet {
            best.copy_from_slice(values);
            winner.fill(tap as u32);
        } else {
            challenge(best, winner, tap as u32, values);
        }
        none_yet = false;
    }
}

/// Replaces the channels whose best so far is smaller. A tie changes nothing, and NaN beats any number.
#[inline(always)]
fn challenge(best: &mut [f32], winner: &mut [u32], number: u32, values: &[f32]) {
    for ((best, winner), value) in best.iter_mut().zip(winner).zip(values) {
        // Without a branch, so that the compiler makes vectors of it.
        let wins = (*value > *best) | (value.is_nan() & !best.is_nan());
        *best = if wins { *value } else { *best };
        *winner = if wins { number } else { *winner };
    }
}

#[cfg(test)]
mod tests {
    use super::larger;

    #[test]
    fn nan_is_larger_than_any_number() {
        assert_eq!([larger(1.0, 2.0), larger(2.0, 1.0), larger(f32::NEG_INFINITY, -3.0)], [2.0, 2.0, -3.0]);
        assert!(larger(1.0, f32::NAN).is_nan() && larger(f32::NAN, 1.0).is_nan());
    }
}
