//! `onesheet infer`: the genres of posters nobody labelled.

use crate::console::{Console, print, put_path, tell};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use clap::Args as ClapArgs;
use onesheet::data::pixels;
use onesheet::data::posters;
use onesheet::data::squaring::Squaring;
use onesheet::device::{Device, Placement};
use onesheet::model::{Extents, Posters};
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::{DeviceChoice, Precision};
use onesheet::training::learner;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// Posters decoded and asked about together.
const BATCH: usize = 16;

const EXAMPLES: &str = "Examples:
  onesheet infer --model runs/NAME/checkpoints/best.safetensors poster.jpg
  onesheet infer --model best.safetensors posters/*.jpg
  onesheet infer --model best.safetensors --json poster.png";

/// Name the genres of films from their posters.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// A checkpoint that `onesheet train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// JPEG, PNG or WebP files of any size
    #[arg(required = true, value_name = "POSTER")]
    posters: Vec<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide its numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    /// Print JSON, one object a poster
    #[arg(long)]
    json: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    fn console(&self) -> Console {
        Console { quiet: self.quiet || self.json }
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    // Before the device: a GPU's kernels may have to be compiled first, which takes a while.
    let checkpoint = Checkpoint::open(&args.model)?;
    match device::open(args.device, args.precision, args.console())? {
        Opened::Cpu(device, why) => infer(Rc::new(device), &why, &checkpoint, args),
        Opened::Cuda(device) => infer(Rc::new(device), "", &checkpoint, args),
    }
}

fn infer<D: Device>(device: Rc<D>, why: &str, checkpoint: &Checkpoint, args: &Args) -> anyhow::Result<()> {
    let console = args.console();
    let model = learner::load(device, checkpoint, Extents::resnet50())?;
    let computed_by = described(&**model.device(), why);
    console.say(&computed_by);
    let metadata = checkpoint.metadata();
    let format = metadata.config.pixels.format();
    let squaring = squaring(metadata)?;
    let mut unreadable = 0;
    for paths in args.posters.chunks(BATCH) {
        let mut batch: Vec<(&Path, Vec<u8>)> = Vec::new();
        for path in paths {
            match square(path, &squaring) {
                Ok(pixels) => batch.push((path, pixels)),
                Err(error) => {
                    tell(format_args!("error: {}: {error:#}", path.display()));
                    unreadable += 1;
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        let pixels: Vec<u8> = batch.iter().flat_map(|(_, pixels)| pixels).copied().collect();
        let placements = vec![Placement::default(); batch.len()];
        let probabilities = model.predict(Posters { pixels: &pixels, placements: &placements, format: &format })?;
        for ((path, _), row) in batch.iter().zip(probabilities.chunks_exact(metadata.genres.len())) {
            print(if args.json { line(path, metadata, row, &computed_by) } else { list(path, metadata, row) })?;
        }
    }
    if unreadable > 0 {
        return Err(BadData(format!("{unreadable} of {} posters could not be read", args.posters.len())).into());
    }
    console.say("✓ marks the genres at or above the model's threshold");
    Ok(())
}

/// How the training posters were made square.
fn squaring(metadata: &Metadata) -> anyhow::Result<Squaring> {
    let made = [("resize", &metadata.resize), ("exif", &metadata.exif), ("alpha", &metadata.alpha)];
    let recorded: BTreeMap<_, _> = made.into_iter().map(|(key, name)| (key.to_owned(), name.clone())).collect();
    Ok(Squaring::from_provenance(metadata.config.image_size, &recorded)?)
}

/// The poster as the network wants it.
fn square(path: &Path, squaring: &Squaring) -> anyhow::Result<Vec<u8>> {
    Ok(pixels::square(&posters::read(path)?, squaring)?)
}

/// Genres, probabilities and whether each is named, the most probable first.
fn ranked<'a>(metadata: &'a Metadata, row: &[f32]) -> Vec<(&'a str, f32, bool)> {
    let named = |(&probability, &threshold): (&f32, &f64)| (probability, probability >= threshold as f32);
    let answers = row.iter().zip(&metadata.thresholds).map(named);
    let mut ranked: Vec<_> =
        metadata.genres.iter().zip(answers).map(|(genre, (p, named))| (genre.as_str(), p, named)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

fn list(path: &Path, metadata: &Metadata, row: &[f32]) -> String {
    let wide = metadata.genres.iter().map(|genre| genre.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", path.display());
    for (genre, probability, named) in ranked(metadata, row) {
        let bar = "▇".repeat((20.0 * probability).round() as usize);
        text += &format!("  {} {genre:wide$}  {probability:.4}  {bar}\n", if named { "✓" } else { " " });
    }
    text + "\n"
}

fn line(path: &Path, metadata: &Metadata, row: &[f32], device: &str) -> String {
    let genres: Vec<_> = ranked(metadata, row)
        .into_iter()
        .map(|(genre, probability, named)| {
            // As many digits as an f32 has.
            let probability = (f64::from(probability) * 1e7).round() / 1e7;
            json!({ "genre": genre, "probability": probability, "named": named })
        })
        .collect();
    let mut line = json!({ "schema": SCHEMA, "kind": "poster", "device": device, "genres": genres });
    put_path(&mut line, "poster", path);
    format!("{line}\n")
}
