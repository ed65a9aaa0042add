//! No folded convolutions: a kernel that applies a batch norm while it loads does so for nothing, so a GPU answers with the kernels it
//! trains with.

use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::{DeviceError, Foldable, FoldedForward, FoldedKernels, FoldedShape, Real};
use std::convert::Infallible;

impl FoldedKernels for Cuda {
    type Folded = Infallible;

    fn folds(&self) -> bool {
        false
    }

    fn fold<R: Real>(&self, _: Foldable<'_, R>, _: &FoldedShape) -> Result<Infallible, DeviceError> {
        Err(DeviceError::Unavailable("a GPU answers with the kernels it trains with".into()))
    }

    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Infallible, View<'_>, ViewMut<'_>>,
        _: &FoldedShape,
    ) -> Result<(), DeviceError> {
        match *operands.filters {}
    }
}
