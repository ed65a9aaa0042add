//! `onesheet inspect`: what is in a file of posters, before anybody trains on it.

mod report;
mod sheet;

use crate::console::{Console, print};
use crate::exit::Usage;
use crate::train::{degrees, share};
use clap::Args as ClapArgs;
use onesheet::data::distortion::Distortion;
use onesheet::data::inspection::Inspection;
use onesheet::data::tensor_file::TensorFile;
use onesheet::files::quoted;
use sheet::Kind;
use std::path::PathBuf;
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  onesheet inspect --data posters.safetensors
  onesheet inspect --data posters.safetensors --sheet posters.html
  onesheet inspect --data posters.safetensors --sheet seen.png --augment --crop 0.3 --colour 0.3   # as training sees them";

/// Look at posters before training on them: counts, repeated films, copies of one picture, and the posters themselves.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The file that `onesheet prepare` wrote
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Draw posters with their ids and genres on a sheet, a .png or an .html file; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// How many, evenly from the whole file, or the first that training sees
    #[arg(long, value_name = "N", default_value = "40", requires = "sheet", value_parser = clap::value_parser!(u16).range(1..=2000))]
    posters: u16,
    /// Print JSON, one object a line, with every group in full
    #[arg(long)]
    json: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
    // Last, for what follows would stand under its heading in the help.
    #[command(flatten)]
    seen: SeenArgs,
}

/// The flags of `train` that change posters.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(next_help_heading = "The sheet has training posters as `train` with the same flags sees them")]
struct SeenArgs {
    /// Mirror and move them at random
    #[arg(long, requires = "sheet")]
    augment: bool,
    /// Square windows of them, whose sides are shorter by up to this share [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "sheet")]
    crop: Option<f64>,
    /// Turned by up to so many degrees either way [default: 0]
    #[arg(long, value_name = "DEGREES", value_parser = degrees, requires = "sheet")]
    rotate: Option<f64>,
    /// Brightness, contrast and saturation multiplied by up to this share more or less [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "sheet")]
    colour: Option<f64>,
    /// What the random numbers follow from [default: 0]
    #[arg(long, value_name = "SEED", requires = "sheet")]
    seed: Option<u64>,
    /// Of which epoch, from 1 on [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "sheet")]
    epoch: Option<u32>,
}

impl SeenArgs {
    fn distortion(&self) -> Distortion {
        let [crop, rotate, colour] = [self.crop, self.rotate, self.colour].map(Option::unwrap_or_default);
        Distortion { crop, rotate, colour }
    }

    /// Whether posters are to be shown as training sees them.
    fn is_asked(&self) -> bool {
        self.augment || !self.distortion().is_none() || self.seed.is_some() || self.epoch.is_some()
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet || args.json };
    // Before the work, which is lost where the sheet has no name that can be used.
    let sheet = args.sheet.as_deref().map(|path| Ok::<_, Usage>((path, Kind::of(path)?))).transpose()?;
    let file = Arc::new(TensorFile::open(&args.data)?);
    let bar = console.bar(file.len() as u64, "looking at posters {bar:30} {pos}/{len}");
    let inspection = Inspection::new(&file, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    print(if args.json { report::json(&file, &inspection) } else { report::text(&file, &inspection) })?;
    if let Some((path, kind)) = sheet {
        let shown = sheet::write(path, kind, &file, args.posters.into(), &args.seen)?;
        console.say(format_args!("\n{shown} posters are on {}", quoted(path)));
    }
    Ok(())
}
