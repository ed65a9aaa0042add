//! What tests of the driver share: opening it.

use std::sync::OnceLock;

/// The simulated GPU's library, opened so that cudarc's own search for `libcuda.so` finds it; `before` runs first.
pub fn open(before: impl FnOnce()) -> &'static libloading::Library {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        before();
        let library = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
        // SAFETY: the library has no initialisers.
        unsafe { libloading::Library::new(&library) }.unwrap_or_else(|e| panic!("{library:?}: {e}"))
    })
}
