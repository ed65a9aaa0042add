//! The posters that the model is surest of, rightly and wrongly, and where on them it saw the genre.

use super::Answered;
use super::document::{Section, percent};
use crate::data::tensor_file::TensorFile;
use crate::pictures::heat;
use crate::training::TrainingError;
use crate::training::run_folder::KeptAnswers;
use crate::training::surest::{Decision, Outcome, Sight};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};
use maud::{Markup, html};

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
    /// The poster, and below it the same under its heat map.
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
    outcome: Outcome,
}

const KINDS: [Kind; 3] = [
    Kind { title: "Hits", told: "Genres that the model was surest of, and that are true.", outcome: Outcome::Hit },
    Kind {
        title: "Wrongly named",
        told: "Genres that the model was surest of, and that the posters are not of.",
        outcome: Outcome::WronglyNamed,
    },
    Kind {
        title: "Missed",
        told: "Genres that the posters are of, and that the model was surest they are not.",
        outcome: Outcome::Missed,
    },
];

pub fn section(answered: &Answered<'_>, posters: &TensorFile) -> Result<Section, TrainingError> {
    let mut body = html! {
        p {
            "Validation posters as the network sees them, squares of " (posters.size()) "×" (posters.size()) " pixels; at the model's thresholds, and not \
             the same genre again while there are others. Below each, its heat map: yellow is where most on this poster speaks for the genre in \
             bold, violet is where nothing does (Grad-CAM)."
        }
    };
    for kind in KINDS {
        let KeptAnswers { about, answers, .. } = answered.kept;
        let exhibits: Vec<Exhibit> = answers
            .surest(&about.thresholds, kind.outcome)
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

fn exhibit(answered: &Answered<'_>, posters: &TensorFile, decision: Decision) -> Result<Exhibit, TrainingError> {
    let Decision { row, genre } = decision;
    let (names, place) = (answered.genres(), answered.kept.posters[row] as usize);
    let answers = &answered.kept.answers;
    let truth = names.iter().zip(&answers.targets[row * names.len()..]).filter(|(_, target)| **target != 0);
    let id = posters.ids()[place].clone();
    let poster = small(posters, place)?;
    let mut pictures = vec![Picture { told: format!("Poster of {id}"), jpeg: jpeg(&poster) }];
    if let Some(Sight { map, .. }) = answered.kept.sights.iter().find(|sight| sight.decision == decision) {
        let told = format!("Where on it {} was seen", names[genre]);
        pictures.push(Picture { told, jpeg: jpeg(&heat::coloured(&poster, map)) });
    }
    Ok(Exhibit {
        genre: names[genre].clone(),
        probability: answers.probabilities[row * names.len() + genre],
        truth: truth.map(|(name, _)| name.clone()).collect(),
        pictures,
        id,
    })
}

/// A poster, made smaller if it is large.
fn small(posters: &TensorFile, place: usize) -> Result<RgbImage, TrainingError> {
    let (pixels, size) = (posters.image_checked(place)?, posters.size() as u32);
    let poster = RgbImage::from_raw(size, size, pixels.into_owned()).expect("as many bytes as its extents say");
    Ok(if size > SIDE { imageops::thumbnail(&poster, SIDE, SIDE) } else { poster })
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(picture).expect("nothing stops a small RGB image");
    jpeg
}

fn shown(exhibit: &Exhibit) -> Markup {
    let Exhibit { id, genre, probability, truth, pictures } = exhibit;
    html! {
        figure {
            @for Picture { told, jpeg } in pictures {
                img alt=(told) width="150" height="150" src={ "data:image/jpeg;base64," (STANDARD.encode(jpeg)) };
            }
            figcaption {
                strong { (genre) " " (percent(f64::from(*probability)).replace(' ', "\u{a0}")) }
                span { "is " @if truth.is_empty() { "of no genre" } @else { (truth.join(", ")) } }
                span.id { (id) }
            }
        }
    }
}
