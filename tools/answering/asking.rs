//! A model that is asked about posters.

use super::answers::Answered;
use super::{Answering, Rule};
use onesheet::data::squaring::Squaring;
use onesheet::device::{Device, DeviceError, PixelFormat, Placement};
use onesheet::model::{HeatMap, Model, Posters, Predictor, mirrored_mean, on_host, probabilities};
use onesheet::training::checkpoint::{Checkpoint, Metadata};
use onesheet::training::evaluation::{View, divided};
use onesheet::training::learner;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Posters asked about together.
pub const BATCH: usize = 16;

/// What is asked: a network that only answers, or one that can be asked for its reasons as well.
enum Network<D: Device> {
    Predictor(Box<Predictor<D>>),
    Model(Box<Model<D>>),
}

/// A model, with all that its answers depend on beside the poster.
pub struct Asking<D: Device> {
    device: Rc<D>,
    network: Network<D>,
    format: PixelFormat,
    image_size: usize,
    temperature: f64,
    view: View,
}

impl<D: Device> Asking<D> {
    /// The model in a checkpoint. If it `explains`, it draws heat maps as well, and takes more memory.
    ///
    /// # Errors
    /// The checkpoint's and the device's.
    pub fn load(
        device: &Rc<D>,
        checkpoint: &Checkpoint,
        answering: &Answering,
        rule: &Rule,
        explains: bool,
    ) -> anyhow::Result<Self> {
        let network = match device.folds() && !explains {
            true => Network::Predictor(Box::new(learner::predictor(Rc::clone(device), checkpoint)?)),
            false => Network::Model(Box::new(learner::load(Rc::clone(device), checkpoint)?)),
        };
        let config = &checkpoint.metadata().config;
        Ok(Asking {
            device: Rc::clone(device),
            network,
            format: config.pixels.format(),
            image_size: config.image_size,
            temperature: rule.temperature,
            view: answering.view(),
        })
    }

    /// The probabilities `[N, C]` of N posters `[N, size, size, 3]`.
    ///
    /// # Errors
    /// The device's.
    pub fn probabilities(&mut self, pixels: &[u8]) -> Result<Vec<f32>, DeviceError> {
        let Asking { device, network, .. } = self;
        let mut logits = |posters: Posters<'_>| {
            let logits = match network {
                Network::Predictor(predictor) => predictor.logits(posters)?,
                Network::Model(model) => model.logits(posters)?,
            };
            on_host(&**device, &logits)
        };
        let placements = placements(pixels, self.image_size);
        let posters = Posters { pixels, placements: &placements, format: &self.format };
        let logits = match self.view {
            View::Plain => logits(posters)?,
            View::Mirrored => mirrored_mean(posters, logits)?,
        };
        probabilities(&**device, &divided(&logits, self.temperature))
    }

    /// Where the model sees genres of posters `[N, size, size, 3]`, of which `answers` are said: of each poster those genres that `is_drawn`
    /// wants by the poster's place, their rank and what is said of them, by rank. None at all of a model that was not loaded for it.
    ///
    /// # Errors
    /// The device's.
    pub fn heat_maps(
        &mut self,
        pixels: &[u8],
        answers: &[Vec<Answered<'_>>],
        is_drawn: impl Fn(usize, usize, &Answered<'_>) -> bool,
    ) -> Result<Vec<Vec<(usize, HeatMap)>>, DeviceError> {
        let drawn = |(poster, genres): (usize, &Vec<Answered<'_>>)| -> Vec<(usize, usize)> {
            let drawn = genres.iter().enumerate().filter(|(rank, answered)| is_drawn(poster, *rank, answered));
            drawn.map(|(rank, answered)| (rank, answered.place)).collect()
        };
        let drawn: Vec<_> = answers.iter().enumerate().map(drawn).collect();
        let places: BTreeSet<usize> = drawn.iter().flatten().map(|&(_, place)| place).collect();
        let places: Vec<usize> = places.into_iter().collect();
        let Network::Model(model) = &mut self.network else { return Ok(vec![Vec::new(); answers.len()]) };
        let maps = match places.is_empty() {
            true => Vec::new(),
            false => {
                let placements = placements(pixels, self.image_size);
                model.explain(Posters { pixels, placements: &placements, format: &self.format }, &places)?
            }
        };
        let map = |poster: usize, place: &usize| maps[places.partition_point(|other| other < place)][poster].clone();
        let of_poster = |(poster, drawn): (usize, Vec<(usize, usize)>)| {
            drawn.into_iter().map(|(rank, place)| (rank, map(poster, &place))).collect()
        };
        Ok(drawn.into_iter().enumerate().map(of_poster).collect())
    }
}

/// Each poster as it is.
fn placements(pixels: &[u8], image_size: usize) -> Vec<Placement> {
    vec![Placement::default(); pixels.len() / (image_size * image_size * 3)]
}

/// How the posters that a model was trained on were made square.
///
/// # Errors
/// A way that this version does not know.
pub fn squaring(metadata: &Metadata) -> anyhow::Result<Squaring> {
    let made = [("resize", &metadata.resize), ("exif", &metadata.exif), ("alpha", &metadata.alpha)];
    let recorded: BTreeMap<_, _> = made.into_iter().map(|(key, name)| (key.to_owned(), name.clone())).collect();
    Ok(Squaring::from_provenance(metadata.config.image_size, &recorded)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::squaring::{Alpha, Exif, Resize};
    use onesheet::training::checkpoint::Progress;
    use onesheet::training::config::RunConfig;

    fn metadata() -> Metadata {
        Metadata {
            genres: vec!["War".into()],
            thresholds: vec![0.5],
            resize: "area".into(),
            exif: "apply".into(),
            alpha: "drop".into(),
            data_digest: String::new(),
            tuned: None,
            progress: Progress::default(),
            config: RunConfig { image_size: 40, ..RunConfig::default() },
        }
    }

    #[test]
    fn posters_become_squares_as_the_models_did() {
        let area = Squaring { size: 40, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop };
        assert_eq!(squaring(&metadata()).unwrap(), area);
        let nearest = Squaring { resize: Resize::Nearest, ..area };
        assert_eq!(squaring(&Metadata { resize: "nearest".into(), ..metadata() }).unwrap(), nearest);
        let as_stored = Squaring { exif: Exif::Ignore, ..area };
        assert_eq!(squaring(&Metadata { exif: "ignore".into(), ..metadata() }).unwrap(), as_stored);
        let on_white = Squaring { alpha: Alpha::White, ..area };
        assert_eq!(squaring(&Metadata { alpha: "white".into(), ..metadata() }).unwrap(), on_white);
        assert!(squaring(&Metadata { alpha: "black".into(), ..metadata() }).is_err());
    }
}
