//! `onesheet export`: a trained model for other programs, or alone for another machine.

use crate::console::{Console, print, put_path};
use crate::evaluate::open_file_or_best;
use crate::exit::Usage;
use clap::{Args as ClapArgs, ValueEnum};
use onesheet::files::{parent_of, quoted};
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::export::{self, Input};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of the line that `--json` prints.
const SCHEMA: u32 = 1;

const EXAMPLES: &str = "Examples:
  onesheet export --model runs/NAME --to safetensors --out genres.safetensors
  onesheet export --model runs/NAME --to onnx --out genres.onnx
  onesheet export --model best.safetensors --to onnx --input numbers --calibrated
  onesheet export --model runs/NAME --to keras --out genres.h5";

/// Write a trained model for other programs, or alone for another machine.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model: a run, whose best checkpoint it is, by its name under runs/ or its path; or a checkpoint file
    #[arg(long, value_name = "RUN|FILE")]
    model: PathBuf,
    /// What it becomes
    #[arg(long, value_name = "FORMAT", value_enum)]
    to: Format,
    /// The file to write, where none is yet [default: named after the run or the model's file, in this folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// With --to onnx: what the model is given [default: bytes]
    #[arg(long, value_enum)]
    input: Option<InputChoice>,
    /// With --to onnx: divide logits by the temperature that was found on validation posters and lies in the model's file
    #[arg(long)]
    calibrated: bool,
    /// Print JSON, one object
    #[arg(long)]
    json: bool,
    /// Print errors only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The weights alone with all that `infer`, `evaluate --against` and `train --weights` need; a third of a whole checkpoint
    Safetensors,
    /// A graph of standard operators with the weights inside, for ONNX Runtime and others
    Onnx,
    /// The weights as HDF5 in the arrangement of Keras Applications' files, for Keras's own networks
    Keras,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum InputChoice {
    /// Posters as they are decoded and made square: uint8 [N, H, W, 3], red, green and blue
    Bytes,
    /// The network's own numbers: float32 [N, 3, H, W]; the model's metadata say how they are made of bytes
    Numbers,
}

impl Format {
    /// What it is called.
    fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Onnx => "onnx",
            Format::Keras => "keras",
        }
    }

    /// What the names of its files end with. Keras tells this arrangement by it.
    fn ending(self) -> &'static str {
        match self {
            Format::Keras => "h5",
            other => other.name(),
        }
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.to != Format::Onnx && (args.input.is_some() || args.calibrated) {
        let flag = if args.calibrated { "--calibrated" } else { "--input" };
        return Err(Usage(format!("{flag} goes with --to onnx; other files say nothing of how they are asked")).into());
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.model, args.to));
    check(&out)?;
    let model = open_file_or_best(&args.model)?;
    match args.to {
        Format::Safetensors => export::safetensors(&model, &out)?,
        Format::Onnx => {
            let input = match args.input {
                None | Some(InputChoice::Bytes) => Input::Bytes,
                Some(InputChoice::Numbers) => Input::Numbers,
            };
            export::onnx(&model, &out, input, args.calibrated)?;
        }
        Format::Keras => export::keras(&model, &out)?,
    }
    tell(&model, &out, args)
}

/// The name of the run or the file with the format's ending.
fn default_out(model: &Path, format: Format) -> PathBuf {
    let name = if model.is_file() { model.file_stem() } else { model.file_name() };
    let mut out = name.unwrap_or("model".as_ref()).to_owned();
    out.push(".");
    out.push(format.ending());
    out.into()
}

/// Refuses a place where something would be lost, or where there is no folder for it.
fn check(out: &Path) -> Result<(), Usage> {
    let refused = |why: &str| Err(Usage(format!("will not write {}: {why}", quoted(out))));
    match fs::symlink_metadata(out) {
        Ok(metadata) if metadata.is_dir() => refused("it is a folder; name a file in it with --out"),
        Ok(_) => refused("there is a file already; remove it, or name another one with --out"),
        Err(_) if !parent_of(out).is_dir() => refused("its folder is not there"),
        Err(_) => Ok(()),
    }
}

/// Says what was written.
fn tell(model: &Checkpoint, out: &Path, args: &Args) -> anyhow::Result<()> {
    let metadata = model.metadata();
    let (bytes, network) = (fs::metadata(out)?.len(), metadata.config.network);
    let (title, genres) = (network.title, metadata.genres.len());
    if args.json {
        let mut line = json!({
            "schema": SCHEMA, "kind": "export", "to": args.to.name(), "bytes": bytes, "network": network.name,
            "genres": metadata.genres, "image_size": metadata.config.image_size,
        });
        put_path(&mut line, "model", model.path());
        put_path(&mut line, "out", out);
        return Ok(print(format_args!("{line}\n"))?);
    }
    let megabytes = bytes as f64 / 1e6;
    Console { quiet: args.quiet }.say(format_args!("{}: {title}, {genres} genres, {megabytes:.1} MB", quoted(out)));
    Ok(())
}
