//! `onesheet train`: a run from its settings to its best checkpoint.

mod narration;
mod settings;

pub use settings::Args;

use crate::console::{Console, print};
use crate::device::{self, Opened};
use crate::exit::Interrupted;
use anyhow::Context;
use narration::Progress;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::model::summary::Summary;
use onesheet::model::{Architecture, Extents, Model, import};
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::profiling::Profiling;
use onesheet::training::run_folder::{RunFolder, folder_of, last_checkpoint, synthetic_posters};
use onesheet::training::start;
use onesheet::training::trainer::{self, Ending, Event, Trainer};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Synthetic posters of a first run: four fifths of them make 50 steps of 16 an epoch.
const SYNTHETIC_POSTERS: usize = 1000;

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    if args.summary {
        return summary(args);
    }
    let (run, device) = match &args.resume {
        Some(run) => Run::resume(args, &folder_of(run), console)?,
        None => Run::begin(args, console)?,
    };
    match device {
        Opened::Cpu(device, why) => train(Rc::new(device), Some(&why), run, console, args),
        Opened::Cuda(device) => train(Rc::new(device), None, run, console, args),
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
    print(format_args!("{}\n", Summary(&Architecture::new(&config.model(Extents::resnet50(), genres))?)))?;
    Ok(())
}

/// A run about to start or to go on: its folder held, its posters open, its settings checked.
struct Run {
    config: RunConfig,
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
        let (config, folder, file, device, weights) = match &args.data {
            Some(data) => {
                let file = TensorFile::open(data)?;
                let config = args.config(Some(&file))?;
                trainer::check(&config, &file)?;
                let weights = read_weights(&config, file.genres())?;
                let device = device::open(config.device, config.precision, console)?;
                let folder = RunFolder::create(&path, &config).map_err(TrainingError::from)?;
                (config, folder, file, device, weights)
            }
            None => {
                let config = args.config(None)?;
                let weights = read_weights(&config, &synthetic::GENRES.map(String::from))?;
                let device = device::open(config.device, config.precision, console)?;
                let folder = RunFolder::create(&path, &config).map_err(TrainingError::from)?;
                let posters = synthetic_posters(&path);
                console
                    .say(format_args!("no --data: drawing {SYNTHETIC_POSTERS} posters into {}\n", posters.display()));
                synthetic::write(&posters, SYNTHETIC_POSTERS, config.image_size, config.seed)?;
                let file = TensorFile::open(&posters)?;
                trainer::check(&config, &file)?;
                (config, folder, file, device, weights)
            }
        };
        Ok((Run { config, folder, file: Arc::new(file), checkpoint: None, weights }, device))
    }

    /// A run that was stopped, and the device it goes on with.
    fn resume(args: &Args, path: &Path, console: Console) -> anyhow::Result<(Run, Opened)> {
        let mut folder = RunFolder::resume(path).map_err(TrainingError::from)?;
        let checkpoint = Checkpoint::open(&last_checkpoint(path))?;
        let metadata = checkpoint.metadata();
        let config = args.resumed(metadata.config.clone(), metadata.progress.total_steps);
        let posters = config.data.clone().unwrap_or_else(|| synthetic_posters(path));
        let file = TensorFile::open(&posters)?;
        let device = device::open(config.device, config.precision, console)?;
        folder.cut_back(metadata.progress.total_steps).map_err(TrainingError::from)?;
        Ok((Run { config, folder, file: Arc::new(file), checkpoint: Some(checkpoint), weights: None }, device))
    }
}

/// Trains on `device`: on the processor for the reason `why`, or without one on a GPU.
fn train<D: Device>(device: Rc<D>, why: Option<&str>, run: Run, console: Console, args: &Args) -> anyhow::Result<()> {
    let Run { config, mut folder, file, checkpoint, weights } = run;
    let path = folder.path().to_path_buf();
    let extents = Extents::resnet50();
    let mut trainer = match &checkpoint {
        Some(checkpoint) => Trainer::resume(device, config, extents, Arc::clone(&file), checkpoint)?,
        None => {
            let mut trainer = Trainer::new(device, config, extents, Arc::clone(&file))?;
            // Taken, so that their hundred megabytes go before the training begins.
            if let Some(weights) = weights {
                start_from(trainer.model_mut(), &weights, console)?;
            }
            trainer
        }
    };
    drop(checkpoint);
    narration::open(console, &trainer, why.unwrap_or_default(), &file, &path);
    let progress = *trainer.progress();
    if progress.total_steps > 0 {
        let (epoch, step) = (progress.epoch + 1, progress.step);
        console.say(format_args!("going on after step {step} of epoch {epoch}, {} in all\n", progress.total_steps));
    }

    let signals = Signals::catch().context("cannot catch Ctrl-C")?;
    let step = format!("a training step at batch {}", trainer.config().batch);
    let mut profiling = args.profile.map(|_| Profiling::new(Rc::clone(trainer.model().device())));
    if profiling.is_some() {
        trainer.ask_at_once();
    }
    let mut shown =
        Progress::new(console, args.json, trainer.config(), progress.total_steps, trainer.steps_per_epoch());
    if why.is_none() {
        shown.tell_first_step();
    }
    let mut watch = |event: Event<'_>| {
        if let Some(profiling) = &mut profiling {
            profiling.watch(&event);
        }
        shown.show(event);
    };
    let ending = match trainer.run(&mut folder, &signals.stop, &mut watch) {
        Ok(ending) => ending,
        Err(error) => {
            shown.fail(&error, &path);
            return Err(error.into());
        }
    };
    shown.close(ending, trainer.progress(), &path);
    if let Some(profiling) = profiling {
        narration::profile(&profiling.end(step)?, console, args.json, &path)?;
    }
    match ending {
        Ending::Interrupted => Err(Interrupted(signals.caught.load(Ordering::Relaxed) as i32).into()),
        Ending::Finished | Ending::StepLimit => Ok(()),
    }
}

/// The weights that the settings name.
fn read_weights(config: &RunConfig, genres: &[String]) -> anyhow::Result<Option<import::Weights>> {
    let Some(path) = &config.weights else { return Ok(None) };
    Ok(Some(start::read(path, config, Extents::resnet50(), genres)?))
}

/// Copies weights over the model's.
fn start_from<D: Device>(model: &mut Model<D>, weights: &import::Weights, console: Console) -> anyhow::Result<()> {
    for note in &weights.notes {
        console.say(format_args!("note: {note}\n"));
    }
    for tensor in &model.architecture().tensors.clone() {
        // A foreign file has no head, and of ours it is taken where the genres are the same.
        if let Some(values) = weights.tensors.get(&tensor.name) {
            model.write(tensor, &values.data)?;
        }
    }
    Ok(())
}

/// Ctrl-C and TERM: the first asks for a clean end, the second ends at once.
struct Signals {
    stop: Arc<AtomicBool>,
    caught: Arc<AtomicUsize>,
}

impl Signals {
    fn catch() -> std::io::Result<Signals> {
        let signals = Signals { stop: Arc::default(), caught: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            // In this order: what is registered first runs first, and must not yet see the flag that its own signal sets.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.caught), signal as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }
}
