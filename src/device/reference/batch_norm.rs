//! Batch norm and the residual junction, one element after the other.

use super::{Reference, activate, activation_gradient, moments, reduce_sums, relu, relu_gradient};
use crate::device::{
    BatchNormApply, BatchNormBackwardFinalise, BatchNormBackwardReduce, BatchNormConstants, BatchNormFinalise,
    BatchNormFold, BatchNormKernels, BatchNormStatistics, DeviceError, Masked, Projection, ResidualBackward,
    ResidualForward, Rows,
};

/// Fills channel `c` of `norm [4, C]`: scale, shift, mean, inverse standard deviation.
fn set_norm(norm: &mut [f64], c: usize, channels: usize, gamma: f64, beta: f64, mean: f64, istd: f64) {
    norm[c] = gamma * istd;
    norm[channels + c] = beta - mean * gamma * istd;
    norm[2 * channels + c] = mean;
    norm[3 * channels + c] = istd;
}

/// `scale·y + shift`, before any ReLU.
fn normalised(y: f64, norm: &[f64], c: usize, channels: usize) -> f64 {
    norm[c] * y + norm[channels + c]
}

impl BatchNormKernels for Reference {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<&[f64], &mut [f64]>,
        channels: usize,
        BatchNormConstants { momentum, epsilon }: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        for c in 0..channels {
            let (mean, variance) = (stats[c], stats[channels + c]);
            set_norm(norm, c, channels, gamma[c], beta[c], mean, 1.0 / (variance + epsilon).sqrt());
            let biased_mean = mean + bias.map_or(0.0, |bias| bias[c]);
            running_mean[c] = momentum * running_mean[c] + (1.0 - momentum) * biased_mean;
            running_variance[c] = momentum * running_variance[c] + (1.0 - momentum) * variance;
        }
        Ok(())
    }

    fn batch_norm_fold(
        &self,
        operands: BatchNormFold<&[f64], &mut [f64]>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        operands.check(channels)?;
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        for c in 0..channels {
            let mean = running_mean[c] - bias.map_or(0.0, |bias| bias[c]);
            set_norm(norm, c, channels, gamma[c], beta[c], mean, 1.0 / (running_variance[c] + epsilon).sqrt());
        }
        Ok(())
    }

    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<&[f64], &mut [f64]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormStatistics { stats, y } = operands;
        moments(stats, y, shape.channels);
        Ok(())
    }

    fn batch_norm_apply(&self, operands: BatchNormApply<&[f64], &mut [f64]>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormApply { a, y, norm, activation } = operands;
        for i in 0..shape.len() {
            a[i] = activate(activation, normalised(y[i], norm, i % shape.channels, shape.channels));
        }
        self.store(a);
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<&[f64], &mut [f64]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardReduce { dz, sums, da, y, norm, activation } = operands;
        for i in 0..shape.len() {
            let z = normalised(y[i], norm, i % shape.channels, shape.channels);
            dz[i] = activation_gradient(activation, z, da[i]);
        }
        reduce_sums(sums, dz, y, norm, shape.channels);
        Ok(())
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<&[f64], &mut [f64]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let channels = shape.channels;
        let rows = shape.rows as f64;
        for c in 0..channels {
            let (mean, istd) = (norm[2 * channels + c], norm[3 * channels + c]);
            let (beta_gradient, gamma_gradient) = (sums[c], sums[channels + c] * istd);
            // dy = gamma·istd·(dz − dbeta/M − (y − mean)·istd·dgamma/M), sorted by what it multiplies.
            k[c] = gamma[c] * istd;
            k[channels + c] = -gamma[c] * istd * istd * gamma_gradient / rows;
            k[2 * channels + c] = gamma[c] * istd * (mean * istd * gamma_gradient - beta_gradient) / rows;
            dgamma[c] += gamma_gradient;
            dbeta[c] += beta_gradient;
        }
        Ok(())
    }

    fn residual_forward(&self, operands: ResidualForward<&[f64], &mut [f64]>, shape: Rows) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualForward { out, y, norm, shortcut, shortcut_norm, relu: is_followed } = operands;
        let channels = shape.channels;
        for i in 0..shape.len() {
            let c = i % channels;
            let beside = shortcut_norm.map_or(shortcut[i], |norm| normalised(shortcut[i], norm, c, channels));
            let sum = normalised(y[i], norm, c, channels) + beside;
            out[i] = if is_followed { relu(sum) } else { sum };
        }
        self.store(out);
        Ok(())
    }

    fn residual_backward(
        &self,
        operands: ResidualBackward<&[f64], &mut [f64]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ResidualBackward { masked, sums, dout, y, norm, projection } = operands;
        let channels = shape.channels;
        let dz = match masked {
            Some(Masked { dz, out }) => {
                for i in 0..shape.len() {
                    dz[i] = relu_gradient(out[i], dout[i]);
                }
                dz
            }
            None => dout,
        };
        reduce_sums(sums, dz, y, norm, channels);
        if let Some(Projection { sums, y, norm }) = projection {
            reduce_sums(sums, dz, y, norm, channels);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Activation;

    const CONSTANTS: BatchNormConstants = BatchNormConstants { momentum: 0.75, epsilon: 0.25 };

    /// Two rows of two channels.
    const SHAPE: Rows = Rows { rows: 2, channels: 2 };

    #[test]
    fn statistics_become_a_scale_and_a_shift() {
        // istd = 1/√(3.75 + 0.25) and 1/√(0 + 0.25).
        let (mut norm, mut mean, mut variance) = (vec![f64::NAN; 8], vec![8.0, 0.0], vec![1.0, 4.0]);
        let (stats, gamma, beta) = ([4.0, -1.0, 3.75, 0.0], [3.0, 0.5], [10.0, 20.0]);
        let operands = BatchNormFinalise {
            norm: &mut norm[..],
            running_mean: &mut mean[..],
            running_variance: &mut variance[..],
            stats: &stats[..],
            gamma: &gamma[..],
            beta: &beta[..],
            bias: None,
        };
        Reference::EXACT.batch_norm_finalise(operands, 2, CONSTANTS).unwrap();
        assert_eq!(norm, [1.5, 1.0, 4.0, 21.0, 4.0, -1.0, 0.5, 2.0]);
        // Momentum weighs the old average, and the variance is the biased one: ¾·8 + ¼·4, …
        assert_eq!(mean, [7.0, -0.25]);
        assert_eq!(variance, [1.6875, 3.0]);
    }

    #[test]
    fn the_bias_enters_the_running_mean_and_nothing_else() {
        let (mut norm, mut mean, mut variance) = (vec![f64::NAN; 4], vec![8.0], vec![1.0]);
        let operands = BatchNormFinalise {
            norm: &mut norm[..],
            running_mean: &mut mean[..],
            running_variance: &mut variance[..],
            stats: &[4.0, 3.75][..],
            gamma: &[3.0],
            beta: &[10.0],
            bias: Some(&[16.0]),
        };
        Reference::EXACT.batch_norm_finalise(operands, 1, CONSTANTS).unwrap();
        assert_eq!(norm, [1.5, 4.0, 4.0, 0.5]);
        assert_eq!((mean[0], variance[0]), (11.0, 1.6875));
    }

    #[test]
    fn folding_takes_the_bias_out_of_the_mean() {
        // The convolution leaves y = 5 without its bias of 2, which stands for 7: (7 − 4)·½·3 + 10.
        let folded = |bias| {
            let mut norm = vec![f64::NAN; 4];
            let (running_mean, running_variance, gamma, beta) = (&[4.0][..], &[3.75][..], &[3.0][..], &[10.0][..]);
            let operands = BatchNormFold { norm: &mut norm[..], running_mean, running_variance, gamma, beta, bias };
            Reference::EXACT.batch_norm_fold(operands, 1, 0.25).unwrap();
            norm
        };
        let norm = folded(Some(&[2.0]));
        assert_eq!(norm, [1.5, 7.0, 2.0, 0.5]);
        assert_eq!(normalised(5.0, &norm, 0, 1), 14.5);
        assert_eq!(folded(None), [1.5, 4.0, 4.0, 0.5]);
    }

    #[test]
    fn applying_pays_scale_shift_and_relu() {
        let mut a = vec![f64::NAN; 4];
        let norm = [2.0, -1.0, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0];
        let y = [1.0, 3.0, -2.0, -3.0];
        let operands = BatchNormApply { a: &mut a[..], y: &y[..], norm: &norm[..], activation: Activation::Relu };
        Reference::EXACT.batch_norm_apply(operands, SHAPE).unwrap();
        assert_eq!(a, [3.0, 0.0, 0.0, 3.5]);
    }

    #[test]
    fn the_reduction_masks_and_sums_around_the_mean() {
        // Channel 0: 2·y + 1 is awake at y = 1 only. Channel 1: −y + ½ is asleep at its root, awake at −3.
        let (mut dz, mut sums) = (vec![f64::NAN; 4], vec![f64::NAN; 4]);
        let norm = [2.0, -1.0, 1.0, 0.5, -0.5, -1.25, 1.0, 1.0];
        let (da, y) = ([10.0, 20.0, 30.0, 40.0], [1.0, 0.5, -2.0, -3.0]);
        let operands = BatchNormBackwardReduce {
            dz: &mut dz[..],
            sums: &mut sums[..],
            da: &da[..],
            y: &y[..],
            norm: &norm[..],
            activation: Activation::Relu,
        };
        Reference::EXACT.batch_norm_backward_reduce(operands, SHAPE).unwrap();
        assert_eq!(dz, [10.0, 0.0, 0.0, 40.0]);
        assert_eq!(sums, [10.0, 40.0, 15.0, -70.0]);
    }

    #[test]
    fn three_numbers_a_channel_carry_the_backward_pass() {
        // y = (1, 5): mean 3, variance 4; epsilon 0 makes istd ½ and ŷ = (−1, 1). With gamma 6 and dz = (1, 4):
        // dbeta = 5, dgamma = 3, dy = 3·(dz − 5/2 − ŷ·3/2) = (0, 0): two rows leave no freedom.
        let (mut k, mut dgamma, mut dbeta) = (vec![f64::NAN; 3], vec![100.0], vec![200.0]);
        let (norm, sums, shape) = ([3.0, 0.0, 3.0, 0.5], [5.0, 6.0], Rows { rows: 2, channels: 1 });
        let operands = BatchNormBackwardFinalise {
            k: &mut k[..],
            dgamma: &mut dgamma[..],
            dbeta: &mut dbeta[..],
            sums: &sums[..],
            gamma: &[6.0],
            norm: &norm[..],
        };
        Reference::EXACT.batch_norm_backward_finalise(operands, shape).unwrap();
        assert_eq!((dgamma[0], dbeta[0]), (103.0, 205.0));
        assert_eq!(k, [3.0, -2.25, -0.75]);
        assert_eq!([k[0] * 1.0 + k[1] * 1.0 + k[2], k[0] * 4.0 + k[1] * 5.0 + k[2]], [0.0, 0.0]);
    }

    #[test]
    fn one_row_passes_no_gradient() {
        // A batch of one pixel: y is its own mean, so nothing that y does can show, and dbeta alone is left.
        let (mut k, mut dgamma, mut dbeta) = (vec![f64::NAN; 3], vec![0.0], vec![0.0]);
        let (norm, sums, shape) = ([2.0, 0.0, 7.0, 1.0], [5.0, 0.0], Rows { rows: 1, channels: 1 });
        let operands = BatchNormBackwardFinalise {
            k: &mut k[..],
            dgamma: &mut dgamma[..],
            dbeta: &mut dbeta[..],
            sums: &sums[..],
            gamma: &[2.0],
            norm: &norm[..],
        };
        Reference::EXACT.batch_norm_backward_finalise(operands, shape).unwrap();
        assert_eq!(k[0] * 5.0 + k[1] * 7.0 + k[2], 0.0);
        assert_eq!((dgamma[0], dbeta[0]), (0.0, 5.0));
    }

    #[test]
    fn the_junction_adds_a_finished_or_an_owed_shortcut() {
        let joined = |shortcut_norm, relu| {
            let mut out = vec![f64::NAN; 4];
            let (y, norm) = ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 0.5, 0.0, 0.0, 0.0, 1.0, 1.0]);
            let shortcut = &[-2.0, 1.0, -3.5, 5.0][..];
            let (y, norm) = (&y[..], &norm[..]);
            let operands = ResidualForward { out: &mut out[..], y, norm, shortcut, shortcut_norm, relu };
            Reference::EXACT.residual_forward(operands, SHAPE).unwrap();
            out
        };
        assert_eq!(joined(None, true), [0.0, 21.0, 0.0, 45.0]);
        assert_eq!(joined(None, false), [-0.5, 21.0, 0.0, 45.0]);
        // A projection owes scale and shift but no ReLU: −1·(−2) + 1 = 3, and 2·1 − 30 = −28 stays negative.
        let projected = [-1.0, 2.0, 1.0, -30.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(joined(Some(&projected), true), [4.5, 0.0, 8.0, 20.0]);
        assert_eq!(joined(Some(&projected), false), [4.5, -8.0, 8.0, 20.0]);
    }

    #[test]
    fn the_junction_masks_once_and_sums_for_both_branches() {
        let (dout, out, y) = ([1.0, 2.0, 3.0, 4.0], [4.5, 0.0, 8.0, 20.0], [1.0, 2.0, 3.0, 4.0]);
        let norm = [f64::NAN, f64::NAN, f64::NAN, f64::NAN, 2.0, 1.0, 1.0, 1.0];
        let (projected, projected_norm) = ([-2.0, 1.0, -3.5, 5.0], [1.0, 1.0, 0.0, 0.0, 0.5, 4.0, 1.0, 1.0]);
        let assert_branch = |projection| {
            let (mut dz, mut sums) = (vec![f64::NAN; 4], vec![f64::NAN; 4]);
            let operands = ResidualBackward {
                masked: Some(Masked { dz: &mut dz[..], out: &out[..] }),
                sums: &mut sums[..],
                dout: &dout[..],
                y: &y[..],
                norm: &norm[..],
                projection,
            };
            Reference::EXACT.residual_backward(operands, SHAPE).unwrap();
            assert_eq!(dz, [1.0, 0.0, 3.0, 4.0]);
            assert_eq!(sums, [4.0, 4.0, 2.0, 12.0]);
        };
        assert_branch(None);
        let mut beside = vec![f64::NAN; 4];
        assert_branch(Some(Projection { sums: &mut beside[..], y: &projected[..], norm: &projected_norm[..] }));
        assert_eq!(beside, [4.0, 4.0, -14.5, 4.0]);
        // Without a ReLU the second pixel's second channel counts as well: 2 more, 2·(2 − 1) for the branch, 2·(1 − 4) beside it.
        let mut sums = vec![f64::NAN; 4];
        let projection = Some(Projection { sums: &mut beside[..], y: &projected[..], norm: &projected_norm[..] });
        let (sums_of_dout, dout, y, norm) = (&mut sums[..], &dout[..], &y[..], &norm[..]);
        let operands = ResidualBackward { masked: None, sums: sums_of_dout, dout, y, norm, projection };
        Reference::EXACT.residual_backward(operands, SHAPE).unwrap();
        assert_eq!((sums, beside), (vec![4.0, 6.0, 2.0, 14.0], vec![4.0, 6.0, -14.5, -2.0]));
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let (mut a, y, norm) = ([0.0; 4], [0.0; 4], [0.0; 4]);
        let operands = BatchNormApply { a: &mut a[..], y: &y[..], norm: &norm[..], activation: Activation::Relu };
        let error = Reference::EXACT.batch_norm_apply(operands, SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "batch_norm_apply: operand norm has 4 elements, its shape asks for 8");
    }

    #[test]
    fn what_may_be_absent_is_checked_where_it_is_there() {
        let ([mut a, mut b, mut c], x) = ([[0.0; 8]; 3], [0.0; 8]);
        let operands = BatchNormFinalise {
            norm: &mut a[..4],
            running_mean: &mut b[..1],
            running_variance: &mut c[..1],
            stats: &x[..2],
            gamma: &x[..1],
            beta: &x[..1],
            bias: Some(&x[..2]),
        };
        let error = operands.check(1).unwrap_err();
        assert_eq!(error.to_string(), "batch_norm_finalise: operand bias has 2 elements, its shape asks for 1");
        let (norm, running_mean, running_variance, gamma, beta) = (&mut a[..4], &x[..1], &x[..1], &x[..1], &x[..1]);
        let operands = BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias: Some(&x[..2]) };
        let error = operands.check(1).unwrap_err();
        assert_eq!(error.to_string(), "batch_norm_fold: operand bias has 2 elements, its shape asks for 1");
        let (out, y, norm, shortcut) = (&mut a[..4], &x[..4], &x[..], &x[..4]);
        let operands = ResidualForward { out, y, norm, shortcut, shortcut_norm: Some(&x[..4]), relu: true };
        let error = operands.check(SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "residual_forward: operand shortcut_norm has 4 elements, its shape asks for 8");
        let projection = Some(Projection { sums: &mut c[..4], y: &x[..4], norm: &x[..4] });
        let (sums, y, norm) = (&mut b[..4], &x[..4], &x[..]);
        let operands = ResidualBackward { masked: None, sums, dout: y, y, norm, projection };
        let error = operands.check(SHAPE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "residual_backward: operand projection.norm has 4 elements, its shape asks for 8"
        );
        let masked = Some(Masked { dz: &mut a[..4], out: &x[..3] });
        let operands = ResidualBackward { masked, sums: &mut b[..4], dout: y, y, norm, projection: None };
        let error = operands.check(SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "residual_backward: operand masked.out has 3 elements, its shape asks for 4");
    }
}
