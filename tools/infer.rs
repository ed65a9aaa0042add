//! `onesheet infer`: the genres of posters nobody labelled.

mod answers;
mod asked;
mod pictures;

use crate::answering::answers::{Answered, Listed, ranked};
use crate::answering::asking::{Asking, BATCH, squaring};
use crate::answering::{Answering, Rule};
use crate::console::{Console, print, tell};
use crate::device::{self, Opened, described};
use crate::evaluate::open_file_or_best;
use crate::exit::BadData;
use answers::{CSV_HEAD, cells, csv_line, line, list};
use anyhow::Context;
use asked::Asked;
use clap::Args as ClapArgs;
use image::RgbImage;
use indicatif::ProgressBar;
use onesheet::data::pixels;
use onesheet::data::posters;
use onesheet::data::squaring::Squaring;
use onesheet::device::Device;
use onesheet::files::quoted;
use onesheet::pictures::heat;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::run_folder::{best_checkpoint, folder_of};
use pictures::Pictures;
use serde_json::json;
use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const EXAMPLES: &str = "Examples:
  onesheet infer --model runs/NAME/checkpoints/best.safetensors poster.jpg
  onesheet infer --model runs/NAME --thresholds tuned --calibrated --csv posters > genres.csv
  onesheet infer --model runs/NAME --explain seen --top 2 poster.jpg other.png
  find . -name '*.jpg' | onesheet infer --model runs/NAME --json - > genres.jsonl";

/// Name the genres of films from their posters.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// A checkpoint that `onesheet train` wrote, or a run, whose best one is taken
    #[arg(long, value_name = "RUN|FILE")]
    model: PathBuf,
    /// JPEG, PNG or WebP files of any size; folders, whose posters are taken, up to three folders deep; patterns such as '*.jpg' in
    /// quotes; or - for paths on standard input, one a line. What cannot be read is named, the rest is answered, and the exit code is 3
    #[arg(required = true, value_name = "POSTER")]
    posters: Vec<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide its numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionChoice,
    #[command(flatten)]
    answering: Answering,
    /// List each poster's K most probable genres only; --csv has all genres all the same
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    top: Option<u64>,
    /// Draw where on each poster the model sees a genre (Grad-CAM), as DIR/POSTER.GENRE.png for each genre that is named, or with --top for
    /// each that is listed; pictures of the same name are replaced. Of the poster as it is, also with --mirror
    #[arg(long, value_name = "DIR")]
    explain: Option<PathBuf>,
    /// Print JSON, one object a poster
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV, a row a poster: its name, the genres named, and the probability of each
    #[arg(long)]
    csv: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    fn console(&self) -> Console {
        Console { quiet: self.quiet || self.json || self.csv }
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    // Before the device: a GPU's kernels may have to be compiled first, which takes a while.
    let checkpoint = match folder_of(&args.model).is_dir() {
        true => open_file_or_best(&args.model)?,
        false if args.model.is_dir() => Checkpoint::open_model(&args.model).with_context(|| no_run(&args.model))?,
        // What is neither a file nor a run is a file that is not there.
        false => Checkpoint::open_model(&args.model)?,
    };
    let rule = args.answering.rule(checkpoint.metadata(), &args.model)?;
    match device::open(args.device, args.precision, args.console())? {
        Opened::Cpu(device, why) => infer(Rc::new(device), &why, &checkpoint, &rule, args),
        Opened::Cuda(device) => infer(Rc::new(device), "", &checkpoint, &rule, args),
    }
}

