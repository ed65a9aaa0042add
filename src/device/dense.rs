//! Dense layers, with the bias and the ReLU in the product's epilogue.

use super::{DeviceError, Elements, Memory, check_lengths};

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

/// Operands of [`DenseKernels::dense_forward`].
pub struct DenseForward<V, M> {
    /// `y [N, outputs]`, written.
    pub y: M,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// `x [N, inputs]`.
    pub x: V,
    /// `w [outputs, inputs]`.
    pub w: V,
    /// `b [outputs]`.
    pub b: V,
}

impl<V: Elements, M: Elements> DenseForward<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, &DenseShape { n, inputs, outputs }: &DenseShape) -> Result<(), DeviceError> {
        let operands = [
            ("y", self.y.count(), n * outputs),
            ("x", self.x.count(), n * inputs),
            ("w", self.w.count(), outputs * inputs),
            ("b", self.b.count(), outputs),
        ];
        check_lengths("dense_forward", &operands)
    }
}

/// Operands of [`DenseKernels::dense_backward_data`].
pub struct DenseBackwardData<V, M> {
    /// `dx [N, inputs]`, written.
    pub dx: M,
    /// `dz [N, outputs]`.
    pub dz: V,
    /// `w [outputs, inputs]`.
    pub w: V,
}

impl<V: Elements, M: Elements> DenseBackwardData<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, &DenseShape { n, inputs, outputs }: &DenseShape) -> Result<(), DeviceError> {
        let operands = [
            ("dx", self.dx.count(), n * inputs),
            ("dz", self.dz.count(), n * outputs),
            ("w", self.w.count(), outputs * inputs),
        ];
        check_lengths("dense_backward_data", &operands)
    }
}

/// Operands of [`DenseKernels::dense_backward_weights`].
pub struct DenseBackwardWeights<V, M> {
    /// `dw [outputs, inputs]`, added to.
    pub dw: M,
    /// `db [outputs]`, added to.
    pub db: M,
    /// `dz [N, outputs]`.
    pub dz: V,
    /// `x [N, inputs]`.
    pub x: V,
}

impl<V: Elements, M: Elements> DenseBackwardWeights<V, M> {
    /// Refuses operands that contradict the geometry.
    pub fn check(&self, &DenseShape { n, inputs, outputs }: &DenseShape) -> Result<(), DeviceError> {
        let operands = [
            ("dw", self.dw.count(), outputs * inputs),
            ("db", self.db.count(), outputs),
            ("dz", self.dz.count(), n * outputs),
            ("x", self.x.count(), n * inputs),
        ];
        check_lengths("dense_backward_weights", &operands)
    }
}

/// Operands of [`DenseKernels::relu_backward`], all of one length.
pub struct ReluBackward<V, M> {
    /// `dz`, written.
    pub dz: M,
    /// `dy`, the gradient of `y`.
    pub dy: V,
    /// `y`, the output of the ReLU.
    pub y: V,
}

impl<V: Elements, M: Elements> ReluBackward<V, M> {
    /// Refuses operands that are not as long as `dz`.
    pub fn check(&self) -> Result<(), DeviceError> {
        let len = self.dz.count();
        check_lengths("relu_backward", &[("dy", self.dy.count(), len), ("y", self.y.count(), len)])
    }
}

/// The dense layer's passes. Everything here is at full width: the head is small and decides the answer.
pub trait DenseKernels: Memory {
    /// `y = x·wᵀ + b`, then `max(0, y)` with `relu`.
    fn dense_forward(
        &self,
        operands: DenseForward<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dx = dz·w`.
    fn dense_backward_data(
        &self,
        operands: DenseBackwardData<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dw += dzᵀ·x`, `db += Σ_n dz`.
    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<Self::View<'_>, Self::ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError>;

    /// `dz = dy·[y > 0]`.
    fn relu_backward(&self, operands: ReluBackward<Self::View<'_>, Self::ViewMut<'_>>) -> Result<(), DeviceError>;
}
