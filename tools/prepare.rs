//! `onesheet prepare`: a label table and a folder of posters become one tensor file.

mod progress;
mod report;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum};
#[cfg(feature = "fetch")]
use onesheet::data::download::DownloadError;
use onesheet::data::films::FilmId;
use onesheet::data::genres::{GenreChoice, Rest};
use onesheet::data::labels::Options;
use onesheet::data::outputs::Outputs;
use onesheet::data::posters::{Links, PosterFolder};
use onesheet::data::prepare::{self, Plan, PrepareError, Shape, Stage};
use onesheet::data::skipped::{self, SkippedRow};
use onesheet::data::split::SplitRule;
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::files::{self, quoted};

use self::progress::Progress;
use self::report::{Counted, notes};
use self::table::TableArgs;
use crate::console::{Console, program};
use crate::exit::{Interrupted, Usage};
use crate::signals::Signals;

const EXAMPLES: &str = "Examples:
  onesheet prepare --labels MovieGenre.csv --download posters --out posters.safetensors
  onesheet prepare --labels labels.csv --posters Images --out posters.safetensors
  onesheet prepare --labels labels.csv --labels-only --split paper";

/// Turn a label table and a folder of posters into one file to train on.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The label table: ids and genres, as Kaggle, IMDb, TMDb and the paper have them; or a folder with a folder of posters
    /// for each genre.
    #[arg(long, value_name = "PATH")]
    labels: PathBuf,
    #[command(flatten)]
    table: TableArgs,
    /// The folder with the posters: {id}.jpg, .jpeg, .png or .webp, in any spelling of the id. Where --labels is a folder, that
    /// one unless told otherwise.
    #[arg(long, value_name = "DIR")]
    posters: Option<PathBuf>,
    /// Follow links out of that folder, and links to folders.
    #[arg(long)]
    follow_links: bool,
    #[cfg(feature = "fetch")]
    #[command(flatten)]
    fetch: FetchArgs,
    /// The tensor file to write; the rows left out are listed beside it, in posters.skipped.csv for posters.safetensors.
    #[arg(long, value_name = "FILE", default_value = "posters.safetensors")]
    out: PathBuf,
    /// Count genres and splits, and stop: needs no posters, writes nothing.
    #[arg(long, conflicts_with_all = SOURCES)]
    labels_only: bool,
    /// The genres that become classes: `top:6`, or names, `Action,Comedy,Drama`. All others are Other. [default: top:6, or all
    /// genres of a table that has no more]
    #[arg(long, value_name = "CHOICE", conflicts_with = "min_per_genre")]
    genres: Option<GenreChoice>,
    /// Make classes of all genres with so many films.
    #[arg(long, value_name = "N")]
    min_per_genre: Option<usize>,
    /// Make no class of the others: films of none of the chosen genres stay, without a label.
    #[arg(long)]
    no_other: bool,
    /// Who trains and who is tested: by a hash of the film's id, or as the paper did by its row.
    #[arg(long, value_enum, default_value = "id")]
    split: SplitName,
    /// Draws the validation rows of `--split paper`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The side of the square that posters become, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 150, value_parser = clap::value_parser!(u16).range(8..=1024))]
    image_size: u16,
    /// How: averaging over areas, or picking the nearest pixel as the paper's Keras did.
    #[arg(long, value_name = "area|nearest", default_value = "area")]
    resize: Resize,
    /// Turn posters as their EXIF data say, or leave them as they are stored, as the paper's Keras did.
    #[arg(long, value_name = "apply|ignore", default_value = "apply")]
    exif: Exif,
    /// Drop transparency, as the paper's Keras did, or lay it over white.
    #[arg(long, value_name = "drop|white", default_value = "drop")]
    alpha: Alpha,
    /// End with exit code 3 if any row was skipped.
    #[arg(long)]
    strict: bool,
    /// Print the counts as JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Say nothing but the results and errors.
    #[arg(short, long)]
    quiet: bool,
}

