//! What the driver says: on standard error, and to callers who ask.

use super::Code;
use crate::count::{Gpu, Registers, Summary, Tally};
use crate::exec::Launch;
use parking_lot::Mutex;
use std::ffi::c_char;
use std::sync::OnceLock;

/// Everything said and not yet fetched, a line each.
static SAID: Mutex<String> = Mutex::new(String::new());

/// A line of JSON for each launch, once somebody has asked for them.
static COUNTERS: Mutex<Option<String>> = Mutex::new(None);

/// So many bytes are kept for who asks.
const KEPT: usize = 1 << 20;

/// Says a line.
pub(super) fn say(line: &str) {
    eprintln!("gpusim: {line}");
    let mut said = SAID.lock();
    if said.len() + line.len() < KEPT {
        said.push_str(line);
        said.push('\n');
    }
}

/// Is this environment variable set to something other than 0?
pub(super) fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value != "0" && !value.is_empty())
}

/// With `GPUSIM_TRACE`, says which call failed.
pub(super) fn trace(name: &str, code: Code) {
    static ON: OnceLock<bool> = OnceLock::new();
    if *ON.get_or_init(|| flag("GPUSIM_TRACE")) {
        eprintln!("gpusim: {name} gives {}", code.name());
    }
}

/// Moves what was said since the last call into `buffer`, as text ended by a zero; gives its length. Not part of CUDA.
///
/// # Safety
/// `buffer` has room for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusimTakeReport(buffer: *mut c_char, bytes: usize) -> usize {
    if buffer.is_null() || bytes == 0 {
        return 0;
    }
    let said = std::mem::take(&mut *SAID.lock());
    let length = said.len().min(bytes - 1);
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(said.as_ptr(), buffer.cast(), length);
        buffer.add(length).write(0);
    }
    length
}

/// What each launch did since the last call, as lines of JSON ended by a zero; gives their length. The first call only starts
/// the counting. Lines that don't fit into `buffer` stay for the next call, whose length it then gives. Not part of CUDA.
///
/// # Safety
/// `buffer` has room for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusimTakeCounters(buffer: *mut c_char, bytes: usize) -> usize {
    let mut counters = COUNTERS.lock();
    let lines = counters.get_or_insert_default();
    let length = lines.len();
    if !buffer.is_null() && length < bytes {
        // SAFETY: the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(lines.as_ptr(), buffer.cast(), length);
            buffer.add(length).write(0);
        }
        lines.clear();
    }
    length
}

/// Keeps what a launch did for who asks; and with `GPUSIM_COUNTERS` says it: as a table, or as a line of JSON if it is
/// `json`.
pub(super) fn counted(launch: &Launch<'_>, tally: &Tally, gpu: &Gpu, registers: Registers) {
    static FORM: OnceLock<Option<bool>> = OnceLock::new();
    let form = FORM.get_or_init(|| {
        let json = std::env::var("GPUSIM_COUNTERS").is_ok_and(|value| value == "json");
        flag("GPUSIM_COUNTERS").then_some(json)
    });
    let mut counters = COUNTERS.lock();
    if form.is_none() && counters.is_none() {
        return;
    }
    let summary = Summary::new(launch, tally, gpu, registers);
    let line = serde_json::to_string(&summary).expect("its keys are strings");
    if let Some(lines) = counters.as_mut() {
        lines.push_str(&line);
        lines.push('\n');
    }
    match *form {
        Some(true) => say(&line),
        Some(false) => say(&summary.to_string()),
        None => {}
    }
}
