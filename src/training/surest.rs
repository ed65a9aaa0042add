//! The posters that a model is surest of, rightly and wrongly, and where on them it sees the genre.

use super::TrainingError;
use super::evaluation::Answers;
use crate::data::loader::Loader;
use crate::data::tensor_file::TensorFile;
use crate::device::{Device, PixelFormat};
use crate::model::{HeatMap, Model, Posters};
use std::collections::HashSet;
use std::sync::Arc;

/// Posters of each outcome.
const SHOWN: usize = 8;

/// How the decision about a genre of a poster came out. That a genre was rightly not named is no news, and not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Named, and true.
    Hit,
    /// Named, and not true.
    WronglyNamed,
    /// True, and not named.
    Missed,
}

/// All of them.
pub const OUTCOMES: [Outcome; 3] = [Outcome::Hit, Outcome::WronglyNamed, Outcome::Missed];

impl Outcome {
    fn is_named(self) -> bool {
        self != Outcome::Missed
    }

    fn is_true(self) -> bool {
        self != Outcome::WronglyNamed
    }
}

/// A decision: the row of its poster among the answers, and its genre.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Of the poster, from 0 to N.
    pub row: usize,
    /// From 0 to C.
    pub genre: usize,
}

/// Where on a poster a model sees a genre.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// Which poster and which genre.
    pub decision: Decision,
    /// Over the last feature map.
    pub map: HeatMap,
}

impl Answers {
    /// The surest decisions of an outcome at one threshold a genre, the surest first: no poster twice, and each genre once before any comes a
    /// second time.
    pub fn surest(&self, thresholds: &[f64], outcome: Outcome) -> Vec<Decision> {
        let genres = thresholds.len();
        // From 0, quite unsure, on: how sure it is of what it decided.
        let sureness = |&Decision { row, genre }: &Decision| {
            let probability = self.probabilities[row * genres + genre];
            if outcome.is_named() { probability } else { 1.0 - probability }
        };
        let is_of = |&Decision { row, genre }: &Decision| {
            let at = row * genres + genre;
            let is_named = self.probabilities[at] >= thresholds[genre] as f32;
            (is_named, self.targets[at] != 0) == (outcome.is_named(), outcome.is_true())
        };
        let surest_first = |a: &Decision, b: &Decision| sureness(b).total_cmp(&sureness(a));
        let rows = self.targets.len() / genres.max(1);
        let all = (0..genres).flat_map(|genre| (0..rows).map(move |row| Decision { row, genre }));
        let mut found: Vec<Decision> = all.filter(is_of).collect();
        found.sort_by(surest_first);
        let (mut chosen, mut taken, mut times) = (Vec::new(), HashSet::new(), vec![0; genres]);
        for round in 1..=SHOWN {
            for &decision in &found {
                let is_due = chosen.len() < SHOWN && times[decision.genre] < round;
                if is_due && taken.insert(decision.row) {
                    times[decision.genre] += 1;
                    chosen.push(decision);
                }
            }
        }
        chosen.sort_by(surest_first);
        chosen
    }

    /// Where `model` sees the genres of its surest decisions of every outcome. The answers are its own about the posters `indices` of `file`,
    /// of which it is shown `batch` at a time.
    ///
    /// # Errors
    /// The loader's and the device's.
    pub fn sights<D: Device>(
        &self,
        model: &mut Model<D>,
        file: &Arc<TensorFile>,
        indices: &[u32],
        batch: usize,
        format: &PixelFormat,
        thresholds: &[f64],
    ) -> Result<Vec<Sight>, TrainingError> {
        let chosen = OUTCOMES.iter().flat_map(|&outcome| self.surest(thresholds, outcome));
        let mut decisions: Vec<Decision> = chosen.collect();
        // A poster may be a hit by one genre and missed by another. Neighbours are shown to the model together.
        decisions.sort_by_key(|decision| (decision.row, decision.genre));
        if decisions.is_empty() {
            return Ok(Vec::new());
        }
        let places = decisions.iter().map(|decision| indices[decision.row]).collect();
        let mut sights = Vec::with_capacity(decisions.len());
        let mut loader = Loader::in_order(Arc::clone(file), places, batch)?;
        while let Some(batch) = loader.next().transpose()? {
            let posters = Posters { pixels: &batch.pixels, placements: &batch.placements, format };
            let own = &decisions[sights.len()..][..batch.indices.len()];
            let mut genres: Vec<usize> = own.iter().map(|decision| decision.genre).collect();
            genres.sort_unstable();
            genres.dedup();
            let mut maps = model.explain(posters, &genres)?;
            for (poster, &decision) in own.iter().enumerate() {
                let of_genre = genres.binary_search(&decision.genre).expect("it is among them");
                let empty = HeatMap { height: 0, width: 0, values: Vec::new() };
                sights.push(Sight { decision, map: std::mem::replace(&mut maps[of_genre][poster], empty) });
            }
            loader.recycle(batch);
        }
        Ok(sights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: [f64; 2] = [0.5, 0.4];

    /// Posters of two genres, each row as (probability, whether it is true) of both.
    fn answers(rows: &[[(f32, u8); 2]]) -> Answers {
        let (probabilities, targets): (Vec<f32>, Vec<u8>) = rows.iter().flatten().copied().unzip();
        Answers { loss: 0.0, logits: vec![0.0; targets.len()], probabilities, targets }
    }

    fn found(answers: &Answers, outcome: Outcome) -> Vec<(usize, usize)> {
        let chosen = answers.surest(&THRESHOLDS, outcome);
        chosen.into_iter().map(|decision| (decision.row, decision.genre)).collect()
    }

    #[test]
    fn the_surest_decisions_of_each_outcome_are_chosen() {
        let answers = answers(&[
            [(0.9, 1), (0.45, 1)],
            [(0.8, 1), (0.1, 1)],
            [(0.7, 0), (0.4, 0)],
            [(0.45, 1), (0.95, 0)],
            [(0.2, 1), (0.3, 1)],
        ]);
        // Poster 0 is shown for its surer genre, so the other one has no hit.
        assert_eq!(found(&answers, Outcome::Hit), [(0, 0), (1, 0)]);
        assert_eq!(found(&answers, Outcome::WronglyNamed), [(3, 1), (2, 0)]);
        assert_eq!(found(&answers, Outcome::Missed), [(1, 1), (4, 0), (3, 0)]);
    }

    #[test]
    fn each_genre_comes_once_before_one_comes_again_and_no_poster_twice() {
        let mut rows = vec![[(0.99, 1), (0.9, 1)]; 12];
        rows[11] = [(0.1, 0), (0.6, 1)];
        let found = found(&answers(&rows), Outcome::Hit);
        assert_eq!(found.len(), SHOWN);
        let of_drama = found.iter().filter(|(_, genre)| *genre == 1).count();
        assert_eq!(of_drama, SHOWN / 2);
        let posters: HashSet<usize> = found.iter().map(|(row, _)| *row).collect();
        assert_eq!(posters.len(), SHOWN);
        assert!(found.iter().take(SHOWN / 2).all(|(_, genre)| *genre == 0), "the surest first: {found:?}");
    }
}
