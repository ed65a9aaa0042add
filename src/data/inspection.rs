//! What is in a file of posters: counts, films and pictures that come more than once, and posters that show nothing.

use super::Split;
use super::films::FilmId;
use super::likeness::{self, Look};
use super::tensor_file::{BLOCK, TensorFile, TensorFileError};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// From so many films with one picture on it is taken for a placeholder, such as a site shows where it has no poster. Two or three films
/// may share one: of a series, or of a film that the label table has under two ids.
pub const PLACEHOLDER: usize = 4;

/// Some posters of a file that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their places in the file, in order.
    pub posters: Vec<u32>,
    /// How many films they are of.
    pub films: usize,
    /// The splits that they are in, in order. More than one is a leak: a model is tested on what it was trained on.
    pub splits: Vec<Split>,
}

impl Group {
    /// Whether they are in several splits.
    pub fn is_leak(&self) -> bool {
        self.splits.len() > 1
    }
}

/// What is in a file of posters.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Posters of each split, in the order of [`Split::ALL`].
    pub splits: [u32; 3],
    /// For each genre the posters of each split that have it.
    pub genres: Vec<[u32; 3]>,
    /// For each two genres the posters that have both, `[C][C]`; of one with itself, those that have it.
    pub together: Vec<Vec<u32>>,
    /// How many posters have no genre, one, two and so on.
    pub genres_of_a_poster: Vec<u32>,
    /// Films.
    pub films: usize,
    /// Films with more than one poster.
    pub repeated: Vec<Group>,
    /// Pictures that are there more than once, of fewer than [`PLACEHOLDER`] films.
    pub alike: Vec<Group>,
    /// Pictures that stand for [`PLACEHOLDER`] films or more.
    pub placeholders: Vec<Group>,
    /// Posters that are almost of one colour.
    pub of_one_colour: Vec<u32>,
}

impl Inspection {
    /// Looks at every poster of `file`, telling `between` from time to time how many are done.
    ///
    /// # Errors
    /// The file's; damaged pixels are found.
    pub fn new(file: &TensorFile, mut between: impl FnMut(usize)) -> Result<Self, TensorFileError> {
        let mut looks = Vec::with_capacity(file.len());
        // Digests are compared block by block, each once.
        for first in (0..file.len()).step_by(8 * BLOCK) {
            let end = file.len().min(first + 8 * BLOCK);
            (first / BLOCK..end.div_ceil(BLOCK)).into_par_iter().try_for_each(|block| file.verify_block(block))?;
            let look = |at: usize| Ok(Look::new(&file.image_checked(at)?, file.size()));
            looks.extend((first..end).into_par_iter().map(look).collect::<Result<Vec<Look>, TensorFileError>>()?);
            between(end);
        }
        Ok(Inspection::of(file, &looks))
    }

    fn of(file: &TensorFile, looks: &[Look]) -> Self {
        let genres = file.genres().len();
        let (mut splits, mut by_split) = ([0; 3], vec![[0; 3]; genres]);
        let (mut together, mut genres_of_a_poster) = (vec![vec![0; genres]; genres], vec![0; genres + 1]);
        let mut films: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for at in 0..file.len() {
            let (labels, split) = (file.labels(at), file.split(at) as usize);
            let named: Vec<usize> = (0..genres).filter(|&genre| labels[genre] == 1).collect();
            splits[split] += 1;
            genres_of_a_poster[named.len()] += 1;
            for &genre in &named {
                by_split[genre][split] += 1;
                named.iter().for_each(|&other| together[genre][other] += 1);
            }
            films.entry(film(file, at)).or_default().push(at as u32);
        }
        let group = |posters: Vec<u32>| {
            let count = |mut of: Vec<String>| {
                of.sort();
                of.dedup();
                of.len()
            };
            let mut splits: Vec<Split> = posters.iter().map(|&at| file.split(at as usize)).collect();
            splits.sort();
            splits.dedup();
            Group { films: count(posters.iter().map(|&at| film(file, at as usize)).collect()), splits, posters }
        };
        let count = films.len();
        let mut repeated: Vec<Group> = films.into_values().filter(|posters| posters.len() > 1).map(group).collect();
        repeated.sort_by(|a, b| a.posters.cmp(&b.posters));
        let (placeholders, alike) =
            likeness::groups(looks).into_iter().map(group).partition(|group| group.films >= PLACEHOLDER);
        let is_plain = |&at: &u32| looks[at as usize].is_of_one_colour();
        Inspection {
            splits,
            genres: by_split,
            together,
            genres_of_a_poster,
            films: count,
            repeated,
            alike,
            placeholders,
            of_one_colour: (0..file.len() as u32).filter(is_plain).collect(),
        }
    }

