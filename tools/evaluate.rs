//! `onesheet evaluate`: a run's scores on posters held back, genre by genre.

use crate::console::{Console, print};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use clap::{Args as ClapArgs, ValueEnum};
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::metrics::{Averages, Scores};
use onesheet::model::Extents;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError, Metadata};
use onesheet::training::config::{DeviceChoice, Precision};
use onesheet::training::evaluation::Answers;
use onesheet::training::learner;
use onesheet::training::run_folder::{best_checkpoint, folder_of, last_checkpoint, synthetic_posters};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

const EXAMPLES: &str = "Examples:
  onesheet evaluate --run runs/NAME
  onesheet evaluate --run runs/NAME --split validation --checkpoint last
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
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide its numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    /// Posters at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// With the best validation mAP
    Best,
    /// The latest
    Last,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
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

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match device::open(args.device, args.precision, Console { quiet: args.quiet })? {
        Opened::Cpu(device, why) => evaluate(Rc::new(device), &why, args),
        Opened::Cuda(device) => evaluate(Rc::new(device), "", args),
    }
}

fn evaluate<D: Device>(device: Rc<D>, why: &str, args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    let run = folder_of(&args.run);
    let path = match args.checkpoint {
        Which::Best => best_checkpoint(&run),
        Which::Last => last_checkpoint(&run),
    };
    let checkpoint = Checkpoint::open(&path).map_err(|error| without_checkpoint(error, args.checkpoint, &run))?;
    let metadata = checkpoint.metadata();
    let data = args.data.clone().or(metadata.config.data.clone()).unwrap_or_else(|| synthetic_posters(&run));
    let file = Arc::new(TensorFile::open(&data)?);
    agree(metadata, &file)?;
    let indices = args.split.indices(&file);
    if indices.is_empty() {
        let (data, split) = (data.display(), args.split.name());
        return Err(BadData(format!("{data} has no {split} posters; choose another --split")).into());
    }

    let model = learner::load(device, &checkpoint, Extents::resnet50())?;
    console.say(described(&**model.device(), why));
    let posters = indices.len();
    let bar = console.bar(posters as u64, "{bar:32} {pos}/{len} posters, {eta} left");
    let weights = vec![1.0; metadata.genres.len()];
    let (format, batch) = (metadata.config.pixels.format(), args.batch.into());
    let answers = Answers::collect(&model, &file, indices.into(), batch, &format, &weights, |done| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let answers = answers.expect("nothing breaks it off");
    let scores = answers.scores(&metadata.thresholds);

    console.say(format_args!(
        "{} after epoch {}: {posters} posters ({}) of {}\n",
        path.display(),
        metadata.progress.epoch,
        args.split.name(),
        data.display()
    ));
    let computed_by = described(&**model.device(), why);
    print(if args.json {
        lines(metadata, &scores, answers.loss, &computed_by)
    } else {
        table(metadata, &scores, answers.loss)
    })?;
    Ok(())
}

/// The error of opening a run's checkpoint; where there is none, with what is missing.
fn without_checkpoint(error: CheckpointError, which: Which, run: &Path) -> anyhow::Error {
    let is_absent =
        matches!(&error, CheckpointError::Open { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound);
    let error = anyhow::Error::from(error);
    match which {
        _ if !is_absent => error,
        Which::Best if last_checkpoint(run).exists() => {
            error.context("the run has not ended an epoch; go on with it, or add --checkpoint last")
        }
        _ => error.context(format!("{} holds no trained run", run.display())),
    }
}

/// Refuses posters that the model was not made for.
fn agree(metadata: &Metadata, file: &TensorFile) -> Result<(), anyhow::Error> {
    let asked = metadata.config.image_size;
    if file.size() != asked {
        return Err(TrainingError::ImageSize { path: file.path().into(), found: file.size(), asked }.into());
    }
    if file.genres() != metadata.genres {
        return Err(BadData(format!(
            "{} has the genres {}, the model {}; prepare the posters with --genres as the model's",
            file.path().display(),
            file.genres().join(", "),
            metadata.genres.join(", ")
        ))
        .into());
    }
    Ok(())
}

/// A row a genre, then the averages, then what concerns all decisions together.
fn table(metadata: &Metadata, scores: &Scores, loss: f64) -> String {
    let wide = metadata.genres.iter().map(|genre| genre.chars().count()).max().unwrap_or(0).max("weighted".len());
    let head = format!(
        "{:wide$}  {:>7}  {:>9}  {:>6}  {:>6}  {:>6}  {:>7}  {:>7}  {:>6}\n",
        "genre", "support", "precision", "recall", "F1", "AP", "ROC-AUC", "coin F1", "yes F1"
    );
    let rule = "─".repeat(head.chars().count() - 1) + "\n";
    let mut text = head + &rule;
    let number = |value: f64| format!("{value:.4}");
    let ranking = |value: Option<f64>| value.map_or("–".into(), number);
    let row = |name: &str, support: String, [precision, recall, f1, ap, auc, coin, yes]: [String; 7]| {
        format!(
            "{name:wide$}  {support:>7}  {precision:>9}  {recall:>6}  {f1:>6}  {ap:>6}  {auc:>7}  {coin:>7}  {yes:>6}\n"
        )
    };
    for (name, genre) in metadata.genres.iter().zip(&scores.genres) {
        let counts = genre.counts;
        let [ap, auc] = [genre.average_precision, genre.roc_auc].map(ranking);
        let [precision, recall, f1] = [counts.precision(), counts.recall(), counts.f1()].map(number);
        let [coin, yes] = [counts.coin_f1(), counts.always_yes_f1()].map(number);
        text += &row(name, counts.support().to_string(), [precision, recall, f1, ap, auc, coin, yes]);
    }
    text += &rule;
    for (name, averages) in [("weighted", &scores.weighted), ("macro", &scores.unweighted)] {
        let Averages { precision, recall, f1, average_precision, roc_auc, coin_f1, always_yes_f1 } = *averages;
        let [precision, recall, f1, coin, yes] = [precision, recall, f1, coin_f1, always_yes_f1].map(number);
        let [ap, auc] = [average_precision, roc_auc].map(ranking);
        text += &row(name, String::new(), [precision, recall, f1, ap, auc, coin, yes]);
    }
    let percent = |value: f64| 100.0 * value;
    text += &format!("\nposters          {}\n", scores.posters);
    text += &format!("threshold        {}\n", thresholds(&metadata.thresholds));
    text += &format!("loss             {loss:.4}, all genres weighing alike\n");
    text += &format!("mAP              {}\n", left_out(scores, ranking(scores.unweighted.average_precision)));
    text += &format!("hamming loss     {:.4}\n", scores.hamming_loss);
    text += &format!("exact match      {:.2} %\n", percent(scores.exact_match));
    text += &format!("binary accuracy  {:.2} %\n", percent(scores.binary_accuracy()));
    let baseline = scores.weighted.baseline_f1();
    let verdict = if scores.weighted.f1 > baseline { "above" } else { "not above" };
    text += &format!("\nweighted F1 {:.4} is {verdict} the better baseline, {baseline:.4}\n", scores.weighted.f1);
    text
}

/// The mAP, and how many genres it says nothing of.
fn left_out(scores: &Scores, map: String) -> String {
    match scores.genres_without_positives() {
        0 => map,
        1 => format!("{map}; 1 genre has no positives and is left out"),
        absent => format!("{map}; {absent} genres have no positives and are left out"),
    }
}

/// One number where all genres share it.
fn thresholds(thresholds: &[f64]) -> String {
    let mut different = thresholds.to_vec();
    different.dedup();
    different.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
}

/// The same as JSON, one object a line.
fn lines(metadata: &Metadata, scores: &Scores, loss: f64, device: &str) -> String {
    let mut lines = Vec::new();
    for ((name, genre), threshold) in metadata.genres.iter().zip(&scores.genres).zip(&metadata.thresholds) {
        let counts = genre.counts;
        lines.push(json!({
            "schema": SCHEMA, "kind": "genre", "genre": name, "threshold": threshold, "support": counts.support(),
            "counts": counts, "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
            "average_precision": genre.average_precision, "roc_auc": genre.roc_auc,
            "coin_f1": counts.coin_f1(), "always_yes_f1": counts.always_yes_f1(),
        }));
    }
    lines.push(json!({ "schema": SCHEMA, "kind": "average", "over": "weighted", "scores": scores.weighted }));
    lines.push(json!({ "schema": SCHEMA, "kind": "average", "over": "macro", "scores": scores.unweighted }));
    lines.push(json!({
        "schema": SCHEMA, "kind": "all", "device": device, "posters": scores.posters, "loss": loss,
        "map": scores.unweighted.average_precision, "genres_without_positives": scores.genres_without_positives(),
        "hamming_loss": scores.hamming_loss,
        "exact_match": scores.exact_match, "binary_accuracy": scores.binary_accuracy(),
    }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}
