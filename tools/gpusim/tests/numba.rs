//! Python's numba.cuda, unmodified, on the simulated GPU (tests/numba/client.py).
//!
//! The packages that tests/numba/requirements.txt pins, some 700 MB, go into a virtual environment in the target folder,
//! once. Nobody who only has Rust should find that in his tests, so it happens where `CI` or `GPUSIM_NUMBA` is set in the
//! environment; elsewhere the test says that it checked nothing.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("numba/requirements.txt");

/// Runs a command; what it printed, if it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match command.output() {
        Err(error) => Err(format!("{command:?}: {error}")),
        Ok(out) if out.status.success() => Ok(text(&out.stdout)),
        Ok(out) => Err(format!("{command:?}: {}\n{}{}", out.status, text(&out.stdout), text(&out.stderr))),
    }
}

/// The Python of a virtual environment that has the packages.
fn python(root: &Path) -> Result<PathBuf, String> {
    let environment = root.join("environment");
    let python = environment.join("bin/python");
    // Written last, so that an installation that was cut short is begun again.
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == REQUIREMENTS) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numba/requirements.txt");
    let install = ["-m", "pip", "install", "--no-deps", "--no-compile", "--only-binary", ":all:", "--requirement"];
    run(Command::new(&python).args(install).arg(requirements))?;
    fs::write(installed, REQUIREMENTS).unwrap();
    Ok(python)
}

/// A folder where the simulated driver has the name that programs look for.
fn driver(root: &Path) -> PathBuf {
    let folder = root.join("driver");
    let link = folder.join("libcuda.so.1");
    fs::create_dir_all(&folder).unwrap();
    if link.is_symlink() {
        fs::remove_file(&link).unwrap();
    }
    let library = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
    std::os::unix::fs::symlink(library, link).unwrap();
    folder
}

#[test]
fn numba_adds_reduces_and_multiplies() {
    if ["CI", "GPUSIM_NUMBA"].into_iter().all(|name| std::env::var_os(name).is_none()) {
        // Past the test harness, which would keep it to itself.
        let note = "\nNOT CHECKED: numba.cuda on the simulated GPU; GPUSIM_NUMBA=1 installs it (700 MB) and runs it\n";
        io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("numba");
    fs::create_dir_all(&root).unwrap();
    let python = python(&root).unwrap_or_else(|error| panic!("numba cannot be installed: {error}"));
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numba/client.py");
    let printed = run(Command::new(python).arg(client).env("LD_LIBRARY_PATH", driver(&root)));
    let printed = printed.unwrap_or_else(|error| panic!("{error}"));
    assert!(printed.contains("in software"), "not on the simulated GPU: {printed}");
    assert!(printed.contains("vector add, reduction and matrix product are right"), "{printed}");
}
