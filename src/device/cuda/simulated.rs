//! The simulated GPU: a CUDA driver in software, found by cudarc under the real one's name.
//!
//! `libgpusim.so` has the SONAME `libcuda.so`, and the loader does not open a second library of a name that it has open. So
//! opening it before cudarc's first call is all it takes.

use crate::device::DeviceError;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Names the library where it is not beside the program.
pub const VARIABLE: &str = "ONESHEET_GPUSIM";

/// Makes the simulated GPU this process's only CUDA device. Must come before anything else that uses CUDA.
///
/// # Errors
/// [`DeviceError::Unavailable`] if the library is not found or does not load.
pub fn open() -> Result<(), DeviceError> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(load).clone().map_err(DeviceError::Unavailable)
}

fn load() -> Result<(), String> {
    let candidates = candidates();
    let Some(path) = candidates.iter().find(|path| path.exists()) else {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        return Err(format!(
            "the simulated GPU's library is not there (tried {}); build it with `cargo build --release -p gpusim` and \
             name it in {VARIABLE}",
            tried.join(", ")
        ));
    };
    // SAFETY: the library has no initialisers that could do harm; it is our own.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|e| format!("{} does not load: {e}", path.display()))?;
    // SAFETY: only looks whether the name is there.
    if unsafe { library.get::<*const ()>(b"gpusimTakeCounters") }.is_err() {
        return Err(format!("{} is not this version's simulated GPU; build it anew", path.display()));
    }
    // It stays for the life of the process, as the driver would.
    std::mem::forget(library);
    Ok(())
}

/// Where it may be: where the variable says, else where cargo leaves it for programs and for tests.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return vec![path.into()];
    }
    let folder = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    let folder = folder.unwrap_or_default();
    ["deps/libgpusim.so", "libgpusim.so"].map(|name| folder.join(name)).to_vec()
}
