//! The paper's three experiments, with any network, and our own.

use super::config::{Pixels, RunConfig};
use super::recipe::Recipe;
use crate::network::{Architecture, KernelInit, ModelConfig, Network, Trainable};
use crate::ops::pool::Pooling;
use crate::optim::Curve;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How many of the base's layers transfer trains, by Keras's count.
pub const TRANSFER_LAYERS: usize = 40;

/// What a run starts from and what it trains: by names that fit any network, and by the paper's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// Random weights, every layer trained
    Random,
    /// ImageNet weights, every layer trained
    Imagenet,
    /// ImageNet weights, the last 40 layers of the base trained
    Transfer,
    /// The paper's name for `random`
    ResnetR,
    /// The paper's name for `imagenet`
    ResnetImg,
    /// The paper's name for `transfer`
    ResnetTl,
    /// Onesheet's own recipe, from random weights or those of --weights: what has shown to pay on real posters
    Onesheet,
}

impl Experiment {
    /// Its settings with a network.
    ///
    /// The paper's are as the paper has them: raw pixels, max pooling, and Keras's start at the full rate. A base of fewer layers than
    /// transfer trains is trained whole. What each part of ours gives is in `docs/measurements.md`, and `onesheet study --runs recipe`
    /// measures it.
    pub fn preset(self, network: Network) -> RunConfig {
        if self == Experiment::Onesheet {
            return RunConfig {
                experiment: Some(self),
                network,
                batch: 64,
                pixels: Pixels::of(network),
                augment: true,
                recipe: Recipe {
                    schedule: Curve::Cosine,
                    weight_decay: 0.05,
                    ema: 0.99,
                    precise_bn: 2048,
                    init: KernelInit::He,
                    crop: 0.3,
                    rotate: 5.0,
                    colour: 0.2,
                    ..Recipe::default()
                },
                ..RunConfig::default()
            };
        }
        let last = Trainable::Last(TRANSFER_LAYERS);
        let has_them = || Architecture::new(&ModelConfig { trainable: last, ..ModelConfig::new(network, 1) }).is_ok();
        RunConfig {
            experiment: Some(self),
            network,
            pooling: Pooling::Max,
            pixels: Pixels::Raw,
            trainable: if self.transfers() && has_them() { last } else { Trainable::All },
            warmup_epochs: 0.0,
            zero_init_residual: false,
            ..RunConfig::default()
        }
    }

    /// Whether it starts from ImageNet weights.
    pub fn needs_weights(self) -> bool {
        !matches!(self, Experiment::Random | Experiment::ResnetR | Experiment::Onesheet)
    }

    /// Whether it keeps the first layers as they are.
    pub fn transfers(self) -> bool {
        matches!(self, Experiment::Transfer | Experiment::ResnetTl)
    }

    /// The name as typed.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::Random => "random",
            Experiment::Imagenet => "imagenet",
            Experiment::Transfer => "transfer",
            Experiment::ResnetR => "resnet-r",
            Experiment::ResnetImg => "resnet-img",
            Experiment::ResnetTl => "resnet-tl",
            Experiment::Onesheet => "onesheet",
        }
    }

    /// What a run of it is called where nobody names it.
    pub fn run_name(self, network: Network) -> String {
        match self {
            Experiment::ResnetR | Experiment::ResnetImg | Experiment::ResnetTl => self.name().into(),
            _ => format!("{network}-{}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NETWORKS, resnet50};

    #[test]
    fn presets_keep_what_the_paper_did() {
        for &experiment in Experiment::value_variants() {
            let (random, transfer) = match experiment {
                Experiment::Random | Experiment::ResnetR => (true, false),
                Experiment::Imagenet | Experiment::ResnetImg => (false, false),
                Experiment::Transfer | Experiment::ResnetTl => (false, true),
                Experiment::Onesheet => continue,
            };
            let config = experiment.preset(resnet50::NETWORK);
            assert_eq!((config.batch, config.epochs, config.learning_rate, config.threshold), (128, 20, 1e-3, 0.3));
            assert_eq!((config.pooling, config.pixels, config.image_size), (Pooling::Max, Pixels::Raw, 150));
            assert_eq!((config.warmup_epochs, config.zero_init_residual), (0.0, false));
            assert_eq!(config.trainable, if transfer { Trainable::Last(40) } else { Trainable::All });
            assert_eq!(config.experiment, Some(experiment));
            assert_eq!(experiment.needs_weights(), !random);
        }
    }

    #[test]
    fn every_network_can_be_transferred_even_one_of_fewer_layers() {
        for network in NETWORKS {
            let config = Experiment::Transfer.preset(network);
            assert_eq!(config.network, network);
            let architecture = Architecture::new(&config.model(7)).unwrap();
            let whole = architecture.trainable_parameters() == architecture.weights.len();
            assert_eq!(whole, architecture.base_layers <= 40, "{network}");
        }
    }

    #[test]
    fn names_are_those_that_are_typed() {
        for experiment in Experiment::value_variants() {
            assert_eq!(experiment.to_possible_value().unwrap().get_name(), experiment.name());
        }
    }
}
