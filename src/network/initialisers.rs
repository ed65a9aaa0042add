//! Keras's initial values.

use crate::random::{Philox, Sequence, Stream};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What kernels start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KernelInit {
    /// Glorot and Bengio's uniform, as in Keras Applications
    #[default]
    Glorot,
    /// He's normal, which keeps the variance of what passes through ReLUs
    He,
}

impl KernelInit {
    /// The initial values of a kernel each of whose outputs sums `fan_in` products, and each of whose inputs goes into `fan_out`.
    pub fn of(self, fan_in: usize, fan_out: usize) -> Initialiser {
        match self {
            KernelInit::Glorot => Initialiser::glorot(fan_in, fan_out),
            KernelInit::He => Initialiser::he(fan_in),
        }
    }
}

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
    /// Normal, but never further from 0 than two of its `deviation`s.
    TruncatedNormal {
        /// That of the normal distribution before it is cut off.
        deviation: f32,
    },
}

/// The standard deviation of a standard normal distribution that is cut off at ±2.
const TRUNCATED: f64 = 0.879_625_661_034_239_8;

impl Initialiser {
    /// Glorot and Bengio's uniform, Keras's default for kernels: limit = √(6 / (fan in + fan out)), where a convolution's
    /// fans are its taps times its channels.
    pub fn glorot(fan_in: usize, fan_out: usize) -> Self {
        Initialiser::Uniform { limit: (6.0 / (fan_in + fan_out) as f32).sqrt() }
    }

    /// He and others' normal (2015), as Keras's `he_normal` has it: of variance 2 / fan in, once it is cut off.
    pub fn he(fan_in: usize) -> Self {
        Initialiser::TruncatedNormal { deviation: ((2.0 / fan_in as f64).sqrt() / TRUNCATED) as f32 }
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
            Initialiser::TruncatedNormal { deviation } => {
                let mut sequence = Philox::new(seed).sequence(Stream::Initialiser, tensor, 0);
                (0..len).map(|_| deviation * truncated_normal(&mut sequence)).collect()
            }
        }
    }
}

/// A standard normal number within ±2: drawn again where it is further off.
fn truncated_normal(sequence: &mut Sequence) -> f32 {
    loop {
        let normal = sequence.normal();
        if normal.abs() <= 2.0 {
            return normal;
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
    fn he_has_the_variance_that_a_relu_asks_for() {
        let values = Initialiser::he(50).values(7, 3, 40_000);
        let most = values.iter().fold(0f32, |most, value| most.max(value.abs()));
        let bound = 2.0 * 0.2 / TRUNCATED as f32;
        assert!(most <= bound && most > 0.99 * bound, "{most}");
        let moment = |power: i32| values.iter().map(|value| f64::from(*value).powi(power)).sum::<f64>() / 40_000.0;
        assert!(
            moment(1).abs() < 0.003 && (moment(2) - 0.04).abs() < 6e-4,
            "mean {}, variance {}",
            moment(1),
            moment(2)
        );
        // The fourth moment of a uniform distribution of that variance would be 1.8 times its square, of a whole normal one 3 times.
        assert!((2.2..2.5).contains(&(moment(4) / moment(2).powi(2))), "{}", moment(4) / moment(2).powi(2));
    }

    #[test]
    fn tensors_and_seeds_differ_and_repeat() {
        for initialiser in [Initialiser::glorot(3, 3), Initialiser::he(3)] {
            assert_eq!(initialiser.values(1, 2, 8), initialiser.values(1, 2, 8));
            assert_ne!(initialiser.values(1, 2, 8), initialiser.values(1, 3, 8));
            assert_ne!(initialiser.values(1, 2, 8), initialiser.values(2, 2, 8));
        }
    }
}
