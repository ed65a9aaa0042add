//! The flags of `train`, and how they become the settings of a run.

mod limits;
mod recipe;

use super::batch::BatchSize;
use crate::exit::Usage;
use clap::Args as ClapArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use limits::LimitArgs;
use onesheet::data::Split;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::files::quoted;
use onesheet::network::{NETWORKS, Network, Trainable};
use onesheet::ops::pool::Pooling;
use onesheet::training::config::{ClassWeights, DeviceChoice, OnBadNumbers, Pixels, PrecisionChoice, RunConfig};
use onesheet::training::experiment::Experiment;
use onesheet::training::profiling::WARM_UP;
use onesheet::training::tensorboard::TensorBoard;
use recipe::RecipeArgs;
pub use recipe::{degrees, share};
use std::path::{Path, PathBuf, absolute};
use std::time::{SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "Examples:
  onesheet train                                                # learn from posters drawn in code
  onesheet train --data posters.safetensors --experiment resnet-r
  onesheet train --resume runs/NAME                             # go on with a run that was stopped";

/// Flags that a run being resumed has settled already.
const SETTLED: [&str; 26] = [
    "experiment",
    "weights",
    "seed",
    "batch",
    "warmup_epochs",
    "zero_init_residual",
    "image_size",
    "pooling",
    "trainable",
    "class_weights",
    "pixels",
    "momentum",
    "augment",
    "run",
    "summary",
    "schedule",
    "weight_decay",
    "base_rate",
    "clip_norm",
    "ema",
    "precise_bn",
    "accumulate",
    "init",
    "crop",
    "rotate",
    "colour",
];

/// Train the network; without --data, on posters drawn in code.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES, args_override_self = true)]
pub struct Args {
    /// The posters, a file made by `onesheet prepare`
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Start from the settings of one of the paper's experiments, or from our own recipe, for whichever network; other flags override
    /// them
    #[arg(long, value_enum)]
    pub experiment: Option<Experiment>,
    /// What to train [default: resnet50]
    #[arg(long, value_name = "NAME", value_parser = networks())]
    pub network: Option<Network>,
    /// ImageNet weights for the base: Keras's .h5, or safetensors of torchvision, timm or onesheet, as the network has them
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum)]
    pub device: Option<DeviceChoice>,
    /// How wide the numbers are
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionChoice>,
    /// Share each step among the machine's first N GPUs: without --accumulate each takes an Nth of --batch, with it as many of a step's
    /// batches. Batch norms see each GPU's posters by themselves [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub gpus: Option<u8>,
    /// Initial weights, shuffling and augmentation follow from it [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// Posters a step; auto halves the default until a step fits into the memory that is free [default: 128; 64 with --experiment onesheet]
    #[arg(long, value_name = "N|auto")]
    pub batch: Option<BatchSize>,
    /// Passes over the training posters [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// What ends the run before that
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Measure so many steps launch by launch, after three that warm up; then stop as with --max-steps, everything saved
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = "10",
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub profile: Option<u64>,
    /// Adam's learning rate [default: 0.001]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub lr: Option<f64>,
    /// Epochs over which the learning rate rises to --lr [default: 1; 0 with the paper's experiments]
    #[arg(long, value_name = "EPOCHS", value_parser = warmup)]
    pub warmup_epochs: Option<f64>,
    /// Whether residual blocks start as the identity [default: true; false with the paper's experiments]
    #[arg(long, value_name = "BOOL")]
    pub zero_init_residual: Option<bool>,
    /// Side of a poster in pixels [default: the data's; 64 for drawn posters]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(32..=1024))]
    pub image_size: Option<u16>,
    /// How the head sees the last feature map, avg or max [default: avg; max with the paper's experiments]
    #[arg(long, value_name = "avg|max")]
    pub pooling: Option<Pooling>,
    /// Which layers learn: all, or the last N of the base's, counted as --summary prints them [default: all; last:40 with transfer]
    #[arg(long, value_name = "all|last:N")]
    pub trainable: Option<Trainable>,
    /// How much a genre's errors count [default: balanced]
    #[arg(long, value_enum)]
    pub class_weights: Option<ClassWeights>,
    /// What a stored byte becomes [default: what Keras's weights of the network expect; raw with the paper's experiments]
    #[arg(long, value_enum)]
    pub pixels: Option<Pixels>,
    /// Weight of the old value in batch norm's running averages [default: 0.99; 0.9 for drawn posters]
    #[arg(long, value_name = "M", value_parser = momentum)]
    pub momentum: Option<f64>,
    /// Mirror and shift training posters at random
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub augment: Option<bool>,
    /// Where the run is kept: a name under runs/, or a path [default: date and experiment]
    #[arg(long, value_name = "NAME")]
    pub run: Option<PathBuf>,
    /// Minutes between two checkpoints within an epoch: what a kill may cost [default: 10]
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    pub save_every: Option<f64>,
    /// Keep the models of the N epochs with the highest validation mAP, as checkpoints/epoch-0007.safetensors [default: 1, which is
    /// best.safetensors alone]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub keep_best: Option<u32>,
    /// What to do when a loss or a gradient is no number [default: stop]
    #[arg(long, value_enum)]
    pub on_bad_numbers: Option<OnBadNumbers>,
    /// When that happens, compute the step once more and name the layer where it begins
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub check_numerics: Option<bool>,
    /// Keep fewer values of a step's forward pass and compute the others again: the same bits with less memory, in more time. `plan
    /// --recompute` shows how much
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub recompute: Option<bool>,
    /// How posters are read from the file [default: map]
    #[arg(long, value_enum)]
    pub io: Option<Access>,
    /// What the run's event files tell TensorBoard: `tensorboard --logdir runs` shows them [default: scalars]
    #[arg(long, value_enum)]
    pub tensorboard: Option<TensorBoard>,
    /// Go on with a run that was stopped. What does not change the past may change: --data (the same file elsewhere), --device,
    /// --precision, --gpus, --lr, --epochs, --max-steps, --time-limit, --patience, --save-every, --keep-best, --on-bad-numbers, --check-numerics,
    /// --recompute, --io, --tensorboard (a cosine then ends with the new last epoch)
    #[arg(long, value_name = "RUN", conflicts_with_all = SETTLED)]
    pub resume: Option<PathBuf>,
    /// Try a hundred learning rates from 1e-7 to 1, a step each, print the losses and the rate to begin with, and stop;
    /// nothing is written
    #[arg(long, conflicts_with_all = ["resume", "run", "summary", "profile"])]
    pub find_lr: bool,
    /// Print the layers with their shapes and parameters, and stop
    #[arg(long)]
    pub summary: bool,
    /// Print JSON, one object an epoch, or with --profile a launch
    #[arg(long)]
    pub json: bool,
    /// Print results only
    #[arg(short, long)]
    pub quiet: bool,
    /// The parts of a recipe
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// The name of a network that can be chosen.
pub fn networks() -> impl TypedValueParser<Value = Network> {
    PossibleValuesParser::new(NETWORKS.map(|network| network.name)).try_map(|name| name.parse::<Network>())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate < f64::INFINITY => Ok(rate),
        _ => Err("a learning rate is a number above 0".into()),
    }
}

