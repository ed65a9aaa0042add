//! One run of a study: what it is, why it may not start, and how it is trained up to a step and scored there.

use super::list::{Entry, Films, train_args};
use super::record::{Record, Stage, has_begun};
use super::{Args, posters, weights};
use crate::console::Console;
use crate::device::{self, Opened};
use crate::signals::Signals;
use crate::train;
use clap::ValueEnum;
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::metrics::best_thresholds;
use onesheet::network::Network;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::experiment::Experiment;
use onesheet::training::run_folder::last_checkpoint;
use onesheet::training::trainer::{self, Ending};
use onesheet::training::{TrainingError, learner};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a run of the list cannot be trained, and what to do about it. The others are.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CannotStart(String);

/// A run of the list.
pub struct Run {
    /// Its name in the tables and of its folder.
    pub label: String,
    pub network: Network,
    pub experiment: Option<Experiment>,
    /// Why it is not trained, or stopped.
    pub obstacle: Option<String>,
    /// None where it cannot start.
    pub prepared: Option<Prepared>,
}

/// A run that can be trained.
pub struct Prepared {
    pub folder: PathBuf,
    pub config: RunConfig,
    pub file: Arc<TensorFile>,
    pub record: Record,
    /// The flags of `train` that begin it.
    words: Vec<OsString>,
}

impl Run {
    /// The run of `entry`, on one of `files`.
    ///
    /// # Errors
    /// Those that concern the whole study: folders that hold something else, and what cannot be read or written.
    pub fn new(entry: Entry, args: &Args, files: &[Arc<TensorFile>], out: &Path) -> anyhow::Result<Run> {
        let mut words = args.words_of_train();
        words.extend(entry.words.iter().cloned());
        // Each was looked at by itself; what is left are those that do not go together.
        let settings = train_args(&words).map_err(crate::exit::Usage)?;
        let network = settings.network.unwrap_or(RunConfig::default().network);
        let experiment = settings.experiment;
        let (obstacle, prepared) = match Prepared::new(&entry, words, &settings, args, files, out) {
            Ok(prepared) => (None, Some(prepared)),
            Err(error) => match error.downcast::<CannotStart>() {
                Ok(CannotStart(why)) => (Some(why), None),
                Err(error) => return Err(error.context(format!("run `{}`", entry.label))),
            },
        };
        Ok(Run { label: entry.label, network, experiment, obstacle, prepared })
    }

    /// How far it has come, in words.
    pub fn state(&self) -> String {
        match (&self.obstacle, &self.prepared) {
            (Some(why), None) => format!("cannot start: {why}"),
            (Some(why), Some(_)) => format!("stopped: {why}"),
            (None, Some(Prepared { record: Record { end: Some(end), .. }, .. })) => format!("done, {}", end.place()),
            (None, Some(prepared)) if has_begun(&prepared.folder) => "begun".into(),
            (None, _) => "to come".into(),
        }
    }

    /// The stages at which it has been scored, the earlier one first.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.prepared.iter().flat_map(|run| [&run.record.middle, &run.record.end]).flatten()
    }
}

