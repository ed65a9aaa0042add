//! The operands of a convolution, and what they are still owed.

use super::matmul::Matrix;
use super::reduce::channel_rows;
use super::rows;
use super::scratch::Scratch;
use crate::device::{Activation, InputTransform, OutputGradient};
use std::ops::Range;

/// An activation or a gradient, `[pixels, channels]`, with what it is still owed.
pub(super) enum Source<'a> {
    /// Nothing: read as it is.
    Plain(&'a [f32]),
    /// `activation(scale·x + shift)`.
    Normed { x: &'a [f32], scale: &'a [f32], shift: &'a [f32], activation: Activation },
    /// `k₀·dz + k₁·y + k₂`.
    Owed { dz: &'a [f32], y: &'a [f32], k: [&'a [f32]; 3] },
}

impl<'a> Source<'a> {
    /// A convolution's input.
    pub(super) fn input(x: &'a [f32], transform: Option<InputTransform<&'a [f32]>>, channels: usize) -> Self {
        match transform {
            None => Source::Plain(x),
            Some(InputTransform { norm, activation }) => {
                let [scale, shift] = channel_rows(norm, channels);
                Source::Normed { x, scale, shift, activation }
            }
        }
    }

    /// The gradient of a convolution's output.
    pub(super) fn gradient(dy: OutputGradient<&'a [f32]>, channels: usize) -> Self {
        match dy {
            OutputGradient::Ready(dy) => Source::Plain(dy),
            OutputGradient::Owed { dz, y, k } => Source::Owed { dz, y, k: channel_rows(k, channels) },
        }
    }

    /// The pixels `rows`, whole, paid into `scratch` if anything is owed.
    pub(super) fn rows<'s>(&'s self, channels: usize, rows: Range<usize>, scratch: &'s mut Scratch) -> &'s [f32] {
        match *self {
            Source::Plain(x) => &x[rows.start * channels..rows.end * channels],
            _ => {
                self.matrix(channels, rows, 0..channels, scratch);
                scratch
            }
        }
    }

    /// The pixels `rows`, whole, written to `out` with everything paid.
    pub(super) fn write(&self, out: &mut [f32], channels: usize, rows: Range<usize>) {
        let part = rows.start * channels..rows.end * channels;
        match *self {
            Source::Plain(x) => out.copy_from_slice(&x[part]),
            Source::Normed { x, scale, shift, activation } => {
                rows::normalise(out, &x[part], channels, scale, shift, activation);
            }
            Source::Owed { dz, y, k: [k0, k1, k2] } => {
                rows::pay(out, &dz[part.clone()], &y[part], channels, k0, k1, k2);
            }
        }
    }

    /// Columns `cols` of the pixels `rows`, paid into `scratch` if anything is owed.
    pub(super) fn matrix<'s>(
        &'s self,
        channels: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut Scratch,
    ) -> Matrix<'s> {
        let (count, width) = (rows.len(), cols.len());
        let part = rows.start * channels + cols.start..rows.end * channels;
        match *self {
            Source::Plain(x) => return Matrix::new(&x[part], count, width, channels),
            Source::Normed { x, scale, shift, activation } => {
                scratch.resize(count * width);
                rows::normalise(scratch, &x[part], channels, &scale[cols.clone()], &shift[cols], activation);
            }
            Source::Owed { dz, y, k } => {
                scratch.resize(count * width);
                let [k0, k1, k2] = k.map(|k| &k[cols.clone()]);
                rows::pay(scratch, &dz[part.clone()], &y[part], channels, k0, k1, k2);
            }
        }
        Matrix::new(scratch, count, width, width)
    }
}

/// Elements that a gradient is read from.
pub(super) fn gradient_len(dy: &OutputGradient<&[f32]>) -> usize {
    match dy {
        OutputGradient::Ready(dy) => dy.len(),
        OutputGradient::Owed { dz, y, k } => dz.len() + y.len() + k.len(),
    }
}
