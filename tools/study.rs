//! `onesheet study`: a list of runs, trained one after the other, and the paper's tables made of them.

mod list;
mod page;
mod posters;
mod record;
mod run;
mod tables;
mod weights;

use crate::console::{Console, print, program};
use crate::exit::{Interrupted, Usage};
use crate::signals::Signals;
use crate::train::networks;
use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum};
use list::List;
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::files::{Disk, create_folder, quoted};
use onesheet::network::Network;
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::trainer::Ending;
use run::{Run, diverged, flag};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  onesheet study --data posters.safetensors --weights-dir weights        # the paper's three experiments
  onesheet study --data posters.safetensors --runs networks --out runs/networks
  onesheet study --data posters.safetensors --data large.safetensors --runs discussion";

/// Train a list of runs, and write the paper's tables of them. Runs that are done are left alone, and one that was cut off goes on.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The posters, a file made by `onesheet prepare`. It may be given again: a run with an `image_size` takes the first file whose
    /// posters have it
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Which runs: paper (its three experiments), networks (those that it left to others), discussion (what it leaves open: image
    /// size, class weights, repeated films), recipe (our own, without each of its parts), or a TOML file like `tools/study/paper.toml`
    #[arg(long, value_name = "LIST|FILE", default_value = "paper")]
    runs: PathBuf,
    /// A folder with ImageNet weights under the names that Keras, torchvision and timm give them. Runs whose weights are not there
    /// say so in the tables
    #[arg(long, value_name = "DIR")]
    weights_dir: Option<PathBuf>,
    /// Passes of each run over the training posters; the tables show the scores after half of them and at the end
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Where the tables and a folder for each run are kept [default: runs/study-NAME, with the name of the list]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to train, for runs whose settings do not say it [default: resnet50]
    #[arg(long, value_name = "NAME", value_parser = networks())]
    network: Option<Network>,
    /// Where to compute
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// How wide the numbers are
    #[arg(long, value_enum)]
    precision: Option<PrecisionChoice>,
    /// Posters a step, for runs whose settings do not say it [default: 128]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Side of a poster in pixels, for runs whose settings do not say it [default: that of the first --data]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(32..=1024))]
    image_size: Option<u16>,
    /// End each run after so many steps, to try a study out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
    /// Print JSON, one object a row of the tables
    #[arg(long)]
    json: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    /// The flags of `train` for all runs. What a run's own settings say comes behind them and wins.
    fn words_of_train(&self) -> Vec<OsString> {
        let network = self.network.map(|network| flag("network", network.name));
        let device = self.device.and_then(|device| Some(flag("device", device.to_possible_value()?.get_name())));
        let precision = self.precision.and_then(|width| Some(flag("precision", width.to_possible_value()?.get_name())));
        let batch = self.batch.map(|batch| flag("batch", batch.to_string()));
        let image_size = self.image_size.map(|size| flag("image-size", size.to_string()));
        [network, device, precision, batch, image_size].into_iter().flatten().collect()
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    let signals = Signals::catch().context("cannot catch Ctrl-C")?;
    let List { name, scored, runs: entries } = List::read(&args.runs)?;
    let open = |path: &PathBuf| -> anyhow::Result<_> { Ok(Arc::new(TensorFile::open(path)?)) };
    let files = args.data.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("study-{name}")));
    create_folder(&Disk, &out).with_context(|| format!("cannot write {}", out.display()))?;
    let runs = entries.into_iter().map(|entry| Run::new(entry, args, &files, &out)).collect::<anyhow::Result<_>>()?;
    let mut study = Study { name, out, scored, file: Arc::clone(&files[0]), runs };
    study.write()?;
    for at in 0..study.runs.len() {
        let run = &study.runs[at];
        console.say(format_args!("\nrun {} of {}, {}: {}", at + 1, study.runs.len(), run.label, run.state()));
        if run.prepared.is_none() {
            continue;
        }
        match study.train(at, &signals, console) {
            Err(error) if diverged(&error) => {
                console.say(format_args!("stopped: {error:#}"));
                study.runs[at].obstacle = Some(format!("{error:#}"));
            }
            Err(error) => {
                // Of a full disk the first error is the one to hear of.
                let _ = study.write();
                console.say(go_on());
                return Err(error);
            }
            Ok(()) => {}
        }
        study.write()?;
    }
    if study.runs.iter().all(|run| run.prepared.is_none()) {
        let why: Vec<String> = study.runs.iter().map(|run| format!("\n  {}: {}", run.label, run.state())).collect();
        return Err(Usage(format!("none of the runs can start{}", why.concat())).into());
    }
    print(if args.json { tables::json(&study) } else { tables::markdown(&study) })?;
    console.say(format_args!(
        "\nlook at  {} in a browser, tables.md and the CSV files beside it",
        study.out.join("index.html").display()
    ));
    Ok(())
}

/// How a study goes on that was stopped: with the same words.
fn go_on() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| quoted(Path::new(&word))).collect();
    format!("\nwhat was done is saved; go on with\n  {} {}", program(), words.join(" "))
}

/// The runs of a study, and where they are kept.
struct Study {
    name: String,
    out: PathBuf,
    /// What the runs are scored on.
    scored: Vec<Split>,
    /// The posters of runs that do not ask for others.
    file: Arc<TensorFile>,
    runs: Vec<Run>,
}

impl Study {
    /// Trains the run `at` to its end, and scores it there and in the middle, unless that is done.
    fn train(&mut self, at: usize, signals: &Signals, console: Console) -> anyhow::Result<()> {
        let interrupted = || anyhow::Error::from(Interrupted(signals.caught()));
        for is_end in [false, true] {
            let run = self.runs[at].prepared.as_ref().expect("only such a run is trained");
            if run.record.end.is_some() {
                break;
            }
            let middle = run.middle();
            if !is_end && (middle.is_none() || run.record.middle.is_some()) {
                continue;
            }
            let step = if is_end { run.config.max_steps } else { middle };
            if run.train_to(step, signals, console)? == Ending::Interrupted {
                return Err(interrupted());
            }
            // By its patience, or by somebody's `train --resume`, it may be elsewhere.
            if !is_end && Some(run.steps_done()?) != middle {
                continue;
            }
            let stage = run.score(&self.scored, signals, console)?.ok_or_else(interrupted)?;
            let run = self.runs[at].prepared.as_mut().expect("it was there above");
            *(if is_end { &mut run.record.end } else { &mut run.record.middle }) = Some(stage);
            run.record.write(&run.folder)?;
            self.write()?;
        }
        Ok(())
    }

    /// Writes the tables as they are now.
    fn write(&self) -> anyhow::Result<()> {
        tables::write(self)
    }
}
