//! `onesheet evaluate`: a run's scores on posters held back, genre by genre, and how far each may be trusted.

mod json;
mod report;
mod results;
mod rows;
mod subject;

use crate::answering::{Answering, Rule};
use crate::console::{Console, print};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use crate::train::open_posters;
use clap::{Args as ClapArgs, ValueEnum};
use onesheet::data::Split;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::device::Device;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::evaluation::{Answers, films};
use onesheet::training::learner;
use onesheet::training::run_folder::{RunFolder, folder_of, synthetic_posters};
use onesheet::training::tuning::{self, Tuned};
use results::{Asked, Results};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use subject::{agree, comparable, made_otherwise};
pub use subject::{checkpoint_of, open_file_or_best, without_checkpoint};

const EXAMPLES: &str = "Examples:
  onesheet evaluate --run runs/NAME
  onesheet evaluate --run runs/NAME --against runs/OTHER --thresholds tuned
  onesheet evaluate --run runs/NAME --data other.safetensors --split all --json";

/// Score a run's best checkpoint on its test posters.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The run: a name under runs/, or a path
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Which of its checkpoints
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: Which,
    /// Other posters than the run's own
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Which posters
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Another run, whose best checkpoint answers about the same posters, or a checkpoint file
    #[arg(long, value_name = "RUN|FILE")]
    against: Option<PathBuf>,
    /// Find thresholds and a temperature on the validation posters, put them into the checkpoint, and score these posters. `train` has
    /// done so with the run's own validation posters
    #[arg(long, conflicts_with_all = ["split", "against", "mirror"])]
    tune: bool,
    #[command(flatten)]
    answering: Answering,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide its numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionChoice,
    /// Posters at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV, one number a row
    #[arg(long)]
    csv: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    /// With the best validation mAP
    Best,
    /// The latest
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Train,
    Validation,
    Test,
    All,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Train => Split::Train.name(),
            Part::Validation => Split::Validation.name(),
            Part::Test => Split::Test.name(),
            Part::All => "all",
        }
    }

    /// The posters meant, in file order.
    fn indices(self, file: &TensorFile) -> Vec<u32> {
        match self {
            Part::Train => file.indices(Split::Train),
            Part::Validation => file.indices(Split::Validation),
            Part::Test => file.indices(Split::Test),
            Part::All => (0..file.len() as u32).collect(),
        }
    }
}

impl Args {
    fn console(&self) -> Console {
        Console { quiet: self.quiet }
    }

