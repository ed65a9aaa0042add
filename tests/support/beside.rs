//! Where a program finds what it needs while it runs: beside itself, wherever it was carried to. Nothing of the place where it
//! was built is in it.

use std::path::PathBuf;

/// The first of `places` with a file in it, seen from the folder of this executable.
pub fn find(places: &[&str]) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    places.iter().map(|place| folder.join(place)).find(|path| path.is_file())
}
