//! A library that the test has loaded in front of libc, with `LD_PRELOAD`. It notes in `WITNESS_LOG` each call that changes what
//! is below `WITNESS_FOLDER`, in order, a line a call: the verb, then the path or both, with tabs between.
//!
//! `WITNESS_FAIL`, `verb suffix errno first count`, has calls of that verb on paths that end so fail: `count` of them, after the first
//! `first` have gone well. They are noted as `failed-verb`.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::{env, fs};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

const NEXT: *mut c_void = -1isize as *mut c_void;
const AT_FDCWD: c_int = -100;
/// O_WRONLY, O_CREAT, O_TRUNC and O_APPEND, as they are on every Linux that this is tested on.
const WRITE_ONLY: c_int = 1;
const CREATE: c_int = 0o100;
const TRUNCATE: c_int = 0o1000;
const APPEND: c_int = 0o2000;

/// What a call does: the verb and the paths it is about. None for what nobody asks for.
type Event = Option<(&'static str, PathBuf, Option<PathBuf>)>;

fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| env::var_os("WITNESS_FOLDER").map(PathBuf::from)).as_deref()
}

fn event(verb: &'static str, path: Option<PathBuf>, second: Option<PathBuf>) -> Event {
    let path = path?;
    let watched = |path: &Path| folder().is_some_and(|folder| path.starts_with(folder));
    if watched(&path) || second.as_deref().is_some_and(watched) { Some((verb, path, second)) } else { None }
}

/// The path of a name that a call was given.
unsafe fn named(at: c_int, name: *const c_char) -> Option<PathBuf> {
    // SAFETY: who called gave a C string.
    let name = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let base = if at == AT_FDCWD { env::current_dir().ok()? } else { of_file(at)? };
    // Without `.` and with one slash between names, as the system itself writes paths.
    Some(base.join(name).components().collect())
}

/// The path of an open file, as it is called now.
fn of_file(fd: c_int) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// Opening is an event only if it makes a file or empties one.
unsafe fn opening(at: c_int, name: *const c_char, flags: c_int) -> Event {
    let path = unsafe { named(at, name) };
    let there = path.as_ref().is_some_and(|path| path.symlink_metadata().is_ok());
    match there {
        false if flags & CREATE != 0 => event("create", path, None),
        true if flags & TRUNCATE != 0 => event("truncate", path, None),
        _ => None,
    }
}

fn syncing(fd: c_int) -> Event {
    let path = of_file(fd)?;
    event(if path.is_dir() { "sync-folder" } else { "sync" }, Some(path), None)
}

/// The errno that this call is to fail with, if it is.
fn planned_failure(verb: &str, path: &Path) -> Option<c_int> {
    static SEEN: Mutex<u64> = Mutex::new(0);
    let plan = env::var("WITNESS_FAIL").ok()?;
    let [chosen, suffix, errno, first, count] = plan.split(' ').collect::<Vec<_>>()[..] else { panic!("{plan}") };
    if verb != chosen || !path.as_os_str().as_bytes().ends_with(suffix.as_bytes()) {
        return None;
    }
    let [first, count]: [u64; 2] = [first, count].map(|number| number.parse().unwrap());
    let mut seen = SEEN.lock().unwrap();
    *seen += 1;
    (first < *seen && *seen - first <= count).then(|| errno.parse().unwrap())
}

