//! Files read through memory maps, and what happens when one is cut short meanwhile.
//!
//! A page of a map that lies behind the new end of its file cannot be read: the system sends SIGBUS, and the process ends without
//! a word. [`name_faults`] has it say which file it was, and end with an exit code of the caller's.

use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::{io, ptr};

/// A regular file, mapped for reading.
///
/// Files that this program writes are replaced by renaming and never changed in place, so a map of one stays as it is. Another
/// program can still overwrite a mapped file, and then the bytes change; users of a map that matters compare digests.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    /// Where the signal handler finds it; none when more files are mapped than it can know.
    slot: Option<&'static Slot>,
}

impl Mapped {
    /// Maps all of `file`, which was opened at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(file: &File, path: &Path) -> io::Result<Mapped> {
        // SAFETY: the map is read-only and private to this value, which gives out plain bytes: whatever another program writes
        // into the file, each of them is a valid `u8`. What a file cut short means is said above.
        let map = unsafe { Mmap::map(file) }?;
        let slot = SLOTS.iter().find(|slot| slot.take(&map, path));
        Ok(Mapped { map, slot })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.give_back();
        }
    }
}

/// What the signal handler knows of one map. Handlers may neither lock nor allocate, so all of it is atomics.
#[derive(Debug)]
struct Slot {
    begin: AtomicUsize,
    /// 0 while the slot is free.
    end: AtomicUsize,
    /// The line that the handler prints. It is never freed, since a handler may be reading it: a few bytes a map.
    line: AtomicPtr<String>,
}

/// As many maps as the handler can know at a time; a tool has three at most.
static SLOTS: [Slot; 16] = [const { Slot::free() }; 16];

impl Slot {
    const fn free() -> Slot {
        let (begin, end) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Slot { begin, end, line: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Takes the slot for `map` if it is free.
    fn take(&self, map: &[u8], path: &Path) -> bool {
        let (begin, end) = (map.as_ptr() as usize, map.as_ptr() as usize + map.len());
        // Taken with an end of 1, which no address lies below, until the rest is in place.
        if map.is_empty() || self.end.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        let line = format!(
            "error: {} was cut short while it was being read; put it back whole. A run goes on from its newest checkpoint with \
             `train --resume`, and with --io read it would have saved first\n",
            path.display().to_string().replace(char::is_control, "\u{fffd}")
        );
        self.begin.store(begin, Ordering::Relaxed);
        self.line.store(Box::into_raw(Box::new(line)), Ordering::Relaxed);
        self.end.store(end, Ordering::Release);
        true
    }

    fn give_back(&self) {
        self.end.store(0, Ordering::Release);
    }

    /// The line to print for a fault at `address`, if it lies in this map.
    fn line_for(&self, address: usize) -> Option<&'static str> {
        let end = self.end.load(Ordering::Acquire);
        let inside = (self.begin.load(Ordering::Relaxed)..end).contains(&address);
        // SAFETY: `line` was stored before an `end` that an address can lie below, and what it points to is never freed.
        inside.then(|| unsafe { &*self.line.load(Ordering::Relaxed) }.as_str())
    }
}

/// Has a fault in a map print the file's name and end the process with this exit code. Any other SIGBUS stays what it is.
///
/// # Errors
/// The system's, if it takes no handler.
pub fn name_faults(code: i32) -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = install(code));
    result
}

#[cfg(unix)]
fn install(code: i32) -> io::Result<()> {
    use signal_hook::consts::SIGBUS;
    use signal_hook::low_level::{emulate_default_handler, exit};
    let handle = move |address: usize| match SLOTS.iter().find_map(|slot| slot.line_for(address)) {
        Some(line) => {
            let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
            exit(code)
        }
        None => {
            let _ = emulate_default_handler(SIGBUS);
        }
    };
    // SAFETY: all that the handler does is reading atomics, one write and an exit without clean-up, each of which is allowed in
    // a signal handler. A SIGBUS of the hardware has an address; in one that somebody sent, no map lies at what is there instead.
    unsafe { signal_hook_registry::register_sigaction(SIGBUS, move |info| handle(info.si_addr() as usize)) }.map(drop)
}

#[cfg(not(unix))]
fn install(_code: i32) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a\u{1b}[31m.bin");
        std::fs::write(&path, [7; 5000]).unwrap();
        let map = Mapped::new(&File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(map[4999], 7);
        let (first, last) = (map.as_ptr() as usize, map.as_ptr() as usize + 4999);
        let line = |address| SLOTS.iter().find_map(|slot| slot.line_for(address));
        for address in [first, last] {
            let line = line(address).unwrap();
            assert!(line.contains("a\u{fffd}[31m.bin was cut short"), "{line}");
        }
        assert_eq!(line(0), None);
        drop(map);
        assert_eq!(line(first), None);
    }
}