fn infer<D: Device>(device: Rc<D>, why: &str, checkpoint: &Checkpoint, rule: &Rule, args: &Args) -> anyhow::Result<()> {
    let console = args.console();
    let computed_by = described(&*device, why);
    let metadata = checkpoint.metadata();
    let mut pictures = args.explain.as_deref().map(|folder| Pictures::new(folder, &metadata.genres)).transpose()?;
    let mut asking = Asking::load(&device, checkpoint, &args.answering, rule, pictures.is_some())?;
    console.say(&computed_by);
    if let Some(told) = rule.told(&args.answering) {
        console.say(told);
    }
    if args.csv {
        print(csv_line([CSV_HEAD.map(String::from).to_vec(), metadata.genres.clone()].concat())?)?;
    }
    let squaring = squaring(metadata)?;
    let listed = Listed { top: args.top.map(|top| top.try_into().unwrap_or(usize::MAX)) };
    let asked = asked::posters(&args.posters)?;
    let bar = progress(args, asked.len());
    let mut unreadable = 0;
    for (number, some) in asked.chunks(BATCH).enumerate() {
        bar.set_position((number * BATCH) as u64);
        let mut batch: Vec<Poster<'_>> = Vec::new();
        for Asked { path, refused } in some {
            let read = refused
                .as_ref()
                .map_or_else(|| Poster::read(path, &squaring, pictures.is_some()), |why| Err(anyhow::anyhow!("{why}")));
            match read {
                Ok(poster) => batch.push(poster),
                Err(error) => {
                    let line = format!("error: {}: {error:#}", path.display());
                    bar.suspend(|| tell("error", json!({ "file": path.to_string_lossy() }), line));
                    unreadable += 1;
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        let pixels: Vec<u8> = batch.iter().flat_map(|poster| &poster.square).copied().collect();
        let probabilities = asking.probabilities(&pixels)?;
        let rows: Vec<&[f32]> = probabilities.chunks_exact(metadata.genres.len()).collect();
        let mut answers: Vec<_> = rows.iter().map(|row| ranked(&metadata.genres, &rule.thresholds, row)).collect();
        if let Some(pictures) = &mut pictures {
            let is_drawn = |_, rank: usize, answered: &Answered<'_>| listed.is_drawn(rank, answered);
            let maps = asking.heat_maps(&pixels, &answers, is_drawn)?;
            pictures.draw(&batch, maps, &mut answers)?;
        }
        for ((Poster { path, .. }, row), genres) in batch.iter().zip(rows).zip(answers) {
            let shown = listed.of(&genres);
            print(match (args.json, args.csv) {
                (true, _) => line(path, shown, &computed_by, &args.answering, rule),
                (_, true) => csv_line(cells(path, &genres, row))?,
                _ => list(path, shown),
            })?;
        }
    }
    bar.finish_and_clear();
    if let Some(pictures) = pictures {
        console.say(pictures.told());
    }
    let whose = match rule.origin {
        "tuned" => "their tuned thresholds",
        "given" => "the threshold given",
        _ => "the model's threshold",
    };
    if unreadable < asked.len() {
        console.say(format_args!("✓ marks the genres at or above {whose}"));
    }
    if unreadable > 0 {
        return Err(BadData(format!("{unreadable} of {} posters could not be read", asked.len())).into());
    }
    Ok(())
}

/// That a folder is none of a run, and which in it are.
fn no_run(folder: &Path) -> String {
    let inside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut runs: Vec<String> =
        inside.filter(|inside| best_checkpoint(inside).exists()).map(|run| quoted(&run)).collect();
    runs.sort();
    let hint = if runs.is_empty() { String::new() } else { format!("; in it are those of {}", runs.join(", ")) };
    format!("{} is not the folder of a run{hint}", folder.display())
}

/// A bar where results go elsewhere and there are many of them; else they show how far it is.
fn progress(args: &Args, posters: usize) -> ProgressBar {
    if posters <= BATCH || stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    Console { quiet: args.quiet }.bar(posters as u64, "posters {bar:30} {pos}/{len}, {per_sec}, {eta} left")
}

/// A poster that is asked about.
struct Poster<'a> {
    path: &'a Path,
    /// As the network wants it.
    square: Vec<u8>,
    /// As it is drawn, if it is.
    shown: Option<RgbImage>,
}

impl<'a> Poster<'a> {
    fn read(path: &'a Path, squaring: &Squaring, is_drawn: bool) -> anyhow::Result<Self> {
        let whole = pixels::whole(&posters::read(path)?, squaring)?;
        let shown = is_drawn.then(|| heat::shown(&whole));
        Ok(Poster { path, square: pixels::squared(&whole, squaring), shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed behind a model and a poster.
    fn words(flags: &[&str]) -> Args {
        use clap::Parser;
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            args: Args,
        }
        Words::parse_from(["infer", "--model", "m", "a.png"].iter().chain(flags)).args
    }

    #[test]
    fn json_csv_and_quiet_each_end_the_narration() {
        let quiets =
            [(&[][..], false), (&["--json"], true), (&["--csv"], true), (&["-q"], true), (&["-q", "--json"], true)];
        for (flags, quiet) in quiets {
            assert_eq!(words(flags).console().quiet, quiet, "{flags:?}");
        }
    }
}
