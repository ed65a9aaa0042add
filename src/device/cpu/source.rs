//! The operands of a convolution, and what they are still owed.

use super::reduce::channel_rows;
use super::rows;
use super::scratch::Scratch;
use super::view::{Number, View, ViewMut};
use crate::device::{Activation, DeviceError, InputTransform, OutputGradient, ReduceEpilogue};
use std::ops::Range;

/// An activation or a gradient, `[pixels, channels]`, stored as `E`, with what it is still owed.
pub(super) enum Source<'a, E> {
    /// Nothing: read as it is.
    Plain(&'a [E]),
    /// `activation(scale·x + shift)`.
    Normed { x: &'a [E], scale: &'a [f32], shift: &'a [f32], activation: Activation },
    /// `k₀·dz + k₁·y + k₂`.
    Owed { dz: &'a [E], y: &'a [E], k: [&'a [f32]; 3] },
}

impl<'a, E: Number> Source<'a, E> {
    /// A convolution's input.
    pub(super) fn input(
        kernel: &'static str,
        x: View<'a>,
        transform: Option<InputTransform<View<'a>>>,
        channels: usize,
    ) -> Result<Self, DeviceError> {
        let x = x.of(kernel)?;
        Ok(match transform {
            None => Source::Plain(x),
            Some(InputTransform { norm, activation }) => {
                let [scale, shift] = channel_rows(norm.of(kernel)?, channels);
                Source::Normed { x, scale, shift, activation }
            }
        })
    }

    /// The gradient of a convolution's output.
    pub(super) fn gradient(
        kernel: &'static str,
        dy: OutputGradient<View<'a>>,
        channels: usize,
    ) -> Result<Self, DeviceError> {
        Ok(match dy {
            OutputGradient::Ready(dy) => Source::Plain(dy.of(kernel)?),
            OutputGradient::Owed { dz, y, k } => {
                Source::Owed { dz: dz.of(kernel)?, y: y.of(kernel)?, k: channel_rows(k.of(kernel)?, channels) }
            }
        })
    }

    /// The pixels `rows`, whole, in `scratch` unless they lie in memory just so.
    pub(super) fn rows<'s>(&'s self, channels: usize, rows: Range<usize>, scratch: &'s mut Scratch) -> &'s [f32] {
        match *self {
            Source::Plain(x) => E::read(&x[rows.start * channels..rows.end * channels], scratch),
            _ => {
                scratch.resize(rows.len() * channels);
                self.write(scratch, channels, rows);
                scratch
            }
        }
    }

    /// The pixels `rows`, whole, written to `out` with everything paid.
    pub(super) fn write<O: Number>(&self, out: &mut [O], channels: usize, rows: Range<usize>) {
        self.pay(out, channels, rows, 0..channels);
    }

    /// Columns `cols` of the pixels `rows` with everything paid, as factors of a product: where they lie in memory if they lie there just
    /// so, or else in `scratch`. With them comes how far it is from one row to the next.
    pub(super) fn factors<'s>(
        &'s self,
        channels: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut Scratch<E>,
    ) -> (&'s [E], usize) {
        match *self {
            Source::Plain(x) => (&x[rows.start * channels + cols.start..rows.end * channels], channels),
            _ => {
                let width = cols.len();
                scratch.resize(rows.len() * width);
                self.pay(scratch, channels, rows, cols);
                (scratch, width)
            }
        }
    }

    /// Columns `cols` of the pixels `rows`, written to `out` with what is owed paid.
    fn pay<O: Number>(&self, out: &mut [O], channels: usize, rows: Range<usize>, cols: Range<usize>) {
        let part = rows.start * channels + cols.start..rows.end * channels;
        match *self {
            Source::Plain(x) => rows::convert(out, &x[part], channels, cols.len()),
            Source::Normed { x, scale, shift, activation } => {
                rows::normalise(out, &x[part], channels, &scale[cols.clone()], &shift[cols], activation);
            }
            Source::Owed { dz, y, k } => {
                let [k0, k1, k2] = k.map(|k| &k[cols.clone()]);
                rows::pay(out, &dz[part.clone()], &y[part], channels, k0, k1, k2);
            }
        }
    }
}

/// Bytes that a gradient is read from.
pub(super) fn gradient_bytes(dy: &OutputGradient<View<'_>>) -> usize {
    match dy {
        OutputGradient::Ready(dy) => dy.bytes(),
        OutputGradient::Owed { dz, y, k } => dz.bytes() + y.bytes() + k.bytes(),
    }
}

/// Bytes of the scale and the shift that an input owes.
pub(super) fn owed_bytes(transform: &Option<InputTransform<View<'_>>>) -> usize {
    transform.as_ref().map_or(0, |transform| transform.norm.bytes() / 2)
}

/// Bytes of the mask and the sums in a data gradient's epilogue, read and written.
pub(super) fn epilogue_bytes(epilogue: &Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>) -> [usize; 2] {
    epilogue
        .as_ref()
        .map_or([0, 0], |epilogue| [epilogue.y.bytes() + epilogue.norm.bytes() / 4 * 3, epilogue.sums.bytes()])
}
