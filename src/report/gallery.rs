//! The posters that the model is surest of, rightly and wrongly.

use super::Answered;
use super::document::{Section, percent};
use crate::data::tensor_file::TensorFile;
use crate::training::TrainingError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};
use maud::{Markup, html};
use std::cmp::Ordering;
use std::collections::HashSet;

/// Posters of each kind.
const SHOWN: usize = 8;

/// The longest side of a picture; a larger poster is made smaller.
const SIDE: u32 = 160;

/// JPEG's, from 1 to 100.
const QUALITY: u8 = 82;

/// What is shown of one decision.
struct Exhibit {
    /// The poster's id.
    id: String,
    genre: String,
    probability: f32,
    /// All genres that the poster is of.
    truth: Vec<String>,
    /// The poster, and what else there is to see of it: each further picture of it, as where the network looked, stands beside the first.
    pictures: Vec<Picture>,
}

/// A picture of a poster.
struct Picture {
    /// What it shows, for who cannot see it.
    told: String,
    jpeg: Vec<u8>,
}

/// A kind of decisions.
struct Kind {
    title: &'static str,
    told: &'static str,
    is_named: bool,
    is_true: bool,
}

const KINDS: [Kind; 3] = [
    Kind {
        title: "Hits",
        told: "Genres that the model was surest of, and that are true.",
        is_named: true,
        is_true: true,
    },
    Kind {
        title: "Wrongly named",
        told: "Genres that the model was surest of, and that the posters are not of.",
        is_named: true,
        is_true: false,
    },
    Kind {
        title: "Missed",
        told: "Genres that the posters are of, and that the model was surest they are not.",
        is_named: false,
        is_true: true,
    },
];

pub fn section(answered: &Answered<'_>, posters: &TensorFile) -> Result<Section, TrainingError> {
    let mut body = html! {
        p {
            "Validation posters as the network sees them, squares of " (posters.size()) "×" (posters.size()) " pixels; at the model's thresholds, and not \
             the same genre again while there are others."
        }
    };
    for kind in KINDS {
        let exhibits: Vec<Exhibit> = chosen(answered, kind.is_named, kind.is_true)
            .into_iter()
            .map(|decision| exhibit(answered, posters, decision))
            .collect::<Result<_, _>>()?;
        body = html! {
            (body)
            h3 { (kind.title) }
            p { (kind.told) @if exhibits.is_empty() { " There is none." } }
            @if !exhibits.is_empty() {
                ul.gallery { @for exhibit in &exhibits { li { (shown(exhibit)) } } }
            }
        };
    }
    Ok(Section { id: "posters".into(), title: "Surest answers".into(), body })
}

/// A decision: the row of its poster among the answers, and its genre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    row: usize,
    genre: usize,
}

/// The surest decisions of a kind, the surest first: no poster twice, and each genre once before any comes a second time.
fn chosen(answered: &Answered<'_>, is_named: bool, is_true: bool) -> Vec<Decision> {
    let genres = answered.genres().len();
    let mut found: Vec<(f32, Decision)> = Vec::new();
    for genre in 0..genres {
        let threshold = answered.kept.about.thresholds[genre] as f32;
        let of_kind = answered
            .of_genre(genre)
            .enumerate()
            .filter(|&(_, (probability, target))| (probability >= threshold, target) == (is_named, is_true));
        found.extend(of_kind.map(|(row, (probability, _))| (probability, Decision { row, genre })));
    }
    found.sort_by(|(a, _), (b, _)| if is_named { b.total_cmp(a) } else { a.total_cmp(b) });
    let (mut chosen, mut rows, mut times) = (Vec::new(), HashSet::new(), vec![0; genres]);
    for round in 1..=SHOWN {
        for &(_, decision) in &found {
            let is_due = chosen.len() < SHOWN && times[decision.genre] < round;
            if is_due && rows.insert(decision.row) {
                times[decision.genre] += 1;
                chosen.push(decision);
            }
        }
    }
    let sureness = |decision: &Decision| answered.kept.answers.probabilities[decision.row * genres + decision.genre];
    chosen.sort_by(|a, b| {
        let order = sureness(b).total_cmp(&sureness(a));
        if is_named { order } else { Ordering::reverse(order) }
    });
    chosen
}

