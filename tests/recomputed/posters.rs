//! Posters whose three splits differ in size and in what is on them, with all that a test must know about them.

use onesheet::data::Split;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Side of a poster in pixels.
pub const SIDE: usize = 32;

/// Label columns, in no alphabetical order.
pub const GENRES: [&str; 7] = ["Western", "Drama", "Animation", "Horror", "Comedy", "War", "Other"];

/// How the posters say that they were made: nothing of it is what a file that says nothing is taken for.
pub const MADE: [(&str, &str); 3] = [("resize", "nearest"), ("exif", "apply"), ("alpha", "white")];

/// A tensor file and what was written into it.
pub struct Posters {
    pub path: PathBuf,
    pub digest: String,
    pub pixels: Vec<Vec<u8>>,
    pub labels: Vec<Vec<u8>>,
    pub split: Vec<Split>,
}

impl Posters {
    /// Draws 31 training posters, 11 for validation and 6 for the test, all mixed.
    pub fn write(folder: &Path) -> Posters {
        let path = folder.join("posters.safetensors");
        let (mut pixels, mut labels, mut split) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..48 {
            let (drawn, genres) = synthetic::draw(5, index, SIDE);
            pixels.push(drawn);
            labels.push(genres);
            split.push(match index % 8 {
                1 | 4 if index != 41 => Split::Validation,
                6 => Split::Test,
                _ => Split::Train,
            });
        }
        let description = Description {
            size: SIDE,
            genres: GENRES.map(String::from).to_vec(),
            capacity: split.len(),
            provenance: BTreeMap::from(MADE.map(|(key, value)| (key.into(), value.into()))),
        };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for index in 0..split.len() {
            writer.push(&format!("tt{index:07}"), &pixels[index], &labels[index], split[index]).unwrap();
        }
        writer.finish().unwrap();
        let digest = TensorFile::open(&path).unwrap().digest().into();
        let posters = Posters { path, digest, pixels, labels, split };
        assert_eq!(Split::ALL.map(|split| posters.of(split).len()), [31, 11, 6]);
        posters
    }

    /// Which posters are in a split, in the file's order.
    pub fn of(&self, split: Split) -> Vec<usize> {
        (0..self.split.len()).filter(|&index| self.split[index] == split).collect()
    }

    /// The pixels of some posters, one behind the other.
    pub fn pixels(&self, indices: &[usize]) -> Vec<u8> {
        indices.iter().flat_map(|&index| self.pixels[index].clone()).collect()
    }

    /// The labels of some posters, one behind the other.
    pub fn labels(&self, indices: &[usize]) -> Vec<u8> {
        indices.iter().flat_map(|&index| self.labels[index].clone()).collect()
    }

    /// scikit-learn's balanced weights, N / (C · count), of some posters.
    pub fn balanced(&self, indices: &[usize]) -> Vec<f32> {
        let count = |genre: usize| indices.iter().filter(|&&index| self.labels[index][genre] == 1).count();
        let weight = |genre| indices.len() as f64 / (GENRES.len() as f64 * count(genre) as f64);
        (0..GENRES.len()).map(|genre| if count(genre) == 0 { 1.0 } else { weight(genre) as f32 }).collect()
    }
}
