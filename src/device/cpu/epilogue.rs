//! The batch norm in front of a convolution, settled in the epilogue of its data gradient.

use super::reduce::channel_rows;
use super::rows;
use super::view::{Number, View, ViewMut};
use crate::device::{Activation, DeviceError, ReduceEpilogue};

/// The activation of that batch norm, and what its backward pass sums up.
pub(super) struct Epilogue<'a, E> {
    y: &'a [E],
    /// Scale, shift and mean.
    norm: [&'a [f32]; 3],
    activation: Activation,
}

/// An epilogue, and where its sums go.
type Parts<'a, E> = (Option<Epilogue<'a, E>>, Option<&'a mut [f32]>);

impl<'a, E: Number> Epilogue<'a, E> {
    /// A data gradient's epilogue, if it has one.
    pub(super) fn of(
        kernel: &'static str,
        epilogue: Option<ReduceEpilogue<View<'a>, ViewMut<'a>>>,
        channels: usize,
    ) -> Result<Parts<'a, E>, DeviceError> {
        let Some(ReduceEpilogue { sums, y, norm, activation }) = epilogue else { return Ok((None, None)) };
        let norm = channel_rows(norm.of(kernel)?, channels);
        Ok((Some(Epilogue { y: y.of(kernel)?, norm, activation }), Some(sums.of(kernel)?)))
    }

    /// Masks a tile of the gradient, whose first element is element `first` of the activation, and adds it to the sums.
    pub(super) fn finish(&self, first: usize, dx: &mut [f32], partial: &mut [f64]) {
        let [scale, shift, mean] = self.norm;
        let y = &self.y[first..][..dx.len()];
        let (plain, centred) = partial.split_at_mut(mean.len());
        // The sums are those of the gradient as it is stored.
        E::as_stored(dx);
        rows::mask(dx, y, scale, shift, self.activation);
        rows::gradient_sums(dx, y, mean, plain, centred);
    }
}
