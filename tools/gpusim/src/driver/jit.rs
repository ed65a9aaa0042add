//! What a program sees of the compiler that loads PTX: its logs, in the words of `ptxas`, and the time it took.
//!
//! Nothing is compiled here, so most options change nothing. Those that a caller can see the effect of are honoured: a
//! program that shows the compiler's words on its first GPU must have been tried before.

use super::module::source;
use super::state::Driver;
use super::{Answer, Code, Handle, ready};
use crate::ptx::ParseError;
use std::ffi::c_void;
use std::fmt::Write;
use std::time::Instant;

/// Why a module was not loaded: the code, and what `ptxas` would write into the log of errors.
pub(super) struct Refusal {
    pub code: Code,
    log: String,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, log: String::new() }
    }
}

impl From<Refusal> for Code {
    fn from(refusal: Refusal) -> Self {
        refusal.code
    }
}

/// The line on which a directive stands, from 1.
fn line_of(text: &str, directive: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(directive)).map_or(1, |line| line + 1)
}

impl Refusal {
    /// Text that isn't PTX.
    pub fn syntax(error: &ParseError) -> Self {
        let log = format!(
            "ptxas application ptx input, line {}; error   : {}\nptxas fatal   : Ptx assembly aborted due to errors\n",
            error.line, error.what
        );
        Self { code: Code::INVALID_PTX, log }
    }

    /// PTX that is newer than what is taken.
    pub fn version(text: &str, found: (u32, u32), newest: (u32, u32)) -> Self {
        let log = format!(
            "ptxas application ptx input, line {}; fatal   : Unsupported .version {}.{}; current version is '{}.{}'\n",
            line_of(text, ".version"),
            found.0,
            found.1,
            newest.0,
            newest.1
        );
        Self { code: Code::UNSUPPORTED_PTX_VERSION, log }
    }

    /// PTX for a newer device.
    pub fn target(text: &str) -> Self {
        let log = format!(
            "ptxas application ptx input, line {}; fatal   : SM version specified by .target is higher than default SM \
             version assumed\n",
            line_of(text, ".target")
        );
        Self { code: Code::NO_BINARY_FOR_GPU, log }
    }
}

const WALL_TIME: u32 = 2;
const INFO_LOG: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;
const LOG_VERBOSE: u32 = 12;

/// The options of a call; those that aren't named above tell a compiler how to optimise. A value is a pointer's bits: a number, or the address of a buffer.
struct Options<'a> {
    names: &'a [u32],
    values: &'a mut [*mut c_void],
}

impl<'a> Options<'a> {
    /// # Safety
    /// Both pointers have `count` elements, and nobody else uses them during the call.
    unsafe fn new(count: u32, names: *const u32, values: *mut *mut c_void) -> Answer<Self> {
        if count == 0 {
            return Ok(Self { names: &[], values: &mut [] });
        }
        if names.is_null() || values.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        let (names, values) = unsafe {
            (std::slice::from_raw_parts(names, count as usize), std::slice::from_raw_parts_mut(values, count as usize))
        };
        Ok(Self { names, values })
    }

    fn value(&mut self, name: u32) -> Option<&mut *mut c_void> {
        let index = self.names.iter().position(|&known| known == name)?;
        self.values.get_mut(index)
    }

    /// Writes what fits of a log into its buffer, ended by a zero, and the bytes before that zero into the buffer's size.
    ///
    /// # Safety
    /// A buffer among the values has as many bytes as its size says.
    unsafe fn log(&mut self, buffer: u32, bytes: u32, text: &str) {
        let buffer = self.value(buffer).map_or(std::ptr::null_mut(), |value| *value);
        let Some(size) = self.value(bytes) else { return };
        let room = *size as usize as u32 as usize;
        let length = if buffer.is_null() { 0 } else { text.len().min(room.saturating_sub(1)) };
        if !buffer.is_null() && room > 0 {
            // SAFETY: the caller's promise.
            unsafe {
                std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), length);
                buffer.cast::<u8>().add(length).write(0);
            }
        }
        *size = length as *mut c_void;
    }
}

/// Loads a module for `cuModuleLoadDataEx` and its newer name.
///
/// # Safety
/// As NVIDIA documents the image and the options.
pub(super) unsafe fn load(
    image: *const c_void,
    count: u32,
    names: *const u32,
    values: *mut *mut c_void,
) -> Answer<Handle> {
    // SAFETY: the caller's promise.
    let mut options = unsafe { Options::new(count, names, values)? };
    let begun = Instant::now();
    let mut driver = ready()?;
    let loaded = source(image).map_err(Refusal::from).and_then(|text| driver.load(text));
    let verbose = options.value(LOG_VERBOSE).is_some_and(|value| !value.is_null());
    let (info, error) = match &loaded {
        Ok(module) if verbose => (driver.describe(*module), ""),
        Ok(_) => (String::new(), ""),
        Err(refusal) => (String::new(), refusal.log.as_str()),
    };
    // SAFETY: the caller's promise.
    unsafe {
        options.log(INFO_LOG, INFO_LOG_BYTES, &info);
        options.log(ERROR_LOG, ERROR_LOG_BYTES, error);
    }
    if let Some(time) = options.value(WALL_TIME) {
        // A float's bits.
        *time = (begun.elapsed().as_secs_f32() * 1e3).to_bits() as usize as *mut c_void;
    }
    Ok(loaded?)
}

impl Driver {
    /// What `ptxas -v` would say of a module's kernels. An interpreter spills nothing: what the table of resources says of
    /// spilled registers is in the stack.
    fn describe(&mut self, module: Handle) -> String {
        let Some(loaded) = self.modules.get_mut(&module) else { return String::new() };
        let (major, minor) = self.device.gpu.capability;
        let names: Vec<String> = loaded.module.kernel_names().map(str::to_owned).collect();
        let mut log = String::new();
        for name in names {
            // What isn't supported is said when the kernel is asked for.
            let Ok(Some(kernel)) = loaded.module.kernel(&name) else { continue };
            let (registers, stack) = self.device.resources.used(&kernel, (major, minor));
            let shared = kernel.shared_bytes;
            let _ = writeln!(log, "ptxas info    : Compiling entry function '{name}' for 'sm_{major}{minor}'");
            let _ = writeln!(log, "ptxas info    : Function properties for {name}");
            let _ = writeln!(log, "    {stack} bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
            let _ = writeln!(log, "ptxas info    : Used {} registers, {shared} bytes smem", registers.each);
        }
        log
    }
}
