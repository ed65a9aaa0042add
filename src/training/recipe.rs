//! What a run adds to the paper's protocol. Each part is off by default and possible on its own, so that a table can show what it
//! gives.

use super::bounds::{OutOfBounds, within};
use super::config::as_typed;
use crate::data::distortion::Distortion;
use crate::device::Focus;
use crate::network::KernelInit;
use crate::ops::loss::{Loss, Objective};
use crate::optim::Curve;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The parts of a training recipe: the table `[recipe]` of a run's settings, which is left out where all of them are off, as in runs
/// from before there were any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What becomes of the learning rate behind the warm-up.
    pub schedule: Curve,
    /// What the kernels lose of themselves in a step, apart from the gradient, as a share of the learning rate:
    /// [`Adam::decaying`](crate::optim::Adam::decaying).
    pub weight_decay: f64,
    /// The share of the learning rate that all in front of the head learns at: [`Adam::with_base_at`](crate::optim::Adam::with_base_at).
    pub base_rate: f64,
    /// The largest Euclidean norm that the gradient of all parameters keeps: [`Adam::clipping`](crate::optim::Adam::clipping).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// What a step makes smaller. What is said of held-out posters is cross-entropy whatever this is, so that runs can be compared.
    #[serde(with = "as_typed")]
    pub loss: Loss,
    /// How much of a label is moved towards ½ in training.
    pub label_smoothing: f64,
    /// The weight of the old value in a moving average of the weights, which then answers; 0 for none:
    /// [`WeightAverage`](crate::optim::WeightAverage).
    pub ema: f64,
    /// Batches whose gradients a step adds up, before it moves anything; 1 for a step a batch. A batch norm sees each by itself.
    pub accumulate: usize,
    /// What kernels start from.
    pub init: KernelInit,
    /// How training posters are cut out, turned, coloured, covered and mixed at random: [`Distortion`].
    pub crop: f64,
    /// In degrees.
    pub rotate: f64,
    /// As a share.
    pub colour: f64,
    /// As a share of the side.
    pub cutout: f64,
    /// As Beta's α.
    pub mixup: f64,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            schedule: Curve::Constant,
            weight_decay: 0.0,
            base_rate: 1.0,
            clip_norm: None,
            loss: Loss::CrossEntropy,
            label_smoothing: 0.0,
            ema: 0.0,
            accumulate: 1,
            init: KernelInit::Glorot,
            crop: 0.0,
            rotate: 0.0,
            colour: 0.0,
            cutout: 0.0,
            mixup: 0.0,
        }
    }
}

impl Recipe {
    /// Whether all parts are off.
    pub fn is_default(&self) -> bool {
        *self == Recipe::default()
    }

    /// What a training step makes smaller.
    pub(super) fn objective(&self) -> Objective {
        Objective { loss: self.loss, label_smoothing: self.label_smoothing }
    }

    /// What becomes of training posters.
    pub(super) fn distortion(&self) -> Distortion {
        let Recipe { crop, rotate, colour, cutout, mixup, .. } = *self;
        Distortion { crop, rotate, colour, cutout, mixup }
    }

    /// Looks at every number.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub(super) fn check(&self) -> Result<(), OutOfBounds> {
        let Recipe {
            schedule: _,
            weight_decay,
            base_rate,
            clip_norm,
            loss,
            label_smoothing,
            ema,
            accumulate,
            init: _,
            crop,
            rotate,
            colour,
            cutout,
            mixup,
        } = *self;
        within((0.0..=1.0).contains(&weight_decay), "weight_decay", weight_decay, "from 0 to 1")?;
        within(base_rate > 0.0 && base_rate <= 1.0, "base_rate", base_rate, "above 0 and at most 1")?;
        let is_norm = |norm: f64| norm > 0.0 && norm.is_finite();
        within(clip_norm.is_none_or(is_norm), "clip_norm", clip_norm, "a number above 0")?;
        within((0.0..1.0).contains(&label_smoothing), "label_smoothing", label_smoothing, BELOW_1)?;
        within((0.0..1.0).contains(&ema), "ema", ema, BELOW_1)?;
        within((0.0..1.0).contains(&crop), "crop", crop, BELOW_1)?;
        within((0.0..=180.0).contains(&rotate), "rotate", rotate, "from 0 to 180")?;
        within((0.0..1.0).contains(&colour), "colour", colour, BELOW_1)?;
        within((0.0..1.0).contains(&cutout), "cutout", cutout, BELOW_1)?;
        within((0.0..=1.0).contains(&mixup), "mixup", mixup, "from 0 to 1")?;
        within((1..=10_000).contains(&accumulate), "accumulate", accumulate, "from 1 to 10000")?;
        match loss {
            Loss::Asymmetric(focus) if !is_usable(focus) => within(false, "loss", loss.to_string(), FOCI),
            _ => Ok(()),
        }
    }
}

/// What a share that must leave something may be.
const BELOW_1: &str = "from 0 to below 1";

/// What the numbers of a loss may be.
const FOCI: &str = "of powers from 0 to 10, and a margin from 0 to below 1";

/// Whether a loss can have these numbers. A larger power than 10 leaves nothing to learn from.
fn is_usable(Focus { positive, negative, margin }: Focus) -> bool {
    [positive, negative].iter().all(|gamma| (0.0..=10.0).contains(gamma)) && (0.0..1.0).contains(&margin)
}

