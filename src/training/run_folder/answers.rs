//! What the best model answered about the validation posters, kept beside it: for the page of the run, and for whoever wants to look at
//! single posters.

use super::RunFolderError;
use crate::files::{self, Disk, replace};
use crate::model::HeatMap;
use crate::training::evaluation::Answers;
use crate::training::surest::{Decision, Sight};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Our key in safetensors' `__metadata__`.
const METADATA_KEY: &str = "onesheet";

/// The answers of a run's best model.
pub fn answers_file(run: &Path) -> PathBuf {
    run.join("answers.safetensors")
}

/// Whose answers, and about which posters.
///
/// The file is safetensors: `posters` `u32 [N]`, the places of the posters in the tensor file; `logits` and `probabilities` `f32 [N, C]`;
/// `targets` `u8 [N, C]`; and of the M surest decisions `decisions` `u32 [M, 2]`, the row of the poster and the genre, and `heat`
/// `f32 [M, H, W]`, where the model saw that genre. A file of an earlier version lacks the last two.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAnswers {
    /// What the file says beside the tensors.
    pub about: About,
    /// N, each a place in the tensor file.
    pub posters: Vec<u32>,
    /// What the model said, and what is true.
    pub answers: Answers,
    /// M, where it saw the genres that it was surest of.
    pub sights: Vec<Sight>,
}

/// What a file of answers says beside its tensors, a TOML document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Epochs that the model had done.
    pub epoch: u32,
    /// Steps that it had done in all.
    pub step: u64,
    /// The mean loss over posters and genres, as in `log.csv`.
    pub loss: f64,
    /// The genres, C.
    pub genres: Vec<String>,
    /// The model's own thresholds, C.
    pub thresholds: Vec<f64>,
    /// Identifies the tensor file.
    pub data_digest: String,
}

impl KeptAnswers {
    /// Keeps them in the folder `run`.
    ///
    /// # Errors
    /// [`RunFolderError::Save`]; what was kept before is then still there.
    pub fn write(&self, run: &Path) -> Result<(), RunFolderError> {
        let KeptAnswers { about, posters, answers: Answers { logits, probabilities, targets, .. }, sights } = self;
        let path = answers_file(run);
        let failed = |error: &dyn std::fmt::Display| super::unwritable(&path, io::Error::other(error.to_string()));
        let table = [posters.len(), about.genres.len()];
        let view = |dtype, shape: &[usize], bytes| {
            TensorView::new(dtype, shape.to_vec(), bytes).map_err(|error| failed(&error))
        };
        let pairs = sights.iter().flat_map(|Sight { decision, .. }| [decision.row as u32, decision.genre as u32]);
        let decisions: Vec<u32> = pairs.collect();
        let heat: Vec<f32> = sights.iter().flat_map(|sight| &sight.map.values).copied().collect();
        let [height, width] = sights.first().map_or([0; 2], |sight| [sight.map.height, sight.map.width]);
        let tensors = [
            ("decisions", view(Dtype::U32, &[sights.len(), 2], bytemuck::cast_slice(&decisions))?),
            ("heat", view(Dtype::F32, &[sights.len(), height, width], bytemuck::cast_slice(&heat))?),
            ("logits", view(Dtype::F32, &table, bytemuck::cast_slice(logits))?),
            ("posters", view(Dtype::U32, &table[..1], bytemuck::cast_slice(posters))?),
            ("probabilities", view(Dtype::F32, &table, bytemuck::cast_slice(probabilities))?),
            ("targets", view(Dtype::U8, &table, targets)?),
        ];
        let text = toml::to_string(about).map_err(|error| failed(&error))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), text)]);
        let bytes = serialize(tensors, Some(metadata)).map_err(|error| failed(&error))?;
        Ok(replace(&Disk, &path, &bytes)?)
    }

    /// Those kept in the folder `run`; `None` if there are none.
    ///
    /// # Errors
    /// [`RunFolderError::Answers`] for a file that cannot be read or holds something else.
    pub fn read(run: &Path) -> Result<Option<KeptAnswers>, RunFolderError> {
        let (path, mut bytes) = (answers_file(run), Vec::new());
        match files::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RunFolderError::Answers { path, cause: error.to_string() }),
            Ok(_) => {}
        }
        parse(&bytes).map(Some).map_err(|cause| RunFolderError::Answers { path, cause })
    }
}

