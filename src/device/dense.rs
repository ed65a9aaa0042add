//! Dense layers, with the bias and the ReLU in the product's epilogue.

use super::{DeviceError, Memory};

/// The geometry of a dense layer: `y[n, outputs] = x[n, inputs] · wᵀ + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DenseShape {
    /// Rows of the batch.
    pub n: usize,
    /// Columns of `x` and of `w`.
    pub inputs: usize,
    /// Columns of `y`, rows of `w`.
    pub outputs: usize,
}

impl DenseShape {
    /// Multiplications and additions of one pass.
    pub fn flops(&self) -> u64 {
        2 * (self.n * self.inputs * self.outputs) as u64
    }
}

/// The dense layer's passes. Everything here is at full width: the head is small and decides the answer.
pub trait DenseKernels: Memory {
    /// `y = x·wᵀ + b`, then `max(0, y)` with `relu`.
    fn dense_forward(
        &self,
        y: Self::ViewMut<'_>,
        x: Self::View<'_>,
        w: Self::View<'_>,
        b: Self::View<'_>,
        relu: bool,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dx = dz·w`.
    fn dense_backward_data(
        &self,
        dx: Self::ViewMut<'_>,
        dz: Self::View<'_>,
        w: Self::View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dw += dzᵀ·x`, `db += Σ_n dz`.
    fn dense_backward_weights(
        &self,
        dw: Self::ViewMut<'_>,
        db: Self::ViewMut<'_>,
        dz: Self::View<'_>,
        x: Self::View<'_>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dz = dy·[y > 0]`, where `y` is the output of a ReLU.
    fn relu_backward(&self, dz: Self::ViewMut<'_>, dy: Self::View<'_>, y: Self::View<'_>) -> Result<(), DeviceError>;
}
