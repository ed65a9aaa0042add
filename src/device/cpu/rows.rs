//! Loops over a tile: some rows of an NHWC activation, one row per pixel and one column per channel. They compute in `f32`, whatever the
//! numbers are stored as.

use super::scratch::Scratch;
use super::simd::simd;
use super::view::Number;
use crate::device::Activation;

simd! {
    /// `to += from`.
    pub(super) fn add(to: &mut [f32], from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }

    /// `out = x`, where `out [rows, width]` is contiguous and a row of `x` comes every `stride` numbers.
    pub(super) fn convert<O: Number, E: Number>(out: &mut [O], x: &[E], stride: usize, width: usize) {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks(stride)) {
            for (out, x) in out.iter_mut().zip(x) {
                *out = O::nearest(x.wide());
            }
        }
    }

    /// `out = activation(scale·x + shift)`, where `out [rows, C]` is contiguous and a row of `x` comes every `stride` numbers.
    pub(super) fn normalise<O: Number, E: Number>(
        out: &mut [O],
        x: &[E],
        stride: usize,
        scale: &[f32],
        shift: &[f32],
        activation: Activation,
    ) {
        let bounds = activation.bounds();
        for (out, x) in out.chunks_exact_mut(scale.len()).zip(x.chunks(stride)) {
            for ((out, x), (scale, shift)) in out.iter_mut().zip(x).zip(scale.iter().zip(shift)) {
                *out = O::nearest(bounded(scale * x.wide() + shift, bounds));
            }
        }
    }

    /// `out = k₀·dz + k₁·y + k₂`, laid out as in [`normalise`].
    pub(super) fn pay<O: Number, E: Number>(
        out: &mut [O],
        dz: &[E],
        y: &[E],
        stride: usize,
        k0: &[f32],
        k1: &[f32],
        k2: &[f32],
    ) {
        for ((out, dz), y) in out.chunks_exact_mut(k0.len()).zip(dz.chunks(stride)).zip(y.chunks(stride)) {
            for (((out, dz), y), ((k0, k1), k2)) in
                out.iter_mut().zip(dz).zip(y).zip(k0.iter().zip(k1).zip(k2))
            {
                *out = O::nearest(k0 * dz.wide() + k1 * y.wide() + k2);
            }
        }
    }

    /// Adds `bias [C]` to every row.
    pub(super) fn add_bias(tile: &mut [f32], bias: &[f32]) {
        for row in tile.chunks_exact_mut(bias.len()) {
            for (y, bias) in row.iter_mut().zip(bias) {
                *y += bias;
            }
        }
    }

    /// `y = activation(y)` in place.
    pub(super) fn activate(tile: &mut [f32], activation: Activation) {
        if activation == Activation::Linear {
            return;
        }
        let bounds = activation.bounds();
        for y in tile {
            *y = bounded(*y, bounds);
        }
    }

    /// `dz = da·activation′(scale·y + shift)` in place.
    pub(super) fn mask<D: Number, E: Number>(
        dz: &mut [D],
        y: &[E],
        scale: &[f32],
        shift: &[f32],
        activation: Activation,
    ) {
        let width = scale.len();
        let [low, high] = activation.bounds();
        // No finite value is at an infinite bound, and what is infinite stays in between.
        let high = if high.is_finite() { high } else { f32::NAN };
        if activation == Activation::Linear {
            return;
        }
        for (dz, y) in dz.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            for ((dz, y), (scale, shift)) in dz.iter_mut().zip(y).zip(scale.iter().zip(shift)) {
                *dz = D::nearest(pass_between(scale * y.wide() + shift, [low, high], dz.wide()));
            }
        }
    }

    /// Mean of each column and sum of its squared deviations from it.
    ///
    /// The deviations are taken from the rounded mean, whose own error is then taken out of both, so that nothing
    /// cancels however far the mean lies from zero.
    pub(super) fn moments<E: Number>(tile: &[E], mean: &mut [f64], squares: &mut [f64]) {
        let width = mean.len();
        let rows = (tile.len() / width) as f64;
        let mut scratch = Scratch::new(3 * width);
        scratch.fill(0.0);
        let (pivot, rest) = scratch.split_at_mut(width);
        let (sum, sum_of_squares) = rest.split_at_mut(width);
        for row in tile.chunks_exact(width) {
            for (sum, y) in pivot.iter_mut().zip(row) {
                *sum += y.wide();
            }
        }
        for pivot in pivot.iter_mut() {
            *pivot /= rows as f32;
        }
        for row in tile.chunks_exact(width) {
            for ((y, pivot), (sum, square)) in row.iter().zip(&*pivot).zip(sum.iter_mut().zip(&mut *sum_of_squares)) {
                let deviation = y.wide() - pivot;
                *sum += deviation;
                *square += deviation * deviation;
            }
        }
        for i in 0..width {
            let sum = f64::from(sum[i]);
            mean[i] = f64::from(pivot[i]) + sum / rows;
            squares[i] = f64::from(sum_of_squares[i]) - sum * sum / rows;
        }
    }

    /// `sums += Σ dz` of each column.
    pub(super) fn column_sums(tile: &[f32], sums: &mut [f64]) {
        let width = sums.len();
        let mut sum = Scratch::new(width);
        sum.fill(0.0);
        for row in tile.chunks_exact(width) {
            for (sum, dz) in sum.iter_mut().zip(row) {
                *sum += dz;
            }
        }
        for (sums, sum) in sums.iter_mut().zip(&*sum) {
            *sums += f64::from(*sum);
        }
    }

    /// `plain += Σ dz` and `centred += Σ dz·(y − mean)` of each column.
    pub(super) fn gradient_sums<D: Number, E: Number>(
        dz: &[D],
        y: &[E],
        mean: &[f32],
        plain: &mut [f64],
        centred: &mut [f64],
    ) {
        let width = mean.len();
        let mut scratch = Scratch::new(2 * width);
        scratch.fill(0.0);
        let (sum, product) = scratch.split_at_mut(width);
        // Row by row, as memory is read fastest: the sums of all channels stay in the first-level cache.
        for (dz, y) in dz.chunks_exact(width).zip(y.chunks_exact(width)) {
            for (((dz, y), mean), (sum, product)) in
                dz.iter().zip(y).zip(mean).zip(sum.iter_mut().zip(&mut *product))
            {
                let dz = dz.wide();
                *sum += dz;
                *product += dz * (y.wide() - mean);
            }
        }
        for i in 0..width {
            plain[i] += f64::from(sum[i]);
            centred[i] += f64::from(product[i]);
        }
    }
}

/// `max(0, v)`, except that NaN stays NaN: a run that went wrong must show it.
#[inline(always)]
pub(super) fn relu(v: f32) -> f32 {
    if 0.0 > v { 0.0 } else { v }
}

/// `v`, or the bound that it is beyond, except that NaN stays NaN.
#[inline(always)]
pub(super) fn bounded(v: f32, [low, high]: [f32; 2]) -> f32 {
    let v = if low > v { low } else { v };
    if high < v { high } else { v }
}

/// `d·[low < v < high]`, NaN where `v` is; a `high` of NaN is no bound.
#[inline(always)]
fn pass_between(v: f32, [low, high]: [f32; 2], d: f32) -> f32 {
    let passed = if v > low { d } else { 0.0 };
    let passed = if v >= high { 0.0 } else { passed };
    if v.is_nan() { v } else { passed }
}

/// `d·[v > 0]`: what a ReLU fed `v` passes on of a gradient `d`. NaN where `v` is.
#[inline(always)]
pub(super) fn pass(v: f32, d: f32) -> f32 {
    let passed = if v > 0.0 { d } else { 0.0 };
    if v.is_nan() { v } else { passed }
}