/// The answers in a file's `bytes`.
fn parse(bytes: &[u8]) -> Result<KeptAnswers, String> {
    let told = |error: safetensors::SafeTensorError| error.to_string();
    let (_, head) = SafeTensors::read_metadata(bytes).map_err(told)?;
    let text = head.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let about: About = toml::from_str(text.ok_or("it does not say whose answers they are")?)
        .map_err(|error| error.message().to_owned())?;
    let file = SafeTensors::deserialize(bytes).map_err(told)?;
    let genres = about.genres.len();
    let tensor = |name: &str, dtype, shape: &[usize]| {
        let tensor = file.tensor(name).map_err(told)?;
        let fits = tensor.dtype() == dtype && tensor.shape() == shape;
        let found = || format!("`{name}` is {:?} {:?}, not {dtype:?} {shape:?}", tensor.dtype(), tensor.shape());
        fits.then(|| tensor.data()).ok_or_else(found)
    };
    let n = file.tensor("posters").map_err(told)?.shape().first().copied().unwrap_or_default();
    let floats = |name| Ok::<_, String>(numbers(tensor(name, Dtype::F32, &[n, genres])?, f32::from_le_bytes));
    let posters = numbers(tensor("posters", Dtype::U32, &[n])?, u32::from_le_bytes);
    let targets = tensor("targets", Dtype::U8, &[n, genres])?.to_vec();
    let answers =
        Answers { loss: about.loss, logits: floats("logits")?, probabilities: floats("probabilities")?, targets };
    let sights = sights(&file, n, genres)?;
    if genres == 0 || about.thresholds.len() != genres {
        return Err(format!("it has {genres} genres and {} thresholds", about.thresholds.len()));
    }
    if answers.probabilities.iter().any(|probability| !(0.0..=1.0).contains(probability)) {
        return Err("a probability is not between 0 and 1".into());
    }
    Ok(KeptAnswers { about, posters, answers, sights })
}

/// Where the model saw what it was surest of, by a file of answers about so many posters and genres.
fn sights(file: &SafeTensors<'_>, posters: usize, genres: usize) -> Result<Vec<Sight>, String> {
    let (Ok(decisions), Ok(heat)) = (file.tensor("decisions"), file.tensor("heat")) else { return Ok(Vec::new()) };
    let (&[count, 2], &[maps, height, width]) = (decisions.shape(), heat.shape()) else {
        return Err(format!("`decisions` is {:?} and `heat` {:?}", decisions.shape(), heat.shape()));
    };
    if (decisions.dtype(), heat.dtype()) != (Dtype::U32, Dtype::F32) || count != maps {
        return Err(format!(
            "`decisions` is {:?} [{count}, 2] and `heat` {:?} of {maps}",
            decisions.dtype(),
            heat.dtype()
        ));
    }
    let (pairs, heat) = (numbers(decisions.data(), u32::from_le_bytes), numbers(heat.data(), f32::from_le_bytes));
    let sight = |(number, pair): (usize, &[u32; 2])| {
        let [row, genre] = pair.map(|number| number as usize);
        let fits = row < posters && genre < genres;
        let values = heat[number * height * width..][..height * width].to_vec();
        let sight = Sight { decision: Decision { row, genre }, map: HeatMap { height, width, values } };
        fits.then_some(sight).ok_or_else(|| format!("there is no genre {genre} of a poster {row}"))
    };
    pairs.as_chunks().0.iter().enumerate().map(sight).collect()
}

/// Numbers of four bytes each. A file's bytes need not lie where numbers may.
fn numbers<N>(bytes: &[u8], number: fn([u8; 4]) -> N) -> Vec<N> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn kept() -> KeptAnswers {
        let about = About {
            epoch: 2,
            step: 9,
            loss: 0.1 + 0.2,
            genres: ["War", "Drama"].map(String::from).to_vec(),
            thresholds: vec![0.3, 0.1 + 0.2],
            data_digest: "of the posters".into(),
        };
        let answers = Answers {
            loss: 0.1 + 0.2,
            logits: vec![0.1, -1.0, f32::MIN_POSITIVE, 3.5, -0.0, 88.0],
            probabilities: vec![0.1, 0.2, 0.3, 0.4, 0.0, 1.0],
            targets: vec![0, 1, 1, 0, 0, 1],
        };
        let sight = |row, genre, values| Sight {
            decision: Decision { row, genre },
            map: HeatMap { height: 1, width: 2, values },
        };
        let sights = vec![sight(2, 0, vec![0.5, 0.0]), sight(0, 1, vec![1e-30, 7.0])];
        KeptAnswers { about, posters: vec![3, 70_000, 5], answers, sights }
    }

    #[test]
    fn answers_are_kept_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(KeptAnswers::read(folder.path()).unwrap(), None);
        for kept in [kept(), KeptAnswers { sights: Vec::new(), ..kept() }] {
            kept.write(folder.path()).unwrap();
            assert_eq!(KeptAnswers::read(folder.path()).unwrap(), Some(kept));
        }
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_and_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = answers_file(folder.path());
        let refused = || KeptAnswers::read(folder.path()).unwrap_err().to_string();
        fs::write(&path, "nothing").unwrap();
        let told = refused();
        assert!(told.contains("answers.safetensors") && told.contains("onesheet report"), "{told}");
        kept().write(folder.path()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            refused();
        }
        let mut wrong = kept();
        wrong.about.thresholds.pop();
        wrong.write(folder.path()).unwrap();
        assert!(refused().contains("it has 2 genres and 1 thresholds"), "{}", refused());
        let mut wrong = kept();
        wrong.answers.probabilities[2] = f32::NAN;
        wrong.write(folder.path()).unwrap();
        assert!(refused().contains("is not between 0 and 1"), "{}", refused());
        let mut wrong = kept();
        wrong.sights[1].decision.row = 3;
        wrong.write(folder.path()).unwrap();
        assert!(refused().contains("there is no genre 1 of a poster 3"), "{}", refused());
        let mut wrong = kept();
        wrong.about.genres.push("Crime".into());
        assert!(wrong.write(folder.path()).is_err(), "a table is as wide as its genres");
    }
}