fn note(verb: &str, path: &Path, second: Option<&Path>) {
    static LOG: OnceLock<c_int> = OnceLock::new();
    let next = |name: &CStr| unsafe { dlsym(NEXT, name.as_ptr()) };
    // SAFETY: these are the types of libc's functions.
    let write: unsafe extern "C" fn(c_int, *const c_void, usize) -> isize =
        unsafe { std::mem::transmute(next(c"write")) };
    let open: unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int =
        unsafe { std::mem::transmute(next(c"open")) };
    let log = *LOG.get_or_init(|| {
        let mut path = env::var_os("WITNESS_LOG").expect("WITNESS_LOG names the log").as_bytes().to_vec();
        path.push(0);
        // SAFETY: the path ends in a zero byte.
        unsafe { open(path.as_ptr().cast(), WRITE_ONLY | CREATE | APPEND, 0o600) }
    });
    let second = second.map(|path| format!("\t{}", path.display())).unwrap_or_default();
    let line = format!("{verb}\t{}{second}\n", path.display());
    // SAFETY: the bytes are there.
    let written = unsafe { write(log, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len() as isize, "the log cannot be written: {}", Error::last_os_error());
}

/// One call at a time, so that the log has the order in which they took effect.
fn witness<T: Copy + PartialOrd + From<i8>>(event: Event, call: impl FnOnce() -> T) -> T {
    static ORDER: Mutex<()> = Mutex::new(());
    let Some((verb, path, second)) = event else { return call() };
    let _one = ORDER.lock().unwrap();
    let failure = planned_failure(verb, &path).or_else(|| planned_failure(verb, second.as_deref()?));
    if let Some(errno) = failure {
        note(&format!("failed-{verb}"), &path, second.as_deref());
        // SAFETY: it is this thread's own.
        unsafe { *__errno_location() = errno };
        return T::from(-1);
    }
    let result = call();
    let error = Error::last_os_error();
    if result >= T::from(0) {
        note(verb, &path, second.as_deref());
    } else {
        // SAFETY: as above.
        unsafe { *__errno_location() = error.raw_os_error().unwrap_or_default() };
    }
    result
}

macro_rules! witnessed {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $event:expr;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            static REAL: OnceLock<usize> = OnceLock::new();
            let name = concat!(stringify!($name), "\0");
            // SAFETY: the name ends in a zero byte, and the function behind it has this type.
            unsafe {
                let real = *REAL.get_or_init(|| dlsym(NEXT, name.as_ptr().cast()) as usize);
                let real: unsafe extern "C" fn($($type),*) -> $result = std::mem::transmute(real);
                witness($event, || real($($argument),*))
            }
        }
    )* };
}

// A mode that the caller left out is passed on as it is and looked at by nobody.
witnessed! {
    fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int = opening(AT_FDCWD, path, flags);
    fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int = opening(AT_FDCWD, path, flags);
    fn openat(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int = opening(at, path, flags);
    fn openat64(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int = opening(at, path, flags);
    fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize = event("write", of_file(fd), None);
    fn writev(fd: c_int, pieces: *const c_void, count: c_int) -> isize = event("write", of_file(fd), None);
    fn pwrite(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize = event("write", of_file(fd), None);
    fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, at: i64) -> isize = event("write", of_file(fd), None);
    fn sendfile(to: c_int, from: c_int, at: *mut i64, count: usize) -> isize = event("write", of_file(to), None);
    fn sendfile64(to: c_int, from: c_int, at: *mut i64, count: usize) -> isize = event("write", of_file(to), None);
    fn copy_file_range(from: c_int, read: *mut i64, to: c_int, written: *mut i64, count: usize, flags: c_uint) -> isize =
        event("write", of_file(to), None);
    fn ftruncate(fd: c_int, length: i64) -> c_int = event("truncate", of_file(fd), None);
    fn ftruncate64(fd: c_int, length: i64) -> c_int = event("truncate", of_file(fd), None);
    fn fsync(fd: c_int) -> c_int = syncing(fd);
    fn fdatasync(fd: c_int) -> c_int = syncing(fd);
    fn rename(from: *const c_char, to: *const c_char) -> c_int =
        event("rename", named(AT_FDCWD, from), named(AT_FDCWD, to));
    fn renameat(at: c_int, from: *const c_char, other: c_int, to: *const c_char) -> c_int =
        event("rename", named(at, from), named(other, to));
    fn renameat2(at: c_int, from: *const c_char, other: c_int, to: *const c_char, flags: c_uint) -> c_int =
        event("rename", named(at, from), named(other, to));
    fn link(from: *const c_char, to: *const c_char) -> c_int =
        event("link", named(AT_FDCWD, from), named(AT_FDCWD, to));
    fn linkat(at: c_int, from: *const c_char, other: c_int, to: *const c_char, flags: c_int) -> c_int =
        event("link", named(at, from), named(other, to));
    fn unlink(path: *const c_char) -> c_int = event("remove", named(AT_FDCWD, path), None);
    fn unlinkat(at: c_int, path: *const c_char, flags: c_int) -> c_int = event("remove", named(at, path), None);
    fn mkdir(path: *const c_char, mode: c_uint) -> c_int = event("folder", named(AT_FDCWD, path), None);
    fn mkdirat(at: c_int, path: *const c_char, mode: c_uint) -> c_int = event("folder", named(at, path), None);
}
