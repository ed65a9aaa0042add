//! What a run is: every setting that it takes to repeat it, and the presets that fill them in.

mod choices;
mod typed;

pub use choices::{ClassWeights, DeviceChoice, OnBadNumbers, Pixels, PrecisionChoice};
pub(super) use typed::as_typed;

use super::experiment::Experiment;
use super::history::Entry;
use super::recipe::Recipe;
use super::tensorboard::TensorBoard;
use crate::data::tensor_file::Access;
use crate::network::{ModelConfig, Network, Trainable, resnet50};
use crate::ops::pool::Pooling;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The settings of a run. `config.toml` in the run folder and the head of every checkpoint hold them all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The preset that the other settings started from, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// What is trained. ResNet-50 in runs from before there was a choice.
    #[serde(with = "as_typed", default = "resnet_50")]
    pub network: Network,
    /// The tensor file; without one the run draws its own posters into its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// ImageNet weights for the base; without them it starts from random numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Which machine computes.
    pub device: DeviceChoice,
    /// How wide the numbers are, or that the device decides.
    pub precision: PrecisionChoice,
    /// GPUs that share the batches of a step: [`replicas`](super::replicas).
    #[serde(default = "one_gpu", skip_serializing_if = "is_one_gpu")]
    pub gpus: usize,
    /// Initial weights, shuffling and augmentation all follow from it.
    pub seed: u64,
    /// Posters a step.
    pub batch: usize,
    /// Passes over the training posters.
    pub epochs: u32,
    /// Stops after so many steps in all; where that is the end of an epoch, behind its validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Ends when the validation mAP was no better than the best in so many epochs, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Stops after so many minutes of each start; at the end of an epoch, behind its validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<f64>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Epochs over which the learning rate rises to that, in a straight line. None in runs from before there was a choice.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// Whether residual blocks start as the identity: [`ModelConfig::zero_init_residual`]. Not in runs from before there was a
    /// choice.
    #[serde(default)]
    pub zero_init_residual: bool,
    /// Side of a poster in pixels.
    pub image_size: usize,
    /// How the head sees the last feature map.
    #[serde(with = "as_typed")]
    pub pooling: Pooling,
    /// Which layers learn.
    #[serde(with = "as_typed")]
    pub trainable: Trainable,
    /// How much a genre's errors count.
    pub class_weights: ClassWeights,
    /// What a stored byte becomes.
    pub pixels: Pixels,
    /// Weight of the old value in batch norm's running averages.
    pub momentum: f64,
    /// Mirror and shift training posters at random.
    pub augment: bool,
    /// A genre is named where its probability is at least this.
    pub threshold: f64,
    /// Minutes between two checkpoints within an epoch.
    #[serde(default = "default_save_every")]
    pub save_every: f64,
    /// Models that are kept of the epochs with the highest validation mAP. With 1 it is `best.safetensors` alone.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub keep_best: u32,
    /// What happens when a loss or a gradient is no number.
    #[serde(default)]
    pub on_bad_numbers: OnBadNumbers,
    /// Whether the step of a bad number is computed once more to find the layer where it begins.
    #[serde(default)]
    pub check_numerics: bool,
    /// Whether a step keeps fewer values of its forward pass and computes the others again:
    /// [`Plan::recomputing`](crate::plan::Plan::recomputing).
    #[serde(default)]
    pub recompute: bool,
    /// How posters are read from the tensor file.
    #[serde(default)]
    pub io: Access,
    /// How much TensorBoard is told.
    #[serde(default)]
    pub tensorboard: TensorBoard,
    /// What the run adds to the paper's protocol.
    #[serde(default, skip_serializing_if = "Recipe::is_default", deserialize_with = "Recipe::read")]
    pub recipe: Recipe,
    /// Who worked on the run, and what they changed. In `config.toml` only: a checkpoint is the same whoever wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Entry>,
}

