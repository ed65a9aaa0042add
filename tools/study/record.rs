//! What a study keeps of a run, in the run's folder: the settings that it was asked for, and its scores so far.

use crate::exit::{BadData, Usage};
use onesheet::data::Split;
use onesheet::files::{self, Disk, create_folder, replace};
use onesheet::metrics::Scores;
use onesheet::training::config::RunConfig;
use onesheet::training::history::changes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The file in the run's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Identifies the posters.
    pub data_digest: String,
    /// The settings that the study asked for.
    pub config: RunConfig,
    /// The scores after half the epochs.
    pub middle: Option<Stage>,
    /// Those at the end; with them the run is done.
    pub end: Option<Stage>,
}

/// The scores of a run at some step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps done.
    pub step: u64,
    /// The epochs that they are, if they are whole ones.
    pub epoch: Option<u64>,
    /// By [`Split::name`], for splits that have posters.
    pub scores: BTreeMap<String, Scores>,
    /// The same at the thresholds with the highest F1 on the validation posters; none without such posters.
    pub tuned: BTreeMap<String, Scores>,
}

impl Stage {
    /// Where in the run it is, for the head of a column.
    pub fn place(&self) -> String {
        moment(self.epoch, self.step)
    }

    /// The scores on a split, if it has posters.
    pub fn on(&self, split: Split) -> Option<&Scores> {
        self.scores.get(split.name())
    }
}

/// A moment of a run in words: the epoch if it is the end of one, else the step.
pub fn moment(epoch: Option<u64>, step: u64) -> String {
    epoch.map_or_else(|| format!("step {step}"), |epoch| format!("epoch {epoch}"))
}

fn place(run: &Path) -> PathBuf {
    run.join("study.toml")
}

impl Record {
    /// A run that has not been scored.
    pub fn new(data_digest: &str, config: &RunConfig) -> Record {
        Record { data_digest: data_digest.into(), config: config.clone(), middle: None, end: None }
    }

    /// What is kept in the folder `run`, if a study was there.
    ///
    /// # Errors
    /// [`BadData`] for a file that cannot be read, and [`Usage`] for a run that no study began.
    pub fn read(run: &Path) -> anyhow::Result<Option<Record>> {
        let (path, mut text) = (place(run), String::new());
        let bad =
            |why: String| BadData(format!("{} is not what a study wrote: {why}; choose another --out", path.display()));
        match files::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => Ok(Some(toml::from_str(&text).map_err(|error| bad(error.to_string()))?)),
            Err(error) if error.kind() == ErrorKind::NotFound && !has_begun(run) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Usage(format!("{} holds a run that no study began; choose another --out", run.display())).into())
            }
            Err(error) => Err(bad(error.to_string()).into()),
        }
    }

    /// Keeps it in the folder `run`, which is made if need be.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, run: &Path) -> anyhow::Result<()> {
        create_folder(&Disk, run)?;
        Ok(replace(&Disk, &place(run), toml::to_string(self)?.as_bytes())?)
    }

    /// Refuses to go on with this run as another one: with other posters, or with settings that change what it is.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn agree(&self, asked: &Record, run: &Path) -> Result<(), Usage> {
        let run = run.display();
        if self.data_digest != asked.data_digest {
            return Err(Usage(format!("{run} was trained on other posters; choose another --out")));
        }
        let changed = changes(&what_counts(&self.config), &what_counts(&asked.config));
        if !changed.is_empty() {
            let changed = changed.join(", ");
            return Err(Usage(format!("{run} was trained with other settings ({changed}); choose another --out")));
        }
        Ok(())
    }
}

/// Whether there is a run in the folder, with or without a checkpoint.
pub fn has_begun(run: &Path) -> bool {
    run.join("config.toml").exists()
}

/// The settings without those that may change when a run goes on, and without the places of its files.
fn what_counts(config: &RunConfig) -> RunConfig {
    let RunConfig {
        device,
        precision,
        save_every,
        keep_best,
        on_bad_numbers,
        check_numerics,
        recompute,
        io,
        tensorboard,
        ..
    } = RunConfig::default();
    let weights = config.weights.as_ref().and_then(|weights| weights.file_name()).map(PathBuf::from);
    RunConfig {
        device,
        precision,
        save_every,
        keep_best,
        on_bad_numbers,
        check_numerics,
        recompute,
        io,
        tensorboard,
        data: None,
        weights,
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::training::config::{DeviceChoice, PrecisionChoice};
    use tempfile::TempDir;

    #[test]
    fn a_record_is_kept_to_the_last_bit() {
        let folder = TempDir::new().unwrap();
        let run = folder.path().join("run");
        assert_eq!(Record::read(&run).unwrap(), None);
        // A genre that no poster has is without an average precision.
        let scores = Scores::new(&[0.9, 0.2, 0.1, 0.8, 0.3, 0.7], &[1, 0, 0, 0, 1, 0], &[0.3, 0.3]);
        let scores_on = |split: &str| BTreeMap::from([(split.to_owned(), scores.clone())]);
        let stage = |step, epoch| Stage { step, epoch, scores: scores_on("test"), tuned: scores_on("train") };
        let mut record = Record::new("digest", &RunConfig::default());
        for (middle, end) in
            [(None, None), (Some(stage(3, None)), None), (Some(stage(4, Some(1))), Some(stage(8, Some(2))))]
        {
            (record.middle, record.end) = (middle, end);
            record.write(&run).unwrap();
            assert_eq!(Record::read(&run).unwrap().as_ref(), Some(&record));
        }
        assert_eq!((stage(3, None).place(), stage(4, Some(1)).place()), ("step 3".into(), "epoch 1".into()));
        assert_eq!((stage(3, None).on(Split::Test), stage(3, None).on(Split::Train)), (Some(&scores), None));

        std::fs::write(place(&run), "digest = 1").unwrap();
        let error = Record::read(&run).unwrap_err().to_string();
        assert!(error.contains("study.toml is not what a study wrote"), "{error}");
        std::fs::rename(place(&run), run.join("config.toml")).unwrap();
        let error = Record::read(&run).unwrap_err().to_string();
        assert!(error.contains("holds a run that no study began"), "{error}");
    }

    #[test]
    fn a_run_goes_on_as_what_it_was_wherever_its_files_are() {
        let before = RunConfig { weights: Some("a/w.h5".into()), data: Some("a".into()), ..RunConfig::default() };
        let agreed = |digest: &str, config: &RunConfig| {
            let asked = Record::new(digest, config);
            Record::new("digest", &before).agree(&asked, Path::new("run")).map_err(|error| error.to_string())
        };
        let moved = RunConfig {
            weights: Some("b/w.h5".into()),
            data: None,
            device: DeviceChoice::Cpu,
            precision: PrecisionChoice::F32,
            ..RunConfig::default()
        };
        agreed("digest", &moved).unwrap();
        let error = agreed("another", &moved).unwrap_err();
        assert_eq!(error, "run was trained on other posters; choose another --out");
        let error = agreed("digest", &RunConfig { batch: 7, epochs: 3, ..moved }).unwrap_err();
        let expected = "run was trained with other settings (batch: 128 -> 7, epochs: 20 -> 3); choose another --out";
        assert_eq!(error, expected);
    }
}