fn exhibit(answered: &Answered<'_>, posters: &TensorFile, decision: Decision) -> Result<Exhibit, TrainingError> {
    let Decision { row, genre } = decision;
    let (names, place) = (answered.genres(), answered.kept.posters[row] as usize);
    let answers = &answered.kept.answers;
    let truth = names.iter().zip(&answers.targets[row * names.len()..]).filter(|(_, target)| **target != 0);
    let id = posters.ids()[place].clone();
    Ok(Exhibit {
        genre: names[genre].clone(),
        probability: answers.probabilities[row * names.len() + genre],
        truth: truth.map(|(name, _)| name.clone()).collect(),
        pictures: vec![Picture { told: format!("Poster of {id}"), jpeg: small(posters, place)? }],
        id,
    })
}

/// A poster as a small JPEG.
fn small(posters: &TensorFile, place: usize) -> Result<Vec<u8>, TrainingError> {
    let (pixels, size) = (posters.image_checked(place)?, posters.size() as u32);
    let poster = RgbImage::from_raw(size, size, pixels.into_owned()).expect("as many bytes as its extents say");
    let poster = if size > SIDE { imageops::thumbnail(&poster, SIDE, SIDE) } else { poster };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&poster).expect("nothing stops a small RGB image");
    Ok(jpeg)
}

fn shown(exhibit: &Exhibit) -> Markup {
    let Exhibit { id, genre, probability, truth, pictures } = exhibit;
    html! {
        figure {
            @for Picture { told, jpeg } in pictures {
                img alt=(told) width="150" height="150" src={ "data:image/jpeg;base64," (STANDARD.encode(jpeg)) };
            }
            figcaption {
                strong { (genre) " " (percent(f64::from(*probability))) }
                span { "is " @if truth.is_empty() { "of no genre" } @else { (truth.join(", ")) } }
                span.id { (id) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::evaluation::Answers;
    use crate::training::run_folder::{About, KeptAnswers};

    /// Posters of two genres, each row as (probability, whether it is true) of both.
    fn kept(rows: &[[(f32, u8); 2]]) -> KeptAnswers {
        let about = About {
            epoch: 1,
            step: 1,
            loss: 0.0,
            genres: ["War", "Drama"].map(String::from).to_vec(),
            thresholds: vec![0.5, 0.4],
            data_digest: String::new(),
        };
        let (probabilities, targets): (Vec<f32>, Vec<u8>) = rows.iter().flatten().copied().unzip();
        let logits = vec![0.0; targets.len()];
        let posters = (0..rows.len() as u32).collect();
        KeptAnswers { about, posters, answers: Answers { loss: 0.0, logits, probabilities, targets } }
    }

    fn found(kept: &KeptAnswers, is_named: bool, is_true: bool) -> Vec<(usize, usize)> {
        let chosen = chosen(&Answered::new(kept), is_named, is_true);
        chosen.into_iter().map(|decision| (decision.row, decision.genre)).collect()
    }

    #[test]
    fn the_surest_decisions_of_each_kind_are_chosen() {
        let kept = kept(&[
            [(0.9, 1), (0.45, 1)],
            [(0.8, 1), (0.1, 1)],
            [(0.7, 0), (0.4, 0)],
            [(0.45, 1), (0.95, 0)],
            [(0.2, 1), (0.3, 1)],
        ]);
        // Poster 0 is shown for its surer genre, so the other one has no hit.
        assert_eq!(found(&kept, true, true), [(0, 0), (1, 0)]);
        assert_eq!(found(&kept, true, false), [(3, 1), (2, 0)]);
        assert_eq!(found(&kept, false, true), [(1, 1), (4, 0), (3, 0)]);
    }

    #[test]
    fn each_genre_comes_once_before_one_comes_again_and_no_poster_twice() {
        let mut rows = vec![[(0.99, 1), (0.9, 1)]; 12];
        rows[11] = [(0.1, 0), (0.6, 1)];
        let found = found(&kept(&rows), true, true);
        assert_eq!(found.len(), SHOWN);
        let of_drama = found.iter().filter(|(_, genre)| *genre == 1).count();
        assert_eq!(of_drama, SHOWN / 2);
        let posters: HashSet<usize> = found.iter().map(|(row, _)| *row).collect();
        assert_eq!(posters.len(), SHOWN);
        assert!(found.iter().take(SHOWN / 2).all(|(_, genre)| *genre == 0), "the surest first: {found:?}");
    }
}