fn resnet_50() -> Network {
    resnet50::NETWORK
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn one_gpu() -> usize {
    1
}

fn is_one_gpu(number: &usize) -> bool {
    *number == 1
}

/// Ten minutes: what a kill may cost, against about a second of writing.
fn default_save_every() -> f64 {
    10.0
}

impl Default for RunConfig {
    /// The paper's settings where they are sound, corrected where they erred or where something better is known: pixels as the
    /// ImageNet weights expect them, average pooling, and a gentle start (blocks that begin as the identity, a learning rate
    /// that rises over the first epoch; Goyal et al. 2017).
    fn default() -> Self {
        RunConfig {
            experiment: None,
            network: resnet50::NETWORK,
            data: None,
            weights: None,
            device: DeviceChoice::Auto,
            precision: PrecisionChoice::Auto,
            gpus: one_gpu(),
            seed: 0,
            batch: 128,
            epochs: 20,
            max_steps: None,
            patience: None,
            time_limit: None,
            learning_rate: 1e-3,
            warmup_epochs: 1.0,
            zero_init_residual: true,
            image_size: 150,
            pooling: Pooling::Average,
            trainable: Trainable::All,
            class_weights: ClassWeights::Balanced,
            pixels: Pixels::Imagenet,
            momentum: 0.99,
            augment: false,
            threshold: 0.3,
            save_every: default_save_every(),
            keep_best: 1,
            on_bad_numbers: OnBadNumbers::Stop,
            check_numerics: false,
            recompute: false,
            io: Access::Map,
            tensorboard: TensorBoard::default(),
            recipe: Recipe::default(),
            history: Vec::new(),
        }
    }
}

impl RunConfig {
    /// The settings of a first run on posters drawn in code: small enough for two CPU cores and a few minutes.
    ///
    /// Keras's momentum of 0.99 takes some hundred steps to forget where the running averages started, as many as this
    /// run has in all; hence 0.9.
    pub fn demonstration() -> Self {
        RunConfig { batch: 16, epochs: 5, image_size: 64, momentum: 0.9, ..RunConfig::default() }
    }

    /// The network for so many genres.
    pub fn model(&self, genres: usize) -> ModelConfig {
        let RunConfig { network, image_size, pooling, trainable, momentum, zero_init_residual, .. } = *self;
        let init = self.recipe.init;
        ModelConfig { network, image_size, genres, pooling, trainable, momentum, zero_init_residual, init }
    }

    /// Posters whose gradients a step adds up.
    pub fn posters_a_step(&self) -> usize {
        self.batch.saturating_mul(self.recipe.accumulate)
    }

    /// The settings as a TOML document.
    ///
    /// # Errors
    /// A number outside TOML's range, which ends at 2⁶³ − 1.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::resnet50_v1_5;

    #[test]
    fn every_setting_survives_toml() {
        let mut config = Experiment::ResnetTl.preset(resnet50::NETWORK);
        config.data = Some("posters.safetensors".into());
        config.weights = Some("imagenet.h5".into());
        config.network = resnet50_v1_5::NETWORK;
        (config.max_steps, config.learning_rate, config.seed) = (Some(7), 0.1 + 0.2, u64::MAX >> 1);
        assert!(!config.to_toml().unwrap().contains("recipe"), "a recipe without parts is left out");
        config.recipe = Recipe { clip_norm: Some(0.5), colour: 0.25, ..Recipe::default() };
        let text = config.to_toml().unwrap();
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config, "{text}");
        assert!(text.contains("network = \"resnet50-v1.5\"\n"), "{text}");
        let error = toml::from_str::<RunConfig>(&text.replace("v1.5", "v2")).unwrap_err().to_string();
        assert!(error.contains("no network `resnet50-v2`; there are resnet50, resnet50-v1.5"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let text = RunConfig::default().to_toml().unwrap() + "learning_rat = 1\n";
        let error = toml::from_str::<RunConfig>(&text).unwrap_err().to_string();
        assert!(error.contains("learning_rat"), "{error}");
    }

    #[test]
    fn runs_from_before_there_was_a_choice_did_what_they_did() {
        let text = RunConfig::default().to_toml().unwrap();
        let newer = [
            "network",
            "warmup_epochs",
            "zero_init_residual",
            "save_every",
            "on_bad_numbers",
            "check_numerics",
            "recompute",
            "io",
        ];
        let is_old = |line: &&str| !newer.iter().any(|name| line.starts_with(&format!("{name} = ")));
        let old: Vec<&str> = text.lines().filter(is_old).collect();
        assert_eq!(old.len(), text.lines().count() - newer.len());
        let config: RunConfig = toml::from_str(&old.join("\n")).unwrap();
        assert_eq!(config, RunConfig { warmup_epochs: 0.0, zero_init_residual: false, ..RunConfig::default() });
        assert_eq!(config.save_every, 10.0);
    }

    /// Runs from when a step could have other losses and posters could be covered and mixed name these parts, switched off as a rule.
    #[test]
    fn parts_that_were_dropped_are_passed_over_where_they_were_off() {
        let off = "[recipe]\nema = 0.5\nloss = \"bce\"\nlabel_smoothing = 0.0\ncutout = 0.0\nmixup = 0.0\n";
        let text = RunConfig::default().to_toml().unwrap() + off;
        let config = toml::from_str::<RunConfig>(&text).unwrap();
        assert_eq!(config, RunConfig { recipe: Recipe { ema: 0.5, ..Recipe::default() }, ..RunConfig::default() });
        for (part, off, on) in [
            ("loss", "\"bce\"", "\"focal:2\""),
            ("label_smoothing", "0.0", "0.1"),
            ("cutout", "0.0", "0.3"),
            ("mixup", "0.0", "0.2"),
        ] {
            let switched_on = text.replace(&format!("{part} = {off}"), &format!("{part} = {on}"));
            let error = toml::from_str::<RunConfig>(&switched_on).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{part}`")), "{error}");
        }
    }

    #[test]
    fn a_first_run_is_small_and_otherwise_as_by_default() {
        let small = RunConfig { batch: 16, epochs: 5, image_size: 64, momentum: 0.9, ..RunConfig::default() };
        assert_eq!(RunConfig::demonstration(), small);
    }
}
