//! `onesheet infer`: the genres of posters nobody labelled.

use crate::console::{Console, print, put_path, tell};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use clap::Args as ClapArgs;
use onesheet::data::pixels;
use onesheet::data::posters;
use onesheet::data::squaring::Squaring;
use onesheet::device::{Device, DeviceError, Placement};
use onesheet::model::Posters;
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
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
    precision: PrecisionChoice,
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
    let checkpoint = Checkpoint::open_model(&args.model)?;
    match device::open(args.device, args.precision, args.console())? {
        Opened::Cpu(device, why) => infer(Rc::new(device), &why, &checkpoint, args),
        Opened::Cuda(device) => infer(Rc::new(device), "", &checkpoint, args),
    }
}

/// Asks for the probabilities of posters.
type Answer = dyn FnMut(Posters<'_>) -> Result<Vec<f32>, DeviceError>;

fn infer<D: Device>(device: Rc<D>, why: &str, checkpoint: &Checkpoint, args: &Args) -> anyhow::Result<()> {
    let console = args.console();
    let computed_by = described(&*device, why);
    let mut answer: Box<Answer> = match device.folds() {
        true => {
            let mut predictor = learner::predictor(device, checkpoint)?;
            Box::new(move |posters| predictor.predict(posters))
        }
        false => {
            let model = learner::load(device, checkpoint)?;
            Box::new(move |posters| model.predict(posters))
        }
    };
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
        let probabilities = answer(Posters { pixels: &pixels, placements: &placements, format: &format })?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::squaring::{Alpha, Exif, Resize};
    use onesheet::training::checkpoint::Progress;
    use onesheet::training::config::RunConfig;
    use serde_json::Value;

    fn metadata() -> Metadata {
        Metadata {
            genres: ["Western", "Drama", "Film noir", "War"].map(String::from).to_vec(),
            thresholds: vec![0.5, f64::from(0.3f32), f64::from(0.3f32.next_up()), 0.9],
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "drop".into(),
            data_digest: String::new(),
            progress: Progress::default(),
            config: RunConfig { image_size: 40, ..RunConfig::default() },
        }
    }

    /// The second genre has its threshold exactly, and is named; the third is just below its own. Of equals, the first in the
    /// model's order comes first.
    #[test]
    fn genres_are_ranked_and_named_from_their_thresholds_on() {
        let metadata = metadata();
        let ranked = ranked(&metadata, &[0.125, 0.3, 0.3, 0.95]);
        assert_eq!(
            ranked,
            [("War", 0.95, true), ("Drama", 0.3, true), ("Film noir", 0.3, false), ("Western", 0.125, false)]
        );
    }

    #[test]
    fn the_list_has_a_row_a_genre_under_the_posters_name() {
        let expected = "\
posters/a b.png
  ✓ War        0.9500  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇
  ✓ Drama      0.3000  ▇▇▇▇▇▇
    Film noir  0.3000  ▇▇▇▇▇▇
    Western    0.0200\x20\x20

";
        assert_eq!(list(Path::new("posters/a b.png"), &metadata(), &[0.02, 0.3, 0.3, 0.95]), expected);
    }

    #[test]
    fn the_line_has_the_same_as_json() {
        let line = line(Path::new("a.png"), &metadata(), &[0.123_456_79, 0.3, 0.3, 0.95], "a device");
        assert_eq!(line.matches('\n').count(), 1);
        let expected = json!({
            "schema": 1, "kind": "poster", "device": "a device", "poster": "a.png",
            "genres": [
                { "genre": "War", "probability": 0.95, "named": true },
                { "genre": "Drama", "probability": 0.3, "named": true },
                { "genre": "Film noir", "probability": 0.3, "named": false },
                { "genre": "Western", "probability": 0.1234568, "named": false },
            ],
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn posters_become_squares_as_the_models_did() {
        let area = Squaring { size: 40, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop };
        assert_eq!(squaring(&metadata()).unwrap(), area);
        let nearest = Squaring { resize: Resize::Nearest, ..area };
        assert_eq!(squaring(&Metadata { resize: "nearest".into(), ..metadata() }).unwrap(), nearest);
        let as_stored = Squaring { exif: Exif::Ignore, ..area };
        assert_eq!(squaring(&Metadata { exif: "ignore".into(), ..metadata() }).unwrap(), as_stored);
        let on_white = Squaring { alpha: Alpha::White, ..area };
        assert_eq!(squaring(&Metadata { alpha: "white".into(), ..metadata() }).unwrap(), on_white);
        assert!(squaring(&Metadata { alpha: "black".into(), ..metadata() }).is_err());
    }

    #[test]
    fn json_and_quiet_each_end_the_narration() {
        use clap::Parser;
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            args: Args,
        }
        for (flags, quiet) in
            [(&[][..], false), (&["--json"][..], true), (&["-q"][..], true), (&["-q", "--json"][..], true)]
        {
            let words = ["infer", "--model", "m", "a.png"].into_iter().chain(flags.iter().copied());
            assert_eq!(Words::parse_from(words).args.console().quiet, quiet, "{flags:?}");
        }
    }
}
