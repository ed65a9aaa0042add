//! `onesheet train`: a run from its settings to its best checkpoint.

mod batch;
mod find_rate;
mod narration;
mod settings;

pub use settings::{Args, degrees, networks, share};

use crate::console::{Console, print};
use crate::device::{self, Opened, described};
use crate::exit::{Interrupted, Usage};
use crate::signals::Signals;
use anyhow::Context;
use narration::Progress;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::device::Device;
use onesheet::network::summary::Summary;
use onesheet::network::{Architecture, import};
use onesheet::report;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::history::Entry;
use onesheet::training::profiling::Profiling;
use onesheet::training::replicas::Opener;
use onesheet::training::run_folder::{Resumed, RunFolder, folder_of, synthetic_posters};
use onesheet::training::start;
use onesheet::training::trainer::{self, Ending, Event, Trainer};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Synthetic posters of a first run: four fifths of them make 50 steps of 16 an epoch.
const SYNTHETIC_POSTERS: usize = 1000;

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    if args.summary {
        return summary(args);
    }
    if args.find_lr {
        return find_rate::run(args, console);
    }
    // Before anything else, so that from the first moment on a signal finds somebody to hear it.
    let signals = Signals::catch().context("cannot catch Ctrl-C")?;
    match train_or_go_on(args, &signals, Told::WhatNext)? {
        Ending::Interrupted => Err(Interrupted(signals.caught()).into()),
        Ending::Finished | Ending::NoBetter | Ending::StepLimit | Ending::TimeLimit => Ok(()),
    }
}

/// Trains one run of several, for a tool that has its own words about how they go on. `args` ask for a run, or for going on with one.
///
/// # Errors
/// As for [`run`]; being interrupted is none.
pub fn one_of_several(args: &Args, signals: &Signals) -> anyhow::Result<Ending> {
    train_or_go_on(args, signals, Told::Nothing)
}

/// What is said once a run has come to rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Why, where to look, and what to type next.
    WhatNext,
    /// Somebody else says it.
    Nothing,
}

fn train_or_go_on(args: &Args, signals: &Signals, told: Told) -> anyhow::Result<Ending> {
    let console = Console { quiet: args.quiet };
    let (run, device) = match &args.resume {
        Some(run) => Run::resume(args, &folder_of(run), console)?,
        None => Run::begin(args, console)?,
    };
    let free = device.free_memory();
    match device {
        Opened::Cpu(device, why) => {
            train(Rc::new(device), Vec::new(), Some(&why), free, run, signals, console, args, told)
        }
        Opened::Cuda(device) => {
            let others = device::others(&device, &run.config);
            train(Rc::new(device), others, None, free, run, signals, console, args, told)
        }
    }
}

/// Prints the layer table.
fn summary(args: &Args) -> anyhow::Result<()> {
    let file = args.data.as_deref().map(TensorFile::open).transpose()?;
    let genres = file.as_ref().map_or(synthetic::GENRES.len(), |file| file.genres().len());
    let mut config = args.config(file.as_ref())?;
    if file.is_none() && args.image_size.is_none() {
        config.image_size = RunConfig::default().image_size;
    }
    print(format_args!("{}\n", Summary(&Architecture::new(&config.model(genres))?)))?;
    Ok(())
}

/// A run about to start or to go on: its folder held, its posters open, its settings checked.
struct Run {
    config: RunConfig,
    /// The settings that it had before, if it goes on.
    before: Option<RunConfig>,
    folder: RunFolder,
    file: Arc<TensorFile>,
    checkpoint: Option<Checkpoint>,
    /// What a new run starts from, if not from random numbers.
    weights: Option<import::Weights>,
}

