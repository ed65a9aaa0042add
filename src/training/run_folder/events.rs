//! The event files of a run, for TensorBoard: a new one for each start of a trainer, and after each step back.
//!
//! So a reader that follows the newest file needs not notice that an older one was cut: the new one begins with the note that a trainer
//! starts at that step, upon which readers forget what they have of it and of later ones. And a file that was there stays, even with nothing
//! left in it: a reader that is in the middle of it would stop at one that is gone.

use super::{RunFolderError, unwritable};
use crate::files::{self, Disk, Files, replace, without_waiting};
use crate::training::checkpoint::Progress;
use crate::training::tensorboard::{Event, Read, records};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

/// What the name of an event file begins and ends with; in between it has six digits.
const NAME: [&str; 2] = ["events.out.tfevents.", ".onesheet"];

/// Those of one run, the newest open at its end.
#[derive(Debug)]
pub(super) struct Events {
    run: PathBuf,
    /// The number of the next file.
    next: u32,
    /// The step that a trainer goes on with.
    from: u64,
    /// The newest, once there is something to write.
    newest: Option<(PathBuf, File)>,
    /// Whether rows were added since the last sync.
    unsynced: bool,
}

impl Events {
    /// Those in the folder `run`; nothing is opened yet.
    pub fn at(run: &Path) -> Events {
        let next = all(run).last().map_or(1, |&(number, _)| number.saturating_add(1));
        Events { run: run.into(), next, from: 1, newest: None, unsynced: false }
    }

    /// Adds a record, in one call so that a kill leaves whole ones.
    pub fn add(&mut self, event: &Event) -> Result<(), RunFolderError> {
        self.unsynced = true;
        let (begins, (path, mut file)) = match self.newest.take() {
            Some(newest) => (false, newest),
            None => (true, self.begin()?),
        };
        let mut bytes = if begins { Event::opening(self.from).map(|event| event.framed()).concat() } else { vec![] };
        bytes.extend(event.framed());
        // Nothing is added behind a record that is torn: then the next one begins another file.
        file.write_all(&bytes).map_err(|cause| unwritable(&path, cause))?;
        self.newest = Some((path, file));
        Ok(())
    }

    /// A new file behind those that are there.
    fn begin(&mut self) -> Result<(PathBuf, File), RunFolderError> {
        let path = self.run.join(format!("{}{:06}{}", NAME[0], self.next, NAME[1]));
        let file = without_waiting(OpenOptions::new().append(true).create_new(true)).open(&path);
        let file = file.map_err(|cause| unwritable(&path, cause))?;
        self.next = self.next.saturating_add(1);
        Ok((path, file))
    }

    /// Waits until all records are on the disk.
    pub fn sync(&mut self) -> Result<(), RunFolderError> {
        match &self.newest {
            Some((path, file)) if std::mem::take(&mut self.unsynced) => {
                let synced = file.sync_data().and_then(|()| Disk.sync_folder(&self.run));
                synced.map_err(|cause| unwritable(path, cause))
            }
            _ => Ok(()),
        }
    }

    /// Takes away what is behind `progress`, and what cannot be read: records end at the first that is not whole.
    pub fn cut_back(&mut self, progress: &Progress) -> Result<(), RunFolderError> {
        (self.newest, self.from) = (None, progress.total_steps + 1);
        for (_, path) in all(&self.run) {
            let mut bytes = Vec::new();
            let read = files::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            read.map_err(|cause| RunFolderError::Log { path: path.clone(), cause: cause.into() })?;
            let is_kept = |read: &Read| match read.epoch {
                Some(epoch) => epoch <= progress.epoch,
                None => read.step <= progress.total_steps,
            };
            let kept = records(&bytes).take_while(|read| !read.has_values || is_kept(read));
            let end = kept.last().map_or(0, |read| read.end);
            if end < bytes.len() {
                replace(&Disk, &path, &bytes[..end])?;
            }
        }
        Ok(())
    }
}