fn warmup(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(epochs) if (0.0..1e6).contains(&epochs) => Ok(epochs),
        _ => Err("a warm-up takes a number of epochs from 0 on, such as 0.5".into()),
    }
}

fn momentum(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(momentum) if (0.0..1.0).contains(&momentum) => Ok(momentum),
        _ => Err("a momentum is a number from 0 to below 1".into()),
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..1e6).contains(&minutes) => Ok(minutes),
        _ => Err("an interval is a number of minutes from 0 on, such as 0.5".into()),
    }
}

impl Args {
    /// The settings of a new run: the preset's, what `file` dictates, and then each flag.
    pub fn config(&self, file: Option<&TensorFile>) -> Result<RunConfig, Usage> {
        let mut config = match (self.experiment, &self.data) {
            (Some(experiment), _) => experiment.preset(self.network.unwrap_or(RunConfig::default().network)),
            (None, Some(_)) => RunConfig::default(),
            (None, None) => RunConfig::demonstration(),
        };
        if let Some(file) = file {
            config.image_size = file.size();
        }
        config.data = self.data.as_deref().map(whole);
        config.weights = self.weights.as_deref().map(whole);
        self.set_what_may_change(&mut config, 0);
        set(&mut config.augment, self.augment);
        set(&mut config.network, self.network);
        if self.experiment.is_none() {
            config.pixels = Pixels::of(config.network);
        }
        set(&mut config.seed, self.seed);
        match (self.batch, file) {
            (Some(BatchSize::Posters(batch)), _) => config.batch = batch,
            // Smaller yet where there is no memory for it, which the device says.
            (Some(BatchSize::Auto), Some(file)) => {
                config.batch = config.batch.min(file.indices(Split::Train).len()).max(1);
            }
            _ => {}
        }
        set(&mut config.warmup_epochs, self.warmup_epochs);
        set(&mut config.zero_init_residual, self.zero_init_residual);
        set(&mut config.image_size, self.image_size.map(usize::from));
        set(&mut config.pooling, self.pooling);
        set(&mut config.trainable, self.trainable);
        set(&mut config.class_weights, self.class_weights);
        set(&mut config.pixels, self.pixels);
        set(&mut config.momentum, self.momentum);
        self.recipe.set(&mut config.recipe);
        self.share(&mut config)?;
        self.refuse_what_cannot_start()?;
        config.check_network().map_err(|error| Usage(error.to_string()))?;
        Ok(config)
    }

