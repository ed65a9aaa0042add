//! The order of calls that a power cut cannot harm: what each file and folder still waits for, call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A call, as the witness notes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub verb: String,
    pub path: PathBuf,
    /// The new name, of a rename or a link.
    pub to: PathBuf,
}

/// The calls in a log of the witness.
pub fn calls(log: &str) -> Vec<Call> {
    let call = |line: &str| {
        let mut words = line.split('\t');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Call { verb: word(), path: word().into(), to: word().into() }
    };
    log.lines().map(call).collect()
}

/// Files that are written in place: rows of a log are added to it, and a lock says nothing that lasts.
const LOGS: [&str; 2] = ["steps.csv", "log.csv"];
const EVENTS: &str = "events.out.tfevents.";
const LOCK: &str = "lock";
/// The file that promises that the rows up to it are there.
const CHECKPOINT: &str = "last.safetensors";

fn is(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|&name| path.file_name().is_some_and(|found| found == name))
}

fn is_log(path: &Path) -> bool {
    let is_events = |name: &str| name.starts_with(EVENTS);
    is(path, &LOGS) || path.file_name().is_some_and(|name| name.to_str().is_some_and(is_events)) && !is_beside(path)
}

fn is_beside(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "partial")
}

fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A file's content, whatever its names.
#[derive(Clone, Copy, Default)]
struct Content {
    /// Something was written that no sync has followed.
    waits: bool,
    /// A sync failed: the system may have forgotten what it could not write, so no later sync proves anything.
    lost: bool,
}

/// What the disk is known to hold while the calls are read.
#[derive(Default)]
struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    /// Names given since their folder was last synced, of files and of folders.
    fresh: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
    faults: Vec<String>,
}

/// Everything in `calls` that a power cut could turn into a loss; `names` is what is there in the end.
pub fn faults(calls: &[Call], names: &[PathBuf]) -> Vec<String> {
    let mut disk = Disk::default();
    for call in calls {
        disk.take(call);
    }
    disk.end(names);
    disk.faults
}

impl Disk {
    fn fault(&mut self, path: &Path, what: &str) {
        self.faults.push(format!("{} {what}", path.display()));
    }

    /// The content behind `path`; one that was there before the first call counts as synced.
    fn content(&mut self, path: &Path) -> &mut Content {
        let contents = &mut self.contents;
        let index = *self.names.entry(path.into()).or_insert_with(|| {
            contents.push(Content::default());
            contents.len() - 1
        });
        &mut self.contents[index]
    }

    fn name(&mut self, path: &Path) {
        if self.removed.contains(path) {
            self.fault(path, "was removed before there was a new one");
        }
        let above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
        if let Some(folder) = above.into_iter().find(|folder| self.fresh.contains(folder)) {
            self.fault(path, &format!("is in {}, which is not synced into its own folder", folder.display()));
        }
        self.fresh.insert(path.into());
    }

    fn take(&mut self, Call { verb, path, to }: &Call) {
        match verb.as_str() {
            "folder" => drop(self.fresh.insert(path.clone())),
            "create" => {
                if !is_beside(path) && !is_log(path) && !is(path, &[LOCK]) {
                    self.fault(path, "is made where it is to be, not beside it");
                }
                self.names.remove(path);
                self.content(path);
                if !is_beside(path) {
                    self.name(path);
                }
            }
            "write" | "truncate" => {
                let in_place = !is_beside(path) && !is(path, &[LOCK]);
                if in_place && (!is_log(path) || verb == "truncate") {
                    self.fault(path, &format!("is changed in place: {verb}"));
                }
                self.content(path).waits = true;
            }
            "sync" => self.content(path).waits = false,
            "failed-sync" => self.content(path).lost = true,
            "sync-folder" => self.fresh.retain(|name| folder(name) != *path),
            "rename" => {
                let Content { waits, lost } = *self.content(path);
                if waits {
                    self.fault(to, "has its name before its content is synced");
                }
                if lost {
                    self.fault(to, "has its name although a sync of it failed");
                }
                if is(to, &[CHECKPOINT]) {
                    self.check_logs(to);
                }
                let index = self.names.remove(path).expect("its content was looked up");
                self.names.insert(to.clone(), index);
                self.fresh.remove(path);
                self.name(to);
            }
            "link" => {
                self.content(path);
                self.names.insert(to.clone(), self.names[path]);
                self.name(to);
            }
            "remove" => {
                if !is_beside(path) && self.fresh.iter().any(|name| folder(name) == folder(path)) {
                    self.fault(path, "is removed before what comes after it is there to stay");
                }
                self.names.remove(path);
                self.fresh.remove(path);
                if !is_beside(path) {
                    self.removed.insert(path.clone());
                }
            }
            failed => assert!(failed.starts_with("failed-"), "{failed} {}", path.display()),
        }
    }

    /// The rows of the steps that a checkpoint holds are there as long as it is.
    fn check_logs(&mut self, checkpoint: &Path) {
        let run = folder(&folder(checkpoint));
        let logs: Vec<PathBuf> =
            self.names.keys().filter(|path| folder(path) == run && is_log(path)).cloned().collect();
        for log in logs {
            if self.contents[self.names[&log]].waits {
                self.fault(&log, "has rows of steps that are in the checkpoint, and are not synced");
            }
        }
    }

