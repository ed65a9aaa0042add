//! `onesheet infer`: the genres of posters nobody labelled.

use crate::answering::{Answering, Rule};
use crate::console::{Console, print, put_path, tell};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use clap::Args as ClapArgs;
use onesheet::data::pixels;
use onesheet::data::posters;
use onesheet::data::squaring::Squaring;
use onesheet::device::{Device, DeviceError, Placement};
use onesheet::model::{Posters, mirrored_mean, on_host, probabilities};
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::evaluation::{View, divided};
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
  onesheet infer --model best.safetensors --thresholds tuned --calibrated --csv posters/*.jpg > genres.csv";

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
    #[command(flatten)]
    answering: Answering,
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
    let checkpoint = Checkpoint::open_model(&args.model)?;
    let rule = args.answering.rule(checkpoint.metadata(), &args.model)?;
    match device::open(args.device, args.precision, args.console())? {
        Opened::Cpu(device, why) => infer(Rc::new(device), &why, &checkpoint, &rule, args),
        Opened::Cuda(device) => infer(Rc::new(device), "", &checkpoint, &rule, args),
    }
}

/// Asks for the logits of posters.
type Answer = dyn FnMut(Posters<'_>) -> Result<Vec<f32>, DeviceError>;

fn infer<D: Device>(device: Rc<D>, why: &str, checkpoint: &Checkpoint, rule: &Rule, args: &Args) -> anyhow::Result<()> {
    let console = args.console();
    let computed_by = described(&*device, why);
    let owner = Rc::clone(&device);
    let mut answer: Box<Answer> = match device.folds() {
        true => {
            let mut predictor = learner::predictor(Rc::clone(&device), checkpoint)?;
            Box::new(move |posters| on_host(&*owner, &predictor.logits(posters)?))
        }
        false => {
            let model = learner::load(Rc::clone(&device), checkpoint)?;
            Box::new(move |posters| on_host(&*owner, &model.logits(posters)?))
        }
    };
    console.say(&computed_by);
    if let Some(told) = rule.told(&args.answering) {
        console.say(told);
    }
    let metadata = checkpoint.metadata();
    if args.csv {
        print(csv_line([CSV_HEAD.map(String::from).to_vec(), metadata.genres.clone()].concat())?)?;
    }
    let format = metadata.config.pixels.format();
    let squaring = squaring(metadata)?;
    let mut unreadable = 0;
    for paths in args.posters.chunks(BATCH) {
        let mut batch: Vec<(&Path, Vec<u8>)> = Vec::new();
        for path in paths {
            match square(path, &squaring) {
                Ok(pixels) => batch.push((path, pixels)),
                Err(error) => {
                    let line = format!("error: {}: {error:#}", path.display());
                    tell("error", json!({ "file": path.to_string_lossy() }), line);
                    unreadable += 1;
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        let pixels: Vec<u8> = batch.iter().flat_map(|(_, pixels)| pixels).copied().collect();
        let placements = vec![Placement::default(); batch.len()];
        let posters = Posters { pixels: &pixels, placements: &placements, format: &format };
        let logits = match args.answering.view() {
            View::Plain => answer(posters)?,
            View::Mirrored => mirrored_mean(posters, &mut answer)?,
        };
        let probabilities = probabilities(&*device, &divided(&logits, rule.temperature))?;
        for ((path, _), row) in batch.iter().zip(probabilities.chunks_exact(metadata.genres.len())) {
            let genres = ranked(&metadata.genres, &rule.thresholds, row);
            print(match (args.json, args.csv) {
                (true, _) => line(path, &genres, &computed_by, &args.answering, rule),
                (_, true) => csv_line(cells(path, &genres, row))?,
                _ => list(path, &genres),
            })?;
        }
    }
    if unreadable > 0 {
        return Err(BadData(format!("{unreadable} of {} posters could not be read", args.posters.len())).into());
    }
    let whose = match rule.origin {
        "tuned" => "their tuned thresholds",
        "given" => "the threshold given",
        _ => "the model's threshold",
    };
    console.say(format_args!("✓ marks the genres at or above {whose}"));
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

/// What is said of a genre.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answered<'a> {
    genre: &'a str,
    probability: f32,
    threshold: f64,
}

impl Answered<'_> {
    fn is_named(&self) -> bool {
        self.probability >= self.threshold as f32
    }
}

/// The genres of a poster, the most probable first.
fn ranked<'a>(genres: &'a [String], thresholds: &[f64], row: &[f32]) -> Vec<Answered<'a>> {
    let answers = genres.iter().zip(row).zip(thresholds);
    let answered =
        |((genre, &probability), &threshold): ((&'a String, _), _)| Answered { genre, probability, threshold };
    let mut ranked: Vec<Answered<'a>> = answers.map(answered).collect();
    ranked.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    ranked
}

fn list(path: &Path, genres: &[Answered<'_>]) -> String {
    let wide = genres.iter().map(|answered| answered.genre.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", path.display());
    for answered in genres {
        let &Answered { genre, probability, .. } = answered;
        let bar = "▇".repeat((20.0 * probability).round() as usize);
        let mark = if answered.is_named() { "✓" } else { " " };
        text += &format!("  {mark} {genre:wide$}  {probability:.4}  {bar}\n");
    }
    text + "\n"
}

/// A probability with as many digits as an f32 has.
fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 1e7).round() / 1e7
}

fn line(path: &Path, genres: &[Answered<'_>], device: &str, answering: &Answering, rule: &Rule) -> String {
    let genres: Vec<_> = genres
        .iter()
        .map(|answered| {
            json!({
                "genre": answered.genre, "probability": rounded(answered.probability), "threshold": answered.threshold,
                "named": answered.is_named(),
            })
        })
        .collect();
    let mut line = json!({
        "schema": SCHEMA, "kind": "poster", "device": device, "thresholds": rule.origin, "calibrated": answering.calibrated,
        "temperature": rule.temperature, "mirror": answering.mirror, "genres": genres,
    });
    put_path(&mut line, "poster", path);
    format!("{line}\n")
}

/// The first columns of `--csv`; behind them each genre in the model's order.
const CSV_HEAD: [&str; 2] = ["poster", "genres"];

/// A row of `--csv`: the genres that are named lie in one cell, the most probable first, as in Kaggle's tables.
fn cells(path: &Path, genres: &[Answered<'_>], row: &[f32]) -> Vec<String> {
    let named: Vec<&str> =
        genres.iter().filter(|answered| answered.is_named()).map(|answered| answered.genre).collect();
    let probabilities = row.iter().map(|&probability| rounded(probability).to_string());
    [path.display().to_string(), named.join("|")].into_iter().chain(probabilities).collect()
}

/// A line of CSV, its cells quoted where they must be.
fn csv_line(cells: Vec<String>) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells)?;
    Ok(String::from_utf8(writer.into_inner()?)?)
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
            tuned: None,
            progress: Progress::default(),
            config: RunConfig { image_size: 40, ..RunConfig::default() },
        }
    }

    /// The second genre has its threshold exactly, and is named; the third is just below its own. Of equals, the first in the
    /// model's order comes first.
    #[test]
    fn genres_are_ranked_and_named_from_their_thresholds_on() {
        let metadata = metadata();
        let ranked = ranked(&metadata.genres, &metadata.thresholds, &[0.125, 0.3, 0.3, 0.95]);
        let found: Vec<_> =
            ranked.iter().map(|answered| (answered.genre, answered.probability, answered.is_named())).collect();
        assert_eq!(
            found,
            [("War", 0.95, true), ("Drama", 0.3, true), ("Film noir", 0.3, false), ("Western", 0.125, false)]
        );
    }

    #[test]
    fn the_row_has_what_is_named_in_one_cell_and_every_probability_in_the_models_order() {
        let metadata = metadata();
        let row = [0.123_456_79, 0.3, 0.3, 0.95];
        let genres = ranked(&metadata.genres, &metadata.thresholds, &row);
        let line = csv_line(cells(Path::new("a, \"b\".png"), &genres, &row)).unwrap();
        assert_eq!(line, "\"a, \"\"b\"\".png\",War|Drama,0.1234568,0.3,0.3,0.95\n");
        let none = ranked(&metadata.genres, &metadata.thresholds, &[0.0; 4]);
        assert_eq!(csv_line(cells(Path::new("a.png"), &none, &[0.0; 4])).unwrap(), "a.png,,0,0,0,0\n");
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
        let metadata = metadata();
        let genres = ranked(&metadata.genres, &metadata.thresholds, &[0.02, 0.3, 0.3, 0.95]);
        assert_eq!(list(Path::new("posters/a b.png"), &genres), expected);
    }

    #[test]
    fn the_line_has_the_same_as_json() {
        let metadata = metadata();
        let thresholds = vec![0.5, 0.25, 0.375, 0.9];
        let genres = ranked(&metadata.genres, &thresholds, &[0.123_456_79, 0.3, 0.3, 0.95]);
        let answering = words(&["--calibrated"]).answering;
        let rule = Rule { thresholds: thresholds.clone(), origin: "tuned", temperature: 1.25 };
        let line = line(Path::new("a.png"), &genres, "a device", &answering, &rule);
        assert_eq!(line.matches('\n').count(), 1);
        let expected = json!({
            "schema": 1, "kind": "poster", "device": "a device", "poster": "a.png", "thresholds": "tuned", "calibrated": true,
            "temperature": 1.25, "mirror": false,
            "genres": [
                { "genre": "War", "probability": 0.95, "threshold": 0.9, "named": true },
                { "genre": "Drama", "probability": 0.3, "threshold": 0.25, "named": true },
                { "genre": "Film noir", "probability": 0.3, "threshold": 0.375, "named": false },
                { "genre": "Western", "probability": 0.1234568, "threshold": 0.5, "named": false },
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
