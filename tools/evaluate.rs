//! `onesheet evaluate`: a run's scores on posters held back, genre by genre.

mod report;

use crate::console::{Console, print};
use crate::device::{self, Opened, described};
use crate::exit::BadData;
use clap::{Args as ClapArgs, ValueEnum};
use onesheet::data::Split;
use onesheet::data::squaring::Squaring;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError, Metadata};
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::evaluation::Answers;
use onesheet::training::learner;
use onesheet::training::run_folder::{best_checkpoint, folder_of, last_checkpoint, synthetic_posters};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

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
    precision: PrecisionChoice,
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
    let checkpoint = Checkpoint::open_model(&path).map_err(|error| without_checkpoint(error, args.checkpoint, &run))?;
    let metadata = checkpoint.metadata();
    let data = args.data.clone().or(metadata.config.data.clone()).unwrap_or_else(|| synthetic_posters(&run));
    let file = Arc::new(TensorFile::open(&data)?);
    agree(metadata, &file)?;
    if let Some(note) = made_otherwise(metadata, &file) {
        console.say(note);
    }
    let indices = args.split.indices(&file);
    if indices.is_empty() {
        let (data, split) = (data.display(), args.split.name());
        return Err(BadData(format!("{data} has no {split} posters; choose another --split")).into());
    }

    let model = learner::load(device, &checkpoint)?;
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
        report::lines(metadata, &scores, answers.loss, &computed_by)
    } else {
        report::table(metadata, &scores, answers.loss)
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

/// How the posters became squares, where those that the model was trained on did it in another way.
fn made_otherwise(metadata: &Metadata, file: &TensorFile) -> Option<String> {
    let made = Squaring::from_provenance(file.size(), file.provenance()).ok()?.provenance();
    let trained = [("resize", &metadata.resize), ("exif", &metadata.exif), ("alpha", &metadata.alpha)];
    let differ = || trained.into_iter().filter(|(key, name)| made[*key] != **name);
    let flags = |names: Vec<(&str, &String)>| {
        names.iter().map(|(key, name)| format!("--{key} {name}")).collect::<Vec<_>>().join(" ")
    };
    let (here, there) = (flags(differ().map(|(key, _)| (key, &made[key])).collect()), flags(differ().collect()));
    let path = file.path().display();
    (!there.is_empty()).then(|| {
        format!("note: {path} was prepared with {here}, the posters that the model was trained on with {there}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::tensor_file::{Description, TensorFileWriter};
    use onesheet::training::checkpoint::Progress;
    use onesheet::training::config::RunConfig;
    use std::fs;
    use tempfile::TempDir;

    /// Seven posters of 8×8 pixels: a test poster, then training, validation, training, test, test and training.
    fn posters(folder: &TempDir) -> TensorFile {
        made(folder, &[])
    }

    /// The same posters in a file that says how they were made.
    fn made(folder: &TempDir, provenance: &[(&str, &str)]) -> TensorFile {
        let path = folder.path().join("posters.safetensors");
        let provenance = provenance.iter().map(|&(key, name)| (key.to_owned(), name.to_owned())).collect();
        let genres = ["War", "Drama"].map(String::from).to_vec();
        let description = Description { size: 8, genres, capacity: 7, provenance };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for (number, split) in [2, 0, 1, 0, 2, 2, 0].into_iter().enumerate() {
            writer.push(&number.to_string(), &[number as u8; 192], &[0, 1], Split::ALL[split]).unwrap();
        }
        writer.finish().unwrap();
        TensorFile::open(&path).unwrap()
    }

    fn metadata(image_size: usize, genres: [&str; 2]) -> Metadata {
        Metadata {
            genres: genres.map(String::from).to_vec(),
            thresholds: vec![0.3; 2],
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "drop".into(),
            data_digest: String::new(),
            progress: Progress::default(),
            config: RunConfig { image_size, ..RunConfig::default() },
        }
    }

    #[test]
    fn posters_that_were_made_in_another_way_are_noted() {
        let folder = TempDir::new().unwrap();
        let note = |made: &[(&str, &str)]| {
            let file = self::made(&folder, made);
            made_otherwise(&metadata(8, ["War", "Drama"]), &file)
        };
        let expected = |here: &str, there: &str| {
            let path = folder.path().join("posters.safetensors");
            let path = path.display();
            let model = "the posters that the model was trained on with";
            Some(format!("note: {path} was prepared with {here}, {model} {there}"))
        };
        let same = [("resize", "area"), ("exif", "apply"), ("alpha", "drop"), ("tool", "another")];
        assert_eq!(note(&same), None);
        // A file from before there was a choice.
        assert_eq!(note(&[]), expected("--exif ignore", "--exif apply"));
        let nearest = [("resize", "nearest"), ("exif", "apply"), ("alpha", "white")];
        assert_eq!(note(&nearest), expected("--resize nearest --alpha white", "--resize area --alpha drop"));
    }

    #[test]
    fn each_split_has_its_posters_and_its_name() {
        let folder = TempDir::new().unwrap();
        let file = posters(&folder);
        for (part, name, indices) in [
            (Part::Train, "train", vec![1, 3, 6]),
            (Part::Validation, "validation", vec![2]),
            (Part::Test, "test", vec![0, 4, 5]),
            (Part::All, "all", vec![0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!((part.name(), part.indices(&file)), (name, indices));
        }
    }

    #[test]
    fn posters_of_another_size_or_of_other_genres_are_refused() {
        let folder = TempDir::new().unwrap();
        let file = posters(&folder);
        let agreed = |image_size, genres| agree(&metadata(image_size, genres), &file);
        agreed(8, ["War", "Drama"]).unwrap();
        let size = agreed(16, ["War", "Drama"]).unwrap_err();
        assert!(
            matches!(size.downcast_ref(), Some(TrainingError::ImageSize { found: 8, asked: 16, path }) if path == file.path()),
            "{size}"
        );
        let path = file.path().display();
        for (genres, named) in [(["Drama", "War"], "Drama, War"), (["War", "Crime"], "War, Crime")] {
            let refused = agreed(8, genres).unwrap_err();
            assert!(refused.is::<BadData>());
            let expected = format!(
                "{path} has the genres War, Drama, the model {named}; prepare the posters with --genres as the model's"
            );
            assert_eq!(refused.to_string(), expected);
        }
    }

    #[test]
    fn a_checkpoint_that_is_not_there_is_told_from_a_bad_one() {
        let folder = TempDir::new().unwrap();
        let run = folder.path();
        let told = |which, path: &Path| without_checkpoint(Checkpoint::open(path).unwrap_err(), which, run).to_string();
        let absent = run.join("checkpoints/best.safetensors");
        let none = format!("{} holds no trained run", run.display());
        assert_eq!(told(Which::Best, &absent), none);
        assert_eq!(told(Which::Last, &absent), none);

        fs::create_dir(run.join("checkpoints")).unwrap();
        fs::write(last_checkpoint(run), "nothing").unwrap();
        let unfinished = "the run has not ended an epoch; go on with it, or add --checkpoint last";
        assert_eq!(told(Which::Best, &absent), unfinished);
        assert_eq!(told(Which::Last, &absent), none);
        let bad = last_checkpoint(run);
        for which in [Which::Best, Which::Last] {
            assert!(told(which, &bad).contains("is no checkpoint"), "{}", told(which, &bad));
        }
    }
}
