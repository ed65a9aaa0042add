//! Power cuts: the calls of a save are recorded, and every state that a disk may be in after any of them is built and looked at.
//! What was there before is there, or what came after it; never a mix, and never nothing.
//!
//! The disk is as bad as POSIX lets it be. Data that was not synced may be dropped, zeroed or cut; names that were given or taken since the
//! folder was last synced may have reached the disk or not, each for itself.

use onesheet::files::{Files, create_folder, replace};
use onesheet::training::checkpoint::{self, Checkpoint, CheckpointError, Metadata, Progress};
use onesheet::training::config::RunConfig;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A file's content, whatever its names.
type Inode = usize;

#[derive(Clone, Debug)]
enum Call {
    Write(Inode, Vec<u8>),
    Sync(Inode),
    /// Gives the name to the file; what had it has lost it.
    Name(PathBuf, Inode),
    /// Takes a name away.
    Unname(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFolder(PathBuf),
    Folder(PathBuf),
}

/// A disk that remembers what it was told, and forgets nothing.
#[derive(Clone, Default)]
struct Recorder {
    calls: Rc<RefCell<Vec<Call>>>,
    /// Swallows what would sync a file, to see that the test would notice.
    deaf_to_sync: bool,
}

struct RecordedFile {
    inode: Inode,
    disk: Recorder,
}

impl Write for RecordedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Half of them each time, so that there is a state in between.
        let some = &bytes[..bytes.len().div_ceil(2)];
        self.disk.calls.borrow_mut().push(Call::Write(self.inode, some.to_vec()));
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Recorder {
    fn push(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }
}

impl Files for Recorder {
    type File = RecordedFile;

    fn create(&self, path: &Path) -> io::Result<RecordedFile> {
        let inode = self.calls.borrow().len();
        self.push(Call::Name(path.into(), inode));
        Ok(RecordedFile { inode, disk: self.clone() })
    }