/// What makes no sense beside `--labels-only`.
#[cfg(feature = "fetch")]
const SOURCES: [&str; 2] = ["posters", "download"];
#[cfg(not(feature = "fetch"))]
const SOURCES: [&str; 1] = ["posters"];

/// Where posters come from when they are not on the disk.
#[cfg(feature = "fetch")]
#[derive(Debug, ClapArgs)]
struct FetchArgs {
    /// Fetch the posters at the table's addresses into this folder, except those already there, and read them from it.
    #[arg(long, value_name = "DIR", conflicts_with = "posters")]
    download: Option<PathBuf>,
    /// How many posters to fetch at the same time.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "download", value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitName {
    /// A tenth test and a tenth of the rest validation, by a hash of the id: a film stays where it is when the data grow.
    Id,
    /// The table's last tenth test, a tenth of the rest validation, repeated rows kept.
    Paper,
}

/// Runs the tool.
pub fn run(args: Args) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    let choice = args.min_per_genre.map(GenreChoice::AtLeast).or(args.genres.clone()).unwrap_or(GenreChoice::Usual);
    let split = match args.split {
        SplitName::Id => SplitRule::ById,
        SplitName::Paper => SplitRule::Paper { seed: args.seed },
    };
    let posters_at = posters_at(&args)?;
    let links = if args.follow_links { Links::All } else { Links::Inside };
    let options = args.table.options(&args.labels, posters_at, links)?;
    let rest = if args.no_other { Rest::Unlabelled } else { Rest::Other };
    let plan = Plan::read(&args.labels, &options, &choice, rest, split)?;
    let what = if matches!(split, SplitRule::ById) { "films" } else { "rows" };
    console.say(format_args!("{}: {}, {} {what}", args.labels.display(), plan.dialect, plan.films.len()));
    for warning in &plan.warnings {
        console.say(format_args!("warning: {warning}"));
    }
    if let Some(line) = unlabelled(&plan, what) {
        console.say(line);
    }
    if args.labels_only {
        let counted =
            Counted { what, counts: plan.counts(), skipped: &plan.skipped, warnings: &plan.warnings, file: None };
        let printed = counted.print(plan.classes.names(), args.json);
        let paper = if matches!(args.split, SplitName::Paper) { " --split paper" } else { "" };
        let (labels, out) = (quoted(&args.labels), quoted(&args.out));
        let (program, table) = (program(), args.table.typed());
        let posters = if args.labels.is_dir() { "" } else { " --posters DIR" };
        console.say(format_args!("next: {program} prepare --labels {labels}{table}{posters} --out {out}{paper}"));
        strict(&args, &plan.skipped)?;
        return Ok(printed?);
    }

    files::free_space(files::parent_of(&args.out)).with_context(|| format!("cannot write {}", args.out.display()))?;
    let outputs = Outputs::new(&args.out);
    outputs.check(&args.labels)?;
    let signals = Signals::catch().context("cannot catch Ctrl-C")?;
    let mut progress = Progress::new(console, Arc::clone(&signals.stop));
    let (folder, undelivered) = posters(&args, posters_at, &plan, links, &mut progress)
        .map_err(|error| ended(error, &signals, &args, console))?;
    let folder = PosterFolder::index(&folder, links).map_err(|source| PrepareError::Folder { folder, source })?;
    notes(folder.notes()).iter().for_each(|line| console.say(line));
    let shape = shape(&args, &options, &plan);
    let prepared = prepare::write(&plan, &folder, &undelivered, &args.out, &shape, &mut |stage, done, of| {
        progress.show(if stage == Stage::Compare { "comparing posters" } else { "writing posters" }, done, of)
    });
    let list = &outputs.skipped;
    if let Some(skipped) = prepared.as_ref().err().and_then(PrepareError::skipped) {
        skipped::write(list, skipped)?;
        console.say(format_args!(
            "{} rows were skipped, listed with their reasons in {}",
            skipped.len(),
            list.display()
        ));
    }
    let prepared = prepared.map_err(|error| ended(error.into(), &signals, &args, console))?;
    skipped::write(list, &prepared.skipped)?;
    notes(&prepared.notes).iter().for_each(|line| console.say(line));
    let file = Some((&*args.out, &**list));
    let counts = prepared.counts;
    let counted = Counted { what: "posters", counts, skipped: &prepared.skipped, warnings: &plan.warnings, file };
    // The files are written: whether the table can be read as well decides nothing else.
    let printed = counted.print(plan.classes.names(), args.json);
    counted.without_posters(plan.classes.names()).for_each(|warning| console.say(warning));
    console.say(format_args!("next: {} train --data {}", program(), quoted(&args.out)));
    strict(&args, &prepared.skipped)?;
    Ok(printed?)
}

