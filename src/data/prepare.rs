//! From a label table and a folder of posters to a tensor file, in two steps.
//!
//! A [`Plan`] needs the table alone: the films, their classes, their splits. [`write()`] then looks for the posters and streams
//! them into the file. Nothing of a poster is kept longer than a batch takes, so the memory needed does not grow with the
//! number of films.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Split;
use super::counts::Counts;
use super::films::{self, Film, FilmId};
use super::genres::{Classes, GenreChoice, GenreError};
use super::labels::{self, Dialect, LabelError, Warning};
use super::pixels::{self, Resize};
use super::posters::{self, PosterFolder};
use super::skipped::{Reason, SkippedRow};
use super::split::SplitRule;
use super::tensor_file::{Description, TensorFileError, TensorFileWriter};

/// So many films with the very same poster have no poster: the image says "no image".
const PLACEHOLDER: usize = 3;

/// The memory for the finished pixels of one batch, in bytes.
const BATCH_MEMORY: usize = 16 << 20;

/// Why no tensor file was made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The label table is unusable.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The genres cannot be chosen so.
    #[error(transparent)]
    Genres(#[from] GenreError),
    /// The folder of posters cannot be searched.
    #[error("cannot search the folder of posters {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No film has a poster in the folder.
    #[error(
        "{} holds no poster of any of the {films} films; looked for names like {example}.jpg, .jpeg, .png and .webp",
        folder.display()
    )]
    NoPosters {
        /// The folder.
        folder: PathBuf,
        /// How many films were looked for.
        films: usize,
        /// The first of them.
        example: FilmId,
    },
    /// There are posters, and not one can be used.
    #[error("not one of the {found} posters in {} can be used; the first: {example}", folder.display())]
    NoUsablePosters {
        /// The folder.
        folder: PathBuf,
        /// How many posters were found.
        found: usize,
        /// What is wrong with the first.
        example: String,
    },
    /// A row was skipped in a strict run.
    #[error("{count} rows were skipped, and this run is strict; the first: line {}, {}, {}", first.line, first.id, first.reason.kind())]
    Strict {
        /// How many.
        count: usize,
        /// The first of them.
        first: SkippedRow,
    },
    /// The tensor file cannot be written.
    #[error(transparent)]
    Write(#[from] TensorFileError),
}

impl PrepareError {
    /// Whether the table, the posters or the choice of genres is at fault, and not the machine.
    pub fn is_bad_data(&self) -> bool {
        !matches!(
            self,
            PrepareError::Labels(LabelError::Read { .. }) | PrepareError::Folder { .. } | PrepareError::Write(_)
        )
    }
}

/// A film with its place in the data set.
#[derive(Clone, Debug)]
pub struct PlannedFilm {
    /// The film.
    pub film: Film,
    /// Its labels `[C]`.
    pub labels: Vec<u8>,
    /// Its split.
    pub split: Split,
}

/// All that is known before looking at a poster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the table was read.
    pub dialect: Dialect,
    /// What in it may be meant otherwise.
    pub warnings: Vec<Warning>,
    /// A digest of the table's bytes; of a folder's names.
    pub digest: blake3::Hash,
    /// The classes.
    pub classes: Classes,
    /// The films, in the table's order.
    pub films: Vec<PlannedFilm>,
    /// The rows of the table that are no films.
    pub skipped: Vec<SkippedRow>,
    /// The rule that dealt the splits.
    pub split: SplitRule,
}

impl Plan {
    /// Reads the label table and settles the classes and splits.
    ///
    /// Rows of one film become one film, except under [`SplitRule::Paper`], which deals the table's rows as they stand.
    pub fn read(
        table: &Path,
        options: &labels::Options,
        choice: &GenreChoice,
        split: SplitRule,
    ) -> Result<Plan, PrepareError> {
        let table = options.read(table)?;
        let (dialect, warnings, digest, mut skipped) = (table.dialect, table.warnings, table.digest, table.skipped);
        let films = match split {
            SplitRule::Paper { .. } => table.rows,
            SplitRule::ById => {
                let (films, duplicates) = films::merge_duplicates(table.rows);
                skipped.extend(duplicates);
                films
            }
        };
        skipped.sort_by_key(|row| row.line);
        let classes = Classes::choose(choice, &films)?;
        let splits = split.assign(&films);
        let plan = |(film, split): (Film, Split)| PlannedFilm { labels: classes.multi_hot(&film.genres), film, split };
        let films = films.into_iter().zip(splits).map(plan).collect();
        Ok(Plan { dialect, warnings, digest, classes, films, skipped, split })
    }

    /// The films per class and split.
    pub fn counts(&self) -> Counts {
        self.counts_of(&self.films)
    }

    /// The same of `films`, some of the plan's.
    pub fn counts_of<'a>(&self, films: impl IntoIterator<Item = &'a PlannedFilm>) -> Counts {
        Counts::of(self.classes.names().len(), films.into_iter().map(|film| (&film.labels[..], film.split)))
    }
}

