//! Disks that refuse: a call of the real disk fails, the program says so and ends with a code of its own, and what was saved before
//! is as it was.

use super::{REPORTED, Testimony, draw, miniature, onesheet, run_in, settings};
use crate::order::{faults, files};
use crate::runs;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{best_checkpoint, last_checkpoint};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const EIO: &str = "Input/output error";
const ENOSPC: &str = "No space left on device";

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Copies the run of `from`, whose posters stay where they are.
fn copy(from: &Path, to: &Path) {
    for (path, content) in contents(&run_in(from)) {
        let path = run_in(to).join(path.strip_prefix(run_in(from)).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::copy(from.join("posters.safetensors"), to.join("posters.safetensors")).unwrap();
}

/// A run of three steps that goes on while a call fails: what it says, if that is an error, and the step that it has saved.
#[test]
fn a_run_whose_disk_refuses_says_so_and_keeps_what_it_had() {
    let begun = TempDir::new().unwrap();
    draw(begun.path());
    runs::begin(&RunConfig { max_steps: Some(3), ..settings(begun.path()) }, &run_in(begun.path()));
    let before = fs::read(last_checkpoint(&run_in(begun.path()))).unwrap();
    let untouched = |cause: &str, doing: &str| format!("last.safetensors: {doing} it failed: {cause}");
    for (failing, words, step) in [
        ("create last.safetensors.partial 28 0 99", untouched(ENOSPC, "creating"), 3),
        ("write last.safetensors.partial 28 0 99", untouched(ENOSPC, "writing"), 3),
        ("sync last.safetensors.partial 5 0 99", untouched(EIO, "syncing"), 3),
        ("rename last.safetensors 5 0 99", untouched(EIO, "renaming"), 3),
        // Saved once more when the run ends: the file anew, for the sync that failed is not tried again.
        ("sync last.safetensors.partial 5 0 1", untouched(EIO, "syncing"), 4),
        // Step 4 is saved while it is scored and when its epoch ends.
        ("sync last.safetensors.partial 5 3 99", untouched(EIO, "syncing"), 5),
        ("sync best.safetensors.partial 5 0 99", format!("best.safetensors: syncing it failed: {EIO}"), 4),
        ("write answers.safetensors.partial 28 0 99", format!("answers.safetensors: writing it failed: {ENOSPC}"), 4),
        ("sync-folder checkpoints 5 0 99", format!("is saved, but its folder could not be synced: {EIO}"), 4),
        // Where a log is the trouble, the steps are saved.
        ("sync steps.csv 5 0 99", format!("steps.csv: {EIO}"), 4),
        ("write steps.csv 28 0 99", format!("steps.csv: {ENOSPC}"), 4),
        ("write log.csv 28 0 99", format!("log.csv: {ENOSPC}"), 4),
        ("sync log.csv 5 0 99", format!("log.csv: {EIO}"), 4),
        ("write events.out.tfevents.000002.onesheet 28 0 99", format!("tfevents.000002.onesheet: {ENOSPC}"), 4),
        ("sync events.out.tfevents.000002.onesheet 5 0 99", format!("tfevents.000002.onesheet: {EIO}"), 4),
        // Before anything is cut back.
        ("sync log.csv.partial 5 0 99", format!("log.csv: syncing it failed: {EIO}"), 3),
        // Without second names there is one checkpoint; one that cannot be removed is in nobody's way.
        ("link step-00000003.safetensors 1 0 99", String::new(), 8),
        ("remove step-00000001.safetensors 1 0 99", String::new(), 8),
    ] {
        let folder = TempDir::new().unwrap();
        let run = run_in(folder.path());
        copy(begun.path(), folder.path());
        let ended = Testimony::of(&mut miniature(folder.path()), folder.path(), Some(failing));
        let said = ended.said();
        let code = if words.is_empty() { 0 } else { REPORTED };
        assert!(ended.output.status.code() == Some(code) && said.contains(&words), "{failing}: {said}");
        assert!(ended.calls.iter().any(|call| call.verb.starts_with("failed-")), "{failing}: no such call");
        let last = Checkpoint::open(&last_checkpoint(&run)).unwrap();
        assert_eq!(last.metadata().progress.total_steps, step, "{failing}");
        assert!(step > 3 || fs::read(last_checkpoint(&run)).unwrap() == before, "{failing}");
        // No checkpoint speaks of a best one that is not there.
        let best = Checkpoint::open(&best_checkpoint(&run)).is_ok();
        assert_eq!(last.metadata().progress.best.is_some(), best, "{failing}");
        assert!(files(&run).iter().all(|path| path.extension().is_none_or(|end| end != "partial")), "{failing}");
        // Nothing took its name unsynced, nor after a sync that failed.
        let unfit = faults(&ended.calls, &ended.left).into_iter();
        let unfit = unfit.filter(|fault| fault.contains("has its name") || fault.contains("removed"));
        assert_eq!(unfit.collect::<Vec<_>>(), [""; 0], "{failing}");
    }
}

/// Two films in `labels.csv` whose posters are to be had on this machine.
#[cfg(feature = "fetch")]
pub fn table_to_fetch(folder: &Path) {
    use crate::server::{Server, poster, reply};
    let server = Server::start(|to, _, _| reply(to, "200 OK", "", &poster(image::ImageFormat::Png)));
    let at = format!("http://127.0.0.1:{}", server.port);
    let table = format!("imdbId,Genre,Poster\n1,Drama,{at}/1\n2,War,{at}/2\n");
    fs::write(folder.join("labels.csv"), table).unwrap();
}

#[cfg(feature = "fetch")]
#[test]
fn a_download_that_cannot_be_stored_is_said_and_leaves_no_half() {
    for failing in ["write .png.partial 5 0 99", "sync .png.partial 5 0 99", "rename .png 5 0 99"] {
        let folder = TempDir::new().unwrap();
        table_to_fetch(folder.path());
        let words = "prepare --labels labels.csv --download posters --image-size 8 --genres Drama";
        let ended = Testimony::of(&mut onesheet(folder.path(), words), folder.path(), Some(failing));
        let said = ended.said();
        assert_eq!(ended.output.status.code(), Some(1), "{failing}: {said}");
        assert!(said.contains("cannot write posters into posters") && said.contains(EIO), "{failing}: {said}");
        assert_eq!(files(&folder.path().join("posters")), [""; 0].map(PathBuf::from), "{failing}");
        assert!(!folder.path().join("posters.safetensors").exists());
    }
}

#[test]
fn prepare_on_a_disk_that_refuses_says_so_and_keeps_what_was_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("posters")).unwrap();
    image::RgbImage::new(9, 9).save(path.join("posters/tt0000001.png")).unwrap();
    let prepare = |ids: &[u32], failing: Option<&str>| {
        let rows: String = ids.iter().map(|id| format!("{id},Drama|War\n")).collect();
        fs::write(path.join("labels.csv"), format!("imdbId,Genre\n{rows}")).unwrap();
        let words = "prepare --labels labels.csv --posters posters --image-size 8 --genres Drama";
        Testimony::of(&mut onesheet(path, words), path, failing)
    };
    prepare(&[1], None).is_sound(path, &["posters.safetensors", "posters.skipped.csv"]);
    let (tensors, skipped) = (path.join("posters.safetensors"), path.join("posters.skipped.csv"));
    let before = [&tensors, &skipped].map(|path| fs::read(path).unwrap());
    for (failing, words, is_new) in [
        ("create posters.safetensors.partial 28 0 99", ENOSPC, false),
        ("write posters.safetensors.partial 28 0 99", ENOSPC, false),
        ("truncate posters.safetensors.partial 5 0 99", EIO, false),
        ("sync posters.safetensors.partial 5 0 99", EIO, false),
        ("rename posters.safetensors 5 0 99", EIO, false),
        ("create posters.skipped.csv.partial 28 0 99", ENOSPC, true),
        ("write posters.skipped.csv.partial 28 0 99", ENOSPC, true),
        ("sync posters.skipped.csv.partial 5 0 99", EIO, true),
        ("rename posters.skipped.csv 5 0 99", EIO, true),
    ] {
        let ended = prepare(&[1, 2], Some(failing));
        let said = ended.said();
        assert_eq!(ended.output.status.code(), Some(1), "{failing}: {said}");
        assert!(said.lines().any(|line| line.starts_with("error: ") && line.contains(words)), "{failing}: {said}");
        assert!(said.contains(if is_new { "posters.skipped.csv" } else { "posters.safetensors" }), "{failing}: {said}");
        assert_eq!(fs::read(&tensors).unwrap() != before[0], is_new, "{failing}");
        assert!(fs::read(&skipped).unwrap() == before[1], "{failing}");
        let left = files(path).into_iter().find(|path| path.extension().is_some_and(|end| end == "partial"));
        assert_eq!(left, None, "{failing}");
        prepare(&[1], None);
    }
    // The new file is in place when its folder fails; that it may not last is an error all the same.
    let folder_name = path.canonicalize().unwrap();
    let failing = format!("sync-folder {} 5 0 1", folder_name.display());
    let ended = prepare(&[1, 2], Some(&failing));
    assert_eq!(ended.output.status.code(), Some(1));
    assert!(ended.said().contains("folder of posters.safetensors"), "{}", ended.said());
    assert!(ended.said().contains(EIO) && fs::read(&skipped).unwrap() == before[1], "{}", ended.said());
    onesheet::data::tensor_file::TensorFile::open(&tensors).unwrap();
}