/// The end by a signal, if it was one that ended what `error` says has ended.
fn ended(error: anyhow::Error, signals: &Signals, args: &Args, console: Console) -> anyhow::Error {
    let is_fetching = match error.downcast_ref() {
        Some(PrepareError::Stopped) => false,
        #[cfg(feature = "fetch")]
        _ if matches!(error.downcast_ref(), Some(DownloadError::Stopped)) => true,
        _ => return error,
    };
    let kept =
        if is_fetching { "; the posters that came are kept, and the same command goes on with the others" } else { "" };
    console.say(format_args!("interrupted: nothing was written to {}{kept}", args.out.display()));
    Interrupted(signals.caught()).into()
}

/// How many films are of no class, if any are.
fn unlabelled(plan: &Plan, what: &str) -> Option<String> {
    let count = plan.films.iter().filter(|film| film.labels.iter().all(|&label| label == 0)).count();
    (count > 0).then(|| format!("note: {count} {what} are of none of these genres, and stay without a label"))
}

/// The folder of posters on this disk; none where they are fetched, or not needed.
fn posters_at(args: &Args) -> Result<Option<&Path>, Usage> {
    #[cfg(feature = "fetch")]
    if args.fetch.download.is_some() {
        return Ok(None);
    }
    match &args.posters {
        Some(folder) => Ok(Some(folder)),
        None if args.labels_only => Ok(None),
        None if args.labels.is_dir() => Ok(Some(&args.labels)),
        None => {
            Err(Usage("say where the posters are with --posters DIR, or count without them with --labels-only".into()))
        }
    }
}

/// The folder the posters are in, and why some that should be there are not.
fn posters(
    args: &Args,
    posters_at: Option<&Path>,
    plan: &Plan,
    links: Links,
    progress: &mut Progress,
) -> anyhow::Result<(PathBuf, HashMap<FilmId, String>)> {
    #[cfg(feature = "fetch")]
    if let Some(folder) = &args.fetch.download {
        let films: Vec<_> = plan.films.iter().map(|planned| &planned.film).collect();
        let downloader =
            onesheet::data::download::Downloader { connections: args.fetch.connections.into(), ..Default::default() };
        let mut progress = |done, of| progress.show("fetching posters", done, of);
        let undelivered = downloader.fetch_missing(&films, folder, links, &mut progress)?;
        return Ok((folder.clone(), undelivered));
    }
    let _ = (args, plan, links, progress);
    Ok((posters_at.expect("posters are on this disk or fetched").to_owned(), HashMap::new()))
}