    fn sync(&self, file: &RecordedFile) -> io::Result<()> {
        if !self.deaf_to_sync {
            self.push(Call::Sync(file.inode));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.push(Call::Rename(from.into(), to.into()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.push(Call::SyncFolder(folder.into()));
        Ok(())
    }

    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.push(Call::Unname(path.into()));
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.push(Call::Folder(path.into()));
        Ok(())
    }
}

/// What becomes of data that was not synced.
#[derive(Clone, Copy, Debug)]
enum Unsynced {
    Kept,
    Dropped,
    Zeroed,
    Cut,
}

/// The names on the disk and what they hold, after `calls` and a power cut.
fn states(calls: &[Call], before: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
    // Content and how much of it is certain.
    let mut inodes: BTreeMap<Inode, (Vec<u8>, usize)> = BTreeMap::new();
    let mut naming: Vec<(Call, bool)> = Vec::new();
    for call in calls {
        match call {
            Call::Write(inode, bytes) => inodes.entry(*inode).or_default().0.extend(bytes),
            Call::Sync(inode) => {
                let (content, certain) = inodes.entry(*inode).or_default();
                *certain = content.len();
            }
            // The recorder's folders are one folder.
            Call::SyncFolder(_) => naming.iter_mut().for_each(|(_, certain)| *certain = true),
            naming_call => naming.push((naming_call.clone(), false)),
        }
    }
    let uncertain = naming.iter().filter(|(_, certain)| !certain).count();
    let mut states = Vec::new();
    for reached in 0..1u32 << uncertain {
        for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Zeroed, Unsynced::Cut] {
            let mut disk = before.clone();
            let mut named: BTreeMap<PathBuf, Inode> = BTreeMap::new();
            let mut next = 0;
            for (call, certain) in &naming {
                let happens = *certain || {
                    next += 1;
                    reached & 1 << (next - 1) != 0
                };
                match call {
                    _ if !happens => {}
                    Call::Name(path, inode) => drop(named.insert(path.clone(), *inode)),
                    Call::Unname(path) => {
                        named.remove(path);
                        disk.remove(path);
                    }
                    Call::Rename(from, to) => {
                        if let Some(inode) = named.remove(from) {
                            named.insert(to.clone(), inode);
                        }
                    }
                    _ => {}
                }
            }
            for (path, inode) in named {
                let (mut content, certain) = inodes.get(&inode).cloned().unwrap_or_default();
                match unsynced {
                    Unsynced::Kept => {}
                    Unsynced::Dropped => content.truncate(certain),
                    Unsynced::Zeroed => content[certain..].fill(0),
                    Unsynced::Cut => content.truncate((certain + content.len()) / 2),
                }
                disk.insert(path, content);
            }
            states.push(disk);
        }
    }
    states
}

fn save<F: Files>(files: &F, path: &Path, step: u64) {
    let metadata = Metadata {
        genres: vec!["Drama".into()],
        thresholds: vec![0.3],
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: "5e".repeat(32),
        tuned: None,
        progress: Progress { total_steps: step, ..Progress::default() },
        config: RunConfig::default(),
    };
    let tensors = [("a/kernel".to_string(), vec![40, 8]), ("a/bias".to_string(), vec![8])];
    let values = |name: &str| {
        let len = if name == "a/bias" { 8 } else { 320 };
        Ok::<_, CheckpointError>(vec![step as f32; len])
    };
    checkpoint::write(files, path, &metadata, &tensors, values).unwrap();
}

/// The steps that `last` may hold after a power cut at any call of a save of step 2 over step 1; none where it is damaged or gone.
fn outcomes(files: &Recorder) -> BTreeSet<Option<u64>> {
    let folder = tempfile::tempdir().unwrap();
    let (path, probe) = (PathBuf::from("checkpoints/last.safetensors"), folder.path().join("probe.safetensors"));
    save(&onesheet::files::Disk, &probe, 1);
    let before = BTreeMap::from([(path.clone(), fs::read(&probe).unwrap())]);
    save(files, &path, 2);
    let calls = files.calls.borrow();
    let mut outcomes = BTreeSet::new();
    for end in 0..=calls.len() {
        for state in states(&calls[..end], &before) {
            let held = state.get(&path).and_then(|bytes| {
                fs::write(&probe, bytes).unwrap();
                Checkpoint::open(&probe).ok().map(|checkpoint| checkpoint.metadata().progress.total_steps)
            });
            outcomes.insert(held);
        }
    }
    // Once the save has returned, the new one is there to stay.
    for state in states(&calls, &before).iter().filter(|_| !files.deaf_to_sync) {
        fs::write(&probe, &state[&path]).unwrap();
        assert_eq!(Checkpoint::open(&probe).unwrap().metadata().progress.total_steps, 2);
    }
    outcomes
}

#[test]
fn a_power_cut_at_any_call_of_a_save_leaves_the_old_checkpoint_or_the_new_one() {
    assert_eq!(outcomes(&Recorder::default()), BTreeSet::from([Some(1), Some(2)]));
    // The test would notice a save that forgets to sync.
    let careless = Recorder { deaf_to_sync: true, calls: Rc::default() };
    assert!(outcomes(&careless).contains(&None));
}

#[test]
fn a_power_cut_leaves_the_old_settings_or_the_new_ones() {
    let path = PathBuf::from("run/config.toml");
    let before = BTreeMap::from([(path.clone(), b"old".to_vec())]);
    let disk = Recorder::default();
    replace(&disk, &path, b"new and longer").unwrap();
    let calls = disk.calls.borrow();
    let all: BTreeSet<Vec<u8>> =
        (0..=calls.len()).flat_map(|end| states(&calls[..end], &before)).map(|state| state[&path].clone()).collect();
    assert_eq!(all, BTreeSet::from([b"old".to_vec(), b"new and longer".to_vec()]));
}

/// A folder is there to stay once the one it is in is synced: each of those on the way, the outermost first.
#[test]
fn new_folders_are_synced_into_their_parents() {
    let root = tempfile::tempdir().unwrap();
    let disk = Recorder::default();
    create_folder(&disk, &root.path().join("runs/a/checkpoints")).unwrap();
    let calls: Vec<(bool, PathBuf)> = disk
        .calls
        .borrow()
        .iter()
        .map(|call| match call {
            Call::Folder(path) => (true, path.clone()),
            Call::SyncFolder(path) => (false, path.clone()),
            call => panic!("{call:?}"),
        })
        .collect();
    let [root, runs, run] = ["", "runs", "runs/a"].map(|name| root.path().join(name));
    let made = [runs.clone(), run.clone(), run.join("checkpoints")].map(|path| (true, path));
    let synced = [root, runs, run].map(|path| (false, path));
    assert_eq!(calls, made.into_iter().zip(synced).flat_map(|(a, b)| [a, b]).collect::<Vec<_>>());
}
