//! The lock of a run folder: the operating system's, on an open file with the holder's process id in it.

use super::{RunFolderError, unwritable};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Takes the folder's lock, or says who has it.
pub(super) fn lock(folder: &Path) -> Result<File, RunFolderError> {
    let path = folder.join("lock");
    let failed = |cause| unwritable(&path, cause);
    // Not truncated on opening: another process's id may be in it.
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            write!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
        Err(TryLockError::WouldBlock) => Err(RunFolderError::Locked { path: folder.into(), holder: holder(&mut file) }),
    }
}

/// The id that the holder of the lock has written into it. Between its locking and its writing there is a moment without.
fn holder(file: &mut File) -> String {
    for _ in 0..100 {
        let mut holder = String::new();
        if file.rewind().and_then(|()| file.read_to_string(&mut holder)).is_ok_and(|length| length > 0) {
            return holder;
        }
        thread::sleep(Duration::from_millis(5));
    }
    "unknown".into()
}

#[cfg(test)]
mod tests {
    use crate::training::config::RunConfig;
    use crate::training::run_folder::RunFolder;
    use std::fs::{self, File};
    use std::io::Write;
    use std::thread;
    use std::time::Duration;

    /// The moment between the holder's locking and its writing, drawn out.
    #[test]
    fn the_loser_waits_for_the_winners_name() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        lock.try_lock().unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            (&lock).write_all(b"4711").unwrap();
            lock
        });
        let error = RunFolder::create(folder.path(), &RunConfig::default()).unwrap_err().to_string();
        assert!(error.contains("in use by process 4711"), "{error}");
        drop(writer.join().unwrap());
        drop(RunFolder::create(folder.path(), &RunConfig::default()).unwrap());
        assert_eq!(fs::read_to_string(folder.path().join("lock")).unwrap(), "", "nobody holds it");
    }

    #[test]
    fn fifty_races_have_one_winner_each() {
        let folder = tempfile::tempdir().unwrap();
        for race in 0..50 {
            let path = folder.path().join(race.to_string());
            let contestants: Vec<_> = (0..4)
                .map(|_| {
                    let path = path.clone();
                    std::thread::spawn(move || RunFolder::create(&path, &RunConfig::default()))
                })
                .collect();
            let results: Vec<_> = contestants.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "race {race}: {results:?}");
        }
    }
}
