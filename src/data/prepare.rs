//! From a label table and a folder of posters to a tensor file, in two steps.
//!
//! A [`Plan`] needs the table alone: the films, their classes, their splits. [`write()`] then looks for the posters and streams
//! them into the file. Nothing of a poster is kept longer than a batch takes, so the memory needed does not grow with the
//! number of films.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Split;
use super::counts::Counts;
use super::films::{self, Film, FilmId};
use super::genres::{Classes, GenreChoice, GenreError, Rest};
use super::labels::{self, Dialect, LabelError, Warning};
use super::pixels;
use super::posters::{self, PosterFolder};
use super::skipped::{Reason, SkippedRow};
use super::split::SplitRule;
use super::squaring::Squaring;
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
        /// The table's rows, all of them, each with its reason.
        skipped: Vec<SkippedRow>,
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
        /// The table's rows, all of them, each with its reason.
        skipped: Vec<SkippedRow>,
    },
    /// A row was skipped in a strict run.
    #[error("{count} rows were skipped, and this run is strict; the first: line {}, {}, {}", first.line, first.id, first.reason.kind())]
    Strict {
        /// How many.
        count: usize,
        /// The first of them.
        first: SkippedRow,
    },
    /// Whoever heard how far it is has ended it.
    #[error("stopped before all posters were written; what was there before is as it was")]
    Stopped,
    /// The tensor file cannot be written.
    #[error(transparent)]
    Write(#[from] TensorFileError),
}

impl PrepareError {
    /// Whether the table, the posters or the choice of genres is at fault, and not the machine.
    pub fn is_bad_data(&self) -> bool {
        !matches!(
            self,
            PrepareError::Labels(LabelError::Read { .. })
                | PrepareError::Folder { .. }
                | PrepareError::Stopped
                | PrepareError::Write(_)
        )
    }

