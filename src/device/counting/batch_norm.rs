//! What batch norm and the junction must read and write: every operand once.

use super::{Counting, View};
use crate::device::{
    BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormKernels, BatchNormStatistics, DeviceError, Masked, Projection, ResidualBackward,
    ResidualForward, Rows,
};

impl BatchNormKernels for Counting {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<View, View>,
        channels: usize,
        _: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        let averages = self.all([running_mean, running_variance]);
        let reads = averages + self.all([stats, gamma, beta]) + self.optional(bias);
        self.launch("batch_norm_finalise", reads, self.bytes(norm) + averages, 0);
        Ok(())
    }

    fn batch_norm_fold(&self, operands: BatchNormFold<View, View>, channels: usize, _: f64) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        let reads = self.all([running_mean, running_variance, gamma, beta]) + self.optional(bias);
        self.launch("batch_norm_fold", reads, self.bytes(norm), 0);
        Ok(())
    }

    fn batch_norm_statistics(&self, operands: BatchNormStatistics<View, View>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormStatistics { stats, y } = operands;
        self.launch("batch_norm_statistics", self.bytes(y), self.bytes(stats), shape.statistics_flops());
        Ok(())
    }

    fn batch_norm_apply(&self, operands: BatchNormApply<View, View>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormApply { a, y, norm, .. } = operands;
        let reads = self.bytes(y) + self.part(norm, norm.len / 2);
        self.launch("batch_norm_apply", reads, self.bytes(a), shape.apply_flops());
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<View, View>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardReduce { dz, sums, da, y, norm, .. } = operands;
        let reads = self.all([da, y]) + self.part(norm, norm.len / 4 * 3);
        self.launch("batch_norm_backward_reduce", reads, self.all([dz, sums]), shape.backward_reduce_flops());
        Ok(())
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<View, View>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let reads = self.all([dgamma, dbeta, sums, gamma]) + self.part(norm, norm.len / 2);
        self.launch("batch_norm_backward_finalise", reads, self.all([k, dgamma, dbeta]), 0);
        Ok(())
    }

    fn residual_forward(&self, operands: ResidualForward<View, View>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualForward { out, y, norm, shortcut, shortcut_norm, relu: _ } = operands;
        let norms = self.bytes(norm) + self.optional(shortcut_norm);
        let flops = shape.residual_forward_flops(shortcut_norm.is_some());
        let projected = shortcut_norm.is_some() && self.is_gpu();
        let kernel = if projected { "residual_forward_projected" } else { "residual_forward" };
        self.launch(kernel, self.all([y, shortcut]) + norms / 2, self.bytes(out), flops);
        Ok(())
    }

    fn residual_backward(&self, operands: ResidualBackward<View, View>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualBackward { masked, sums, dout, y, norm, projection } = operands;
        let mean = |norm: View| self.part(norm, norm.len / 4);
        let (mut reads, mut writes) = (self.all([dout, y]) + mean(norm), self.bytes(sums));
        let flops = shape.residual_backward_flops(projection.is_some());
        let kernel = match (masked.is_some(), projection.is_some()) {
            _ if !self.is_gpu() => "residual_backward",
            (true, false) => "residual_backward",
            (true, true) => "residual_backward_projected",
            (false, false) => "residual_backward_unmasked",
            (false, true) => "residual_backward_unmasked_projected",
        };
        if let Some(Masked { dz, out }) = masked {
            reads += self.bytes(out);
            writes += self.bytes(dz);
        }
        if let Some(Projection { sums, y, norm }) = projection {
            reads += self.bytes(y) + mean(norm);
            writes += self.bytes(sums);
        }
        self.launch(kernel, reads, writes, flops);
        Ok(())
    }
}
