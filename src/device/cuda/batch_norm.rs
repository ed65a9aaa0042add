//! Batch norm and the junction: launches of `kernels/norm/batch_norm.cu`.

pub(super) mod arguments;

use super::Cuda;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use super::rows::Walk;
use crate::device::{
    BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormKernels, BatchNormStatistics, DeviceError, Masked, ResidualBackward, ResidualForward, Rows,
    Work,
};

/// Blocks a multiprocessor of a pass that only streams.
const STREAMING: usize = 4;
/// Of one that also sums: fewer, because each leaves partial sums, and more is under way in each.
const REDUCING: usize = 2;

/// Bytes of rows of one float a channel.
fn floats(rows: usize, channels: usize) -> u64 {
    (rows * channels * size_of::<f32>()) as u64
}

/// A kernel with one thread per channel, which reads and writes so many floats of each.
fn per_channel(channels: usize, reads: usize, writes: usize) -> Launch {
    let work = Work { reads: floats(reads, channels), writes: floats(writes, channels), flops: 0 };
    Launch { grid: [channels.div_ceil(256) as u32, 1, 1], block: 256, shared: 0, work }
}

impl BatchNormKernels for Cuda {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<View<'_>, ViewMut<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        let BatchNormConstants { momentum, epsilon } = constants;
        let arguments = arguments::BatchNormFinalise {
            norm: norm.address(),
            running_mean: running_mean.address(),
            running_variance: running_variance.address(),
            stats: stats.address(),
            gamma: gamma.address(),
            beta: beta.address(),
            bias: bias.map_or(0, |bias| bias.address()),
            channels: channels as i32,
            momentum: momentum as f32,
            complement: (1.0 - momentum) as f32,
            epsilon: epsilon as f32,
        };
        let launch = per_channel(channels, 6 + usize::from(bias.is_some()), 6);
        self.launch(Module::BatchNorm, "batch_norm_finalise", launch, &arguments)
    }

    fn batch_norm_fold(
        &self,
        operands: BatchNormFold<View<'_>, ViewMut<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        let arguments = arguments::BatchNormFold {
            norm: norm.address(),
            running_mean: running_mean.address(),
            running_variance: running_variance.address(),
            gamma: gamma.address(),
            beta: beta.address(),
            bias: bias.map_or(0, |bias| bias.address()),
            channels: channels as i32,
            epsilon: epsilon as f32,
        };
        let launch = per_channel(channels, 4 + usize::from(bias.is_some()), 4);
        self.launch(Module::BatchNorm, "batch_norm_fold", launch, &arguments)
    }

    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_statistics";
        operands.check(shape)?;
        let BatchNormStatistics { stats, y } = operands;
        let channels = shape.channels;
        let walk = Walk::new(self, KERNEL, shape.rows, channels, &[(y.address(), y.element())])?;
        let blocks = walk.blocks(self, REDUCING);
        let partials = floats(2 * blocks, channels);
        let workspace = self.workspace(partials as usize)?;
        let arguments = arguments::BatchNormStatistics {
            stats: stats.address(),
            y: y.address(),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, walk.slices())?,
            shape: walk.shape,
        };
        let work = Work { reads: walk.bytes, writes: partials + floats(2, channels), flops: shape.statistics_flops() };
        self.launch(Module::BatchNorm, KERNEL, walk.launch(blocks, work), &arguments)
    }

    fn batch_norm_apply(
        &self,
        operands: BatchNormApply<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_apply";
        operands.check(shape)?;
        let BatchNormApply { a, y, norm, activation } = operands;
        let activations = [(a.address(), a.element()), (y.address(), y.element())];
        let walk = Walk::new(self, KERNEL, shape.rows, shape.channels, &activations)?;
        let arguments = arguments::BatchNormApply {
            a: a.address(),
            y: y.address(),
            norm: norm.address(),
            shape: walk.shape,
            bounds: activation.into(),
        };
        let reads = walk.bytes + floats(2, shape.channels);
        let work = Work { reads, writes: walk.bytes, flops: shape.apply_flops() };
        self.launch(Module::BatchNorm, KERNEL, walk.launch(walk.blocks(self, STREAMING), work), &arguments)
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "batch_norm_backward_reduce";
        operands.check(shape)?;
        let BatchNormBackwardReduce { dz, sums, da, y, norm, activation } = operands;
        let channels = shape.channels;
        let activations = [(dz.address(), dz.element()), (da.address(), da.element()), (y.address(), y.element())];
        let walk = Walk::new(self, KERNEL, shape.rows, channels, &activations)?;
        let blocks = walk.blocks(self, REDUCING);
        let partials = floats(2 * blocks, channels);
        let workspace = self.workspace(partials as usize)?;
        let arguments = arguments::BatchNormBackwardReduce {
            dz: dz.address(),
            sums: sums.address(),
            da: da.address(),
            y: y.address(),
            norm: norm.address(),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, walk.slices())?,
            shape: walk.shape,
            stops: activation.into(),
        };
        let work = Work {
            reads: 2 * walk.bytes + floats(3, channels),
            writes: walk.bytes + partials + floats(2, channels),
            flops: shape.backward_reduce_flops(),
        };
        self.launch(Module::BatchNorm, KERNEL, walk.launch(blocks, work), &arguments)
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let arguments = arguments::BatchNormBackwardFinalise {
            k: k.address(),
            dgamma: dgamma.address(),
            dbeta: dbeta.address(),
            sums: sums.address(),
            gamma: gamma.address(),
            norm: norm.address(),
            channels: shape.channels as i32,
            rows: shape.rows as f32,
        };
        let launch = per_channel(shape.channels, 7, 5);
        self.launch(Module::BatchNorm, "batch_norm_backward_finalise", launch, &arguments)
    }

    fn residual_forward(
        &self,
        operands: ResidualForward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualForward { out, y, norm, shortcut, shortcut_norm, relu } = operands;
        let (kernel, constants) = match shortcut_norm {
            None => ("residual_forward", 2),
            Some(_) => ("residual_forward_projected", 4),
        };
        let activations =
            [(out.address(), out.element()), (y.address(), y.element()), (shortcut.address(), shortcut.element())];
        let walk = Walk::new(self, kernel, shape.rows, shape.channels, &activations)?;
        let arguments = arguments::ResidualForward {
            out: out.address(),
            y: y.address(),
            norm: norm.address(),
            shortcut: shortcut.address(),
            shortcut_norm: shortcut_norm.map_or(0, |norm| norm.address()),
            shape: walk.shape,
            low: if relu { 0.0 } else { f32::NEG_INFINITY },
        };
        let reads = 2 * walk.bytes + floats(constants, shape.channels);
        let flops = shape.residual_forward_flops(shortcut_norm.is_some());
        let work = Work { reads, writes: walk.bytes, flops };
        self.launch(Module::BatchNorm, kernel, walk.launch(walk.blocks(self, STREAMING), work), &arguments)
    }

    fn residual_backward(
        &self,
        operands: ResidualBackward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualBackward { masked, sums, dout, y, norm, projection } = operands;
        let channels = shape.channels;
        let mut read = vec![(dout.address(), dout.element()), (y.address(), y.element())];
        read.extend(masked.as_ref().map(|Masked { out, .. }| (out.address(), out.element())));
        read.extend(projection.as_ref().map(|projection| (projection.y.address(), projection.y.element())));
        let written = masked.as_ref().map(|Masked { dz, .. }| (dz.address(), dz.element()));
        let activations: Vec<_> = read.iter().copied().chain(written).collect();
        // The sum of dz is the same for both branches, so a projection costs one sum, and two rows that it goes to.
        let (kernel, terms) = match (&masked, &projection) {
            (Some(_), None) => ("residual_backward", 2),
            (Some(_), Some(_)) => ("residual_backward_projected", 3),
            (None, None) => ("residual_backward_unmasked", 2),
            (None, Some(_)) => ("residual_backward_unmasked_projected", 3),
        };
        let walk = Walk::new(self, kernel, shape.rows, channels, &activations)?;
        let blocks = walk.blocks(self, REDUCING);
        let partials = floats(terms * blocks, channels);
        let workspace = self.workspace(partials as usize)?;
        let projected = projection.is_some();
        let (dz, out) = masked.map_or((0, 0), |Masked { dz, out }| (dz.address(), out.address()));
        let projection =
            projection.map(|projection| (projection.sums.address(), projection.y.address(), projection.norm.address()));
        let (projection_sums, projection_y, projection_norm) = projection.unwrap_or_default();
        let arguments = arguments::ResidualBackward {
            dz,
            sums: sums.address(),
            dout: dout.address(),
            out,
            y: y.address(),
            norm: norm.address(),
            projection_sums,
            projection_y,
            projection_norm,
            partials: workspace.address(),
            tickets: self.tickets(kernel, walk.slices())?,
            shape: walk.shape,
        };
        let work = Work {
            reads: read.len() as u64 * walk.bytes + floats(terms - 1, channels),
            writes: written.map_or(0, |_| walk.bytes) + partials + floats(2 * (terms - 1), channels),
            flops: shape.residual_backward_flops(projected),
        };
        self.launch(Module::BatchNorm, kernel, walk.launch(blocks, work), &arguments)
    }
}