/// How posters become squares, and what the file says about its origin. No dates and no folders: the same posters make the
/// same file, byte for byte.
fn shape(args: &Args, options: &Options, plan: &Plan) -> Shape {
    let size = args.image_size.into();
    let squaring = Squaring { size, resize: args.resize, exif: args.exif, alpha: args.alpha };
    let name = args.labels.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut provenance = BTreeMap::from([
        ("tool".to_owned(), concat!("onesheet ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("labels".to_owned(), name),
        ("labels_blake3".to_owned(), plan.digest.to_hex().to_string()),
        ("split".to_owned(), plan.split.describe()),
    ]);
    if let Some(aliases) = &options.aliases {
        provenance.insert("aliases_blake3".to_owned(), aliases.digest().to_hex().to_string());
    }
    Shape { squaring, provenance }
}

/// In a strict run a skipped row is an error.
fn strict(args: &Args, skipped: &[SkippedRow]) -> anyhow::Result<()> {
    match skipped.first() {
        Some(first) if args.strict => Err(PrepareError::Strict { count: skipped.len(), first: first.clone() }.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use onesheet::data::skipped::Reason;
    use std::fs;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &str) -> Args {
        Words::parse_from(["prepare"].into_iter().chain(words.split_whitespace())).args
    }

    #[test]
    fn posters_are_where_they_are_said_to_be_or_beside_the_labels() {
        let folder = tempfile::tempdir().unwrap();
        let labels = format!("--labels {}", folder.path().display());
        let at = |words: &str| posters_at(&parse(words)).map(|at| at.map(Path::to_owned));
        assert_eq!(at("--labels a.csv --posters b").unwrap(), Some("b".into()));
        assert_eq!(at("--labels a.csv --labels-only").unwrap(), None);
        assert_eq!(at(&labels).unwrap(), Some(folder.path().into()));
        assert_eq!(at(&format!("{labels} --posters b")).unwrap(), Some("b".into()));
        assert_eq!(at(&format!("{labels} --labels-only")).unwrap(), None);
        let why = "say where the posters are with --posters DIR, or count without them with --labels-only";
        assert_eq!(at("--labels a.csv").unwrap_err().to_string(), why);
        #[cfg(feature = "fetch")]
        assert_eq!(at("--labels a.csv --download b").unwrap(), None);
    }

    #[test]
    fn a_strict_run_refuses_the_first_skipped_row() {
        let rows = [SkippedRow::new(4, "tt0000004", Reason::NoGenre), SkippedRow::new(9, "x", Reason::BadId)];
        let outcome = |words: &str, rows| strict(&parse(words), rows).map_err(|error| error.to_string());
        assert_eq!(outcome("--labels a.csv", &rows[..]), Ok(()));
        assert_eq!(outcome("--labels a.csv --strict", &[]), Ok(()));
        let why = "2 rows were skipped, and this run is strict; the first: line 4, tt0000004, no genre";
        assert_eq!(outcome("--labels a.csv --strict", &rows), Err(why.into()));
    }

    /// Everything that settles the pixels, and where the films are from; no more, so that the same posters make the same file.
    #[test]
    fn the_file_records_how_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let [labels, aliases] = ["my labels.csv", "aliases.csv"].map(|name| folder.path().join(name));
        fs::write(&labels, "Id,Genre\n1,Drama\n2,War\n").unwrap();
        fs::write(&aliases, "alias,genre\nWar,Drama\n").unwrap();
        let digest = |path: &Path| blake3::hash(&fs::read(path).unwrap()).to_string();
        let mut expected = BTreeMap::from([
            ("tool".to_owned(), format!("onesheet {}", env!("CARGO_PKG_VERSION"))),
            ("labels".to_owned(), "my labels.csv".to_owned()),
            ("labels_blake3".to_owned(), digest(&labels)),
            ("split".to_owned(), SplitRule::ById.describe()),
        ]);
        let area = Squaring { size: 150, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop };
        let nearest = Squaring { size: 40, resize: Resize::Nearest, exif: Exif::Ignore, alpha: Alpha::White };
        let changed = "--image-size 40 --resize nearest --exif ignore --alpha white";
        for (words, squaring) in [("", area), (changed, nearest)] {
            let mut args = parse(&format!("--labels a.csv {words}"));
            args.labels = labels.clone();
            let mut options = Options::default();
            let plan = Plan::read(&labels, &options, &GenreChoice::Usual, Rest::Other, SplitRule::ById).unwrap();
            let found = shape(&args, &options, &plan);
            assert_eq!((found.squaring, found.provenance), (squaring, expected.clone()));

            options.aliases = Some(onesheet::data::labels::Aliases::read(&aliases).unwrap());
            expected.insert("aliases_blake3".to_owned(), digest(&aliases));
            assert_eq!(shape(&args, &options, &plan).provenance, expected);
            expected.remove("aliases_blake3");
        }
    }
}