impl Run {
    /// A new run and its device. The device is opened, weights are read and, with data, everything is checked before a
    /// folder is made.
    fn begin(args: &Args, console: Console) -> anyhow::Result<(Run, Opened)> {
        let name = args.run.clone().unwrap_or_else(|| PathBuf::from(args.default_run_name()));
        let path = folder_of(&name);
        let file =
            args.data.as_deref().map(|data| TensorFile::open_for(data, args.io.unwrap_or_default())).transpose()?;
        let mut config = args.config(file.as_ref())?;
        if let Some(file) = &file {
            trainer::check(&config, file)?;
        }
        let drawn = synthetic_posters(&path);
        if file.is_none() && drawn.exists() && !synthetic::drew(&drawn) {
            let drawn = drawn.display();
            let why = format!(
                "{drawn} is no file of drawn posters, and would be replaced; train on it with --data, or choose another --run"
            );
            return Err(Usage(why).into());
        }
        let (weights, device) = Run::means(&config, file.as_ref(), console)?;
        let genres = file.as_ref().map_or(synthetic::GENRES.len(), |file| file.genres().len());
        batch::settle(args.batch, &mut config, genres, &device, console)?;
        let folder = RunFolder::create(&path, &config).map_err(TrainingError::from)?;
        if folder.begins_anew() {
            console.say(format_args!("{} had saved nothing yet: it begins anew\n", path.display()));
        }
        let file = Run::posters(file, &config, &path, console)?;
        Ok((Run { config, before: None, folder, file, checkpoint: None, weights }, device))
    }

    /// A run that was stopped, and the device it goes on with. One that had saved nothing begins anew.
    fn resume(args: &Args, path: &Path, console: Console) -> anyhow::Result<(Run, Opened)> {
        let Resumed { mut folder, checkpoint, damaged, config } =
            RunFolder::resume(path).map_err(TrainingError::from)?;
        for error in damaged {
            console.say(format_args!("note: {error}"));
        }
        let Some(checkpoint) = checkpoint else {
            let before = config.context("a run without a checkpoint has settings")?;
            args.refuse_another_network(before.network)?;
            let config = args.resumed(&before, 0)?;
            let file = config.data.as_deref().map(|data| open_posters(data, config.io)).transpose()?;
            if let Some(file) = &file {
                trainer::check(&config, file)?;
            }
            let (weights, device) = Run::means(&config, file.as_ref(), console)?;
            console.say(format_args!("{} had saved nothing yet: it begins anew\n", path.display()));
            folder.cut_back(&Default::default()).map_err(TrainingError::from)?;
            let file = Run::posters(file, &config, path, console)?;
            return Ok((Run { config, before: Some(before), folder, file, checkpoint: None, weights }, device));
        };
        // What was tried last is in config.toml, and what was saved last in the checkpoint.
        let saved = &checkpoint.metadata().config;
        args.refuse_another_network(saved.network)?;
        let before = config.unwrap_or_else(|| saved.clone());
        let steps = checkpoint.metadata().progress.total_steps;
        let config = args.resumed(saved, steps)?;
        let posters = config.data.clone().unwrap_or_else(|| synthetic_posters(path));
        let file = Arc::new(open_posters(&posters, config.io)?);
        let device = device::open(config.device, config.precision, console)?;
        device::refuse_too_few(&device, &config)?;
        folder.cut_back(&checkpoint.metadata().progress).map_err(TrainingError::from)?;
        Ok((Run { config, before: Some(before), folder, file, checkpoint: Some(checkpoint), weights: None }, device))
    }

    /// The weights and the device that the settings ask for; without a file, for posters drawn in code.
    fn means(
        config: &RunConfig,
        file: Option<&TensorFile>,
        console: Console,
    ) -> anyhow::Result<(Option<import::Weights>, Opened)> {
        let weights = match file {
            Some(file) => read_weights(config, file.genres())?,
            None => read_weights(config, &synthetic::GENRES.map(String::from))?,
        };
        let device = device::open(config.device, config.precision, console)?;
        device::refuse_too_few(&device, config)?;
        Ok((weights, device))
    }

    /// The posters of a run at its beginning: the `file` it was given, or such as are drawn into its folder.
    fn posters(
        file: Option<TensorFile>,
        config: &RunConfig,
        run: &Path,
        console: Console,
    ) -> anyhow::Result<Arc<TensorFile>> {
        if let Some(file) = file {
            return Ok(Arc::new(file));
        }
        let posters = synthetic_posters(run);
        console.say(format_args!("no --data: drawing {SYNTHETIC_POSTERS} posters into {}\n", posters.display()));
        synthetic::write(&posters, SYNTHETIC_POSTERS, config.image_size, config.seed)?;
        let file = TensorFile::open_for(&posters, config.io)?;
        trainer::check(config, &file)?;
        Ok(Arc::new(file))
    }
}