    /// How many groups of a film or a picture are in several splits.
    pub fn leaks(&self) -> usize {
        let groups = [&self.repeated, &self.alike, &self.placeholders].into_iter().flatten();
        groups.filter(|group| group.is_leak()).count()
    }
}

/// The film of a poster: spellings of one id are one.
fn film(file: &TensorFile, at: usize) -> String {
    let id = &file.ids()[at];
    FilmId::parse(id).map_or_else(|| id.clone(), |id| id.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::data::tensor_file::{Description, TensorFileWriter};

    const SIZE: usize = 64;

    /// A file of posters, each an id, which drawn picture it has, its labels and its split.
    fn inspected(posters: &[(&str, Option<u32>, [u8; 3], usize)]) -> Inspection {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("posters.safetensors");
        let genres = ["War", "Drama", "Crime"].map(String::from).to_vec();
        let description = Description { size: SIZE, genres, capacity: posters.len(), provenance: Default::default() };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for (id, picture, labels, split) in posters {
            let pixels = picture.map_or_else(|| vec![7; 3 * SIZE * SIZE], |drawn| synthetic::draw(5, drawn, SIZE).0);
            writer.push(id, &pixels, labels, Split::ALL[*split]).unwrap();
        }
        writer.finish().unwrap();
        let mut seen = Vec::new();
        let inspection = Inspection::new(&TensorFile::open(&path).unwrap(), |done| seen.push(done)).unwrap();
        assert_eq!(seen.last(), Some(&posters.len()));
        inspection
    }

    #[test]
    fn counts_by_hand() {
        let inspection = inspected(&[
            ("1", Some(1), [1, 1, 0], 0),
            ("2", Some(2), [0, 1, 0], 0),
            ("3", Some(3), [1, 1, 1], 2),
            ("4", Some(4), [0, 0, 0], 1),
        ]);
        assert_eq!((inspection.splits, inspection.films, inspection.leaks()), ([2, 1, 1], 4, 0));
        assert_eq!(inspection.genres, [[1, 0, 1], [2, 0, 1], [0, 0, 1]]);
        assert_eq!(inspection.together, [[2, 2, 1], [2, 3, 1], [1, 1, 1]]);
        assert_eq!(inspection.genres_of_a_poster, [1, 1, 1, 1]);
        let nothing: [&[Group]; 3] = [&inspection.repeated, &inspection.alike, &inspection.placeholders];
        assert!(nothing.iter().all(|groups| groups.is_empty()) && inspection.of_one_colour.is_empty());
    }

    #[test]
    fn films_pictures_placeholders_and_plain_posters_are_told_apart() {
        let labels = [1, 0, 0];
        let inspection = inspected(&[
            // A film under two spellings of its id, with two posters, and in two splits.
            ("114709", Some(1), labels, 0),
            ("tt0114709", Some(2), labels, 2),
            // A picture of two films in one split.
            ("a", Some(3), labels, 0),
            ("b", Some(3), labels, 0),
            // One of five, of which two are one film.
            ("c", Some(4), labels, 0),
            ("d", Some(4), labels, 1),
            ("e", Some(4), labels, 0),
            ("f", Some(4), labels, 0),
            ("f", Some(4), labels, 0),
            // A picture of three films.
            ("g", Some(5), labels, 1),
            ("h", Some(5), labels, 2),
            ("i", Some(5), labels, 1),
            // Plain ones.
            ("j", None, labels, 0),
            ("k", None, labels, 2),
        ]);
        let group = |posters: &[u32], films, splits: &[usize]| {
            let splits = splits.iter().map(|&split| Split::ALL[split]).collect();
            Group { posters: posters.to_vec(), films, splits }
        };
        assert_eq!(inspection.films, 12);
        assert_eq!(inspection.repeated, [group(&[0, 1], 1, &[0, 2]), group(&[7, 8], 1, &[0])]);
        assert_eq!(inspection.alike, [group(&[2, 3], 2, &[0]), group(&[9, 10, 11], 3, &[1, 2])]);
        assert_eq!(inspection.placeholders, [group(&[4, 5, 6, 7, 8], 4, &[0, 1])]);
        assert_eq!(inspection.of_one_colour, [12, 13]);
        assert_eq!(inspection.leaks(), 3);
    }
}
