//! From an error to an exit code, for every tool in one place.

use crate::console::{OutputError, tell};
#[cfg(feature = "fetch")]
use onesheet::data::download::DownloadError;
use onesheet::data::loader::LoaderError;
use onesheet::data::outputs::Refused;
use onesheet::data::prepare::PrepareError;
use onesheet::data::tensor_file::TensorFileError;
use onesheet::device::DeviceError;
use onesheet::network::import::ImportError;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::CheckpointError;
use onesheet::training::export::ExportError;
use onesheet::training::run_folder::RunFolderError;
use serde_json::json;
use std::error::Error;
use std::process::ExitCode;

/// What `--help` says about them.
pub const CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 bad data, 4 bad weights or checkpoint, 5 device or memory, \
6 diverged, 129, 130 or 143 interrupted after saving";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// Bad data, also for a data file that is cut short while it is mapped.
pub const DATA: u8 = 3;
const WEIGHTS: u8 = 4;
const DEVICE: u8 = 5;
const DIVERGED: u8 = 6;

/// Options that do not go together in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Some input could not be used; each was named on its own when it was met.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadData(pub String);

/// Something of this machine computes wrong; what was told before.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// A signal ended the run after a clean save.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub struct Interrupted(pub i32);

/// Prints the error, unless it was a wish, and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Interrupted(signal)) = error.downcast_ref() {
        return ExitCode::from(128 + *signal as u8);
    }
    if let Some(OutputError::Closed) = error.downcast_ref() {
        return ExitCode::SUCCESS;
    }
    let code = error.chain().find_map(code).unwrap_or(FAILED);
    tell("error", json!({ "exit_code": code }), format_args!("error: {error:#}"));
    ExitCode::from(code)
}

