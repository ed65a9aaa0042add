//! No folded convolutions: what is counted is training.

use super::{Counting, View};
use crate::device::{DeviceError, Foldable, FoldedForward, FoldedKernels, FoldedShape, Real};
use std::convert::Infallible;

impl FoldedKernels for Counting {
    type Folded = Infallible;

    fn folds(&self) -> bool {
        false
    }

    fn fold<R: Real>(&self, _: Foldable<'_, R>, _: &FoldedShape) -> Result<Infallible, DeviceError> {
        Err(DeviceError::Unavailable("a device that counts answers with the kernels it trains with".into()))
    }

    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Infallible, View, View>,
        _: &FoldedShape,
    ) -> Result<(), DeviceError> {
        match *operands.filters {}
    }
}