/// `bce`, `focal:γ`, or `asymmetric:γ₊,γ₋,margin`.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Loss::CrossEntropy => f.write_str("bce"),
            Loss::Asymmetric(Focus { positive, negative, margin }) if positive == negative && margin == 0.0 => {
                write!(f, "focal:{positive}")
            }
            Loss::Asymmetric(Focus { positive, negative, margin }) => {
                write!(f, "asymmetric:{positive},{negative},{margin}")
            }
        }
    }
}

/// As it is printed; without numbers those of the papers.
impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is none of bce, focal, focal:G, asymmetric and asymmetric:G+,G-,M; the numbers are {FOCI}"
            )
        };
        let (name, numbers) = text.split_once(':').map_or((text, None), |(name, numbers)| (name, Some(numbers)));
        let numbers = numbers.map(|numbers| numbers.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>());
        let numbers = numbers.transpose().map_err(|_| wrong())?;
        let loss = match (name, numbers.as_deref()) {
            ("bce", None) => Loss::CrossEntropy,
            ("focal", None) => Loss::focal(Loss::FOCAL),
            ("focal", Some(&[gamma])) => Loss::focal(gamma),
            ("asymmetric", None) => Loss::ASYMMETRIC,
            ("asymmetric", Some(&[positive, negative, margin])) => {
                Loss::Asymmetric(Focus { positive, negative, margin })
            }
            _ => return Err(wrong()),
        };
        match loss {
            Loss::Asymmetric(focus) if !is_usable(focus) => Err(wrong()),
            loss => Ok(loss),
        }
    }
}

/// The parts that are on, one behind the other.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe {
            schedule,
            weight_decay,
            base_rate,
            clip_norm,
            loss,
            label_smoothing,
            ema,
            accumulate,
            init,
            crop,
            rotate,
            colour,
            cutout,
            mixup,
        } = *self;
        let parts = [
            (schedule == Curve::Cosine).then(|| "learning rate falls along a cosine to a hundredth".to_owned()),
            (weight_decay > 0.0).then(|| format!("weight decay {weight_decay}")),
            (base_rate != 1.0).then(|| format!("in front of the head {base_rate} of the learning rate")),
            clip_norm.map(|norm| format!("gradient norm at most {norm}")),
            (loss != Loss::CrossEntropy).then(|| format!("loss {loss}")),
            (label_smoothing > 0.0).then(|| format!("label smoothing {label_smoothing}")),
            (init == KernelInit::He).then(|| "kernels start from He's normal".to_owned()),
            (crop > 0.0).then(|| format!("windows of posters, their sides shorter by up to {crop}")),
            (rotate > 0.0).then(|| format!("posters turned by up to {rotate} degrees")),
            (colour > 0.0).then(|| format!("brightness, contrast and saturation up to {colour} more or less")),
            (cutout > 0.0).then(|| format!("a square of {cutout} of the side covered")),
            (mixup > 0.0).then(|| format!("mixed in pairs by Beta({mixup}, {mixup})")),
            (accumulate > 1).then(|| format!("{accumulate} batches a step")),
            (ema > 0.0).then(|| format!("a moving average of the weights answers, decay {ema}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_read_what_they_print_and_nothing_else() {
        for text in ["bce", "focal:2", "focal:0.5", "asymmetric:0,4,0.05", "asymmetric:2,2,0.1", "asymmetric:1,0,0"] {
            assert_eq!(text.parse::<Loss>().unwrap().to_string(), text);
        }
        let typed = ["focal", "asymmetric", "asymmetric:3,3,0"].map(|text| text.parse::<Loss>().unwrap().to_string());
        assert_eq!(typed, ["focal:2", "asymmetric:0,4,0.05", "focal:3"]);
        for text in [
            "",
            "ce",
            "bce:1",
            "focal:",
            "focal:x",
            "focal:-1",
            "focal:11",
            "focal:nan",
            "focal:1,2",
            "asymmetric:1",
            "asymmetric:1,2,1",
            "asymmetric:1,2,-0.1",
            "asymmetric:1,2,3,4",
            "asymmetric:inf,2,0",
        ] {
            let error = text.parse::<Loss>().unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is none of bce, focal")), "{error}");
        }
    }

    #[test]
    fn a_part_out_of_bounds_is_named() {
        let plain = Recipe::default;
        let sure = Loss::Asymmetric(Focus { positive: 0.0, negative: 4.0, margin: 1.0 });
        for (recipe, setting) in [
            (Recipe { weight_decay: -0.1, ..plain() }, "weight_decay"),
            (Recipe { weight_decay: f64::NAN, ..plain() }, "weight_decay"),
            (Recipe { clip_norm: Some(0.0), ..plain() }, "clip_norm"),
            (Recipe { clip_norm: Some(f64::INFINITY), ..plain() }, "clip_norm"),
            (Recipe { label_smoothing: 1.0, ..plain() }, "label_smoothing"),
            (Recipe { loss: sure, ..plain() }, "loss"),
            (Recipe { ema: 1.0, ..plain() }, "ema"),
            (Recipe { accumulate: 0, ..plain() }, "accumulate"),
            (Recipe { crop: 1.0, ..plain() }, "crop"),
            (Recipe { rotate: 181.0, ..plain() }, "rotate"),
            (Recipe { colour: 1.5, ..plain() }, "colour"),
            (Recipe { cutout: -0.5, ..plain() }, "cutout"),
            (Recipe { mixup: 1.5, ..plain() }, "mixup"),
        ] {
            assert_eq!(recipe.check().unwrap_err().setting, setting, "{recipe:?}");
        }
        assert!(plain().check().is_ok());
    }
}
