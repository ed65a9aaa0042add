//! Batch norm and the residual junction, one element after the other.

use super::{Reference, activate, activation_gradient, moments, reduce_sums, relu, relu_gradient};
use crate::device::{Activation, BatchNormConstants, BatchNormKernels, DeviceError, Projection, Rows, check_channels};

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
        norm: &mut [f64],
        running_mean: &mut [f64],
        running_variance: &mut [f64],
        stats: &[f64],
        gamma: &[f64],
        beta: &[f64],
        bias: Option<&[f64]>,
        channels: usize,
        BatchNormConstants { momentum, epsilon }: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        check_channels(
            norm.len(),
            running_mean.len(),
            running_variance.len(),
            Some(stats.len()),
            gamma.len(),
            beta.len(),
            bias.map(<[f64]>::len),
            channels,
        )?;
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
        norm: &mut [f64],
        running_mean: &[f64],
        running_variance: &[f64],
        gamma: &[f64],
        beta: &[f64],
        bias: Option<&[f64]>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        check_channels(
            norm.len(),
            running_mean.len(),
            running_variance.len(),
            None,
            gamma.len(),
            beta.len(),
            bias.map(<[f64]>::len),
            channels,
        )?;
        for c in 0..channels {
            let mean = running_mean[c] - bias.map_or(0.0, |bias| bias[c]);
            set_norm(norm, c, channels, gamma[c], beta[c], mean, 1.0 / (running_variance[c] + epsilon).sqrt());
        }
        Ok(())
    }

    fn batch_norm_statistics(&self, stats: &mut [f64], y: &[f64], shape: Rows) -> Result<(), DeviceError> {
        shape.check_statistics(stats.len(), y.len())?;
        moments(stats, y, shape.channels);
        Ok(())
    }

    fn batch_norm_apply(
        &self,
        a: &mut [f64],
        y: &[f64],
        norm: &[f64],
        activation: Activation,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        shape.check_apply(a.len(), y.len(), norm.len())?;
        for i in 0..shape.len() {
            a[i] = activate(activation, normalised(y[i], norm, i % shape.channels, shape.channels));
        }
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        dz: &mut [f64],
        sums: &mut [f64],
        da: &[f64],
        y: &[f64],
        norm: &[f64],
        activation: Activation,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        shape.check_backward_reduce(dz.len(), sums.len(), da.len(), y.len(), norm.len())?;
        for i in 0..shape.len() {
            let z = normalised(y[i], norm, i % shape.channels, shape.channels);
            dz[i] = activation_gradient(activation, z, da[i]);
        }
        reduce_sums(sums, dz, y, norm, shape.channels);
        Ok(())
    }

    fn batch_norm_backward_finalise(
        &self,
        k: &mut [f64],
        dgamma: &mut [f64],
        dbeta: &mut [f64],
        sums: &[f64],
        gamma: &[f64],
        norm: &[f64],
        shape: Rows,
    ) -> Result<(), DeviceError> {
        shape.check_backward_finalise(k.len(), dgamma.len(), dbeta.len(), sums.len(), gamma.len(), norm.len())?;
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

    fn residual_forward(
        &self,
        out: &mut [f64],
        y: &[f64],
        norm: &[f64],
        shortcut: &[f64],
        shortcut_norm: Option<&[f64]>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        shape.check_residual_forward(
            out.len(),
            y.len(),
            norm.len(),
            shortcut.len(),
            shortcut_norm.map(<[f64]>::len),
        )?;
        let channels = shape.channels;
        for i in 0..shape.len() {
            let c = i % channels;
            let beside = shortcut_norm.map_or(shortcut[i], |norm| normalised(shortcut[i], norm, c, channels));
            out[i] = relu(normalised(y[i], norm, c, channels) + beside);
        }
        Ok(())
    }

    fn residual_backward(
        &self,
        dz: &mut [f64],
        sums: &mut [f64],
        dout: &[f64],
        out: &[f64],
        y: &[f64],
        norm: &[f64],
        projection: Option<Projection<&[f64], &mut [f64]>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        shape.check_residual_backward(
            dz.len(),
            sums.len(),
            dout.len(),
            out.len(),
            y.len(),
            norm.len(),
            projection.as_ref().map(|projection| projection.lengths(|v| v.len(), |v| v.len())),
        )?;
        let channels = shape.channels;
        for i in 0..shape.len() {
            dz[i] = relu_gradient(out[i], dout[i]);
        }
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

    const CONSTANTS: BatchNormConstants = BatchNormConstants { momentum: 0.75, epsilon: 0.25 };

    /// Two rows of two channels.
    const SHAPE: Rows = Rows { rows: 2, channels: 2 };

    #[test]
    fn statistics_become_a_scale_and_a_shift() {
        // istd = 1/√(3.75 + 0.25) and 1/√(0 + 0.25).
        let (mut norm, mut mean, mut variance) = (vec![f64::NAN; 8], vec![8.0, 0.0], vec![1.0, 4.0]);
        let (stats, gamma, beta) = ([4.0, -1.0, 3.75, 0.0], [3.0, 0.5], [10.0, 20.0]);
        Reference::EXACT
            .batch_norm_finalise(&mut norm, &mut mean, &mut variance, &stats, &gamma, &beta, None, 2, CONSTANTS)
            .unwrap();
        assert_eq!(norm, [1.5, 1.0, 4.0, 21.0, 4.0, -1.0, 0.5, 2.0]);
        // Momentum weighs the old average, and the variance is the biased one: ¾·8 + ¼·4, …
        assert_eq!(mean, [7.0, -0.25]);
        assert_eq!(variance, [1.6875, 3.0]);
    }

    #[test]
    fn the_bias_enters_the_running_mean_and_nothing_else() {
        let (mut norm, mut mean, mut variance) = (vec![f64::NAN; 4], vec![8.0], vec![1.0]);
        Reference::EXACT
            .batch_norm_finalise(
                &mut norm,
                &mut mean,
                &mut variance,
                &[4.0, 3.75],
                &[3.0],
                &[10.0],
                Some(&[16.0]),
                1,
                CONSTANTS,
            )
            .unwrap();
        assert_eq!(norm, [1.5, 4.0, 4.0, 0.5]);
        assert_eq!((mean[0], variance[0]), (11.0, 1.6875));
    }

    #[test]
    fn folding_takes_the_bias_out_of_the_mean() {
        // The convolution leaves y = 5 without its bias of 2, which stands for 7: (7 − 4)·½·3 + 10.
        let mut norm = vec![f64::NAN; 4];
        Reference::EXACT.batch_norm_fold(&mut norm, &[4.0], &[3.75], &[3.0], &[10.0], Some(&[2.0]), 1, 0.25).unwrap();
        assert_eq!(norm, [1.5, 7.0, 2.0, 0.5]);
        assert_eq!(normalised(5.0, &norm, 0, 1), 14.5);
        Reference::EXACT.batch_norm_fold(&mut norm, &[4.0], &[3.75], &[3.0], &[10.0], None, 1, 0.25).unwrap();
        assert_eq!(norm, [1.5, 4.0, 4.0, 0.5]);
    }

    #[test]
    fn applying_pays_scale_shift_and_relu() {
        let mut a = vec![f64::NAN; 4];
        let norm = [2.0, -1.0, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0];
        Reference::EXACT.batch_norm_apply(&mut a, &[1.0, 3.0, -2.0, -3.0], &norm, Activation::Relu, SHAPE).unwrap();
        assert_eq!(a, [3.0, 0.0, 0.0, 3.5]);
    }

    #[test]
    fn the_reduction_masks_and_sums_around_the_mean() {
        // Channel 0: 2·y + 1 is awake at y = 1 only. Channel 1: −y + ½ is asleep at its root, awake at −3.
        let (mut dz, mut sums) = (vec![f64::NAN; 4], vec![f64::NAN; 4]);
        let norm = [2.0, -1.0, 1.0, 0.5, -0.5, -1.25, 1.0, 1.0];
        let (da, y) = ([10.0, 20.0, 30.0, 40.0], [1.0, 0.5, -2.0, -3.0]);
        Reference::EXACT
            .batch_norm_backward_reduce(&mut dz, &mut sums, &da, &y, &norm, Activation::Relu, SHAPE)
            .unwrap();
        assert_eq!(dz, [10.0, 0.0, 0.0, 40.0]);
        assert_eq!(sums, [10.0, 40.0, 15.0, -70.0]);
    }

    #[test]
    fn three_numbers_a_channel_carry_the_backward_pass() {
        // y = (1, 5): mean 3, variance 4; epsilon 0 makes istd ½ and ŷ = (−1, 1). With gamma 6 and dz = (1, 4):
        // dbeta = 5, dgamma = 3, dy = 3·(dz − 5/2 − ŷ·3/2) = (0, 0): two rows leave no freedom.
        let (mut k, mut dgamma, mut dbeta) = (vec![f64::NAN; 3], vec![100.0], vec![200.0]);
        let (norm, sums, shape) = ([3.0, 0.0, 3.0, 0.5], [5.0, 6.0], Rows { rows: 2, channels: 1 });
        Reference::EXACT
            .batch_norm_backward_finalise(&mut k, &mut dgamma, &mut dbeta, &sums, &[6.0], &norm, shape)
            .unwrap();
        assert_eq!((dgamma[0], dbeta[0]), (103.0, 205.0));
        assert_eq!(k, [3.0, -2.25, -0.75]);
        assert_eq!([k[0] * 1.0 + k[1] * 1.0 + k[2], k[0] * 4.0 + k[1] * 5.0 + k[2]], [0.0, 0.0]);
    }

    #[test]
    fn one_row_passes_no_gradient() {
        // A batch of one pixel: y is its own mean, so nothing that y does can show, and dbeta alone is left.
        let (mut k, mut dgamma, mut dbeta) = (vec![f64::NAN; 3], vec![0.0], vec![0.0]);
        let (norm, sums, shape) = ([2.0, 0.0, 7.0, 1.0], [5.0, 0.0], Rows { rows: 1, channels: 1 });
        Reference::EXACT
            .batch_norm_backward_finalise(&mut k, &mut dgamma, &mut dbeta, &sums, &[2.0], &norm, shape)
            .unwrap();
        assert_eq!(k[0] * 5.0 + k[1] * 7.0 + k[2], 0.0);
        assert_eq!((dgamma[0], dbeta[0]), (0.0, 5.0));
    }

    #[test]
    fn the_junction_adds_a_finished_or_an_owed_shortcut() {
        let mut out = vec![f64::NAN; 4];
        let (y, norm) = ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 0.5, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let shortcut = [-2.0, 1.0, -3.5, 5.0];
        Reference::EXACT.residual_forward(&mut out, &y, &norm, &shortcut, None, SHAPE).unwrap();
        assert_eq!(out, [0.0, 21.0, 0.0, 45.0]);
        // A projection owes scale and shift but no ReLU: −1·(−2) + 1 = 3, and 2·1 − 30 = −28 stays negative.
        let projected = [-1.0, 2.0, 1.0, -30.0, 0.0, 0.0, 1.0, 1.0];
        Reference::EXACT.residual_forward(&mut out, &y, &norm, &shortcut, Some(&projected), SHAPE).unwrap();
        assert_eq!(out, [4.5, 0.0, 8.0, 20.0]);
    }

    #[test]
    fn the_junction_masks_once_and_sums_for_both_branches() {
        let (mut dz, mut sums, mut beside) = (vec![f64::NAN; 4], vec![f64::NAN; 4], vec![f64::NAN; 4]);
        let (dout, out, y) = ([1.0, 2.0, 3.0, 4.0], [4.5, 0.0, 8.0, 20.0], [1.0, 2.0, 3.0, 4.0]);
        let norm = [f64::NAN, f64::NAN, f64::NAN, f64::NAN, 2.0, 1.0, 1.0, 1.0];
        let (projected, projected_norm) = ([-2.0, 1.0, -3.5, 5.0], [1.0, 1.0, 0.0, 0.0, 0.5, 4.0, 1.0, 1.0]);
        Reference::EXACT.residual_backward(&mut dz, &mut sums, &dout, &out, &y, &norm, None, SHAPE).unwrap();
        assert_eq!(dz, [1.0, 0.0, 3.0, 4.0]);
        assert_eq!(sums, [4.0, 4.0, 2.0, 12.0]);
        let projection = Some(Projection { sums: &mut beside[..], y: &projected[..], norm: &projected_norm[..] });
        Reference::EXACT.residual_backward(&mut dz, &mut sums, &dout, &out, &y, &norm, projection, SHAPE).unwrap();
        assert_eq!(sums, [4.0, 4.0, 2.0, 12.0]);
        assert_eq!(beside, [4.0, 4.0, -14.5, 4.0]);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let error = Reference::EXACT
            .batch_norm_apply(&mut [0.0; 4], &[0.0; 4], &[0.0; 4], Activation::Relu, SHAPE)
            .unwrap_err();
        assert_eq!(error.to_string(), "batch_norm_apply: operand norm has 4 elements, its shape asks for 8");
    }
}
