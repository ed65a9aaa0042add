//! Depthwise convolution, row by row.
//!
//! A filter moves over rows that lie in a ring of the latest few, with what is owed to them paid and zeros on both sides:
//! so each is paid once a tile, no tap asks where the image ends, and all is in the first or second level cache. What
//! follows (statistics, masks, sums) is done before the tile cools.
//!
//! - Forward: the rows are the input's, an output pixel the sum of R·S products.
//! - Data gradient: the rows are those of `dy`. Pixels whose columns have the same remainder by the stride see the same
//!   taps, and their neighbours of the same remainder the next pixel of `dy`: again a convolution, without any gaps.
//! - Weight gradient: each tap's products are summed along a row in `f32`, over the rows of a tile and the tiles in `f64`.

mod ring;

use super::epilogue::Epilogue;
use super::memory::Cpu;
use super::reduce::{Partials, Tiles};
use super::rows;
use super::scratch::Scratch;
use super::simd::simd;
use super::source::{Source, epilogue_bytes, gradient_bytes, owed_bytes};
use super::view::{Number, View, ViewMut, by_width, stored_as};
use crate::device::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape, DeviceError,
};
use rayon::prelude::*;
use ring::{Gradients, Tap, Windows};
use std::ops::Range;

/// Most floats of a tile, unless a single row has more: with the ring beside it they leave a second-level cache of 512 KB
/// some room.
const TILE_FLOATS: usize = 64 * 1024;
/// Most pixels of a tile, likewise: sums of a tile are taken in `f32`, and this bounds their error.
const TILE_PIXELS: usize = 1024;
/// Channels that are worked on at a time.
const LANES: usize = 32;
/// Taps that are worked on at a time: those of 3×3.
const TAPS: usize = 9;

/// Tiles of whole rows of `width` pixels.
fn tiles(rows: usize, width: usize, channels: usize) -> Tiles {
    Tiles::even(rows, (TILE_FLOATS / (width * channels)).min(TILE_PIXELS / width).max(1))
}

