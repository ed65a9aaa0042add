//! The tensor file: what was written is read, here and elsewhere, and what was not is refused.

mod damage;
mod hostile;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use onesheet::data::Split;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileError, TensorFileWriter};
use tempfile::TempDir;

const SIZE: usize = 4;
const IMAGE: usize = SIZE * SIZE * 3;

fn description(capacity: usize) -> Description {
    Description {
        size: SIZE,
        genres: ["Action", "Drama", "Other"].map(String::from).to_vec(),
        capacity,
        provenance: BTreeMap::from([("table".into(), "a \"quoted\" näme.csv".into())]),
    }
}

fn image(i: usize) -> Vec<u8> {
    (0..IMAGE).map(|byte| (i * 31 + byte * 7) as u8).collect()
}

fn labels(i: usize) -> [u8; 3] {
    [(i % 2) as u8, (i.is_multiple_of(3)) as u8, 1]
}

fn split(i: usize) -> Split {
    Split::ALL[i % 3]
}

/// A file of `n` images in a folder of its own.
fn sample(n: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    let mut writer = TensorFileWriter::create(&path, description(n + 5)).unwrap();
    for i in 0..n {
        writer.push(&format!("tt{i:07}"), &image(i), &labels(i), split(i)).unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

/// Opens `bytes` as a file, which must be refused; the error must name the file.
fn refusal(folder: &Path, bytes: &[u8]) -> TensorFileError {
    let path = folder.join("hostile.safetensors");
    fs::write(&path, bytes).unwrap();
    let error = TensorFile::open(&path).expect_err("a hostile file opened");
    assert!(error.to_string().contains("hostile.safetensors"), "{error}");
    error
}