    /// The posters that are scored.
    fn part(&self) -> Part {
        if self.tune { Part::Validation } else { self.split }
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match device::open(args.device, args.precision, args.console())? {
        Opened::Cpu(device, why) => evaluate(&Rc::new(device), &why, args),
        Opened::Cuda(device) => evaluate(&Rc::new(device), "", args),
    }
}

fn evaluate<D: Device>(device: &Rc<D>, why: &str, args: &Args) -> anyhow::Result<()> {
    let console = args.console();
    let run = folder_of(&args.run);
    let path = checkpoint_of(&run, args.checkpoint);
    // Held until the end, so that no trainer replaces the checkpoint meanwhile, nor is its own replaced.
    let is_held = args.tune && path.exists();
    let _held = is_held.then(|| RunFolder::hold(&run)).transpose().map_err(TrainingError::from)?;
    // What is to be written again is verified to the last byte.
    let opened = if args.tune { Checkpoint::open(&path) } else { Checkpoint::open_model(&path) };
    let checkpoint = opened.map_err(|error| without_checkpoint(error, args.checkpoint, &run))?;
    let mut metadata = checkpoint.metadata().clone();
    let data = args.data.clone().or(metadata.config.data.clone()).unwrap_or_else(|| synthetic_posters(&run));
    let file = Arc::new(match args.data {
        Some(_) => TensorFile::open(&data)?,
        None => open_posters(&data, Access::default())?,
    });
    let other = args.against.as_deref().map(open_file_or_best).transpose()?;
    let mut other_rule = None;
    if let Some(other) = &other {
        comparable(&checkpoint, other)?;
        other_rule = Some(args.answering.rule(other.metadata(), other.path())?);
    }
    for checkpoint in [Some(&checkpoint), other.as_ref()].into_iter().flatten() {
        agree(checkpoint.metadata(), &file)?;
        if let Some(note) = made_otherwise(checkpoint.metadata(), &file) {
            console.say(note);
        }
    }
    // Those of a model that is yet to be tuned are looked at below.
    let rule = (!args.tune).then(|| args.answering.rule(&metadata, &path)).transpose()?;
    let part = args.part();
    let indices: Arc<[u32]> = part.indices(&file).into();
    if indices.is_empty() {
        return Err(match part {
            Part::Validation if args.tune => TrainingError::EmptySplit { path: data, split: Split::Validation }.into(),
            _ => BadData(format!("{} has no {} posters; choose another --split", data.display(), part.name())).into(),
        });
    }

    let computed_by = described(&**device, why);
    console.say(&computed_by);
    let answers = ask(device, &checkpoint, &file, &indices, args)?;
    let rule = match rule {
        Some(rule) => rule,
        None => {
            metadata = tuning::store(&checkpoint, Tuned::new(&answers, &metadata.thresholds, file.digest()))?;
            console.say(format_args!("thresholds and temperature are in {}", path.display()));
            args.answering.rule(&metadata, &path)?
        }
    };
    let against = match (&other, other_rule) {
        (Some(other), Some(rule)) => {
            let answers = ask(device, other, &file, &indices, args)?.at_temperature(&**device, rule.temperature)?;
            Some((other.path().to_owned(), answers, rule.thresholds))
        }
        _ => None,
    };
    let told = [rule.told(&args.answering), told_of(&rule)];
    let posters = indices.len();
    console.say(format_args!(
        "{} after epoch {}: {posters} posters ({}) of {}{}\n",
        path.display(),
        metadata.progress.epoch,
        part.name(),
        data.display(),
        told.into_iter().flatten().map(|told| "; ".to_owned() + &told).collect::<String>()
    ));
    let is_tuned_on =
        |tuned: &Tuned| matches!(part, Part::Validation | Part::All) && tuned.data_digest == file.digest();
    let asked =
        Asked { metadata: &metadata, answering: args.answering, rule, device: computed_by, is_tuned_on: &is_tuned_on };
    let results = Results::new(asked, &**device, &answers, films(&file, &indices), against)?;
    print(match (args.json, args.csv) {
        (true, _) => json::lines(&results),
        (_, true) => rows::csv(&results)?,
        _ => report::text(&results),
    })?;
    Ok(())
}

/// Which thresholds decide, where they are not the model's own.
fn told_of(rule: &Rule) -> Option<String> {
    (rule.origin != "model").then(|| format!("decided at the thresholds {}", rule.origin))
}

/// What the model in `checkpoint` says of posters, not yet divided by a temperature.
fn ask<D: Device>(
    device: &Rc<D>,
    checkpoint: &Checkpoint,
    file: &Arc<TensorFile>,
    indices: &Arc<[u32]>,
    args: &Args,
) -> anyhow::Result<Answers> {
    let metadata = checkpoint.metadata();
    let model = learner::load(Rc::clone(device), checkpoint)?;
    let bar = args.console().bar(indices.len() as u64, "{bar:32} {pos}/{len} posters, {eta} left");
    let weights = vec![1.0; metadata.genres.len()];
    let (format, batch, view) = (metadata.config.pixels.format(), args.batch.into(), args.answering.view());
    let answers = Answers::collect(&model, file, Arc::clone(indices), batch, &format, &weights, view, |done| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    Ok(answers.expect("nothing breaks it off"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::tensor_file::{Description, TensorFileWriter};
    use tempfile::TempDir;

    #[test]
    fn each_split_has_its_posters_and_its_name() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("posters.safetensors");
        let genres = ["War", "Drama"].map(String::from).to_vec();
        let description = Description { size: 8, genres, capacity: 7, provenance: Default::default() };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for (number, split) in [2, 0, 1, 0, 2, 2, 0].into_iter().enumerate() {
            writer.push(&number.to_string(), &[number as u8; 192], &[0, 1], Split::ALL[split]).unwrap();
        }
        writer.finish().unwrap();
        let file = TensorFile::open(&path).unwrap();
        for (part, name, indices) in [
            (Part::Train, "train", vec![1, 3, 6]),
            (Part::Validation, "validation", vec![2]),
            (Part::Test, "test", vec![0, 4, 5]),
            (Part::All, "all", vec![0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!((part.name(), part.indices(&file)), (name, indices));
        }
    }
}