/// The code of an error whose type says enough.
fn code(error: &(dyn Error + 'static)) -> Option<u8> {
    if error.is::<Usage>() || error.is::<Refused>() {
        return Some(USAGE);
    }
    if error.is::<BadData>() {
        return Some(DATA);
    }
    if error.is::<Unfit>() {
        return Some(DEVICE);
    }
    if let Some(error) = error.downcast_ref::<TrainingError>() {
        return Some(match error {
            TrainingError::Device(_) => DEVICE,
            TrainingError::Loader(error) => loader(error),
            TrainingError::TensorFile(error) => tensor_file(error),
            TrainingError::Checkpoint(error) => checkpoint(error),
            TrainingError::Weights(_) => WEIGHTS,
            TrainingError::RunFolder(error) => run_folder(error),
            TrainingError::Diverged { .. } => DIVERGED,
            TrainingError::EmptySplit { .. } | TrainingError::OtherPosters { .. } => DATA,
            TrainingError::ImageSize { .. } | TrainingError::Settings(_) => USAGE,
        });
    }
    if let Some(error) = error.downcast_ref::<ExportError>() {
        return Some(match error {
            ExportError::Checkpoint(error) => checkpoint(error),
            ExportError::Save(_) | ExportError::Hdf5(_) => FAILED,
            ExportError::Network(_) => WEIGHTS,
            ExportError::Untuned { .. } | ExportError::NotInKeras { .. } => USAGE,
        });
    }
    if let Some(error) = error.downcast_ref() {
        return Some(checkpoint(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(tensor_file(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(match error {
            PrepareError::Write(error) => tensor_file(error),
            error if error.is_bad_data() => DATA,
            _ => FAILED,
        });
    }
    #[cfg(feature = "fetch")]
    if let Some(DownloadError::NoAddresses) = error.downcast_ref() {
        return Some(DATA);
    }
    if error.is::<ImportError>() {
        return Some(WEIGHTS);
    }
    error.is::<DeviceError>().then_some(DEVICE)
}

fn run_folder(error: &RunFolderError) -> u8 {
    match error {
        RunFolderError::AllDamaged { .. } | RunFolderError::Checkpoint(_) => WEIGHTS,
        _ => FAILED,
    }
}

fn loader(error: &LoaderError) -> u8 {
    match error {
        LoaderError::EmptyBatch | LoaderError::BatchTooLarge { .. } => USAGE,
        LoaderError::NoImages => DATA,
        LoaderError::File(error) => tensor_file(error),
        LoaderError::Thread(_) => FAILED,
    }
}

fn tensor_file(error: &TensorFileError) -> u8 {
    match error {
        TensorFileError::Io { .. } | TensorFileError::NoSpace { .. } => FAILED,
        _ => DATA,
    }
}

fn checkpoint(error: &CheckpointError) -> u8 {
    match error {
        CheckpointError::Save(_) | CheckpointError::Settings { .. } => FAILED,
        CheckpointError::NotFinite { .. } => DIVERGED,
        _ => WEIGHTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::Split;
    use onesheet::data::films::FilmId;
    use onesheet::data::genres::GenreError;
    use onesheet::data::labels::LabelError;
    use onesheet::data::outputs::Outputs;
    use onesheet::data::skipped::{Reason, SkippedRow};
    use onesheet::files::SaveError;
    use onesheet::network::NETWORKS;
    use onesheet::training::bounds::OutOfBounds;
    use std::io;
    use std::path::PathBuf;

    fn io() -> io::Error {
        io::Error::other("the disk is on fire")
    }

    fn path() -> PathBuf {
        "some/file".into()
    }

    /// The code of an error as a tool has it: below a sentence that says what it was doing.
    fn code_of(error: impl Error + Send + Sync + 'static) -> u8 {
        let error = anyhow::Error::new(error).context("what was being done");
        error.chain().find_map(code).unwrap_or(FAILED)
    }

    #[test]
    fn each_checkpoint_error_has_its_code_wherever_it_is_met() {
        use CheckpointError as E;
        let save = || SaveError::Untouched { path: path(), doing: "while writing", cause: io() };
        let toml = || toml::to_string(&i128::MAX).unwrap_err();
        let bounds = OutOfBounds { setting: "batch", found: "0".into(), allowed: "1 or more".into() };
        let errors: Vec<(Box<dyn Fn() -> CheckpointError>, u8)> = vec![
            (Box::new(move || E::Save(save())), 1),
            (Box::new(move || E::Settings { path: path(), cause: toml() }), 1),
            (Box::new(|| E::NotFinite { path: path(), tensor: "t".into() }), 6),
            (Box::new(|| E::Open { path: path(), cause: io() }), 4),
            (Box::new(|| E::Truncated { path: path(), found: 1, expected: 2 }), 4),
            (Box::new(|| E::NotSafetensors { path: path(), reason: "r".into() }), 4),
            (Box::new(|| E::Pickle { path: path() }), 4),
            (Box::new(|| E::Foreign { path: path() }), 4),
            (Box::new(|| E::Newer { path: path(), found: 2 }), 4),
            (Box::new(|| E::Metadata { path: path(), reason: "r".into() }), 4),
            (Box::new(move || E::OutOfBounds { path: path(), cause: bounds.clone() }), 4),
            (Box::new(|| E::Value { path: path(), tensor: "t".into(), index: 0, value: f32::NAN }), 4),
            (Box::new(|| E::Damaged { path: path(), part: "p".into() }), 4),
            (
                Box::new(|| E::OtherNetwork {
                    path: path(),
                    found: Box::new(NETWORKS[1]),
                    network: Box::new(NETWORKS[0]),
                }),
                4,
            ),
            (Box::new(|| E::Missing { path: path(), tensor: "t".into(), hint: "" }), 4),
            (Box::new(|| E::Shape { path: path(), tensor: "t".into(), found: vec![1], expected: vec![2] }), 4),
        ];
        for (error, expected) in errors {
            assert_eq!(code_of(error()), expected, "{}", error());
            assert_eq!(code_of(TrainingError::Checkpoint(error())), expected, "{}", error());
        }
    }

    #[test]
    fn each_tensor_file_error_has_its_code_wherever_it_is_met() {
        use TensorFileError as E;
        let reason = || "r".to_owned();
        let errors: Vec<(Box<dyn Fn() -> TensorFileError>, u8)> = vec![
            (Box::new(|| E::Io { path: path(), action: "read", source: io() }), 1),
            (Box::new(|| E::NoSpace { path: path(), needed: 2, free: 1 }), 1),
            (Box::new(move || E::NotSafetensors { path: path(), reason: reason() }), 3),
            (Box::new(move || E::Foreign { path: path(), reason: reason() }), 3),
            (Box::new(|| E::NewerVersion { path: path(), found: 2, newest: 1 }), 3),
            (Box::new(|| E::Length { path: path(), expected: 2, found: 1 }), 3),
            (Box::new(move || E::Malformed { path: path(), reason: reason() }), 3),
            (Box::new(|| E::Damaged { path: path(), part: "p".into() }), 3),
            (Box::new(|| E::NoImages { path: path() }), 3),
            (Box::new(move || E::Description { path: path(), reason: reason() }), 3),
            (Box::new(move || E::Row { path: path(), id: "1".into(), reason: reason() }), 3),
            (Box::new(|| E::Busy { path: path() }), 3),
        ];
        for (error, expected) in errors {
            assert_eq!(code_of(error()), expected, "{}", error());
            assert_eq!(code_of(TrainingError::TensorFile(error())), expected, "{}", error());
            assert_eq!(code_of(TrainingError::Loader(LoaderError::File(error()))), expected, "{}", error());
            assert_eq!(code_of(PrepareError::Write(error())), expected, "{}", error());
        }
    }

    #[test]
    fn each_error_of_a_run_has_its_code() {
        let device = || DeviceError::Unavailable("none".into());
        let import = || ImportError::Unrecognised { path: path() };
        let damaged = || CheckpointError::Damaged { path: path(), part: "p".into() };
        let save = SaveError::NotDurable { path: path(), cause: io() };
        let bounds = OutOfBounds { setting: "batch", found: "0".into(), allowed: "1 or more".into() };
        let log = csv::Error::from(io());
        use RunFolderError as Folder;
        use TrainingError as Training;
        for (error, expected) in [
            (Training::Device(device()), 5),
            (Training::Loader(LoaderError::EmptyBatch), 2),
            (Training::Loader(LoaderError::BatchTooLarge { batch: 2, images: 1 }), 2),
            (Training::Loader(LoaderError::NoImages), 3),
            (Training::Loader(LoaderError::Thread(io())), 1),
            (Training::Weights(import()), 4),
            (Training::Settings(bounds), 2),
            (Training::Diverged { what: "the loss".into(), value: f64::NAN, place: None }, 6),
            (Training::EmptySplit { path: path(), split: Split::Train }, 3),
            (Training::ImageSize { path: path(), found: 8, asked: 16 }, 2),
            (Training::OtherPosters { posters: path(), checkpoint: path() }, 3),
            (Training::RunFolder(Folder::Unwritable { path: path(), cause: io() }), 1),
            (Training::RunFolder(Folder::Taken { path: path() }), 1),
            (Training::RunFolder(Folder::Locked { path: path(), holder: "1".into() }), 1),
            (Training::RunFolder(Folder::NoRun { path: path(), missing: path() }), 1),
            (Training::RunFolder(Folder::AllDamaged { path: path(), damaged: vec![damaged()] }), 4),
            (Training::RunFolder(Folder::Settings { path: path(), cause: "c".into() }), 1),
            (Training::RunFolder(Folder::NoSpace { path: path(), free: 1, needed: 2 }), 1),
            (Training::RunFolder(Folder::Checkpoint(damaged())), 4),
            (Training::RunFolder(Folder::Log { path: path(), cause: log }), 1),
            (Training::RunFolder(Folder::Save(save)), 1),
        ] {
            let text = error.to_string();
            assert_eq!(code_of(error), expected, "{text}");
        }
        assert_eq!(code_of(device()), 5);
        assert_eq!(code_of(import()), 4);
    }

    #[test]
    fn each_error_of_prepare_has_its_code() {
        use PrepareError as Prepare;
        let row = SkippedRow::new(2, "tt1", Reason::NoGenre);
        let example = FilmId::parse("1").unwrap();
        for (error, expected) in [
            (Prepare::Labels(LabelError::Read { path: path(), source: io() }), 1),
            (Prepare::Labels(LabelError::TooLarge { path: path() }), 3),
            (Prepare::Labels(LabelError::Aliases { path: path(), why: "w".into() }), 3),
            (Prepare::Genres(GenreError::NoneCommon { wanted: 9, genre: "Drama".into(), films: 1 }), 3),
            (Prepare::Folder { folder: path(), source: io() }, 1),
            (Prepare::NoPosters { folder: path(), films: 1, example, skipped: vec![row.clone()] }, 3),
            (Prepare::NoUsablePosters { folder: path(), found: 1, example: "e".into(), skipped: vec![] }, 3),
            (Prepare::Strict { count: 1, first: row }, 3),
        ] {
            let text = error.to_string();
            assert_eq!(code_of(error), expected, "{text}");
        }
        let refused = Outputs::new(std::path::Path::new("/")).check(&path()).unwrap_err();
        assert_eq!(code_of(refused), 2);
    }

    #[test]
    fn each_error_of_export_has_its_code() {
        let save = SaveError::Untouched { path: path(), doing: "creating", cause: io() };
        let damaged = CheckpointError::Damaged { path: path(), part: "p".into() };
        let hdf5 = hdf5_writer::Error::UnsupportedFeature("f".into());
        for (error, expected) in [
            (ExportError::Checkpoint(damaged), 4),
            (ExportError::Save(save), 1),
            (ExportError::Network(DeviceError::Unavailable("none".into())), 4),
            (ExportError::Untuned { path: path() }, 2),
            (ExportError::NotInKeras { network: "n" }, 2),
            (ExportError::Hdf5(hdf5), 1),
        ] {
            let text = error.to_string();
            assert_eq!(code_of(error), expected, "{text}");
        }
    }

    #[cfg(feature = "fetch")]
    #[test]
    fn each_error_of_downloads_has_its_code() {
        assert_eq!(code_of(DownloadError::NoAddresses), 3);
        assert_eq!(code_of(DownloadError::Folder { folder: path(), source: io() }), 1);
        assert_eq!(code_of(DownloadError::Unreachable { last: "l".into() }), 1);
    }

    /// What `--help` says, and the README's table.
    #[test]
    fn codes_are_told_alike() {
        let readme = include_str!("../README.md");
        let table = readme.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
        let rows = table.map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
        let rows: Vec<String> = rows.map(|(code, what)| format!("{code} {what}")).collect();
        assert_eq!(CODES, format!("Exit codes: {}", rows.join(", ")));
        let named = [FAILED, USAGE, DATA, WEIGHTS, DEVICE, DIVERGED];
        let names = ["failed", "usage", "bad data", "bad weights or checkpoint", "device or memory", "diverged"];
        let expected: Vec<String> = named.iter().zip(names).map(|(code, name)| format!("{code} {name}")).collect();
        assert_eq!(rows[1..7], expected);
    }

    #[test]
    fn each_error_of_the_tools_has_its_code() {
        assert_eq!(code_of(Usage("u".into())), 2);
        assert_eq!(code_of(BadData("b".into())), 3);
        assert_eq!(code_of(Unfit("u".into())), 5);
        assert_eq!(code_of(OutputError::Failed(io())), 1);
        assert_eq!(code_of(io()), 1);
        let reported = |error: anyhow::Error| format!("{:?}", report(&error));
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(reported(Interrupted(15).into()), code(143));
        assert_eq!(reported(Interrupted(1).into()), code(129));
        assert_eq!(reported(OutputError::Closed.into()), code(0));
    }
}
