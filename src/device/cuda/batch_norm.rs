use super::Cuda;
use super::memory::{View, ViewMut};
use crate::device::*;

impl BatchNormKernels for Cuda {
    fn batch_norm_finalise(
        &self,
        norm: ViewMut<'_>,
        running_mean: ViewMut<'_>,
        running_variance: ViewMut<'_>,
        stats: View<'_>,
        gamma: View<'_>,
        beta: View<'_>,
        bias: Option<View<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn batch_norm_fold(
        &self,
        norm: ViewMut<'_>,
        running_mean: View<'_>,
        running_variance: View<'_>,
        gamma: View<'_>,
        beta: View<'_>,
        bias: Option<View<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn batch_norm_apply(&self, a: ViewMut<'_>, y: View<'_>, norm: View<'_>, shape: Rows) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn batch_norm_backward_reduce(
        &self,
        dz: ViewMut<'_>,
        sums: ViewMut<'_>,
        da: View<'_>,
        y: View<'_>,
        norm: View<'_>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn batch_norm_backward_finalise(
        &self,
        k: ViewMut<'_>,
        dgamma: ViewMut<'_>,
        dbeta: ViewMut<'_>,
        sums: View<'_>,
        gamma: View<'_>,
        norm: View<'_>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn residual_forward(
        &self,
        out: ViewMut<'_>,
        y: View<'_>,
        norm: View<'_>,
        shortcut: View<'_>,
        shortcut_norm: Option<View<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
    fn residual_backward(
        &self,
        dz: ViewMut<'_>,
        sums: ViewMut<'_>,
        dout: View<'_>,
        out: View<'_>,
        y: View<'_>,
        norm: View<'_>,
        projection: Option<ReduceEpilogue<View<'_>, ViewMut<'_>>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        unimplemented!()
    }
}
