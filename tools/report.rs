//! `onesheet report`: the page of a run, written again.

use crate::console::{Console, print};
use crate::device::{self, Opened, described};
use crate::evaluate::{Which, checkpoint_of, without_checkpoint};
use crate::train::open_posters;
use clap::Args as ClapArgs;
use onesheet::data::Split;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::device::Device;
use onesheet::files::{Disk, replace};
use onesheet::report;
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::run_folder::{
    About, KeptAnswers, RunFolder, RunFolderError, folder_of, report_file, settings_of, synthetic_posters,
};
use onesheet::training::{TrainingError, learner};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  onesheet report --run runs/NAME                          # writes runs/NAME/report.html
  onesheet report --run runs/NAME --out page.html          # elsewhere, also while the run is being trained
  onesheet report --run runs/NAME --data moved.safetensors";

/// Write the page of a run: curves, scores, thresholds to try out, posters. `train` writes it after each epoch; this writes it again,
/// and asks the best checkpoint about the validation posters if the run's folder does not have its answers.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The run: a name under runs/, or a path
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Where the run's posters are now [default: where they were]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where to write the page [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where to compute answers that are missing
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide the numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionChoice,
    /// Posters at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    let run = folder_of(&args.run);
    let config = settings_of(&run).map_err(TrainingError::from)?;
    let data = args.data.clone().or(config.data).unwrap_or_else(|| synthetic_posters(&run));
    let file = Arc::new(match args.data {
        Some(_) => TensorFile::open(&data)?,
        None => open_posters(&data, Access::default())?,
    });
    // Two that write the same files would tear each other's. Elsewhere nobody else writes.
    let _held = match &args.out {
        None => Some(RunFolder::hold(&run).map_err(busy)?),
        Some(_) => None,
    };
    let kept = answers(&run, &file, args, console)?;
    let page = report::page(&run, kept.as_ref(), &file)?;
    let place = args.out.clone().unwrap_or_else(|| report_file(&run));
    replace(&Disk, &place, page.as_bytes())?;
    print(format_args!("{}\n", place.display()))?;
    Ok(())
}

/// The error of holding a run's folder; while it is being trained, with what can be done meanwhile.
fn busy(error: RunFolderError) -> anyhow::Error {
    let is_trained = matches!(error, RunFolderError::Locked { .. });
    let error = anyhow::Error::from(TrainingError::from(error));
    if is_trained {
        error.context("the run is being trained; --out FILE writes its page elsewhere meanwhile")
    } else {
        error
    }
}

/// The answers of the run's best model: those in its folder, or the model is asked, and they are kept there unless the page is not. None
/// of a run that has no best model yet.
fn answers(run: &Path, file: &Arc<TensorFile>, args: &Args, console: Console) -> anyhow::Result<Option<KeptAnswers>> {
    let path = checkpoint_of(run, Which::Best);
    if !path.exists() {
        console.say("the run has not ended an epoch: there is no model to ask yet");
        return Ok(None);
    }
    let checkpoint = Checkpoint::open_model(&path).map_err(|error| without_checkpoint(error, Which::Best, run))?;
    let newest = checkpoint.metadata().progress.total_steps;
    match KeptAnswers::read(run) {
        // Those of an earlier version do not say where it saw the genres.
        Ok(Some(kept)) if !kept.sights.is_empty() && kept.about.step == newest => return Ok(Some(kept)),
        Ok(_) => {}
        Err(error) => console.say(format_args!("note: {error}")),
    }
    let kept = match device::open(args.device, args.precision, console)? {
        Opened::Cpu(device, why) => ask(&Rc::new(device), &why, &checkpoint, file, args.batch.into(), console)?,
        Opened::Cuda(device) => ask(&Rc::new(device), "", &checkpoint, file, args.batch.into(), console)?,
    };
    if args.out.is_none() {
        kept.write(run).map_err(TrainingError::from)?;
    }
    Ok(Some(kept))
}

/// What the model in `checkpoint` says of the validation posters of `file`.
fn ask<D: Device>(
    device: &Rc<D>,
    why: &str,
    checkpoint: &Checkpoint,
    file: &Arc<TensorFile>,
    batch: usize,
    console: Console,
) -> anyhow::Result<KeptAnswers> {
    let Metadata { config, genres, thresholds, data_digest, progress, .. } = checkpoint.metadata();
    if data_digest != file.digest() {
        let (posters, checkpoint) = (file.path().into(), checkpoint.path().into());
        return Err(TrainingError::OtherPosters { posters, checkpoint }.into());
    }
    let posters = file.indices(Split::Validation);
    console.say(described(&**device, why));
    console.say(format_args!("asking {} about {} validation posters", checkpoint.path().display(), posters.len()));
    let mut model = learner::load(Rc::clone(device), checkpoint)?;
    // Weighed as in training, so that the loss is the one in the log.
    let training = file.indices(Split::Train);
    let weights = config.class_weights.weights(&file.class_counts(&training), training.len());
    let bar = console.bar(posters.len() as u64, "{bar:32} {pos}/{len} posters, {eta} left");
    let indices = posters.clone().into();
    let format = config.pixels.format();
    let answers = Answers::collect(&model, file, indices, batch, &format, &weights, View::Plain, |done| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let answers = answers.expect("nothing breaks it off");
    let sights = answers.sights(&mut model, file, &posters, batch, &format, thresholds)?;
    let about = About {
        epoch: progress.epoch,
        step: progress.total_steps,
        loss: answers.loss,
        genres: genres.clone(),
        thresholds: thresholds.clone(),
        data_digest: data_digest.clone(),
    };
    Ok(KeptAnswers { about, posters, answers, sights })
}