/// The files of a run with their numbers, the oldest first.
fn all(run: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(run).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix(NAME[0])?.strip_suffix(NAME[1])?.parse().ok();
    let mut all: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Scores;
    use crate::training::run_folder::{EpochRow, StepRow};
    use crate::training::tensorboard::{Shown, What};
    use tempfile::TempDir;

    fn step(step: u64) -> Event {
        Event::of_step(&StepRow { step, loss: 0.5, learning_rate: 1e-3, images_per_second: 9.0, gradient_norm: 2.5 })
    }

    fn epoch(epoch: u32, step: u64) -> Event {
        let row = EpochRow::example(epoch, step);
        let scores = Scores::new(&[0.9, 0.2, 0.1, 0.8], &[1, 0, 0, 0], &[0.5, 0.5]);
        Event::of_epoch(&row, &scores, &["War".into(), "Drama".into()], Vec::new())
    }

    fn at(epoch: u32, step: u64, total_steps: u64) -> Progress {
        Progress { epoch, step, total_steps, ..Progress::default() }
    }

    /// What is in each file: of a step its number, of an epoch its number behind an e, of a start its step behind an s, and of the version
    /// before it 0.
    fn told(folder: &TempDir) -> Vec<Vec<String>> {
        let tell = |read: Read| match (read.epoch, read.has_values) {
            (Some(epoch), _) => format!("e{epoch}"),
            (_, true) => read.step.to_string(),
            (_, false) => format!("s{}", read.step),
        };
        let read = |(_, path): (u32, PathBuf)| {
            let bytes = fs::read(path).unwrap();
            let (told, ends): (Vec<String>, Vec<usize>) = records(&bytes).map(|read| (tell(read), read.end)).unzip();
            assert_eq!(ends.last().copied().unwrap_or(0), bytes.len(), "records to the end");
            told
        };
        all(folder.path()).into_iter().map(read).collect()
    }

    #[test]
    fn each_start_has_a_file_and_what_is_behind_the_checkpoint_goes() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("events.out.tfevents.1.host"), "somebody else's").unwrap();
        let mut events = Events::at(folder.path());
        for event in [step(1), step(2), epoch(1, 2), step(3), step(4), epoch(2, 4)] {
            events.add(&event).unwrap();
        }
        let version = "s0";
        assert_eq!(told(&folder), [vec![version, "s1", "1", "2", "e1", "3", "4", "e2"]]);

        // The second epoch's last step is saved, its end is not. What readers have of that step they keep.
        let mut events = Events::at(folder.path());
        events.cut_back(&at(1, 2, 4)).unwrap();
        events.add(&epoch(2, 4)).unwrap();
        events.add(&step(5)).unwrap();
        let first = vec![version, "s1", "1", "2", "e1", "3", "4"];
        assert_eq!(told(&folder), [first.clone(), vec![version, "s5", "e2", "5"]]);

        // In the same process, as a run goes back behind a bad number; the file that loses all of its records is still there.
        events.cut_back(&at(1, 1, 3)).unwrap();
        events.add(&step(4)).unwrap();
        let first = first[..6].to_vec();
        assert_eq!(told(&folder), [first, vec![version, "s5"], vec![version, "s4", "4"]]);

        events.cut_back(&Progress::default()).unwrap();
        assert_eq!(told(&folder), [[version, "s1"], [version, "s5"], [version, "s4"]]);
        assert!(folder.path().join("events.out.tfevents.1.host").exists());
    }

    #[test]
    fn a_torn_record_goes_and_those_before_it_stay() {
        let folder = TempDir::new().unwrap();
        let mut events = Events::at(folder.path());
        for number in 1..=3 {
            events.add(&step(number)).unwrap();
        }
        let (_, path) = all(folder.path()).remove(0);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        events.cut_back(&at(0, 3, 3)).unwrap();
        assert_eq!(told(&folder), [["s0", "s1", "1", "2"]]);
        // And one that a power cut has left nothing of.
        fs::write(&path, [0; 100]).unwrap();
        events.cut_back(&at(0, 3, 3)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        events.add(&step(4)).unwrap();
        assert_eq!(told(&folder), [vec![], vec!["s0", "s4", "4"]]);
    }

    #[test]
    fn a_genre_without_an_average_precision_has_none() {
        let What::Values(values) = epoch(1, 2).what else { panic!("values") };
        let names: Vec<&str> =
            values.iter().map(|value| &*value.name).filter(|name| !name.starts_with("epoch/")).collect();
        assert_eq!(names, ["f1/War", "average_precision/War", "f1/Drama"]);
        let auc = values.iter().find(|value| value.name == "epoch/roc_auc").unwrap();
        assert_eq!(auc.shown, Shown::Number(1.0));
    }
}
