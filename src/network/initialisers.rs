//! Keras's initial values.

use crate::random::{Philox, Stream};

/// What a tensor starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialiser {
    /// Biases, beta, running means.
    Zeros,
    /// Gamma, running variances.
    Ones,
    /// Uniform in ±`limit`.
    Uniform {
        /// The largest magnitude.
        limit: f32,
    },
}

impl Initialiser {
    /// Glorot and Bengio's uniform, Keras's default for kernels: limit = √(6 / (fan in + fan out)), where a convolution's
    /// fans are its taps times its channels.
    pub fn glorot(fan_in: usize, fan_out: usize) -> Self {
        Initialiser::Uniform { limit: (6.0 / (fan_in + fan_out) as f32).sqrt() }
    }

    /// `len` values: a pure function of the seed and of the tensor's number in the model.
    pub fn values(self, seed: u64, tensor: u32, len: usize) -> Vec<f32> {
        match self {
            Initialiser::Zeros => vec![0.0; len],
            Initialiser::Ones => vec![1.0; len],
            Initialiser::Uniform { limit } => {
                let mut sequence = Philox::new(seed).sequence(Stream::Initialiser, tensor, 0);
                (0..len).map(|_| sequence.between(-limit, limit)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glorot_fills_its_interval_and_no_more() {
        let values = Initialiser::glorot(100, 50).values(7, 3, 10_000);
        let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        assert!((-0.2..-0.199).contains(&low) && high > 0.199 && high <= 0.2, "{low}..{high}");
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 10_000.0;
        // Uniform in ±0.2: variance 0.04 / 3.
        assert!(mean.abs() < 0.004 && (variance - 0.04 / 3.0).abs() < 4e-4, "mean {mean}, variance {variance}");
    }

    #[test]
    fn tensors_and_seeds_differ_and_repeat() {
        let glorot = Initialiser::glorot(3, 3);
        assert_eq!(glorot.values(1, 2, 8), glorot.values(1, 2, 8));
        assert_ne!(glorot.values(1, 2, 8), glorot.values(1, 3, 8));
        assert_ne!(glorot.values(1, 2, 8), glorot.values(2, 2, 8));
    }
}
