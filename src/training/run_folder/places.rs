//! Where the files of a run are, and its settings as they stand there.

use super::RunFolderError;
use crate::files;
use crate::training::config::RunConfig;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The folder that `name` stands for: a bare name is one under `runs/`, anything with a separator is a path.
pub fn folder_of(name: &Path) -> PathBuf {
    let bare = name.parent() == Some(Path::new("")) && name.file_name().is_some();
    if bare { Path::new("runs").join(name) } else { name.to_path_buf() }
}

/// What a training step computes and costs, by the steps of its plan.
pub fn plan_table(run: &Path) -> PathBuf {
    run.join("plan.csv")
}

/// The page of a run.
pub fn report_file(run: &Path) -> PathBuf {
    run.join("report.html")
}

/// The settings of a run and its history, as they are in its `config.toml`.
///
/// # Errors
/// [`RunFolderError::NoRun`] where there is none, and [`RunFolderError::BadSettings`] for one that cannot be read.
pub fn settings_of(run: &Path) -> Result<RunConfig, RunFolderError> {
    let path = config_file(run);
    let mut text = String::new();
    match files::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RunFolderError::NoRun { path: run.into(), missing: path });
        }
        Err(cause) => return Err(RunFolderError::BadSettings { path, cause: cause.to_string() }),
        Ok(_) => {}
    }
    toml::from_str(&text).map_err(|cause| RunFolderError::BadSettings { path, cause: cause.to_string() })
}

/// The launches of a training step and their times.
pub fn profile_table(run: &Path) -> PathBuf {
    run.join("profile.csv")
}

/// The posters that a run without data drew for itself.
pub fn synthetic_posters(run: &Path) -> PathBuf {
    run.join("posters.safetensors")
}

/// The settings of a run.
pub(super) fn config_file(run: &Path) -> PathBuf {
    run.join("config.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_live_under_runs() {
        for (name, folder) in [("a", "runs/a"), ("runs/a", "runs/a"), ("./a", "./a"), ("/x/a", "/x/a"), ("..", "..")] {
            assert_eq!(folder_of(Path::new(name)), Path::new(folder));
        }
    }
}