    /// Every row's reason, where no row is left.
    pub fn skipped(&self) -> Option<&[SkippedRow]> {
        match self {
            PrepareError::NoPosters { skipped, .. } | PrepareError::NoUsablePosters { skipped, .. } => Some(skipped),
            _ => None,
        }
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
        rest: Rest,
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
        let classes = Classes::choose(choice, rest, &films)?;
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
    /// How a poster becomes a square.
    pub squaring: Squaring,
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
    /// What else there is to know, a sentence each: posters that another one of the same film stood in for.
    pub notes: Vec<String>,
}

/// Writes the plan's films with a usable poster in `folder` to the tensor file `out`, in the table's order.
///
/// `undelivered` says of films without a poster why that is, where it is known. `progress` hears how many posters of how many
/// a stage has done, and may end it there.
pub fn write(
    plan: &Plan,
    folder: &PosterFolder,
    undelivered: &HashMap<FilmId, String>,
    out: &Path,
    shape: &Shape,
    progress: &mut dyn FnMut(Stage, usize, usize) -> ControlFlow<()>,
) -> Result<Prepared, PrepareError> {
    let mut skipped = plan.skipped.clone();
    let mut found: Vec<Found> = Vec::with_capacity(plan.films.len());
    for planned in &plan.films {
        let Film { line, id, .. } = &planned.film;
        match folder.find(id) {
            [] => {
                let why = undelivered.get(id).map(String::as_str).or(folder.not_read(id)).unwrap_or_default();
                skipped.push(SkippedRow::new(*line, id.as_str(), Reason::NoPoster(why.to_owned())));
            }
            paths => found.push((planned, paths)),
        }
    }
    if found.is_empty() {
        let example = plan.films[0].film.id.clone();
        let (folder, films) = (folder.root().to_owned(), plan.films.len());
        skipped.sort_by_key(|row| row.line);
        return Err(PrepareError::NoPosters { folder, films, example, skipped });
    }

    let size = shape.squaring.size;
    let batch = (BATCH_MEMORY / (size * size * 3)).clamp(16, 512);
    let mut go_on = |stage, done| match progress(stage, done, found.len()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(PrepareError::Stopped),
    };
    let placeholders = placeholders(&found, batch, &mut |done| go_on(Stage::Compare, done))?;
    let mut provenance = shape.provenance.clone();
    provenance.extend(shape.squaring.provenance());
    let description = Description { size, genres: plan.classes.names().to_vec(), capacity: found.len(), provenance };
    let mut file = TensorFileWriter::create(out, description)?;
    let mut written: Vec<&PlannedFilm> = Vec::with_capacity(found.len());
    let mut notes = Vec::new();
    let mut done = 0;
    for films in found.chunks(batch) {
        let squares: Vec<_> =
            films.par_iter().map(|(_, paths)| first_usable(paths, &placeholders, &shape.squaring)).collect();
        for ((planned, _), square) in films.iter().zip(squares) {
            let PlannedFilm { film, labels, split } = planned;
            match square {
                Ok((pixels, note)) => {
                    file.push(film.id.as_str(), &pixels, labels, *split)?;
                    written.push(planned);
                    notes.extend(note);
                }
                Err(reason) => skipped.push(SkippedRow::new(film.line, film.id.as_str(), reason)),
            }
        }
        done += films.len();
        go_on(Stage::Write, done)?;
    }
    skipped.sort_by_key(|row| row.line);
    if written.is_empty() {
        let unusable = |row: &&SkippedRow| matches!(row.reason, Reason::BadPoster(_) | Reason::Placeholder { .. });
        let example = skipped.iter().find(unusable).map(|row| row.reason.detail()).unwrap_or_default();
        let (folder, found) = (folder.root().to_owned(), found.len());
        return Err(PrepareError::NoUsablePosters { folder, found, example, skipped });
    }
    file.finish()?;
    Ok(Prepared { counts: plan.counts_of(written), skipped, notes })
}

/// A film with the files that are named after it, one or more.
type Found<'a> = (&'a PlannedFilm, &'a [PathBuf]);

/// The pixels of the first of a film's `paths` that is a poster, with a note where others came before it.
fn first_usable(
    paths: &[PathBuf],
    placeholders: &HashMap<&Path, usize>,
    squaring: &Squaring,
) -> Result<(Vec<u8>, Option<String>), Reason> {
    let (mut bad, mut placeholder) = (Vec::new(), None);
    for path in paths {
        if let Some(&films) = placeholders.get(&**path) {
            bad.push(format!("{}: the same image as {} other films", path.display(), films - 1));
            placeholder = Some(Reason::Placeholder { films });
            continue;
        }
        match square(path, squaring) {
            Ok(pixels) => {
                let note = (!bad.is_empty()).then(|| format!("{}; used is {}", bad.join("; "), path.display()));
                return Ok((pixels, note));
            }
            Err(why) => bad.push(format!("{}: {why}", path.display())),
        }
    }
    Err(placeholder.filter(|_| paths.len() == 1).unwrap_or_else(|| Reason::BadPoster(bad.join("; "))))
}

/// The pixels of the poster at `path`, or what is wrong with it.
fn square(path: &Path, squaring: &Squaring) -> Result<Vec<u8>, String> {
    let bytes = posters::read(path).map_err(|error| error.to_string())?;
    pixels::square(&bytes, squaring).map_err(|error| error.to_string())
}

/// The posters that are byte for byte those of at least two other films, and how many films share each.
fn placeholders<'a>(
    found: &[Found<'a>],
    batch: usize,
    go_on: &mut dyn FnMut(usize) -> Result<(), PrepareError>,
) -> Result<HashMap<&'a Path, usize>, PrepareError> {
    type Shared<'a> = (HashSet<&'a FilmId>, Vec<&'a Path>);
    let mut files: HashMap<blake3::Hash, Shared<'a>> = HashMap::new();
    let mut done = 0;
    for films in found.chunks(batch) {
        // A file that cannot be read is no placeholder; decoding will say what is wrong with it.
        let digest = |path: &PathBuf| posters::read(path).ok().map(|bytes| blake3::hash(&bytes));
        let digests: Vec<Vec<Option<blake3::Hash>>> =
            films.par_iter().map(|(_, paths)| paths.iter().map(digest).collect()).collect();
        for (&(planned, paths), digests) in films.iter().zip(digests) {
            for (path, digest) in paths.iter().zip(digests) {
                if let Some(digest) = digest {
                    let (ids, same) = files.entry(digest).or_default();
                    ids.insert(&planned.film.id);
                    same.push(path);
                }
            }
        }
        done += films.len();
        go_on(done)?;
    }
    let shared = files.into_values().filter(|(films, _)| films.len() >= PLACEHOLDER);
    Ok(shared.flat_map(|(films, paths)| paths.into_iter().map(move |path| (path, films.len()))).collect())
}