/// What to make of the posters.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The side of the square, in pixels.
    pub size: usize,
    /// How a poster becomes that square.
    pub resize: Resize,
    /// What else the file should say about where it came from.
    pub provenance: BTreeMap<String, String>,
}

/// What [`write()`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Comparing the posters' files, to find placeholders.
    Compare,
    /// Decoding, resizing and writing.
    Write,
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The films in the file.
    pub counts: Counts,
    /// The rows that are not, those of the plan included, in the table's order.
    pub skipped: Vec<SkippedRow>,
}

/// Writes the plan's films with a usable poster in `folder` to the tensor file `out`, in the table's order.
///
/// `undelivered` says of films without a poster why that is, where it is known. `progress` hears how many posters of how many
/// a stage has done.
pub fn write(
    plan: &Plan,
    folder: &PosterFolder,
    undelivered: &HashMap<FilmId, String>,
    out: &Path,
    shape: &Shape,
    progress: &mut dyn FnMut(Stage, usize, usize),
) -> Result<Prepared, PrepareError> {
    let mut skipped = plan.skipped.clone();
    let mut found: Vec<(&PlannedFilm, &Path)> = Vec::with_capacity(plan.films.len());
    for planned in &plan.films {
        let Film { line, id, .. } = &planned.film;
        match folder.find(id) {
            Some(path) => found.push((planned, path)),
            None => {
                let why = undelivered.get(id).cloned().unwrap_or_default();
                skipped.push(SkippedRow::new(*line, id.as_str(), Reason::NoPoster(why)));
            }
        }
    }
    if found.is_empty() {
        let example = plan.films[0].film.id.clone();
        return Err(PrepareError::NoPosters { folder: folder.root().to_owned(), films: plan.films.len(), example });
    }

    let batch = (BATCH_MEMORY / (shape.size * shape.size * 3)).clamp(16, 512);
    let placeholders = placeholders(&found, batch, &mut |done, of| progress(Stage::Compare, done, of));
    let description = Description {
        size: shape.size,
        genres: plan.classes.names().to_vec(),
        capacity: found.len(),
        provenance: shape.provenance.clone(),
    };
    let mut file = TensorFileWriter::create(out, description)?;
    let mut written: Vec<&PlannedFilm> = Vec::with_capacity(found.len());
    let mut done = 0;
    for films in found.chunks(batch) {
        let squares: Vec<Result<Vec<u8>, Reason>> = films
            .par_iter()
            .map(|(planned, path)| match placeholders.get(&planned.film.id) {
                Some(&films) => Err(Reason::Placeholder { films }),
                None => square(path, shape).map_err(|why| Reason::BadPoster(format!("{}: {why}", path.display()))),
            })
            .collect();
        for ((planned, _), square) in films.iter().zip(squares) {
            let PlannedFilm { film, labels, split } = planned;
            match square {
                Ok(pixels) => {
                    file.push(film.id.as_str(), &pixels, labels, *split)?;
                    written.push(planned);
                }
                Err(reason) => skipped.push(SkippedRow::new(film.line, film.id.as_str(), reason)),
            }
        }
        done += films.len();
        progress(Stage::Write, done, found.len());
    }
    skipped.sort_by_key(|row| row.line);
    if written.is_empty() {
        let unusable = |row: &&SkippedRow| matches!(row.reason, Reason::BadPoster(_) | Reason::Placeholder { .. });
        let example = skipped.iter().find(unusable).map(|row| row.reason.detail()).unwrap_or_default();
        return Err(PrepareError::NoUsablePosters { folder: folder.root().to_owned(), found: found.len(), example });
    }
    file.finish()?;
    Ok(Prepared { counts: plan.counts_of(written), skipped })
}

/// The pixels of the poster at `path`, or what is wrong with it.
fn square(path: &Path, shape: &Shape) -> Result<Vec<u8>, String> {
    let bytes = posters::read(path).map_err(|error| error.to_string())?;
    pixels::square(&bytes, shape.size, shape.resize).map_err(|error| error.to_string())
}

/// The films whose poster is byte for byte that of at least two other films, and how many share it.
fn placeholders<'a>(
    found: &[(&'a PlannedFilm, &Path)],
    batch: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> HashMap<&'a FilmId, usize> {
    let mut films_of: HashMap<blake3::Hash, HashSet<&FilmId>> = HashMap::new();
    let mut done = 0;
    for films in found.chunks(batch) {
        // A file that cannot be read is no placeholder; decoding will say what is wrong with it.
        let digest = |(_, path): &(_, &Path)| posters::read(path).ok().map(|bytes| blake3::hash(&bytes));
        let digests: Vec<Option<blake3::Hash>> = films.par_iter().map(digest).collect();
        for ((planned, _), digest) in films.iter().zip(digests) {
            if let Some(digest) = digest {
                films_of.entry(digest).or_default().insert(&planned.film.id);
            }
        }
        done += films.len();
        progress(done, found.len());
    }
    let shared = films_of.into_values().filter(|films| films.len() >= PLACEHOLDER);
    shared.flat_map(|films| films.clone().into_iter().map(move |film| (film, films.len()))).collect()
}