impl DepthwiseKernels for Cpu {
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_forward";
        operands.check(shape)?;
        let DepthwiseForward { y, stats, x, transform, w } = operands;
        let channels = shape.c;
        let reads = shape.seen() * x.width() + owed_bytes(&transform) + w.bytes();
        let writes = y.bytes() + stats.as_ref().map_or(0, ViewMut::bytes);
        let _clock = self.clock(KERNEL, shape.flops(), reads, writes);
        let (tiles, wants_stats) = (tiles(shape.n * shape.p, shape.q, channels), stats.is_some());
        let width = shape.q * channels;
        let mut partials = Partials::of(Tiles { rows: tiles.rows * shape.q, tile: tiles.tile * shape.q }, channels);
        stored_as!(f32, KERNEL; w);
        by_width!(self, E => {
            stored_as!(E, KERNEL; y);
            let x = Source::<E>::input(KERNEL, x, transform, channels)?;
            let tile = |index: usize, y: &mut [f32], partial: &mut [f64]| {
                let mut windows = Windows::new(&x, shape);
                for (row, y) in tiles.range(index).zip(y.chunks_exact_mut(width)) {
                    windows.look(row);
                    convolve_row(y, 1, false, &windows.ring.ready, shape.stride, &windows.taps, w, channels);
                }
                if wants_stats {
                    let (mean, squares) = partial.split_at_mut(channels);
                    E::as_stored(y);
                    rows::moments(y, mean, squares);
                }
            };
            let tasks = y.par_chunks_mut(tiles.tile * width).zip(partials.par_tiles()).enumerate();
            tasks.for_each(|(index, (y, partial))| E::write(y, false, |y| tile(index, y, partial)));
        });
        if let Some(stats) = stats {
            partials.store_stats(stats.of(KERNEL)?);
        }
        Ok(())
    }

    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_backward_data";
        operands.check(shape)?;
        let DepthwiseBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let channels = shape.c;
        let old = if accumulate { dx.bytes() } else { 0 };
        let [masks, sums] = epilogue_bytes(&epilogue);
        let reads = gradient_bytes(&dy) + w.bytes() + old + masks;
        let _clock = self.clock(KERNEL, shape.flops(), reads, dx.bytes() + sums);
        let tiles = tiles(shape.n * shape.h, shape.w, channels);
        let width = shape.w * channels;
        let mut partials = Partials::of(tiles, channels);
        stored_as!(f32, KERNEL; w);
        by_width!(self, E => {
            stored_as!(E, KERNEL; dx);
            let dy = Source::<E>::gradient(KERNEL, dy, channels)?;
            let (epilogue, sums) = Epilogue::<E>::of(KERNEL, epilogue, channels)?;
            let tile = |index: usize, dx: &mut [f32], partial: &mut [f64]| {
                let mut gradients = Gradients::new(&dy, shape);
                for (row, dx) in tiles.range(index).zip(dx.chunks_exact_mut(width)) {
                    for column in 0..shape.stride.min(shape.w) {
                        gradients.look(row, column);
                        let (dx, dy) = (&mut dx[column * channels..], &gradients.ring.ready);
                        convolve_row(dx, shape.stride, accumulate, dy, 1, &gradients.taps, w, channels);
                    }
                    if let Some(epilogue) = &epilogue {
                        epilogue.finish(row * width, dx, partial);
                    }
                }
            };
            let tasks = dx.par_chunks_mut(tiles.tile * width).zip(partials.par_tiles()).enumerate();
            tasks.for_each(|(index, (dx, partial))| E::write(dx, accumulate, |dx| tile(index, dx, partial)));
            if let Some(sums) = sums {
                partials.store_sums(sums);
            }
        });
        Ok(())
    }

    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "depthwise_backward_weights";
        operands.check(shape)?;
        let DepthwiseBackwardWeights { dw, dy, x, transform } = operands;
        let channels = shape.c;
        let reads = gradient_bytes(&dy) + shape.seen() * x.width() + owed_bytes(&transform) + dw.bytes();
        let _clock = self.clock(KERNEL, shape.flops(), reads, dw.bytes());
        stored_as!(f32, KERNEL; dw);
        let tiles = tiles(shape.n * shape.p, shape.q, channels);
        let mut partials = vec![0.0; tiles.count() * dw.len()];
        by_width!(self, E => {
            let dy = Source::<E>::gradient(KERNEL, dy, channels)?;
            let x = Source::<E>::input(KERNEL, x, transform, channels)?;
            partials.par_chunks_exact_mut(dw.len()).enumerate().for_each(|(index, sums)| {
                let mut windows = Windows::new(&x, shape);
                let mut scratch = Scratch::new(0);
                for row in tiles.range(index) {
                    windows.look(row);
                    let dy = dy.rows(channels, pixels_of(row, shape.q), &mut scratch);
                    correlate_row(sums, dy, &windows.ring.ready, shape.stride, &windows.taps, channels);
                }
            });
        });
        let mut total = vec![0.0; dw.len()];
        for sums in partials.chunks_exact(dw.len()) {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum;
            }
        }
        for (dw, total) in dw.iter_mut().zip(total) {
            *dw += total as f32;
        }
        Ok(())
    }
}

/// The forward pass of a network that only answers: `finish` does what follows to each row while it is hot.
pub(super) fn folded_forward<E: Number>(
    y: &mut [E],
    accumulate: bool,
    x: &[E],
    w: &[f32],
    shape: &DepthwiseShape,
    finish: impl Fn(&mut [f32]) + Sync,
) {
    let (tiles, width) = (tiles(shape.n * shape.p, shape.q, shape.c), shape.q * shape.c);
    let x = Source::<E>::Plain(x);
    y.par_chunks_mut(tiles.tile * width).enumerate().for_each(|(index, y)| {
        let mut windows = Windows::new(&x, shape);
        for (row, y) in tiles.range(index).zip(y.chunks_exact_mut(width)) {
            windows.look(row);
            E::write(y, accumulate, |y| {
                convolve_row(y, 1, accumulate, &windows.ring.ready, shape.stride, &windows.taps, w, shape.c);
                finish(y);
            });
        }
    });
}

