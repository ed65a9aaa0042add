//! The Python that the others run in: a virtual environment with pinned packages.

use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Cargo runs a bench in the package's folder.
const FOLDER: &str = "benches/cpu_peers";

/// Prints the version of each package named, or null.
const VERSIONS: &str = "
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))";

/// A file of this bench.
///
/// # Errors
/// If the bench runs somewhere else.
pub fn file(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(FOLDER).join(name);
    ensure!(
        path.is_file(),
        "{} is not here; `cargo bench --bench cpu_peers` runs in the project's folder",
        path.display()
    );
    Ok(path)
}

/// The Python of the environment in `folder`, which is made by `maker` if it is not there. What it lacks of the pinned packages is
/// installed.
///
/// # Errors
/// If there is no such Python, or the packages cannot be installed.
pub fn python(folder: &Path, maker: &str) -> anyhow::Result<PathBuf> {
    let requirements = file("requirements.txt")?;
    let text = std::fs::read_to_string(&requirements)?;
    let pinned: Vec<(&str, &str)> = text.lines().filter_map(|line| line.trim().split_once("==")).collect();
    let python = folder.join("bin/python");
    if !python.exists() {
        eprintln!("making a virtual environment in {}", folder.display());
        let made = Command::new(maker).args(["-m", "venv"]).arg(folder).stdout(Stdio::null()).status();
        let made = made.with_context(|| format!("--python {maker}"))?;
        ensure!(made.success(), "`{maker} -m venv` made none in {}; its own words are above", folder.display());
    }
    let missing = missing(&python, &pinned)?;
    if !missing.is_empty() {
        eprintln!("installing into {}: {}", folder.display(), missing.join(", "));
        let mut pip = Command::new(&python);
        // Its words are no results.
        pip.args(["-m", "pip", "install", "--requirement"]).arg(&requirements).stdout(std::io::stderr());
        ensure!(
            pip.status()?.success(),
            "pip did not install {}; its own words are above. The packages take 6 GB where PyTorch comes with CUDA, as it does \
             from PyPI; --venv names another folder, also one that has them already",
            requirements.display()
        );
        let missing = self::missing(&python, &pinned)?;
        ensure!(
            missing.is_empty(),
            "pip has installed everything, and yet {} lacks {}",
            folder.display(),
            missing.join(", ")
        );
    }
    Ok(python)
}

/// What of the pinned packages is not there in that version.
fn missing(python: &Path, pinned: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
    let names = pinned.iter().map(|(name, _)| name);
    let output = Command::new(python).args(["-c", VERSIONS]).args(names).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", python.display()))?;
    if !output.status.success() {
        bail!("{} does not run; remove its folder to have it made again", python.display());
    }
    let found: BTreeMap<String, Option<String>> = serde_json::from_slice(&output.stdout)?;
    // Behind a plus stands how it was built, such as for processors alone.
    let has = |name: &str, version: &str| {
        found.get(name).and_then(Option::as_deref).is_some_and(|found| found.split('+').next() == Some(version))
    };
    let missing = pinned.iter().filter(|(name, version)| !has(name, version));
    Ok(missing.map(|(name, version)| format!("{name} {version}")).collect())
}
