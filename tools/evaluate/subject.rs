//! What is evaluated: a checkpoint, and posters that it was made for.

use crate::exit::BadData;
use onesheet::data::squaring::Squaring;
use onesheet::data::tensor_file::TensorFile;
use onesheet::files::quoted;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError, Metadata};
use onesheet::training::run_folder::{best_checkpoint, folder_of, last_checkpoint};
use std::path::{Path, PathBuf};

use super::Which;

/// Where a run keeps the checkpoint that is meant.
pub fn checkpoint_of(run: &Path, which: Which) -> PathBuf {
    match which {
        Which::Best => best_checkpoint(run),
        Which::Last => last_checkpoint(run),
    }
}

/// The model in a file, or a run's best: the one to compare with, or to export.
///
/// # Errors
/// The checkpoint's.
pub fn open_file_or_best(model: &Path) -> anyhow::Result<Checkpoint> {
    if model.is_file() {
        return Ok(Checkpoint::open_model(model)?);
    }
    let run = folder_of(model);
    let (best, last) = (best_checkpoint(&run), last_checkpoint(&run));
    Checkpoint::open_model(&best).map_err(|error| match !best.exists() && last.exists() {
        true => anyhow::Error::from(error).context(format!(
            "{} has not ended an epoch; go on with it, or give its latest model, {}",
            run.display(),
            quoted(&last)
        )),
        false => without_checkpoint(error, Which::Best, &run),
    })
}

/// Refuses to compare two models whose answers have different meanings.
///
/// # Errors
/// [`BadData`].
pub fn comparable(one: &Checkpoint, other: &Checkpoint) -> Result<(), BadData> {
    let (genres, others) = (&one.metadata().genres, &other.metadata().genres);
    if genres == others {
        return Ok(());
    }
    Err(BadData(format!(
        "{} has the genres {}, {} the genres {}; only models of the same genres in the same order can be compared",
        one.path().display(),
        genres.join(", "),
        other.path().display(),
        others.join(", ")
    )))
}

/// The error of opening a run's checkpoint; where there is none, with what is missing.
pub fn without_checkpoint(error: CheckpointError, which: Which, run: &Path) -> anyhow::Error {
    let is_absent =
        matches!(&error, CheckpointError::Open { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound);
    let error = anyhow::Error::from(error);
    match which {
        _ if run.is_file() => {
            error.context(format!("{} is a file; --run takes the folder of a run, such as runs/NAME", run.display()))
        }
        _ if !is_absent => error,
        Which::Best if last_checkpoint(run).exists() => {
            error.context("the run has not ended an epoch; go on with it, or add --checkpoint last")
        }
        _ => error.context(format!("{} holds no trained run", run.display())),
    }
}

/// Refuses posters that the model was not made for.
pub fn agree(metadata: &Metadata, file: &TensorFile) -> Result<(), anyhow::Error> {
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
pub fn made_otherwise(metadata: &Metadata, file: &TensorFile) -> Option<String> {
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
    use onesheet::data::Split;
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
            tuned: None,
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
        let error = Checkpoint::open(&best_checkpoint(&bad)).unwrap_err();
        let told = without_checkpoint(error, Which::Best, &bad).to_string();
        assert_eq!(told, format!("{} is a file; --run takes the folder of a run, such as runs/NAME", bad.display()));
    }
}