/// The pixels of a row.
fn pixels_of(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

simd! {
    /// Every `step`-th pixel of `out` becomes, or grows by, the sum over the taps of `x·w`; from one of them to the next
    /// `x` moves on by `stride` pixels.
    fn convolve_row(
        out: &mut [f32],
        step: usize,
        accumulate: bool,
        x: &[f32],
        stride: usize,
        taps: &[Tap],
        w: &[f32],
        channels: usize,
    ) {
        if taps.is_empty() && !accumulate {
            out.chunks_mut(step * channels).for_each(|out| out[..channels].fill(0.0));
        }
        for (index, taps) in taps.chunks(TAPS).enumerate() {
            convolve_taps(out, step, accumulate || index > 0, x, stride, taps, w, channels);
        }
    }

    /// `sums [R·S, C]` grow by each tap's sum of `dy·x` along a row; from one pixel of `dy` to the next `x` moves on by
    /// `stride` pixels.
    fn correlate_row(sums: &mut [f64], dy: &[f32], x: &[f32], stride: usize, taps: &[Tap], channels: usize) {
        let mut threes = taps.chunks_exact(3);
        for taps in &mut threes {
            correlate_taps([taps[0], taps[1], taps[2]], sums, dy, x, stride, channels);
        }
        for &tap in threes.remainder() {
            correlate_taps([tap], sums, dy, x, stride, channels);
        }
    }
}

/// [`convolve_row`] of at most [`TAPS`] taps.
#[inline(always)]
fn convolve_taps(
    out: &mut [f32],
    step: usize,
    accumulate: bool,
    x: &[f32],
    stride: usize,
    taps: &[Tap],
    w: &[f32],
    channels: usize,
) {
    by_lanes(
        channels,
        #[inline(always)]
        |from, lanes| {
            // Side by side: where C is a power of two, weights of different taps push one another out of the first-level cache.
            let mut near = [[0.0f32; LANES]; TAPS];
            for (near, &[_, weight]) in near.iter_mut().zip(taps) {
                near[..lanes].copy_from_slice(&w[weight + from..weight + from + lanes]);
            }
            for (j, out) in out.chunks_mut(step * channels).enumerate() {
                let out = &mut out[from..from + lanes];
                let x = &x[j * stride * channels + from..];
                let mut sum = [0.0f32; LANES];
                if accumulate {
                    sum[..lanes].copy_from_slice(out);
                }
                for (&[at, _], w) in taps.iter().zip(&near) {
                    for ((sum, x), w) in sum[..lanes].iter_mut().zip(&x[at..at + lanes]).zip(&w[..lanes]) {
                        *sum += x * w;
                    }
                }
                out.copy_from_slice(&sum[..lanes]);
            }
        },
    );
}

/// [`correlate_row`] of so many taps at once: sums enough under way that none waits for its last addition.
#[inline(always)]
fn correlate_taps<const TAPS: usize>(
    taps: [Tap; TAPS],
    sums: &mut [f64],
    dy: &[f32],
    x: &[f32],
    stride: usize,
    channels: usize,
) {
    by_lanes(
        channels,
        #[inline(always)]
        |from, lanes| {
            let mut sum = [[0.0f32; LANES]; TAPS];
            for (j, dy) in dy.chunks_exact(channels).enumerate() {
                let dy = &dy[from..from + lanes];
                let x: [&[f32]; TAPS] =
                    std::array::from_fn(|tap| &x[j * stride * channels + taps[tap][0] + from..][..lanes]);
                // By their numbers, or the sums would not stay in registers.
                for i in 0..lanes {
                    for tap in 0..TAPS {
                        sum[tap][i] += dy[i] * x[tap][i];
                    }
                }
            }
            for (sum, [_, weight]) in sum.iter().zip(taps) {
                for (total, sum) in sums[weight + from..weight + from + lanes].iter_mut().zip(sum) {
                    *total += f64::from(*sum);
                }
            }
        },
    );
}

/// Calls `each(first, count)` for each group of [`LANES`] channels; a full one has a count known at compile time.
#[inline(always)]
fn by_lanes(channels: usize, mut each: impl FnMut(usize, usize)) {
    let full = channels / LANES * LANES;
    for from in (0..full).step_by(LANES) {
        each(from, LANES);
    }
    if full < channels {
        each(full, channels - full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::tests::{check_bits, numbers};

    #[test]
    fn all_levels_give_the_same_bits() {
        const CHANNELS: usize = 93;
        const PIXELS: usize = 7;
        let (x, w) = (numbers(1, 3 * PIXELS * CHANNELS), numbers(2, 9 * CHANNELS));
        let taps: Vec<Tap> = (0..9).map(|tap| [(tap % 3 + tap / 3 * PIXELS) * CHANNELS, tap * CHANNELS]).collect();
        let dy = numbers(3, (PIXELS - 2) * CHANNELS);
        check_bits("e80cf4a8fa5d00e4", || {
            let (mut out, mut sums) = (dy.clone(), vec![0.0; 9 * CHANNELS]);
            convolve_row(&mut out, 1, true, &x, 1, &taps, &w, CHANNELS);
            correlate_row(&mut sums, &dy, &x, 1, &taps, CHANNELS);
            out.into_iter().map(|v| u64::from(v.to_bits())).chain(sums.into_iter().map(f64::to_bits)).collect()
        });
    }
}