    /// The settings of a run resumed after `done` steps: its own, but for what may change. A step limit that it has reached is done
    /// with.
    pub fn resumed(&self, config: &RunConfig, done: u64) -> Result<RunConfig, Usage> {
        let mut config = config.clone();
        config.max_steps = config.max_steps.filter(|&limit| limit > done);
        if let Some(data) = &self.data {
            config.data = Some(whole(data));
        }
        self.set_what_may_change(&mut config, done);
        refuse_uneven_shares(&config)?;
        Ok(config)
    }

    /// The flags that change nothing of what a run has done, `done` steps of it.
    fn set_what_may_change(&self, config: &mut RunConfig, done: u64) {
        set(&mut config.device, self.device);
        set(&mut config.precision, self.precision);
        set(&mut config.gpus, self.gpus.map(usize::from));
        set(&mut config.epochs, self.epochs);
        set(&mut config.learning_rate, self.lr);
        set(&mut config.save_every, self.save_every);
        set(&mut config.keep_best, self.keep_best);
        set(&mut config.on_bad_numbers, self.on_bad_numbers);
        set(&mut config.check_numerics, self.check_numerics);
        set(&mut config.recompute, self.recompute);
        set(&mut config.io, self.io);
        set(&mut config.tensorboard, self.tensorboard);
        self.limits.set(config);
        if let Some(steps) = self.profile {
            let profiled = done + WARM_UP + steps;
            config.max_steps = Some(config.max_steps.map_or(profiled, |limit| limit.min(profiled)));
        }
    }

    /// Shares a step among GPUs: each batch of it, or where there are several, these.
    fn share(&self, config: &mut RunConfig) -> Result<(), Usage> {
        if self.recipe.accumulate.is_none() && config.gpus > 1 {
            if !config.batch.is_multiple_of(config.gpus) {
                let (batch, gpus) = (config.batch, config.gpus);
                return Err(Usage(format!("--batch {batch} posters are not shared evenly by --gpus {gpus}")));
            }
            config.batch /= config.gpus;
            config.recipe.accumulate = config.gpus;
        }
        refuse_uneven_shares(config)
    }

    /// A run goes on as the network that it began as.
    pub fn refuse_another_network(&self, network: Network) -> Result<(), Usage> {
        match self.network.filter(|asked| *asked != network) {
            Some(asked) => Err(Usage(format!(
                "the run trains {}, and cannot go on as {}; leave out --network, or start a new run",
                network.title, asked.title
            ))),
            None => Ok(()),
        }
    }

    fn refuse_what_cannot_start(&self) -> Result<(), Usage> {
        let Some(experiment) = self.experiment.filter(|_| !self.summary) else { return Ok(()) };
        let name = experiment.name();
        let data = quoted(self.data.as_deref().unwrap_or(Path::new("posters.safetensors")));
        let chosen = self.network.map_or(String::new(), |network| format!(" --network {network}"));
        let command = format!("onesheet train --data {data} --experiment {name}{chosen}");
        if experiment.needs_weights() && self.weights.is_none() {
            let network = self.network.unwrap_or(RunConfig::default().network);
            return Err(Usage(match network.published_weights {
                Some(file) => {
                    format!("{name} starts from ImageNet weights: {command} --weights FILE, where FILE is {file}")
                }
                None => format!(
                    "{name} starts from ImageNet weights, and nobody has published any of {}: {command} --weights FILE, where \
                     FILE is a checkpoint of your own; or start from random weights, without --experiment",
                    network.title
                ),
            }));
        }
        if self.data.is_none() {
            return Err(Usage(format!("{name} needs posters: {command}; `onesheet prepare` makes the file")));
        }
        Ok(())
    }

    /// The folder's name where none is given: the time in UTC, and what is tried.
    pub fn default_run_name(&self) -> String {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let network = self.network.unwrap_or(RunConfig::default().network);
        let what = match (self.experiment, &self.data) {
            (Some(experiment), _) => experiment.run_name(network),
            (None, Some(_)) => network.to_string(),
            (None, None) => "synthetic".into(),
        };
        format!("{}-{what}", timestamp(seconds))
    }
}

/// Each GPU takes as many batches of a step.
fn refuse_uneven_shares(config: &RunConfig) -> Result<(), Usage> {
    let (gpus, batches) = (config.gpus, config.recipe.accumulate);
    match batches.is_multiple_of(gpus) {
        true => Ok(()),
        false => {
            Err(Usage(format!("the {batches} batches of a step (--accumulate) are not shared evenly by --gpus {gpus}")))
        }
    }
}

/// The flag if it is given.
fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *setting = flag;
    }
}

/// The path from the root, so that the run is repeated or resumed from anywhere.
fn whole(path: &Path) -> PathBuf {
    absolute(path).unwrap_or_else(|_| path.into())
}

/// Seconds since 1970 as `2026-11-22-091530`, by Howard Hinnant's `civil_from_days`: years begin in March, so that the leap
/// day is the last.
fn timestamp(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}-{:02}{:02}{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests;