    fn end(&mut self, names: &[PathBuf]) {
        for (name, &index) in &self.names.clone() {
            if self.contents[index].waits && !is(name, &[LOCK]) {
                self.fault(name, "is left with content that is not synced");
            }
            if is_beside(name) {
                self.fault(name, "is left over");
            }
        }
        for name in self.fresh.clone().iter().filter(|name| !is(name, &[LOCK])) {
            self.fault(name, "is left with a name that its folder was not synced for");
        }
        // Nothing got past the witness.
        let (seen, there): (BTreeSet<_>, BTreeSet<_>) =
            (self.names.keys().cloned().collect(), names.iter().cloned().collect());
        for name in seen.symmetric_difference(&there) {
            self.faults.push(format!("{} is known to the disk or to the witness only", name.display()));
        }
    }
}

/// The files below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What is said of `lines`, each a verb and a path or two, when `left` is there in the end.
#[track_caller]
fn says(lines: &[&str], left: &[&str], expected: &[&str]) {
    let log: String = lines.iter().map(|line| format!("{}\n", line.replace(' ', "\t"))).collect();
    let left: Vec<PathBuf> = left.iter().map(PathBuf::from).collect();
    let found = faults(&calls(&log), &left);
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(|(found, words)| found.contains(words)),
        "{found:#?}"
    );
}

const MADE: [&str; 4] = ["create /a/x.partial", "write /a/x.partial", "sync /a/x.partial", "rename /a/x.partial /a/x"];

#[test]
fn an_order_that_lasts_is_no_fault() {
    let [create, write, sync, rename] = MADE;
    says(&[create, write, sync, rename, "sync-folder /a"], &["/a/x"], &[]);
    says(&["folder /a", "sync-folder /", create, write, sync, rename, "sync-folder /a"], &["/a/x"], &[]);
    // The old one, kept under a second name until the new one is there to stay.
    let replaced = ["sync-folder /a", "link /a/x /a/y", create, write, sync, rename, "sync-folder /a", "remove /a/y"];
    says(&[&MADE[..], &replaced].concat(), &["/a/x"], &[]);
    says(&["failed-write /a/x.partial", create, "remove /a/x.partial"], &[], &[]);
    let logged = ["create /r/log.csv", "sync-folder /r", "write /r/log.csv", "sync /r/log.csv", "write /r/log.csv"];
    says(&logged, &["/r/log.csv"], &["log.csv is left with content that is not synced"]);
}

#[test]
fn every_wrong_order_is_found() {
    let [create, write, sync, rename] = MADE;
    let folder = "sync-folder /a";
    let early = "has its name before its content is synced";
    says(&[create, write, rename, folder], &["/a/x"], &[early, "is left with content"]);
    says(&[create, write, rename, folder, "sync /a/x"], &["/a/x"], &[early]);
    says(&[create, sync, write, rename, folder], &["/a/x"], &[early, "is left with content"]);
    says(&[create, write, sync, rename], &["/a/x"], &["is left with a name"]);
    says(&[create, write, sync, folder, rename], &["/a/x"], &["is left with a name"]);
    says(&["create /a/x", "write /a/x", "sync /a/x", folder], &["/a/x"], &["is made where it is", "in place: write"]);
    says(&["truncate /a/x", "sync /a/x"], &["/a/x"], &["in place: truncate"]);
    let events = ["create /r/events.out.tfevents.000001.onesheet", "write /r/events.out.tfevents.000001.onesheet"];
    says(&events, &["/r/events.out.tfevents.000001.onesheet"], &["not synced", "folder was not synced for"]);
    says(&["truncate /a/log.csv", "sync /a/log.csv"], &["/a/log.csv"], &["in place: truncate"]);
    says(&["remove /a/x", create, write, sync, rename, folder], &["/a/x"], &["removed before there was a new one"]);
    says(
        &[create, write, sync, rename, "remove /a/y", folder],
        &["/a/x"],
        &["y is removed before what comes after it"],
    );
    let retried = [create, write, "failed-sync /a/x.partial", sync, rename, folder];
    says(&retried, &["/a/x"], &["although a sync of it failed"]);
    let nowhere = ["folder /a", create, write, sync, rename, folder];
    says(&nowhere, &["/a/x"], &["/a/x is in /a, which is not synced", "/a is left with a name"]);
    says(&["folder /a"], &[], &["/a is left with a name"]);
    says(&[create, write, sync], &["/a/x.partial"], &["is left over"]);
    says(&[], &["/a/x"], &["known to the disk or to the witness only"]);
    says(&[create, write, sync, rename, folder], &[], &["known to the disk or to the witness only"]);
}

#[test]
fn a_checkpoint_ahead_of_its_logs_is_found() {
    let log = ["create /r/steps.csv", "sync-folder /r", "write /r/steps.csv"];
    let save = ["create /r/c/last.safetensors.partial", "sync /r/c/last.safetensors.partial"];
    let named = ["rename /r/c/last.safetensors.partial /r/c/last.safetensors", "sync-folder /r/c"];
    let (left, synced) = (["/r/steps.csv", "/r/c/last.safetensors"], ["sync /r/steps.csv"]);
    says(&[&log[..], &save, &synced, &named].concat(), &left, &[]);
    says(&[&log[..], &save, &named, &synced].concat(), &left, &["steps.csv has rows of steps"]);
}