/// The posters of a run that was there before.
///
/// # Errors
/// The file's; where there is none, with what to do.
pub fn open_posters(posters: &Path, io: Access) -> anyhow::Result<TensorFile> {
    let file = TensorFile::open_for(posters, io);
    if !posters.exists() {
        return file.context("the run's posters are not where they were; add --data FILE if they are elsewhere now");
    }
    Ok(file?)
}

/// Trains on `device`, where so many bytes are `free`, and on those that `others` open: on the processor for the reason `why`, or without one on a GPU.
fn train<D: Device>(
    device: Rc<D>,
    others: Vec<Opener<D>>,
    why: Option<&str>,
    free: Option<u64>,
    run: Run,
    signals: &Signals,
    console: Console,
    args: &Args,
    at_rest: Told,
) -> anyhow::Result<Ending> {
    let Run { config, before, mut folder, file, checkpoint, weights } = run;
    let path = folder.path().to_path_buf();
    let mut trainer = match &checkpoint {
        Some(checkpoint) => Trainer::resume(device, config, Arc::clone(&file), checkpoint)?,
        // The weights are taken, so that their hundred megabytes go before the training begins.
        None => begun(device, config, Arc::clone(&file), weights, console)?,
    };
    drop(checkpoint);
    trainer.share(others)?;
    narration::open(console, &trainer, why.unwrap_or_default(), free, &file, &path, at_rest)?;
    let progress = *trainer.progress();
    let told = described(&**trainer.model().device(), why.unwrap_or_default());
    let entry =
        Entry::new(progress.total_steps, told.clone(), before.as_ref().unwrap_or(trainer.config()), trainer.config());
    for change in &entry.changed {
        console.say(format_args!("changed from here on: {change}"));
    }
    folder.note(trainer.config(), entry).map_err(TrainingError::from)?;
    report::write_plan(&path, &trainer.costs()?).map_err(TrainingError::from)?;
    if progress.total_steps > 0 {
        let (epoch, step) = (progress.epoch + 1, progress.step);
        console.say(format_args!("going on after step {step} of epoch {epoch}, {} in all\n", progress.total_steps));
    }

    let step = format!("a training step at batch {}", trainer.config().batch);
    let mut profiling = args.profile.map(|_| Profiling::new(Rc::clone(trainer.model().device())));
    if profiling.is_some() {
        trainer.ask_at_once();
    }
    let mut shown =
        Progress::new(console, args.json, told, trainer.config(), progress.total_steps, trainer.steps_per_epoch());
    if why.is_none() {
        shown.tell_first_step();
    }
    let mut page = Ok(());
    let mut watch = |event: Event<'_>| {
        if let Some(profiling) = &mut profiling {
            profiling.watch(&event);
        }
        shown.show(event);
        if let Event::Epoch { .. } = event {
            page = report::write(&path, &file);
            // All of the epoch is saved by now, and the run stops there.
            if page.is_err() {
                signals.stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let ending = trainer.run(&mut folder, &signals.stop, &mut watch);
    let ending = match page.and(ending) {
        Ok(ending) => ending,
        Err(error) => {
            match at_rest {
                Told::WhatNext => shown.fail(&error, &path, folder.saved_step(), trainer.config()),
                Told::Nothing => shown.clear(),
            }
            return Err(error.into());
        }
    };
    match at_rest {
        Told::WhatNext => shown.close(ending, trainer.progress(), &path),
        Told::Nothing => shown.clear(),
    }
    if let Some(profiling) = profiling {
        narration::profile(&profiling.end(step)?, console, args.json, &path)?;
    }
    Ok(ending)
}

/// A run at its beginning, from these `weights` if there are any.
fn begun<D: Device>(
    device: Rc<D>,
    config: RunConfig,
    file: Arc<TensorFile>,
    weights: Option<import::Weights>,
    console: Console,
) -> anyhow::Result<Trainer<D>> {
    let mut trainer = Trainer::new(device, config, file)?;
    if let Some(weights) = weights {
        for note in &weights.notes {
            console.say(format_args!("note: {note}\n"));
        }
        start::copy(&weights, trainer.model_mut())?;
    }
    Ok(trainer)
}

/// The weights that the settings name.
fn read_weights(config: &RunConfig, genres: &[String]) -> anyhow::Result<Option<import::Weights>> {
    let Some(path) = &config.weights else { return Ok(None) };
    Ok(Some(start::read(path, config, genres)?))
}
