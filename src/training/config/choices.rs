//! The settings that are one of a few.

use crate::device::{PixelFormat, Precision};
use crate::network::{IMAGENET_PIXELS, Network, SYMMETRIC_PIXELS};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which machine computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// An NVIDIA GPU if there is one, else the processor
    Auto,
    /// The processor
    Cpu,
    /// The NVIDIA GPU
    Cuda,
    /// The simulated GPU: the kernels of the real one, each checked as it runs, on the processor
    Sim,
}

/// How wide the numbers are, or that the device decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionChoice {
    /// bf16 on a GPU and on a processor with instructions for it, f32 on others
    Auto,
    /// 32 bits everywhere
    F32,
    /// 32 bits stored; tensor cores multiply with 10 bits of mantissa
    Tf32,
    /// Activations and a copy of the weights in bfloat16; sums, statistics and the weights themselves in 32 bits
    Bf16,
}

impl PrecisionChoice {
    /// What it comes to on a GPU.
    pub fn on_gpu(self) -> Precision {
        match self {
            PrecisionChoice::Auto | PrecisionChoice::Bf16 => Precision::Bf16,
            PrecisionChoice::Tf32 => Precision::Tf32,
            PrecisionChoice::F32 => Precision::F32,
        }
    }

    /// What it comes to on a processor, which has no tf32, and may or may not be fastest in bfloat16.
    pub fn on_processor(self, is_fastest_in_bf16: bool) -> Option<Precision> {
        match self {
            PrecisionChoice::Auto if is_fastest_in_bf16 => Some(Precision::Bf16),
            PrecisionChoice::Auto | PrecisionChoice::F32 => Some(Precision::F32),
            PrecisionChoice::Tf32 => None,
            PrecisionChoice::Bf16 => Some(Precision::Bf16),
        }
    }
}

/// What happens when a loss or a gradient is no number. The step that has it leaves the weights alone in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadNumbers {
    /// The run ends, with the last checkpoint to go on from
    #[default]
    Stop,
    /// The step is left out, and the run goes on; ten of them one after the other end it
    Skip,
    /// The run goes back to its newest checkpoint and on at half the learning rate, three times at most
    Rollback,
}

/// How much a genre's errors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Each genre in inverse proportion to its training posters
    Balanced,
    /// All alike
    None,
}

impl ClassWeights {
    /// The weight of each genre, from its positive training posters `counts [C]` among `posters`.
    ///
    /// `balanced` is scikit-learn's formula, N / (C·count). A genre without a single training poster, for which that is
    /// infinite, weighs 1.
    pub fn weights(self, counts: &[u32], posters: usize) -> Vec<f32> {
        let balanced = |&count: &u32| match (self, count) {
            (ClassWeights::None, _) | (ClassWeights::Balanced, 0) => 1.0,
            (ClassWeights::Balanced, _) => posters as f64 / (counts.len() as f64 * f64::from(count)),
        };
        counts.iter().map(|count| balanced(count) as f32).collect()
    }
}

/// What a stored byte becomes before the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pixels {
    /// RGB, 0 to 255, as the paper trained
    Raw,
    /// BGR minus the ImageNet mean, as Keras's ResNet weights expect
    Imagenet,
    /// RGB, 0 to 1
    Unit,
    /// RGB, -1 to 1, as Keras's MobileNet and Xception weights expect
    Symmetric,
}

impl Pixels {
    /// The name as typed.
    pub fn name(self) -> &'static str {
        match self {
            Pixels::Raw => "raw",
            Pixels::Imagenet => IMAGENET_PIXELS.name,
            Pixels::Unit => "unit",
            Pixels::Symmetric => SYMMETRIC_PIXELS.name,
        }
    }

    /// The same as numbers for the device.
    pub fn format(self) -> PixelFormat {
        match self {
            Pixels::Raw => PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] },
            Pixels::Imagenet => IMAGENET_PIXELS.format,
            Pixels::Unit => PixelFormat { order: [0, 1, 2], scale: 1.0 / 255.0, shift: [0.0; 3] },
            Pixels::Symmetric => SYMMETRIC_PIXELS.format,
        }
    }

    /// Those that a network's ImageNet weights in Keras Applications were made for.
    pub fn of(network: Network) -> Self {
        if network.pixels == SYMMETRIC_PIXELS { Pixels::Symmetric } else { Pixels::Imagenet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_typed() {
        fn typed<T: ValueEnum>(value: &T) -> String {
            value.to_possible_value().unwrap().get_name().into()
        }
        assert!(Pixels::value_variants().iter().all(|pixels| pixels.name() == typed(pixels)));
    }

    #[test]
    fn balanced_weights_are_scikit_learns() {
        let weights = ClassWeights::Balanced.weights(&[10, 40, 0], 60);
        assert_eq!(weights, [2.0, 0.5, 1.0]);
        assert_eq!(ClassWeights::None.weights(&[10, 40], 60), [1.0, 1.0]);
    }
}