impl Prepared {
    fn new(
        entry: &Entry,
        mut words: Vec<OsString>,
        settings: &train::Args,
        args: &Args,
        files: &[Arc<TensorFile>],
        out: &Path,
    ) -> anyhow::Result<Prepared> {
        let cannot = |why: String| anyhow::Error::from(CannotStart(why));
        let folder = out.join(&entry.label);
        let before = Record::read(&folder)?;
        let file = match settings.image_size.map(usize::from) {
            None => &files[0],
            Some(size) => files.iter().find(|file| file.size() == size).ok_or_else(|| {
                cannot(format!(
                    "no --data has posters of {size}×{size} pixels; make such a file with `onesheet prepare --image-size \
                     {size}`, and add it with another --data"
                ))
            })?,
        };
        let name = file.path().display();
        let file = match entry.films {
            Films::All => Arc::clone(file),
            Films::Once => match posters::each_film_once(file, &out.join("films-once.safetensors"))? {
                Some(file) => Arc::new(file),
                None => Err(cannot(format!(
                    "{name} has no film twice; `onesheet prepare --split paper` keeps what the table repeats"
                )))?,
            },
            Films::ByDecade => Err(cannot(format!(
                "{name} does not say from which year a film is: a file of posters holds ids, genres and pixels"
            )))?,
        };
        words.push(flag("data", file.path()));
        words.push(flag("epochs", args.epochs.to_string()));
        if settings.weights.is_none() && settings.experiment.is_some_and(Experiment::needs_weights) {
            // Those that it began with, if it has; they are in its checkpoint, wherever their file is now.
            let began_with = before.as_ref().filter(|_| has_begun(&folder)).and_then(|it| it.config.weights.clone());
            let weights = match began_with {
                Some(weights) => weights,
                None => {
                    let config = RunConfig {
                        network: settings.network.unwrap_or(RunConfig::default().network),
                        image_size: file.size(),
                        ..RunConfig::default()
                    };
                    weights::find(args.weights_dir.as_deref(), &config, file.genres()).map_err(cannot)?
                }
            };
            words.push(flag("weights", weights));
        }
        let mut config = train_args(&words)
            .and_then(|args| args.config(Some(&file)).map_err(|why| why.to_string()))
            .map_err(cannot)?;
        config.max_steps = args.max_steps;
        trainer::check(&config, &file).map_err(|error| cannot(error.to_string()))?;
        let asked = Record::new(file.digest(), &config);
        let record = match before {
            Some(before) => {
                before.agree(&asked, &folder)?;
                before
            }
            None => asked,
        };
        Ok(Prepared { folder, config, file, record, words })
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.file.indices(Split::Train).len() / self.config.posters_a_step()) as u64
    }

    /// The last step of the first half of the epochs, if the run is to go beyond it.
    pub fn middle(&self) -> Option<u64> {
        let step = u64::from(self.config.epochs / 2) * self.steps_per_epoch();
        (step > 0 && self.config.max_steps.is_none_or(|limit| limit > step)).then_some(step)
    }

    /// Trains it up to that step, or to the last epoch; from its newest checkpoint on, if it has one.
    ///
    /// # Errors
    /// As for `train`.
    pub fn train_to(&self, step: Option<u64>, signals: &Signals, console: Console) -> anyhow::Result<Ending> {
        let mut words = if has_begun(&self.folder) {
            let name =
                |choice: Option<clap::builder::PossibleValue>| choice.expect("it can be typed").get_name().to_owned();
            vec![
                flag("resume", &self.folder),
                flag("data", self.file.path()),
                flag("device", name(self.config.device.to_possible_value())),
                flag("precision", name(self.config.precision.to_possible_value())),
            ]
        } else {
            // First, so that whoever finds the run knows whose it is.
            self.record.write(&self.folder)?;
            [self.words.clone(), vec![flag("run", &self.folder)]].concat()
        };
        words.push(flag("max-steps", step.map_or("none".into(), |step| step.to_string())));
        let mut args = train_args(&words).map_err(crate::exit::Usage)?;
        args.quiet = console.quiet;
        train::one_of_several(&args, signals)
    }

    /// How many steps are in its newest checkpoint.
    pub fn steps_done(&self) -> anyhow::Result<u64> {
        Ok(Checkpoint::open_model(&last_checkpoint(&self.folder))?.metadata().progress.total_steps)
    }

    /// What its newest checkpoint scores on each split of `on` that has posters; none if a signal came.
    ///
    /// # Errors
    /// The checkpoint's and the device's.
    pub fn score(&self, on: &[Split], signals: &Signals, console: Console) -> anyhow::Result<Option<Stage>> {
        // Which device it is was said when the training began.
        match device::open(self.config.device, self.config.precision, Console { quiet: true })? {
            Opened::Cpu(device, _) => self.score_on(&Rc::new(device), on, signals, console),
            Opened::Cuda(device) => self.score_on(&Rc::new(device), on, signals, console),
        }
    }

    fn score_on<D: Device>(
        &self,
        device: &Rc<D>,
        on: &[Split],
        signals: &Signals,
        console: Console,
    ) -> anyhow::Result<Option<Stage>> {
        let checkpoint = Checkpoint::open_model(&last_checkpoint(&self.folder))?;
        let metadata = checkpoint.metadata();
        let (step, per_epoch) = (metadata.progress.total_steps, self.steps_per_epoch());
        let model = learner::load(Rc::clone(device), &checkpoint)?;
        let (format, class_weights) = (self.config.pixels.format(), vec![1.0; metadata.genres.len()]);
        let mut given = BTreeMap::new();
        for &split in on {
            let indices: Arc<[u32]> = self.file.indices(split).into();
            if indices.is_empty() {
                continue;
            }
            let bar = console.bar(indices.len() as u64, "{msg} {wide_bar} {pos}/{len} posters, {eta} left");
            bar.set_message(format!("scoring, {}", split.name()));
            let batch = self.config.batch.min(indices.len());
            let between = |done: usize| {
                bar.set_position(done as u64);
                if signals.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let answers =
                Answers::collect(&model, &self.file, indices, batch, &format, &class_weights, View::Plain, between)?;
            bar.finish_and_clear();
            let Some(answers) = answers else { return Ok(None) };
            given.insert(split, answers);
        }
        let scores_at = |thresholds: &[f64]| {
            given.iter().map(|(split, answers)| (split.name().to_owned(), answers.scores(thresholds))).collect()
        };
        let best = |answers: &Answers| best_thresholds(&answers.probabilities, &answers.targets, &metadata.thresholds);
        Ok(Some(Stage {
            step,
            epoch: step.is_multiple_of(per_epoch).then(|| step / per_epoch),
            scores: scores_at(&metadata.thresholds),
            tuned: given.get(&Split::Validation).map(best).map(|best| scores_at(&best)).unwrap_or_default(),
        }))
    }
}

/// Whether training met a number that is none: the other runs may do better.
pub fn diverged(error: &anyhow::Error) -> bool {
    error.downcast_ref::<TrainingError>().is_some_and(trainer::is_bad_number)
}

/// `--name=value`.
pub fn flag(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}
